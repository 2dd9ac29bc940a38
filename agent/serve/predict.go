package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
)

// headerLength is the header that says where the JSON ends and tensors begin.
const headerLength = "Inference-Header-Content-Length"

// headerTimeLimit is the header by which a caller bounds the wait for a turn, as
// in "250ms"; the request's own parameter goes before it.
const headerTimeLimit = "Inference-Timeout"

// exchange is what one HTTP prediction needs, kept for the next one.
type exchange struct {
	body []byte // of the request, then of the answer
	req  request
	resp infer.Response
}

// maxPooled keeps one giant body from staying in memory.
const maxPooled = 1 << 20

func (s *Server) exchange() *exchange {
	if x, ok := s.exchanges.Get().(*exchange); ok {
		return x
	}
	return &exchange{body: make([]byte, 0, 4096)}
}

// recycle keeps x for the next prediction. After a hang the run still reads the
// request and writes the answer, so both are left to it.
func (s *Server) recycle(x *exchange, err error) {
	if cap(x.body) > maxPooled || errors.Is(err, infer.ErrHung) {
		return
	}
	x.body = x.body[:0]
	s.exchanges.Put(x)
}

func (s *Server) infer(w http.ResponseWriter, r *http.Request) error {
	x := s.exchange()
	err := s.predict(w, r, x)
	s.recycle(x, err)
	return err
}

func (s *Server) predict(w http.ResponseWriter, r *http.Request, x *exchange) (err error) {
	if size := r.ContentLength; size > smallBody && size <= s.cfg.MaxBody {
		if !s.bodies.TryAcquire(size) {
			return errBodies
		}
		defer s.bodies.Release(size)
	}
	if x.body, err = readBody(r, x.body, s.cfg.MaxBody); err != nil {
		return err
	}
	header, err := jsonLength(r, len(x.body))
	if err != nil {
		return err
	}
	model := r.PathValue("model")
	if err := x.req.decode(x.body, header); err != nil {
		return s.nameFeature(model, err)
	}
	x.req.Model, x.req.Version = model, r.PathValue("version")
	if x.req.timeout == 0 {
		if x.req.timeout, err = headerWait(r.Header); err != nil {
			return err
		}
	}
	if err := s.answer(r.Context(), &x.req, &x.resp); err != nil {
		return err
	}
	x.respond(w)
	return nil
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
func headerWait(h http.Header) (time.Duration, error) {
	text := h.Get(headerTimeLimit)
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, &httpError{http.StatusBadRequest, fmt.Sprintf("%s is %.20q, not a time like 250ms", headerTimeLimit, text)}
	}
	return d, nil
}

// respond writes the answer over the request's body: everything in it was
// copied out.
func (x *exchange) respond(w http.ResponseWriter) {
	var header int
	x.body, header = encodeResponse(x.body[:0], &x.req, &x.resp)
	h := w.Header()
	h["Content-Type"] = typeJSON
	if header > 0 {
		h["Content-Type"] = typeBinary
		h.Set(headerLength, strconv.Itoa(header))
	}
	if len(x.body) > countedByHTTP {
		h.Set("Content-Length", strconv.Itoa(len(x.body)))
	}
	if len(x.body) > smallBody { // more than the connection takes without a reader
		c := http.NewResponseController(w)
		_ = c.SetWriteDeadline(time.Now().Add(bodyTimeout)) // a recorder in a test has none
		defer func() { _ = c.SetWriteDeadline(time.Time{}) }()
	}
	_, _ = w.Write(x.body) // the caller is gone; nobody is left to tell
}

// countedByHTTP is the length up to which net/http sets Content-Length itself.
const countedByHTTP = 2048

// Header values that are never changed, so that every answer can share them.
var (
	typeJSON   = []string{"application/json"}
	typeBinary = []string{"application/octet-stream"}
)

// readBody reads a body of at most limit bytes into buf. One that does not say
// its length has to be small: room for large ones is made before they are read.
func readBody(r *http.Request, buf []byte, limit int64) ([]byte, error) {
	tooLarge := errBodySize
	if r.ContentLength < 0 && limit > maxUnsized {
		limit, tooLarge = maxUnsized, errUnsized
	}
	if r.ContentLength > limit {
		return buf, tooLarge
	}
	buf = slices.Grow(buf, int(max(r.ContentLength, 0))+1) // one more, to see the end
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > limit:
			return buf, tooLarge
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, &httpError{http.StatusBadRequest, "read body: " + err.Error()}
		}
	}
}

// jsonLength is where the JSON of a body ends.
func jsonLength(r *http.Request, body int) (int, error) {
	h := r.Header.Get(headerLength)
	if h == "" {
		return body, nil
	}
	n, err := strconv.Atoi(h)
	if err != nil || n < 0 || n > body {
		return 0, &httpError{http.StatusBadRequest, fmt.Sprintf("%s is %.20q, the body has %d bytes", headerLength, h, body)}
	}
	return n, nil
}

// nameFeature gives an element's error the feature name that the schema has.
func (s *Server) nameFeature(model string, err error) error {
	var e *elementError
	if !errors.As(err, &e) {
		return err
	}
	named := &infer.InputError{Input: e.input, Row: e.row, Feature: strconv.Itoa(e.index), Reason: e.reason}
	if m, _, err := s.engine.Manifest(model); err == nil {
		if in := m.Schema.Input(e.input); in != nil && e.index < len(in.Features) {
			named.Feature = in.Features[e.index].Name
		}
	}
	return named
}
