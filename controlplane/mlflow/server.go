package mlflow

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"

	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Version is the MLflow version whose calls are answered, told at /version. A
// client asks before it uses what only newer servers have.
const Version = "3.1.0"

// Limits of the server side.
const (
	// MaxBody bounds a JSON request, bytes: 1,000 entities of a batch fit many
	// times over, and so does the description of a model with a wide signature.
	MaxBody = 16 << 20
	// MaxUploads bounds how many artifacts are taken at the same time.
	MaxUploads = 64
	// DefaultTimeout bounds one request that carries no artifact.
	DefaultTimeout = 30 * time.Second
	// DefaultIdle bounds the silence of an upload.
	DefaultIdle = 60 * time.Second
	// Wrong tokens of one address, a second. Tokens cannot be guessed; the limit
	// keeps guessing from costing the server its storage's time, and others
	// theirs.
	refusedPerSecond = 10
	refusedBurst     = 50
	// maxRefused bounds how many addresses are remembered.
	maxRefused = 1024
)

// Authenticator tells who holds a token. A token that is unknown, expired or
// revoked gives an *operator.Error of code Unauthorized.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (operator.Principal, error)
}

// Releases is what publishers made of registered versions. A release has one
// stage, the registry's.
type Releases interface {
	ReleaseStage(d release.Digest) (operator.Stage, error)
	// MoveRelease sets the stage as any other command would: with the caller's
	// role, the gates and the ledger.
	MoveRelease(ctx context.Context, d release.Digest, to operator.Stage, reason string) error
}

// Journal records what the caller in ctx did that cannot be seen any more in
// what is left.
type Journal interface {
	NoteTracking(ctx context.Context, kind string, body any) error
}

// Config is what a Server needs. All but Log, Timeout and Idle are required.
type Config struct {
	Store    *tracking.Store
	Files    *Files
	Auth     Authenticator
	Releases Releases
	Journal  Journal
	Log      *slog.Logger  // nil discards
	Timeout  time.Duration // 0: DefaultTimeout
	Idle     time.Duration // 0: DefaultIdle
}

// Server answers MLflow clients.
type Server struct {
	cfg     Config
	echo    *echo.Echo
	refused refusals
	uploads chan struct{} // one for each artifact being taken

	history sync.Mutex // held while the list of a run's models is read and written
}

var _ http.Handler = (*Server)(nil)

// New makes a Server. It starts nothing.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	s := &Server{
		cfg: cfg, echo: echo.New(), refused: refusals{by: map[string]*rate.Limiter{}},
		uploads: make(chan struct{}, MaxUploads),
	}
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.Logger.SetOutput(io.Discard)
	s.echo.HTTPErrorHandler = s.fail
	s.echo.Use(s.logged, s.recovered)
	s.register()
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// Prefixes of the REST API: the first for programs, the second for MLflow's pages.
var prefixes = []string{"/api/2.0", "/ajax-api/2.0"}

// Serves says whether a path is MLflow's. It is asked before paths are made
// clean: one that tries to climb is to be refused, not redirected.
func Serves(path string) bool {
	for _, p := range []string{"/api/2.0/mlflow", "/api/3.0/mlflow", "/ajax-api/"} {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	switch path {
	case "/health", "/version", "/get-artifact", "/model-versions/get-artifact":
		return true
	}
	return false
}

// route is one call of the API.
type route struct {
	method, path string // path below a prefix
	role         operator.Role
	handle       echo.HandlerFunc
	stream       bool // no deadline, no bound: artifacts
}

func (s *Server) register() {
	parts := [][]route{s.experimentRoutes(), s.runRoutes(), s.loggedRoutes(), s.modelRoutes(), s.versionRoutes(), s.artifactRoutes()}
	for _, part := range parts {
		for _, r := range part {
			for _, prefix := range prefixes {
				s.add(prefix, r)
			}
		}
	}
	for _, r := range s.downloadRoutes() {
		s.add("", r)
		s.add("/ajax-api/2.0/mlflow", r)
	}
	s.echo.GET("/health", func(c echo.Context) error { return c.String(http.StatusOK, "OK") })
	s.echo.GET("/version", func(c echo.Context) error { return c.String(http.StatusOK, Version) })
}

func (s *Server) add(prefix string, r route) {
	middlewares := []echo.MiddlewareFunc{s.authenticated(r.role)}
	if !r.stream {
		middlewares = append(middlewares, s.bounded)
	}
	s.echo.Add(r.method, prefix+r.path, r.handle, middlewares...)
}

// call adapts a function to a route: it decodes the request into a Q and
// writes what comes back as a JSON object.
func call[Q any](fn func(context.Context, Q) (any, error)) echo.HandlerFunc {
	return func(c echo.Context) error {
		var q Q
		if err := decode(c, &q); err != nil {
			return err
		}
		v, err := fn(c.Request().Context(), q)
		if err != nil {
			return err
		}
		c.Response().Header().Set("Cache-Control", "no-store")
		return c.JSON(http.StatusOK, v)
	}
}

// object is a JSON object. An empty one answers calls that have nothing to say.
type object map[string]any

// reads is a route for viewers, writes one for scientists.
func reads(method, path string, h echo.HandlerFunc) route {
	return route{method: method, path: path, role: operator.Viewer, handle: h}
}

func writes(method, path string, h echo.HandlerFunc) route {
	return route{method: method, path: path, role: operator.Scientist, handle: h}
}

// authenticated refuses requests without a valid token of at least role.
func (s *Server) authenticated(role operator.Role) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			p, err := s.principal(c.Request())
			if err != nil {
				return err
			}
			if !p.Role.Allows(role) {
				return operator.Errorf(operator.Forbidden, "this needs role %s, and %s is %s: ask an administrator for a token of role %s", role, p.Name, p.Role, role)
			}
			c.SetRequest(c.Request().WithContext(operator.WithPrincipal(c.Request().Context(), p)))
			return next(c)
		}
	}
}

