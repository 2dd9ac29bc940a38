package infer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Reasons why a call is not answered.
var (
	// ErrUnknownModel says that no release of the model, or not the version
	// asked for, serves on this device.
	ErrUnknownModel = errors.New("model is not served here")
	// ErrBusy says that too many calls wait already; the caller may try again.
	ErrBusy = errors.New("too many calls are waiting")
	// ErrHung says that the run did not end before its deadline. It goes on
	// occupying its place until it ends.
	ErrHung = errors.New("the run did not end before its deadline")
	// ErrLoading says that the time for a load was up before the library ended it.
	ErrLoading = errors.New("the runtime is still loading the release")
	// ErrClosed says that the engine was closed.
	ErrClosed = errors.New("the inference engine is closed")
)

// Overload is an ErrBusy that knows when it is worth trying again.
type Overload struct {
	// After is how long those waiting already will take, as runs take at present.
	After time.Duration
}

// Error says what ErrBusy says.
func (e *Overload) Error() string { return ErrBusy.Error() }

// Is makes an Overload an ErrBusy.
func (e *Overload) Is(target error) bool { return target == ErrBusy }

// waitError is a call whose context ended before its turn came.
type waitError struct{ cause error }

// Error says what ended the wait in a caller's words.
func (e *waitError) Error() string {
	if errors.Is(e.cause, context.DeadlineExceeded) {
		return "the request's deadline passed while it waited for its turn"
	}
	return "the request was given up while it waited for its turn"
}

// Unwrap is the error of the context.
func (e *waitError) Unwrap() error { return e.cause }

// InputError says what of a request does not fit the schema. Row is −1 when the
// whole tensor is meant; Feature is empty when no single number is.
type InputError struct {
	Input   string
	Row     int
	Feature string
	Reason  string
}

// Error names input, row and feature before the reason.
func (e *InputError) Error() string {
	var b strings.Builder
	if e.Input != "" {
		fmt.Fprintf(&b, "input %q", e.Input)
	}
	if e.Row >= 0 {
		fmt.Fprintf(&b, " row %d", e.Row)
	}
	if e.Feature != "" {
		fmt.Fprintf(&b, " feature %q", e.Feature)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(e.Reason)
	return strings.TrimPrefix(b.String(), " ")
}
