package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/vedette-edge/vedette/agent/infer"
)

// headerKey is the header that names what a challenger's share of the calls is
// chosen by; the request's own parameter goes before it.
const headerKey = "Vedette-Key"

// headerLength is the header that says where the JSON ends and tensors begin.
const headerLength = "Inference-Header-Content-Length"

// headerTimeLimit is the header by which a caller bounds the wait for a turn, as
// in "250ms" or "1.5s", never without a unit; the request's own parameter goes
// before it.
const headerTimeLimit = "Inference-Timeout"

// exchange is what one HTTP prediction needs, kept for the next one.
type exchange struct {
	in   []byte // the request's body
	out  []byte // the answer
	req  request
	resp infer.Response

	conn      net.Conn // where an abandoned request is answered
	since     time.Time
	abandon   func() // made once: a new one for each request would cost an allocation
	abandoned bool
}

// maxPooled keeps one giant body from staying in memory.
const maxPooled = 1 << 20

func (s *Server) exchange() *exchange {
	if x, ok := s.exchanges.Get().(*exchange); ok {
		return x
	}
	x := &exchange{}
	x.abandon = func() { s.abandon(x) }
	return x
}

// abandon answers for a prediction whose goroutine hangs in its run, and ends
// the connection: nobody else will read from it. The prediction's goroutine sees
// what is set here when its run ends after all.
func (s *Server) abandon(x *exchange) {
	x.abandoned = true
	v, text := s.refusal(infer.ErrHung)
	s.routed.done(v.status, time.Since(x.since))
	answer := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nRetry-After: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		v.status, http.StatusText(v.status), v.retryAfter(), len(text), text)
	_ = x.conn.SetWriteDeadline(time.Now().Add(bodyTimeout)) // the caller may be gone
	_, _ = x.conn.Write(answer)
	_ = x.conn.Close()
}

// recycle keeps x for the next prediction. After a hang the run still reads the
// request and writes the answer, so both are left to it.
func (s *Server) recycle(x *exchange) {
	if cap(x.in) > maxPooled || cap(x.out) > maxPooled || x.resp.Held {
		return
	}
	s.exchanges.Put(x)
}

// predict answers one prediction.
func (s *Server) predict(c *fasthttp.RequestCtx, model, version []byte) error {
	x := s.exchange()
	err := s.exchangeWith(c, x, model, version)
	s.recycle(x)
	return err
}

func (s *Server) exchangeWith(c *fasthttp.RequestCtx, x *exchange, model, version []byte) error {
	if err := plain(&c.Request.Header); err != nil {
		return err
	}
	body, err := s.body(c, x)
	if err != nil {
		return err
	}
	header, err := jsonLength(&c.Request.Header, len(body))
	if err != nil {
		return err
	}
	name := x.req.Model
	if string(model) != name { // an exchange sees the same model again and again
		name = string(model)
	}
	if err := x.req.decode(body, header); err != nil {
		return s.explain(name, err)
	}
	x.req.Model, x.req.Version = name, string(version)
	x.conn, x.since, x.req.Abandon = c.Conn(), c.Time(), x.abandon
	if x.req.timeout == 0 {
		if x.req.timeout, err = headerWait(&c.Request.Header); err != nil {
			return err
		}
	}
	if x.req.Key == "" {
		x.req.Key = string(c.Request.Header.Peek(headerKey))
	}
	// The client's connection is not watched while it waits: that would cost
	// every request a second goroutine. Timeouts and the queue bound the wait.
	err = s.answer(context.Background(), &x.req, &x.resp)
	x.conn, x.req.Abandon = nil, nil
	if x.abandoned {
		return errAbandoned
	}
	if s.traces != nil {
		headers := carrier(func(key string) string { return string(c.Request.Header.Peek(key)) })
		s.traces.span(context.Background(), headers, &x.req.Request, &x.resp, c.Time(), err)
	}
	if err != nil {
		return err
	}
	x.respond(c)
	return nil
}

// body is the request's, valid until the answer. Room for a large one is made
// before it is read.
func (s *Server) body(c *fasthttp.RequestCtx, x *exchange) ([]byte, error) {
	if !c.Request.IsBodyStream() {
		return c.Request.Body(), nil
	}
	size := int64(c.Request.Header.ContentLength())
	switch {
	case size < 0:
		return x.unsized(c.RequestBodyStream())
	case size > s.cfg.MaxBody:
		return nil, errBodySize
	case size <= smallBody:
	case s.bodies.TryAcquire(size):
		defer s.bodies.Release(size)
	default:
		return nil, errBodies
	}
	x.in = slices.Grow(x.in[:0], int(size))[:size]
	if _, err := io.ReadFull(c.RequestBodyStream(), x.in); err != nil {
		return nil, &httpError{http.StatusBadRequest, "read body: " + err.Error()}
	}
	return x.in, nil
}