// principal is who makes a request. Wrong tokens beyond a rate are not looked at.
func (s *Server) principal(r *http.Request) (operator.Principal, error) {
	token := tokenOf(r)
	if token == "" {
		return operator.Principal{}, operator.Errorf(operator.Unauthorized,
			"the request has no token: set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and the token as MLFLOW_TRACKING_PASSWORD")
	}
	refused := s.refused.of(r.RemoteAddr)
	if refused.Tokens() < 1 {
		return operator.Principal{}, operator.Errorf(operator.TooMany, "too many wrong tokens were tried: wait a second")
	}
	p, err := s.cfg.Auth.Authenticate(r.Context(), token)
	if operator.CodeOf(err) == operator.Unauthorized {
		refused.Allow()
	}
	return p, err
}

// refusals counts wrong tokens by the address they came from.
type refusals struct {
	mu sync.Mutex
	by map[string]*rate.Limiter // guarded by mu
}

// of is the limit of an address, "host:port". When too many are remembered all
// are forgotten: whoever has that many is not slowed down by one more.
func (r *refusals) of(addr string) *rate.Limiter {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.by[host]
	if l == nil {
		if len(r.by) >= maxRefused {
			clear(r.by)
		}
		l = rate.NewLimiter(refusedPerSecond, refusedBurst)
		r.by[host] = l
	}
	return l
}

// tokenOf is the bearer token, or the password of basic authentication whatever
// the user's name is.
func tokenOf(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return strings.TrimSpace(password)
	}
	scheme, token, ok := strings.Cut(r.Header.Get(echo.HeaderAuthorization), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// who is the name of the caller, for what is kept.
func who(ctx context.Context) string {
	p, _ := operator.PrincipalOf(ctx)
	return p.Name
}

// bounded gives a request its deadline and its body a limit.
func (s *Server) bounded(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, cancel := context.WithTimeout(c.Request().Context(), s.cfg.Timeout)
		defer cancel()
		c.SetRequest(c.Request().WithContext(ctx))
		c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, MaxBody)
		return next(c)
	}
}

// logged writes one line a request. It logs the route, not the URL, which may
// hold what somebody pasted.
func (s *Server) logged(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		if err := next(c); err != nil {
			c.Error(err) // writes the answer now, so that its status is known here
		}
		s.cfg.Log.Debug("mlflow request", "method", c.Request().Method, "route", c.Path(),
			"status", c.Response().Status, "actor", who(c.Request().Context()), "duration", time.Since(start))
		return nil
	}
}

// recovered turns a panic into an answer: one bad request must not take the
// fleet's server down.
func (s *Server) recovered(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			r := recover()
			if r == nil {
				return
			}
			if r == http.ErrAbortHandler { //nolint:errorlint // the sentinel itself is thrown, never wrapped
				panic(r)
			}
			s.cfg.Log.Error("mlflow request panicked", "route", c.Path(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}()
		return next(c)
	}
}

// refuse is a fault of the caller in MLflow's words.
func refuse(code tracking.Code, format string, args ...any) error {
	return &tracking.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
