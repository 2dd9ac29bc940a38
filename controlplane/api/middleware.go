package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// requestIDHeader carries the id of a request both ways.
const requestIDHeader = "X-Request-Id"

var wellFormedID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// requestID takes the caller's id of the request, or makes one, and gives it
// back: an error that a user reports can then be found in the log.
func (s *Server) requestID(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get(requestIDHeader)
		if !wellFormedID.MatchString(id) {
			id = newRequestID()
		}
		c.Response().Header().Set(requestIDHeader, id)
		return next(c)
	}
}

func newRequestID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails: crypto/rand aborts the program instead
	return hex.EncodeToString(b)
}

func idOf(c echo.Context) string { return c.Response().Header().Get(requestIDHeader) }

// logged writes one line a request: commands at info, reads at debug. It logs
// the route, not the URL, which might hold what someone pasted.
func (s *Server) logged(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		if err := next(c); err != nil {
			c.Error(err) // writes the answer now, so that its status is known here
		}
		level := slog.LevelInfo
		if c.Request().Method == http.MethodGet {
			level = slog.LevelDebug
		}
		p, _ := operator.PrincipalOf(c.Request().Context())
		s.cfg.Log.Log(c.Request().Context(), level, "operator request",
			"method", c.Request().Method, "route", c.Path(), "status", c.Response().Status,
			"actor", p.Name, "request_id", idOf(c), "duration", time.Since(start))
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
			s.cfg.Log.Error("operator request panicked", "request_id", idOf(c), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = errors.New("panic")
		}()
		return next(c)
	}
}

// authenticated refuses requests without a valid token of at least role.
func (s *Server) authenticated(role operator.Role) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			token, err := bearer(c.Request().Header.Get(echo.HeaderAuthorization))
			if err != nil {
				return err
			}
			p, err := s.cfg.Auth.Authenticate(c.Request().Context(), token)
			if err != nil {
				return err
			}
			if err := allow(p, role); err != nil {
				return err
			}
			c.SetRequest(c.Request().WithContext(operator.WithPrincipal(c.Request().Context(), p)))
			return next(c)
		}
	}
}

func bearer(header string) (string, error) {
	scheme, token, ok := strings.Cut(header, " ")
	if token = strings.TrimSpace(token); !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", operator.Errorf(operator.Unauthorized, "the request has no token").
			WithHint(`send "Authorization: Bearer TOKEN" with an operator token`)
	}
	return token, nil
}

func allow(p operator.Principal, need operator.Role) error {
	if !p.Role.Allows(need) {
		return operator.Errorf(operator.Forbidden, "this needs role %s, and %s is %s", need, p.Name, p.Role).
			WithHint("ask an administrator for a token of role %s", need)
	}
	return nil
}

// bounded gives a request its deadline.
func (s *Server) bounded(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, cancel := context.WithTimeout(c.Request().Context(), s.cfg.Timeout)
		defer cancel()
		c.SetRequest(c.Request().WithContext(ctx))
		return next(c)
	}
}

// limited bounds the body of a request.
func limited(limit int64) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, limit)
			return next(c)
		}
	}
}

// fail writes an error as its stable body. What an error without a code says
// stays in the log: it may hold what clients are not to see.
func (s *Server) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	body := s.errorBody(err, c)
	body.Request = idOf(c)
	if body.Code == operator.Unauthorized {
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="vedette"`)
	}
	if err := c.JSON(body.Code.Status(), body); err != nil {
		s.cfg.Log.Debug("operator answer not written", "request_id", idOf(c), "error", err)
	}
}

func (s *Server) errorBody(err error, c echo.Context) operator.Error {
	if e, ok := errors.AsType[*operator.Error](err); ok {
		if e.Code == operator.Internal {
			s.cfg.Log.Error("operator request failed", "request_id", idOf(c), "route", c.Path(), "error", err)
		}
		return *e
	}
	if e, ok := errors.AsType[*echo.HTTPError](err); ok {
		return routingError(e, c)
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return *operator.Errorf(operator.TooLarge, "the request body is over %d bytes", e.Limit)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		s.cfg.Log.Warn("operator request timed out", "request_id", idOf(c), "route", c.Path(), "error", err)
		return *operator.Errorf(operator.Unavailable, "the server did not finish in time").WithHint("try again; if it persists look at the server's log")
	}
	s.cfg.Log.Error("operator request failed", "request_id", idOf(c), "route", c.Path(), "error", err)
	return *operator.Errorf(operator.Internal, "the server failed to answer").WithHint("its log has the cause under request id %s", idOf(c))
}

func routingError(e *echo.HTTPError, c echo.Context) operator.Error {
	switch e.Code {
	case http.StatusNotFound:
		return *operator.Errorf(operator.NotFound, "no route %s %s", c.Request().Method, c.Request().URL.Path).
			WithHint("%s/openapi.yaml lists them", operator.Prefix)
	case http.StatusMethodNotAllowed:
		return *operator.Errorf(operator.WrongMethod, "%s is not possible on %s", c.Request().Method, c.Request().URL.Path).
			WithHint("possible are %s", c.Response().Header().Get(echo.HeaderAllow))
	default:
		return *operator.Errorf(operator.Invalid, "%v", e.Message)
	}
}