// unsized reads a body that came in pieces, without its length.
func (x *exchange) unsized(r io.Reader) ([]byte, error) {
	x.in = slices.Grow(x.in[:0], smallBody+1)[:smallBody+1]
	n, err := io.ReadFull(r, x.in)
	switch {
	case err == nil:
		return nil, errUnsized
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &httpError{http.StatusBadRequest, "read body: " + err.Error()}
	}
	return x.in[:n], nil
}

// answer computes one decoded request, whichever way it came.
func (s *Server) answer(ctx context.Context, req *request, resp *infer.Response) error {
	if req.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.timeout)
		defer cancel()
	}
	if err := s.engine.InferInto(ctx, &req.Request, resp); err != nil {
		return s.unready(req.Model, err)
	}
	s.metrics.ran(resp)
	return nil
}

// unready turns the error of a model that is not served into one that says to
// come back, when the device is about to serve it.
func (s *Server) unready(model string, err error) error {
	if s.cfg.Assigned == nil || !errors.Is(err, infer.ErrUnknownModel) || !s.cfg.Assigned(model) {
		return err
	}
	if _, _, missing := s.engine.Manifest(model); missing == nil {
		return err // it serves, in another version
	}
	return fmt.Errorf("%w: %s is assigned to this device and being made ready; GET /status shows how far it is", errStarting, model)
}

// headerWait is the wait that the header allows, 0 for none.
func headerWait(h *fasthttp.RequestHeader) (time.Duration, error) {
	text := h.Peek(headerTimeLimit)
	if len(text) == 0 {
		return 0, nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d <= 0 {
		return 0, &httpError{http.StatusBadRequest, fmt.Sprintf("%s is %.20q: give a number above 0 with its unit, such as 250ms, 1.5s or 800us", headerTimeLimit, text)}
	}
	return d, nil
}

// respond gives the answer to the connection and takes over the buffer of the
// answer before it.
func (x *exchange) respond(c *fasthttp.RequestCtx) {
	out, header := encodeResponse(x.out[:0], &x.req, &x.resp)
	c.Response.Header.SetContentTypeBytes(typeJSON)
	if header > 0 {
		c.Response.Header.SetContentTypeBytes(typeBinary)
		c.Response.Header.Set(headerLength, strconv.Itoa(header))
	}
	x.out = c.Response.SwapBody(out)
}

var (
	typeJSON   = []byte("application/json")
	typeBinary = []byte("application/octet-stream")
)

// jsonLength is where the JSON of a body ends.
func jsonLength(h *fasthttp.RequestHeader, body int) (int, error) {
	text := h.Peek(headerLength)
	if len(text) == 0 {
		return body, nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 || n > body {
		return 0, &httpError{http.StatusBadRequest, fmt.Sprintf("%s is %.20q, the body has %d bytes", headerLength, text, body)}
	}
	return n, nil
}

// explain adds to an input's error what the model's schema says of it.
func (s *Server) explain(model string, err error) error {
	var element *elementError
	var size *sizeError
	switch {
	case errors.As(err, &element):
		return s.nameFeature(model, element)
	case errors.As(err, &size):
		return s.nameShape(model, size)
	}
	return err
}

// nameShape says which shape the model takes.
func (s *Server) nameShape(model string, e *sizeError) error {
	named := e.InputError
	if m, _, err := s.engine.Manifest(model); err == nil {
		if in := m.Schema.Input(e.Input); in != nil {
			named.Reason += fmt.Sprintf("; the model takes %v", in.Shape)
		}
	}
	return &named
}

// nameFeature gives an element's error the feature name that the schema has.
func (s *Server) nameFeature(model string, e *elementError) error {
	named := &infer.InputError{Input: e.input, Row: e.row, Feature: strconv.Itoa(e.index), Reason: e.reason}
	if m, _, err := s.engine.Manifest(model); err == nil {
		if in := m.Schema.Input(e.input); in != nil && e.index < len(in.Features) {
			named.Feature = in.Features[e.index].Name
		}
	}
	return named
}
