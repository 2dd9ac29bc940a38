package operator

import (
	"errors"
	"fmt"
)

// Code is the stable name of an error. Messages and hints may change; codes do
// not.
type Code string

// Codes of errors.
const (
	Invalid         Code = "invalid"          // the request is malformed or breaks a rule
	Unauthorized    Code = "unauthorized"     // no token, or one that is not known, expired or revoked
	Forbidden       Code = "forbidden"        // the role may not do this
	NotFound        Code = "not_found"        // the subject does not exist
	WrongMethod     Code = "wrong_method"     // the route exists, and takes other methods: see Allow
	Conflict        Code = "conflict"         // the subject is in a state that does not allow this, or exists already
	NotNow          Code = "not_now"          // the rollout is in a state in which the action makes no sense
	Held            Code = "held"             // another rollout of the model has some of the devices
	NotCleared      Code = "not_cleared"      // a validation gate stops the version
	NoDevices       Code = "no_devices"       // the selector matches no device
	Stale           Code = "stale"            // it changed since it was read: read again and repeat
	TooLarge        Code = "too_large"        // over a limit of size
	TooMany         Code = "too_many"         // over a limit of rate or number
	OffsetMismatch  Code = "offset_mismatch"  // the upload continues elsewhere: ask for its offset
	DigestMismatch  Code = "digest_mismatch"  // uploaded content is not what its digest says
	BlobMissing     Code = "blob_missing"     // a file named by the release was not uploaded
	TrustRefused    Code = "trust_refused"    // signed metadata was not accepted
	NoRoot          Code = "no_root"          // no root of trust has been installed yet
	ReasonRequired  Code = "reason_required"  // a change of the fleet needs a reason
	StorageFull     Code = "storage_full"     // the server's disk or quota is full
	Unavailable     Code = "unavailable"      // the server is starting, stopping or behind
	Internal        Code = "internal"         // a fault of the server
	UnknownResponse Code = "unknown_response" // the answer was not of this API: a proxy, another server
	Unreachable     Code = "unreachable"      // no answer at all
)

// statusOf gives HTTP statuses as numbers: this package is shared with programs
// that have no HTTP in them.
var statusOf = map[Code]int{
	Invalid:        400,
	ReasonRequired: 400,
	Unauthorized:   401,
	Forbidden:      403,
	NotFound:       404,
	WrongMethod:    405,
	Conflict:       409,
	NotNow:         409,
	Held:           409,
	NotCleared:     409,
	NoDevices:      409,
	OffsetMismatch: 409,
	NoRoot:         409,
	Stale:          412,
	TooLarge:       413,
	DigestMismatch: 422,
	BlobMissing:    422,
	TrustRefused:   422,
	TooMany:        429,
	Unavailable:    503,
	StorageFull:    507,
}

// Status is the HTTP status that goes with the code.
func (c Code) Status() int {
	if s, ok := statusOf[c]; ok {
		return s
	}
	return 500
}

// Error is the body of every answer that is not a success.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`           // what is wrong
	Hint    string `json:"hint,omitempty"`    // what to do next
	Request string `json:"request,omitempty"` // id of the request in the server's log

	cause error
}

// Error returns the message; hints are for whoever prints it.
func (e *Error) Error() string { return e.Message }

// Unwrap returns what caused the error in this process, if anything.
func (e *Error) Unwrap() error { return e.cause }

// Is matches any *Error of the same code, so errors.Is(err, &Error{Code: NotFound}) asks by code.
func (e *Error) Is(target error) bool {
	t, ok := errors.AsType[*Error](target)
	return ok && t.Code == e.Code
}

// Errorf makes an error of the given code; %w keeps a cause for errors.Is in
// this process. The cause's text becomes part of the message that clients see.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// WithHint returns a copy of e that says what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// CodeOf is the code of err: "" for nil, Internal for an error without one.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
