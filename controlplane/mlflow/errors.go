package mlflow

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// problem is the body of every answer that is not a success.
type problem struct {
	Code    string `json:"error_code"`
	Message string `json:"message"`

	status int
}

// Codes of MLflow that package tracking has no use for. Clients repeat 429, 500
// and 503 for minutes, so what repeating cannot heal never gets one of these.
const (
	codeEndpoint    = "ENDPOINT_NOT_FOUND"
	codeNotDone     = "NOT_IMPLEMENTED"
	codeNobody      = "UNAUTHENTICATED"
	codeDenied      = "PERMISSION_DENIED"
	codeBadRequest  = "BAD_REQUEST"
	codeTooMany     = "REQUEST_LIMIT_EXCEEDED"
	codeExhausted   = "RESOURCE_EXHAUSTED"
	codeConflict    = "RESOURCE_CONFLICT"
	codeUnavailable = "TEMPORARILY_UNAVAILABLE"
	codeInternal    = "INTERNAL_ERROR"
)

// fail writes an error as MLflow's clients read it. What an error without a
// code says stays in the log: it may hold what clients are not to see.
func (s *Server) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	p := s.explain(err, c)
	if p.status == http.StatusUnauthorized {
		// Bearer alone: a browser that is asked for a password keeps sending it,
		// also when another site makes it call.
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="Vedette"`)
	}
	if c.Request().Method == http.MethodHead {
		_ = c.NoContent(p.status) // a reader that left is no fault of ours
		return
	}
	_ = c.JSON(p.status, p)
}

func (s *Server) explain(err error, c echo.Context) problem {
	if e, ok := errors.AsType[*tracking.Error](err); ok {
		return trackingProblem(e)
	}
	if e, ok := errors.AsType[*operator.Error](err); ok {
		return operatorProblem(e)
	}
	if e, ok := errors.AsType[*echo.HTTPError](err); ok {
		return routingProblem(e, c)
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problem{codeBadRequest, (&http.MaxBytesError{Limit: e.Limit}).Error() + ": send fewer entities at once", http.StatusRequestEntityTooLarge}
	}
	if p, ok := storageProblem(err); ok {
		return p
	}
	if errors.Is(err, context.DeadlineExceeded) {
		s.cfg.Log.Warn("mlflow request timed out", "route", c.Path(), "error", err)
		return problem{codeUnavailable, "the server did not finish in time: try again", http.StatusServiceUnavailable}
	}
	if !errors.Is(err, context.Canceled) {
		s.cfg.Log.Error("mlflow request failed", "route", c.Path(), "error", err)
	}
	return problem{codeInternal, "the server failed to answer: its log says why", http.StatusInternalServerError}
}

// trackingProblem: a call that the state of a run forbids is the caller's fault
// too, and MLflow's own INVALID_STATE would be repeated as a fault of the server.
func trackingProblem(e *tracking.Error) problem {
	switch e.Code {
	case tracking.NotFound:
		return problem{string(e.Code), e.Message, http.StatusNotFound}
	case tracking.Invalid, tracking.InvalidState:
		return problem{string(tracking.Invalid), e.Message, http.StatusBadRequest}
	case tracking.Exhausted: // 429, which is MLflow's for it, is repeated
		return problem{string(e.Code), e.Message, http.StatusInsufficientStorage}
	case tracking.AlreadyExists:
		return problem{string(e.Code), e.Message, http.StatusBadRequest}
	}
	return problem{codeBadRequest, e.Message, http.StatusBadRequest}
}

func operatorProblem(e *operator.Error) problem {
	message := e.Message
	if e.Hint != "" {
		message += ": " + e.Hint
	}
	status := e.Code.Status()
	switch status {
	case http.StatusUnauthorized:
		return problem{codeNobody, message, status}
	case http.StatusForbidden:
		return problem{codeDenied, message, status}
	case http.StatusNotFound:
		return problem{string(tracking.NotFound), message, status}
	case http.StatusConflict, http.StatusPreconditionFailed:
		return problem{codeConflict, message, http.StatusConflict}
	case http.StatusTooManyRequests:
		return problem{codeTooMany, message, status}
	case http.StatusServiceUnavailable:
		return problem{codeUnavailable, message, status}
	case http.StatusInternalServerError:
		return problem{codeInternal, message, status}
	}
	return problem{string(tracking.Invalid), message, http.StatusBadRequest}
}

func routingProblem(e *echo.HTTPError, c echo.Context) problem {
	switch e.Code {
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return problem{codeEndpoint, "there is no " + c.Request().Method + " " + c.Request().URL.Path + " here", http.StatusNotFound}
	}
	return problem{codeBadRequest, http.StatusText(e.Code), http.StatusBadRequest}
}

// storageProblem: 507 is not repeated by clients, so a full disk is told at once.
func storageProblem(err error) (problem, bool) {
	switch {
	case errors.Is(err, artifact.ErrFull):
		return problem{codeExhausted, "the server has no room for artifacts: free space on it or raise its quota, then log the artifact again", http.StatusInsufficientStorage}, true
	case errors.Is(err, artifact.ErrTooLarge):
		return problem{string(tracking.Invalid), err.Error(), http.StatusRequestEntityTooLarge}, true
	}
	return problem{}, false
}
