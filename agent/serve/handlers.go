package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// serverName is what the server calls itself in its metadata.
const serverName = "vedette-agent"

// platform is ONNX by the names that the protocol gives.
const platform = "onnx_onnxv1"

// extensions of the protocol that are spoken here. Labels are ours.
var extensions = []string{"binary_tensor_data"}

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
		handle("POST", model+"/infer", nowhere) // dispatch takes those that name a model
	}
	handle("POST", "/v2/models/{model}/feedback", s.feedback)
	handle("GET", "/status", s.status)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{}))
	mux.Handle("/", s.measured("other", noRoute(mux)))
	return slashless(mux)
}

func nowhere(_ http.ResponseWriter, r *http.Request) error {
	return &httpError{http.StatusNotFound, "no such path: " + r.URL.Path}
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
		return nowhere(w, r)
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

func (s *Server) writeError(w http.ResponseWriter, err error) int {
	v, text := s.refusal(err)
	if retry := v.retryAfter(); retry != "" {
		w.Header().Set("Retry-After", retry)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(v.status)
	_, _ = w.Write(text) // the caller is gone; nobody is left to tell
	return v.status
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller is gone; nobody is left to tell
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	return nil
}

func (s *Server) isReady() bool { return len(s.engine.Status()) > 0 }

// ready says whether any model answers: a device without one is alive, and a
// balancer in front of several should pass it over.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	ready := s.isReady()
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
	}{serverName, s.cfg.Version, extensions})
	return nil
}

// serving finds the manifest of a model that serves, in any version if none is
// named.
func (s *Server) serving(model, version string) (*release.Manifest, error) {
	m, _, err := s.engine.Manifest(model)
	if err != nil {
		return nil, s.unready(model, err)
	}
	if version != "" && version != m.Version {
		return nil, fmt.Errorf("%w: %s version %s", infer.ErrUnknownModel, m.Model, version)
	}
	return m, nil
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request) error {
	m, err := s.serving(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Name     string       `json:"name"`
		Versions []string     `json:"versions"`
		Platform string       `json:"platform"`
		Inputs   []tensorMeta `json:"inputs"`
		Outputs  []tensorMeta `json:"outputs"`
	}{m.Model, []string{m.Version}, platform, tensorMetas(m.Schema.Inputs), tensorMetas(m.Schema.Outputs)})
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
	m, err := s.serving(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}{m.Model, true})
	return nil
}
