package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// headerLength is the header that says where the JSON ends and tensors begin.
const headerLength = "Inference-Header-Content-Length"

// serverName is what the server calls itself in its metadata.
const serverName = "vedette-agent"

var errBodySize = errors.New("the body is larger than this server takes")

// handler answers with an error instead of writing one.
type handler func(w http.ResponseWriter, r *http.Request) error

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(method, path string, h handler) {
		mux.Handle(method+" "+path, s.measured(method+" "+path, h))
	}
	handle("GET", "/v2", s.serverMetadata)
	handle("GET", "/v2/health/live", s.live)
	handle("GET", "/v2/health/ready", s.ready)
	for _, model := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		handle("GET", model, s.modelMetadata)
		handle("GET", model+"/ready", s.modelReady)
		handle("POST", model+"/infer", s.infer)
	}
	handle("POST", "/v2/models/{model}/feedback", s.feedback)
	handle("GET", "/status", s.status)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{}))
	mux.Handle("/", s.measured("other", noRoute(mux)))
	return slashless(mux)
}

// noRoute refuses what no other pattern takes, in the protocol's form, and says
// so when only the method is wrong.
func noRoute(mux *http.ServeMux) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" {
				w.Header().Set("Allow", method)
				return &httpError{http.StatusMethodNotAllowed, r.Method + " is not taken here, but " + method}
			}
		}
		return &httpError{http.StatusNotFound, "no such path: " + r.URL.Path}
	}
}

// slashless takes a trailing slash off the path: clients differ.
func slashless(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; len(p) > 1 && p[len(p)-1] == '/' {
			r.URL.Path = strings.TrimRight(p, "/")
		}
		next.ServeHTTP(w, r)
	})
}

// httpError is an error with its HTTP status.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

// measured counts and times requests and turns errors into answers.
func (s *Server) measured(route string, h handler) http.Handler {
	m := s.metrics.route(route)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		status := http.StatusOK
		if err := h(w, r); err != nil {
			status = s.writeError(w, err)
		}
		m.done(status, time.Since(start))
	})
}

// statusOf maps an error to its HTTP status and, for those worth another try,
// the seconds after which.
func statusOf(err error) (status, retryAfter int) {
	var he *httpError
	var ie *infer.InputError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &he):
		return he.status, 0
	case errors.As(err, &ie), errors.Is(err, errJSON):
		return http.StatusBadRequest, 0
	case errors.As(err, &tooLarge), errors.Is(err, errBodySize):
		return http.StatusRequestEntityTooLarge, 0
	case errors.Is(err, infer.ErrUnknownModel):
		return http.StatusNotFound, 0
	case errors.Is(err, infer.ErrBusy):
		return http.StatusTooManyRequests, 1
	case errors.Is(err, infer.ErrHung), errors.Is(err, infer.ErrClosed):
		return http.StatusServiceUnavailable, 5
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, 1
	}
	return http.StatusInternalServerError, 0
}

func (s *Server) writeError(w http.ResponseWriter, err error) int {
	status, retry := statusOf(err)
	if retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retry))
	}
	if status == http.StatusInternalServerError {
		s.cfg.Log.Warn("a request failed", "error", err)
	}
	writeJSON(w, status, map[string]string{"error": err.Error()})
	return status
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller is gone; nobody is left to tell
}

// buffers recycles request and response bodies.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// maxPooled keeps one giant body from staying in memory.
const maxPooled = 1 << 20

func recycle(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// readBody reads a body of at most limit bytes into buf.
func readBody(r *http.Request, buf []byte, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return buf, errBodySize
	}
	body := io.LimitReader(r.Body, limit+1)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > limit:
			return buf, errBodySize
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, &httpError{http.StatusBadRequest, "read body: " + err.Error()}
		}
	}
}

func (s *Server) infer(w http.ResponseWriter, r *http.Request) error {
	buf, ok := buffers.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	defer recycle(buf)
	var err error
	if *buf, err = readBody(r, *buf, s.cfg.MaxBody); err != nil {
		return err
	}
	header, err := jsonLength(r, len(*buf))
	if err != nil {
		return err
	}
	req, err := decodeRequest(*buf, header)
	if err != nil {
		return s.nameFeature(r.PathValue("model"), err)
	}
	req.Model, req.Version = r.PathValue("model"), r.PathValue("version")
	resp, err := s.engine.Infer(r.Context(), &req.Request)
	if err != nil {
		return err
	}
	s.metrics.ran(resp)
	return s.respond(w, buf, req, resp)
}

// respond writes the answer, reusing the request's buffer: everything in it
// was copied out.
func (s *Server) respond(w http.ResponseWriter, buf *[]byte, req *request, resp *infer.Response) error {
	out, header, err := encodeResponse((*buf)[:0], req, resp)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	*buf = out
	h := w.Header()
	h["Content-Type"] = typeJSON
	if header > 0 {
		h["Content-Type"] = typeBinary
		h.Set(headerLength, strconv.Itoa(header))
	}
	h.Set("Content-Length", strconv.Itoa(len(out)))
	_, _ = w.Write(out) // the caller is gone; nobody is left to tell
	return nil
}

// Header values that are never changed, so that every answer can share them.
var (
	typeJSON   = []string{"application/json"}
	typeBinary = []string{"application/octet-stream"}
)

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

func (s *Server) live(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	return nil
}

// ready says whether any model answers: a device without one is alive, and a
// balancer in front of several should pass it over.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	ready := len(s.engine.Status()) > 0
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, map[string]bool{"live": true, "ready": ready})
	return nil
}

func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{serverName, s.cfg.Version, []string{"binary_tensor_data"}})
	return nil
}

// serving finds the manifest of the model and version in the path.
func (s *Server) serving(r *http.Request) (*release.Manifest, error) {
	m, _, err := s.engine.Manifest(r.PathValue("model"))
	if err != nil {
		return nil, err
	}
	if v := r.PathValue("version"); v != "" && v != m.Version {
		return nil, fmt.Errorf("%w: %s version %s", infer.ErrUnknownModel, m.Model, v)
	}
	return m, nil
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request) error {
	m, err := s.serving(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Name     string       `json:"name"`
		Versions []string     `json:"versions"`
		Platform string       `json:"platform"`
		Inputs   []tensorMeta `json:"inputs"`
		Outputs  []tensorMeta `json:"outputs"`
	}{m.Model, []string{m.Version}, "onnx_onnxv1", tensorMetas(m.Schema.Inputs), tensorMetas(m.Schema.Outputs)})
	return nil
}

type tensorMeta struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

func tensorMetas(ts []release.Tensor) []tensorMeta {
	list := make([]tensorMeta, len(ts))
	for i, t := range ts {
		list[i] = tensorMeta{t.Name, t.Datatype, t.Shape}
	}
	return list
}

func (s *Server) modelReady(w http.ResponseWriter, r *http.Request) error {
	m, err := s.serving(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}{m.Model, true})
	return nil
}
