// Package serve is the device's local prediction service: the Open Inference
// Protocol v2 over HTTP and gRPC, on loopback addresses and on Unix sockets, with
// JSON and with binary tensors, plus labels that arrive later, status and metrics.
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
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Defaults and limits of a server.
const (
	// DefaultListen is loopback: predictions and labels are nobody else's business.
	DefaultListen = "127.0.0.1:8100"
	// DefaultGRPC is the port beside it.
	DefaultGRPC = "127.0.0.1:8101"
	// DefaultMaxBody bounds a request in bytes: 8192 rows of 512 float32.
	DefaultMaxBody = 16 << 20
	// maxFeedback bounds a body of labels in bytes.
	maxFeedback = 1 << 20
	// maxHeader bounds a request's headers in bytes; every connection has so much.
	maxHeader = 8 << 10
	// DefaultConnections bounds the connections; more are turned away with 503.
	// One costs about 20 KiB.
	DefaultConnections = 256
	// smallBody is what a body may have without its room being counted or its
	// length being known, in bytes.
	smallBody = 64 << 10
	// bodiesAtOnce is how many bodies of the largest size may be in memory at
	// once, all connections together.
	bodiesAtOnce = 4
	// bodyTimeout ends connections that say or take nothing.
	bodyTimeout = time.Minute
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
	Listen string // host:port, empty for DefaultListen, "-" for none
	Socket string // path of a Unix socket, empty for none
	GRPC   string // host:port of gRPC, empty or "-" for none
	// GRPCSocket is the path of a Unix socket for gRPC, empty for none.
	GRPCSocket string
	MaxBody    int64  // bytes of a request, 0 for DefaultMaxBody
	Version    string // of the agent
	Device     string // its id
	// Traces is the URL of an OpenTelemetry collector that takes OTLP over HTTP;
	// empty for none.
	Traces  string
	Runtime infer.RuntimeInfo
	// Connections bounds those over HTTP, and those over gRPC, 0 for
	// DefaultConnections.
	Connections int
	// Assigned reports whether the device is to serve the model: one that does
	// not serve yet is answered with 503 then, not 404. Nil knows of none.
	Assigned func(model string) bool
	// Challengers lists the releases beside those that serve; nil knows of none.
	Challengers func() []infer.Status
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
	others    fasthttp.RequestHandler // all but predictions
	routed    *routeMetrics           // of the predictions
	exchanges sync.Pool               // *exchange
	bodies    *semaphore.Weighted     // bytes of large bodies in memory
	listeners []net.Listener
	http      *fasthttp.Server

	traces *tracer // nil for none

	grpcListeners []net.Listener
	grpc          *grpc.Server // nil without a listener
	wg            sync.WaitGroup
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
		engine: engine, cfg: cfg, metrics: newMetrics(cfg.Registry, engine, cfg.Challengers),
		bodies: semaphore.NewWeighted(bodiesAtOnce * cfg.MaxBody),
	}
	registerAgent(cfg.Registry, &s.cfg)
	s.routed = s.metrics.route("POST /v2/models/{model}/infer")
	s.others = adapt(s.routes())
	s.http = s.newHTTP()
	return s
}

// Start listens and serves until Stop.
func (s *Server) Start(ctx context.Context) (err error) {
	if s.traces, err = newTracer(ctx, &s.cfg); err != nil {
		return err
	}
	if err := s.listenAll(ctx); err != nil {
		s.closeListeners()
		return err
	}
	for _, l := range s.listeners {
		s.wg.Go(func() {
			if err := s.http.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
				s.cfg.Log.Error("serving predictions ended", "address", l.Addr().String(), "error", err)
			}
		})
	}
	s.serveGRPC()
	return nil
}

func (s *Server) listenAll(ctx context.Context) error {
	for _, where := range []struct {
		to              *[]net.Listener
		address, socket string
	}{{&s.listeners, s.cfg.Listen, s.cfg.Socket}, {&s.grpcListeners, s.cfg.GRPC, s.cfg.GRPCSocket}} {
		if where.address != "-" && where.address != "" {
			l, err := listen(ctx, "tcp", where.address)
			if err != nil {
				return err
			}
			*where.to = append(*where.to, l)
		}
		if where.socket != "" {
			l, err := listenSocket(ctx, where.socket)
			if err != nil {
				return err
			}
			*where.to = append(*where.to, l)
		}
	}
	return nil
}

func listen(ctx context.Context, network, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; is another agent running? choose another with --listen, --socket or --grpc", ErrListen, err)
	}
	return l, nil
}

// listenSocket replaces a socket that a killed agent left behind, never one
// that somebody still listens on and never another kind of file.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	st, err := os.Lstat(path)
	if err == nil && st.Mode().Type() == fs.ModeSocket {
		if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			return nil, errors.Join(fmt.Errorf("%w: %s is in use by another agent", ErrListen, path), c.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale socket: %w", err)
		}
	}
	l, err := listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("set mode of socket: %w", err), l.Close())
	}
	return l, nil
}

func (s *Server) closeListeners() {
	for _, l := range slices.Concat(s.listeners, s.grpcListeners) {
		_ = l.Close() // it never served, or was closed before
	}
}

// Addr is the TCP address of HTTP, nil before Start and without one.
func (s *Server) Addr() net.Addr { return tcpOf(s.listeners) }

// GRPCAddr is the TCP address of gRPC, nil before Start and without one.
func (s *Server) GRPCAddr() net.Addr { return tcpOf(s.grpcListeners) }

func tcpOf(listeners []net.Listener) net.Addr {
	for _, l := range listeners {
		if l.Addr().Network() == "tcp" {
			return l.Addr()
		}
	}
	return nil
}

// Stop takes no more requests and waits for those in progress until ctx ends.
func (s *Server) Stop(ctx context.Context) error {
	s.stopGRPC(ctx)
	err := s.http.ShutdownWithContext(ctx)
	s.closeListeners() // those that do not serve yet it does not know of
	if err != nil {
		err = fmt.Errorf("wait for requests: %w", err)
	}
	s.wg.Wait()
	return errors.Join(err, s.traces.stop(ctx))
}
