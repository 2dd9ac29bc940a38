package deviceapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/protocol"
)

var (
	errNotFound = errors.New("there is nothing here")
	errInvalid  = errors.New("the request cannot be read")
)

// answers say what each error becomes. The first that fits is taken; what fits
// none is a fault of the server, and its text stays here.
var answers = []struct {
	is     error
	status int
	code   string
}{
	{access.ErrTokenUnknown, http.StatusUnauthorized, protocol.CodeTokenUnknown},
	{access.ErrTokenExpired, http.StatusUnauthorized, protocol.CodeTokenExpired},
	{access.ErrTokenUsed, http.StatusUnauthorized, protocol.CodeTokenUsed},
	{access.ErrTokenRevoked, http.StatusUnauthorized, protocol.CodeTokenRevoked},
	{access.ErrDeviceExists, http.StatusConflict, protocol.CodeDeviceExists},
	{access.ErrNoDevice, http.StatusBadRequest, protocol.CodeInvalid},
	{access.ErrCSR, http.StatusBadRequest, protocol.CodeInvalid},
	{access.ErrCertificate, http.StatusForbidden, protocol.CodeCertificate},
	{access.ErrRevoked, http.StatusForbidden, protocol.CodeRevoked},
	{artifact.ErrNotFound, http.StatusNotFound, protocol.CodeNotFound},
	{artifact.ErrFull, http.StatusServiceUnavailable, protocol.CodeUnavailable},
	{protocol.ErrDeviceID, http.StatusBadRequest, protocol.CodeInvalid},
	{protocol.ErrLabel, http.StatusBadRequest, protocol.CodeInvalid},
	{errNotFound, http.StatusNotFound, protocol.CodeNotFound},
	{errInvalid, http.StatusBadRequest, protocol.CodeInvalid},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, protocol.CodeUnavailable},
}

// fail answers with {code, message}.
func (s *Server) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return // in the middle of a blob: the device sees a short body
	}
	status, body := answerOf(err)
	if slow, ok := errors.AsType[*tooMany](err); ok {
		c.Response().Header().Set("Retry-After", strconv.Itoa(slow.seconds()))
	}
	s.cfg.Logger.Log(c.Request().Context(), levelOf(status, c.Path()), "device request refused", slog.String("path", c.Path()),
		slog.String("remote", remoteHost(c)), slog.String("code", body.Code), slog.Any("error", err))
	if err := c.JSON(status, body); err != nil {
		s.cfg.Logger.Debug("device not answered", slog.Any("error", err))
	}
}

// levelOf says how loud a refusal is. Every refresh ends by asking for a root
// that is not there yet, which is how a device knows that it has the newest.
func levelOf(status int, path string) slog.Level {
	switch {
	case status >= http.StatusInternalServerError:
		return slog.LevelError
	case status == http.StatusNotFound && strings.HasPrefix(path, protocol.TrustPath):
		return slog.LevelDebug
	default:
		return slog.LevelInfo
	}
}

func answerOf(err error) (status int, body *protocol.APIError) {
	for _, a := range answers {
		if errors.Is(err, a.is) {
			return a.status, &protocol.APIError{Code: a.code, Message: err.Error()}
		}
	}
	if slow, ok := errors.AsType[*tooMany](err); ok {
		return http.StatusTooManyRequests, &protocol.APIError{Code: protocol.CodeTooMany, Message: slow.Error()}
	}
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge, &protocol.APIError{
			Code: protocol.CodeTooLarge, Message: fmt.Sprintf("the request's body is over %d bytes", large.Limit),
		}
	}
	if known, ok := errors.AsType[*echo.HTTPError](err); ok && known.Code < http.StatusInternalServerError {
		return known.Code, &protocol.APIError{Code: protocol.CodeNotFound, Message: http.StatusText(known.Code)}
	}
	return http.StatusInternalServerError, &protocol.APIError{
		Code: protocol.CodeInternal, Message: "the control plane has a fault; its log says more",
	}
}

// recovered turns a panic into an answer, so that one request costs one request.
func (s *Server) recovered(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			if r := recover(); r != nil {
				if r == http.ErrAbortHandler { //nolint:errorlint,err113 // the value itself is the signal
					panic(r)
				}
				err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			}
		}()
		return next(c)
	}
}
