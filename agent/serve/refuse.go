package serve

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/vedette-edge/vedette/agent/infer"
)

var (
	errBodySize = errors.New("the body is larger than this server takes")
	// errUnsized says that a body without Content-Length went over maxUnsized.
	errUnsized = &httpError{http.StatusLengthRequired, "send Content-Length with a body of this size"}
	// errAbandoned says that the request was answered by abandon.
	errAbandoned = errors.New("the run ended after its request was answered")
	// errBodies says that the bodies being read together are as large as this
	// server allows.
	errBodies = errors.New("too many large requests at once")
	// errStarting says that a model is assigned to the device but does not
	// serve yet.
	errStarting = errors.New("the model is not ready yet")
)

// httpError is an error with its HTTP status.
type httpError struct {
	status int
	text   string
}

// Error is what is wrong with the request.
func (e *httpError) Error() string { return e.text }

// Waits that are told to callers where nothing has been measured.
const (
	// afterHang is about what the agent's restart takes, model and all.
	afterHang = 5 * time.Second
	// afterStart is for a model that is fetched or tried still.
	afterStart = 5 * time.Second
	// afterGiveUp is for a caller who waited in vain.
	afterGiveUp = time.Second
)

// verdict is how an error is answered. after is when to try again, 0 for never.
type verdict struct {
	status int
	code   codes.Code
	after  time.Duration
}

// retryAfter is the header of that name: whole seconds, empty for never.
func (v verdict) retryAfter() string {
	if v.after <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((v.after+time.Second-1)/time.Second), 10)
}

// refusal is how an error is answered over HTTP, and its text.
func (s *Server) refusal(err error) (verdict, []byte) {
	v := verdictOf(err)
	if v.status == http.StatusInternalServerError {
		s.cfg.Log.Warn("a request failed", "error", err)
	}
	text := append(appendText([]byte(`{"error":`), err.Error()), "}\n"...)
	return v, text
}

func verdictOf(err error) verdict {
	var he *httpError
	var ie *infer.InputError
	var ee *elementError
	var tooLarge *http.MaxBytesError
	var over *infer.Overload
	switch {
	case errors.As(err, &he):
		return verdict{he.status, codes.InvalidArgument, 0}
	case errors.As(err, &ie), errors.As(err, &ee), errors.Is(err, errJSON):
		return verdict{http.StatusBadRequest, codes.InvalidArgument, 0}
	case errors.As(err, &tooLarge), errors.Is(err, errBodySize):
		return verdict{http.StatusRequestEntityTooLarge, codes.ResourceExhausted, 0}
	case errors.Is(err, errStarting):
		return verdict{http.StatusServiceUnavailable, codes.Unavailable, afterStart}
	case errors.Is(err, infer.ErrUnknownModel):
		return verdict{http.StatusNotFound, codes.NotFound, 0}
	case errors.As(err, &over):
		return verdict{http.StatusTooManyRequests, codes.ResourceExhausted, max(over.After, time.Millisecond)}
	case errors.Is(err, infer.ErrBusy), errors.Is(err, errBodies):
		return verdict{http.StatusTooManyRequests, codes.ResourceExhausted, afterGiveUp}
	case errors.Is(err, infer.ErrHung), errors.Is(err, infer.ErrClosed):
		return verdict{http.StatusServiceUnavailable, codes.Unavailable, afterHang}
	case errors.Is(err, context.DeadlineExceeded):
		return verdict{http.StatusServiceUnavailable, codes.DeadlineExceeded, afterGiveUp}
	case errors.Is(err, context.Canceled):
		return verdict{http.StatusServiceUnavailable, codes.Canceled, afterGiveUp}
	}
	return verdict{http.StatusInternalServerError, codes.Internal, 0}
}
