// Package serve is the device's local prediction service: the Open Inference
// Protocol v2 over HTTP, on a loopback address and on a Unix socket, with JSON
// and with binary tensors, plus labels that arrive later, status and metrics.
// Whoever can connect is trusted: the address is the device's own, the socket's
// mode says who else may.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/semaphore"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Defaults and limits of a server.
const (
	// DefaultListen is loopback: predictions and labels are nobody else's business.
	DefaultListen = "127.0.0.1:8100"
	// DefaultMaxBody bounds a request in bytes: 8192 rows of 512 float32.
	DefaultMaxBody = 16 << 20
	// maxFeedback bounds a body of labels in bytes.
	maxFeedback = 1 << 20
	// maxHeader bounds a request's headers in bytes.
	maxHeader = 16 << 10
	// DefaultConnections bounds the connections of each listener; more wait to be
	// accepted. One costs about 20 KiB.
	DefaultConnections = 256
	// smallBody is what a body may have without its room being counted, in bytes.
	smallBody = 64 << 10
	// maxUnsized bounds a body whose length is not known before, in bytes.
	maxUnsized = 256 << 10
	// bodiesAtOnce is how many bodies of the largest size may be in memory at
	// once, all connections together.
	bodiesAtOnce = 4
	// headerTimeout and bodyTimeout end connections that say or take nothing.
	headerTimeout = 5 * time.Second
	bodyTimeout   = time.Minute
	// answerTimeout is from a request's header to the end of its answer, whatever
	// happens: longer than the slowest model's deadline should be.
	answerTimeout = 15 * time.Minute
	// idleTimeout lets a camera that takes a picture a minute keep its connection.
	idleTimeout = 5 * time.Minute
	// socketMode lets the agent's group connect.
	socketMode = 0o660
)

// ErrListen says that the address or socket cannot be listened on.
var ErrListen = errors.New("cannot listen")

// Engine answers requests. infer.Engine is one.
type Engine interface {
	InferInto(ctx context.Context, req *infer.Request, resp *infer.Response) error
	Manifest(model string) (*release.Manifest, release.Digest, error)
	Status() []infer.Status
}

// Labels takes truths for earlier predictions. observe.Observer is one.
type Labels interface {
	// Feedback joins a truth with the prediction id. label is a class name or
	// the index of one; a label that is neither is an error.
	Feedback(ctx context.Context, model, id, label string) (matched bool, err error)
}

// Config holds the optional parts of a server.
type Config struct {
	Listen  string // host:port, empty for DefaultListen, "-" for none
	Socket  string // path of a Unix socket, empty for none
	MaxBody int64  // bytes of a request, 0 for DefaultMaxBody
	Version string // of the agent
	Runtime infer.RuntimeInfo
	// Connections bounds those of each listener, 0 for DefaultConnections.
	Connections int
	// Assigned reports whether the device is to serve the model: one that does
	// not serve yet is answered with 503 then, not 404. Nil knows of none.
	Assigned func(model string) bool
	// Labels takes feedback; nil answers it with 501.
	Labels Labels
	// Agent adds the rest of the agent to the status; nil adds nothing.
	Agent func() *Agent
	// Registry holds the metrics that /metrics shows; nil makes an own one.
	Registry *prometheus.Registry
	Log      *slog.Logger
}

// Server serves one engine.
type Server struct {
	engine    Engine
	cfg       Config
	metrics   *metrics
	handler   http.Handler
	exchanges sync.Pool           // *exchange
	bodies    *semaphore.Weighted // bytes of large bodies in memory
	listeners []net.Listener
	http      *http.Server
	wg        sync.WaitGroup
}

// New makes a server that does not listen yet.
func New(engine Engine, cfg Config) *Server {
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.Connections <= 0 {
		cfg.Connections = DefaultConnections
	}
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		engine: engine, cfg: cfg, metrics: newMetrics(cfg.Registry, engine),
		bodies: semaphore.NewWeighted(bodiesAtOnce * cfg.MaxBody),
	}
	s.handler = s.routes()
	s.http = &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout,
		WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Handler answers requests without a listener, for tests and embedding.
func (s *Server) Handler() http.Handler { return s.handler }

// Start listens and serves until Stop.
func (s *Server) Start(ctx context.Context) error {
	if s.cfg.Listen != "-" {
		if err := s.listen(ctx, "tcp", s.cfg.Listen); err != nil {
			return err
		}
	}
	if s.cfg.Socket != "" {
		if err := s.listenSocket(ctx); err != nil {
			s.closeListeners()
			return err
		}
	}
	for _, l := range s.listeners {
		s.wg.Go(func() {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				s.cfg.Log.Error("serving predictions ended", "address", l.Addr().String(), "error", err)
			}
		})
	}
	return nil
}

func (s *Server) listen(ctx context.Context, network, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return fmt.Errorf("%w: %w; is another agent running? choose another with --listen or --socket", ErrListen, err)
	}
	s.listeners = append(s.listeners, netutil.LimitListener(l, s.cfg.Connections))
	return nil
}

// listenSocket replaces a socket that a killed agent left behind, never one
// that somebody still listens on and never another kind of file.
func (s *Server) listenSocket(ctx context.Context) error {
	path := s.cfg.Socket
	st, err := os.Lstat(path)
	if err == nil && st.Mode().Type() == fs.ModeSocket {
		if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			return errors.Join(fmt.Errorf("%w: %s is in use by another agent", ErrListen, path), c.Close())
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove stale socket: %w", err)
		}
	}
	if err := s.listen(ctx, "unix", path); err != nil {
		return err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return fmt.Errorf("set mode of socket: %w", err)
	}
	return nil
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close() // it never served
	}
}

// Addr is the TCP address that is listened on, nil before Start and without one.
func (s *Server) Addr() net.Addr {
	for _, l := range s.listeners {
		if l.Addr().Network() == "tcp" {
			return l.Addr()
		}
	}
	return nil
}

// Stop takes no more requests, waits for those in progress until ctx ends and
// then closes their connections.
func (s *Server) Stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("wait for requests: %w", err), s.http.Close())
	}
	s.wg.Wait()
	return err
}
