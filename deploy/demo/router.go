package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// router is the uplink of one site: a TCP proxy that every connection of the
// site's devices goes through, and that can be cut.
type router struct {
	listener net.Listener
	backend  func() string // address to dial; asked anew for every connection
	done     sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	cut   bool
	conns map[net.Conn]struct{}
}

// newRouter listens on a free loopback port. Close stops it.
func newRouter(ctx context.Context, backend func() string) (*router, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a site's router: %w", err)
	}
	r := &router{listener: listener, backend: backend, conns: map[net.Conn]struct{}{}}
	r.done.Go(r.accept)
	return r, nil
}

// Addr is host:port that devices of the site connect to.
func (r *router) Addr() string { return r.listener.Addr().String() }

// Cut drops what is connected and refuses what tries to.
func (r *router) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		_ = c.Close() // its copier notices and removes it
	}
}

// Restore lets connections through again.
func (r *router) Restore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// Close stops listening, drops every connection and waits for the copiers.
func (r *router) Close() error {
	err := r.listener.Close()
	r.Cut()
	r.done.Wait()
	return err
}

func (r *router) accept() {
	for {
		c, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if !r.track(c) {
			_ = c.Close() // cut: refused
			continue
		}
		r.done.Go(func() { r.carry(c) })
	}
}

func (r *router) track(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return false
	}
	r.conns[c] = struct{}{}
	return true
}

func (r *router) untrack(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	_ = c.Close()
}

// carry joins a device's connection with one to the backend until either ends.
func (r *router) carry(device net.Conn) {
	defer r.untrack(device)
	backend, err := net.Dial("tcp", r.backend()) //nolint:noctx // ends with the connection, not with a context
	if err != nil {
		return // the device sees a closed connection, as behind a real router
	}
	if !r.track(backend) {
		_ = backend.Close()
		return
	}
	defer r.untrack(backend)
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(device, backend)
		_ = device.Close()
	})
	_, _ = io.Copy(backend, device)
	_ = backend.Close()
	back.Wait()
}
