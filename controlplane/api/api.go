// Package api is the operator HTTP API: it decodes a request, checks who makes
// it, calls the control plane, and encodes what comes back. What happens is
// decided in Service and the packages behind it; nothing here knows more about
// a rollout than its name.
//
// Parties: an operator or publisher holds a bearer token with a role; the
// server holds a hash of it. Tokens are never logged. There are no cookies on
// these routes, so another site cannot make a browser send one.
package api

import (
	"cmp"
	"context"
	_ "embed"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Limits of the server side.
const (
	// DefaultTimeout bounds one request that is neither an upload nor a stream.
	// A rollout command waits for a synced ledger append, so this is generous.
	DefaultTimeout = 30 * time.Second
	// DefaultHeartbeat is how often a silent event stream says that it lives:
	// below the 60 s after which proxies usually cut idle connections.
	DefaultHeartbeat = 15 * time.Second
	// DefaultIdle bounds the silence of an upload or of a stream's reader.
	DefaultIdle = 60 * time.Second
)

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI is the document of these routes, also served at
// operator.Prefix + "/openapi.yaml".
func OpenAPI() []byte { return openAPI }

// Backend is everything the routes call. Service is the one of the control plane.
type Backend interface {
	operator.Reader
	operator.Commander
	operator.BlobStore
	operator.TrustStore
	ReleaseFiles
}

// Authenticator tells who holds a token. A token that is unknown, expired or
// revoked gives an *operator.Error of code Unauthorized.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (operator.Principal, error)
}

// Config is what a Server needs. Backend and Auth are required.
type Config struct {
	Backend   Backend
	Auth      Authenticator
	Log       *slog.Logger  // nil discards
	Timeout   time.Duration // 0: DefaultTimeout
	Heartbeat time.Duration // 0: DefaultHeartbeat
	Idle      time.Duration // 0: DefaultIdle
}

// Server answers requests below operator.Prefix.
type Server struct {
	cfg  Config
	echo *echo.Echo
	// streams ends when Close is called: event streams have no other end, and
	// an HTTP server waits for them before it stops.
	streams context.Context //nolint:containedctx // lifetime of the server, not of a call
	close   context.CancelFunc
}

// New makes a Server. It starts nothing; Close ends the streams it serves.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Timeout = orDefault(cfg.Timeout, DefaultTimeout)
	cfg.Heartbeat = orDefault(cfg.Heartbeat, DefaultHeartbeat)
	cfg.Idle = orDefault(cfg.Idle, DefaultIdle)
	s := &Server{cfg: cfg, echo: echo.New()}
	s.streams, s.close = context.WithCancel(context.Background())
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.Logger.SetOutput(io.Discard)
	s.echo.HTTPErrorHandler = s.fail
	s.echo.Use(s.requestID, s.logged, s.recovered)
	s.register()
	return s
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// Close ends all event streams. Other requests are ended by the HTTP server.
func (s *Server) Close() { s.close() }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

var _ http.Handler = (*Server)(nil)

func (s *Server) register() {
	for _, r := range routes(s) {
		middlewares := []echo.MiddlewareFunc{}
		if r.role != "" {
			middlewares = append(middlewares, s.authenticated(r.role))
		}
		if !r.unbounded {
			middlewares = append(middlewares, s.bounded, limited(cmp.Or(r.limit, operator.MaxBody)))
		}
		s.echo.Add(r.method, operator.Prefix+r.path, r.handle, middlewares...)
	}
}
