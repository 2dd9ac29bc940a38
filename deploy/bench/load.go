package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// images are rows of the digits model, as the body of one request each.
func inferRequest(rows [][]float32) string {
	var s strings.Builder
	fmt.Fprintf(&s, `{"inputs":[{"name":"X","datatype":"FP32","shape":[%d,%d],"data":[`, len(rows), len(rows[0]))
	for i, row := range rows {
		for j, v := range row {
			if i+j > 0 {
				s.WriteByte(',')
			}
			fmt.Fprintf(&s, "%g", v)
		}
	}
	s.WriteString("]}]}")
	return s.String()
}

// image is a row that looks like a digit to nobody; its cost is that of any.
func image() []float32 {
	row := make([]float32, 64)
	for i := range row {
		row[i] = float32(i%17) / 16
	}
	return row
}

// hit is one answered or failed request.
type hit struct {
	sent time.Time
	took time.Duration
	err  error
}

// connection is a keep-alive connection that sends one prepared request again
// and again: the client must cost little, it shares the cores with the server.
type connection struct {
	conn net.Conn
	in   *bufio.Reader
	raw  []byte
}

func dial(ctx context.Context, addr, path, body string) (*connection, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	raw := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, addr, len(body), body)
	return &connection{conn: c, in: bufio.NewReaderSize(c, 16<<10), raw: raw}, nil
}

func (c *connection) ask() error {
	if _, err := c.conn.Write(c.raw); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	status, size, err := c.head()
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if _, err := c.in.Discard(size); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if status != http.StatusOK {
		return fmt.Errorf("answered %d", status)
	}
	return nil
}

// head reads the status and the headers of a response, of which it wants the
// length of the body alone.
func (c *connection) head() (status, size int, err error) {
	size = -1
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case first:
			if len(line) < len("HTTP/1.1 200") {
				return 0, 0, fmt.Errorf("status line %q", line)
			}
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, 0, fmt.Errorf("status line %q: %w", line, err)
			}
		case len(line) == 0:
			if size < 0 {
				return 0, 0, errors.New("no Content-Length")
			}
			return status, size, nil
		case len(line) > len(lengthHeader) && bytes.EqualFold(line[:len(lengthHeader)], []byte(lengthHeader)):
			if size, err = strconv.Atoi(string(bytes.TrimSpace(line[len(lengthHeader):]))); err != nil {
				return 0, 0, fmt.Errorf("header %q: %w", line, err)
			}
		}
	}
}

const lengthHeader = "Content-Length:"

// closedLoop keeps n connections busy for d: each sends when its last request
// is answered. It returns the seconds of every request.
func closedLoop(ctx context.Context, addr, path, body string, n int, d time.Duration) ([]float64, error) {
	end := time.Now().Add(d)
	took, errs := make([][]float64, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c, err := dial(ctx, addr, path, body)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.conn.Close()
			for at := time.Now(); at.Before(end) && errs[i] == nil; {
				errs[i] = c.ask()
				now := time.Now()
				took[i] = append(took[i], now.Sub(at).Seconds())
				at = now
			}
		})
	}
	wg.Wait()
	var all []float64
	for _, t := range took {
		all = append(all, t...)
	}
	return all, errors.Join(errs...)
}

// openLoop sends rate requests a second over n connections whatever the
// answers, until stop is closed. A request's time counts from when it was due,
// so that a server that stands still is not spared.
func openLoop(ctx context.Context, addr, path, body string, n, rate int, stop <-chan struct{}) ([]hit, error) {
	due := make(chan time.Time, 4*rate)
	hits := make([][]hit, n)
	var wg sync.WaitGroup
	for i := range n {
		c, err := dial(ctx, addr, path, body)
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			defer c.conn.Close()
			for at := range due {
				err := c.ask()
				hits[i] = append(hits[i], hit{sent: at, took: time.Since(at), err: err})
			}
		})
	}
	pace(ctx, due, rate, stop)
	close(due)
	wg.Wait()
	var all []hit
	for _, h := range hits {
		all = append(all, h...)
	}
	return all, nil
}

// pace puts rate times a second into due.
func pace(ctx context.Context, due chan<- time.Time, rate int, stop <-chan struct{}) {
	step := time.Second / time.Duration(rate)
	next := time.Now()
	for {
		for now := time.Now(); !next.After(now); next = next.Add(step) {
			due <- next
		}
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
	}
}
