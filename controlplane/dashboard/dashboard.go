// Package dashboard is the control plane's pages for people: what the fleet
// runs, how a rollout goes, what the devices see, and the few buttons that
// change something. It renders protocol/operator's Reader and Commander and
// decides nothing itself; specs of rollouts it reads and compares with the
// engine's own parser, so that a form refuses what the server would.
//
// Parties: a person signs in with an operator token. The browser then holds the
// token in a cookie that only this server can open (AES-256-GCM), that scripts
// cannot read and that no other site can make it send. The token is checked on
// every request, so revoking it ends all its sessions at once. Commands also
// need a code that only pages of the same session carry.
//
// Pages are complete without JavaScript. With it, one event stream tells a page
// that something changed; the page asks for itself again and replaces the
// parts that differ. An event carries no content, so none can be out of date,
// and a page that lost some is right again after the next.
package dashboard

import (
	"context"
	"crypto/cipher"
	"embed"
	"log/slog"
	"maps"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Limits and defaults.
const (
	// DefaultSession bounds the life of a session: a working day.
	DefaultSession = 12 * time.Hour
	// DefaultHeartbeat is how often a silent event stream says that it lives:
	// below the 60 s after which proxies usually cut idle connections.
	DefaultHeartbeat = 15 * time.Second
	// pageTimeout bounds one request. A command waits for a synced ledger append.
	pageTimeout = 30 * time.Second
	// maxForm bounds the body of a form, bytes: a spec of 64 KiB, escaped.
	maxForm = 256 << 10
	// Attempts to sign in, of everybody together. Tokens cannot be guessed; the
	// limit keeps guessing from costing the server its storage's time.
	signInsPerSecond = 5
	signInBurst      = 20
)

//go:embed assets templates
var files embed.FS

// Service is what the pages show and command; api.Service and client.Client are
// two of them.
type Service interface {
	operator.Reader
	operator.Commander
}

// Authenticator tells who holds a token. A token that is unknown, expired or
// revoked gives an *operator.Error of code Unauthorized.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (operator.Principal, error)
}

// Config is what a Server needs. Service and Auth are required.
type Config struct {
	Service Service
	Auth    Authenticator
	// RunFiles lets people download what runs logged; nil: they cannot.
	RunFiles RunFiles
	// Key seals sessions; LoadKey keeps one in a file. Without one a random key
	// is made, and everybody signs in again after a restart.
	Key       []byte
	Session   time.Duration    // life of a session, 0: DefaultSession
	Heartbeat time.Duration    // of a silent event stream, 0: DefaultHeartbeat
	Log       *slog.Logger     // nil discards
	Now       func() time.Time // nil is time.Now
}

// Server answers requests for pages.
type Server struct {
	cfg     Config
	seal    cipher.AEAD
	csrfKey []byte
	pages   pages
	handler http.Handler
	signIns *rate.Limiter
	// streams ends when Close is called: event streams have no other end, and
	// an HTTP server waits for them before it stops.
	streams context.Context //nolint:containedctx // lifetime of the server, not of a call
	close   context.CancelFunc
}

var _ http.Handler = (*Server)(nil)

// New makes a Server. It starts nothing; Close ends the streams it serves. It
// panics when a template of its own is broken.
func New(cfg Config) *Server {
	if cfg.Session <= 0 {
		cfg.Session = DefaultSession
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = DefaultHeartbeat
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg, pages: parsePages(), signIns: rate.NewLimiter(signInsPerSecond, signInBurst)}
	s.seal, s.csrfKey = sessionKeys(cfg.Key)
	s.streams, s.close = context.WithCancel(context.Background())
	s.handler = s.routes()
	return s
}

// Close ends all event streams. Other requests are ended by the HTTP server.
func (s *Server) Close() { s.close() }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", assetHandler())
	mux.HandleFunc("GET /sign-in", s.signInPage)
	mux.HandleFunc("POST /sign-in", s.signIn)
	mux.Handle("POST /sign-out", s.signedIn(s.signOut))
	mux.Handle("GET /events", s.signedIn(s.events))
	for pattern, view := range s.views() {
		mux.Handle("GET "+pattern, s.signedIn(s.show(view)))
	}
	mux.Handle("GET /", s.signedIn(s.missing))
	mux.Handle("GET /runs/{run}/artifacts/{path...}", s.signedIn(s.runFile))
	mux.Handle("GET /ledger.jsonl", s.signedIn(s.exportLedger))
	mux.Handle("POST /rollouts/new", s.signedIn(s.createRollout))
	mux.Handle("POST /rollouts/{rollout}/revise", s.signedIn(s.revise))
	all := commands()
	maps.Copy(all, incidentCommands())
	for pattern, c := range all {
		mux.Handle("GET "+pattern, s.signedIn(s.ask(c)))
		mux.Handle("POST "+pattern, s.signedIn(s.act(c)))
	}
	return s.recovered(secured(http.NewCrossOriginProtection().Handler(mux)))
}

func (s *Server) views() map[string]view {
	return map[string]view{
		"/{$}":                               s.overview,
		"/devices":                           s.devices,
		"/devices/{device}":                  s.device,
		"/models":                            s.models,
		"/models/{model}":                    s.model,
		"/models/{model}/versions/{version}": s.version,
		"/rollouts":                          s.rollouts,
		"/rollouts/new":                      s.newRollout,
		"/rollouts/new/matching":             s.matching,
		"/rollouts/{rollout}":                s.rollout,
		"/rollouts/{rollout}/revise":         s.reviseForm,
		"/rollouts/{rollout}/devices":        s.members,
		"/rollouts/{rollout}/decisions":      s.decisions,
		"/incidents":                         s.incidents,
		"/incidents/{incident}":              s.incident,
		"/retraining":                        s.retraining,
		"/drift":                             s.driftModels,
		"/drift/{model}":                     s.drift,
		"/drift/{model}/by/{level}":          s.level,
		"/drift/{model}/group":               s.group,
		"/quality":                           s.qualityModels,
		"/quality/{model}":                   s.quality,
		"/quality/{model}/trends":            s.trends,
		"/experiments":                       s.experiments,
		"/experiments/{experiment}":          s.runs,
		"/runs/compare":                      s.compareRuns,
		"/runs/{run}":                        s.run,
		"/ledger":                            s.ledger,
		"/enrolment":                         s.enrolment,
	}
}

// securityPolicy lets a page load from this server alone and run no script or
// style that is written into it.
const securityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; " +
	"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", securityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		if r.TLS != nil {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}
