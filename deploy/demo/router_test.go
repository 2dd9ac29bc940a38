package demo

import (
	"io"
	"net"
	"testing"
)

func TestRouterCutsAndRestores(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	r, err := newRouter(t.Context(), echo.Addr().String)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	if err := roundTrip(r.Addr()); err != nil {
		t.Fatalf("through the open router: %v", err)
	}
	held, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := ping(held); err != nil {
		t.Fatalf("before the cut: %v", err)
	}
	r.Cut()
	if err := ping(held); err == nil {
		t.Error("a held connection outlived the cut")
	}
	if err := roundTrip(r.Addr()); err == nil {
		t.Error("a new connection went through the cut")
	}
	r.Restore()
	if err := roundTrip(r.Addr()); err != nil {
		t.Errorf("after the link is back: %v", err)
	}
}

func roundTrip(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return ping(c)
}

func ping(c net.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}
