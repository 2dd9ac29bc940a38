package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// Reasons why a release could not be brought here. Errors of this package wrap
// one of them, or a reason of package trust, inside an *Error.
var (
	// ErrDigest says that bytes are not what was signed; they were thrown away.
	ErrDigest = errors.New("content differs from the signed digest: look for a proxy that changes files, then publish or decide anew")
	// ErrManifest says that a manifest does not say what was signed about it, or
	// is none.
	ErrManifest = errors.New("manifest is not what was signed: publish the release anew")
	// ErrPortal says that something between device and server answered with a
	// web page, as the login page of a guest network does.
	ErrPortal = errors.New("a web page came instead of the file: sign in if this network has a login page, and look for a proxy in between")
	// ErrNotFound says that the server does not have the file.
	ErrNotFound = errors.New("the server does not have it: publish the release again")
	// ErrRefused says that the server does not let this device in.
	ErrRefused = errors.New("the server refuses this device: check that it is not revoked")
	// ErrServer says that the server is in trouble or asks to come later.
	ErrServer = errors.New("the server could not answer: look at the control plane's log; the device goes on trying")
	// ErrLink says that the connection failed, broke or stood still; package
	// link says why.
	ErrLink = errors.New("the connection failed")
	// ErrDiskFull says that there is no room for the release.
	ErrDiskFull = errors.New("not enough room on the device's disk: free some, it goes on by itself")
	// ErrDisk says that the device's disk fails.
	ErrDisk = errors.New("the device's disk fails: look for its errors in the system's log")
)

// Error is why Resolve or Fetch failed, with what a caller decides by.
type Error struct {
	code  string
	retry bool
	after time.Duration // the server asks for at least this much patience
	err   error
}

// Error is the reason for people.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap gives the reason to errors.Is.
func (e *Error) Unwrap() error { return e.err }

// Code names the reason in reports. It does not change between versions.
func (e *Error) Code() string { return e.code }

// Retryable reports whether the same call may succeed later by itself.
func (e *Error) Retryable() bool { return e.retry }

// kinds say code and retry of each reason. Order matters: the first that fits
// is taken.
var kinds = []struct {
	reason error
	code   string
	retry  bool
}{
	{ErrDiskFull, "disk_full", true},
	{ErrDisk, "disk", true},
	{ErrDigest, "digest_mismatch", false},
	{ErrManifest, "manifest", false},
	{ErrPortal, "captive_portal", true},
	{ErrNotFound, "not_found", false},
	{ErrRefused, "refused", false},
	{ErrServer, "server", true},
	{ErrLink, "link", true},
	{trust.ErrUnknownRelease, "unsigned_release", false},
	{trust.ErrBelowFloor, "below_floor", false},
	{trust.ErrExpired, "metadata_expired", true},
	{trust.ErrRollback, "metadata_rollback", false},
	{trust.ErrSignature, "metadata_signature", false},
	{trust.ErrNotDelegated, "metadata_not_delegated", false},
	{trust.ErrRoot, "wrong_root", false},
	{trust.ErrTampered, "metadata_tampered", false},
	{trust.ErrMalformed, "metadata_malformed", true},
	{trust.ErrUnchecked, "metadata_unchecked", true},
	{trust.ErrUnavailable, "metadata_unavailable", true},
}

// classify gives err its code. The caller's own cancellation stays what it is.
func classify(err error) error {
	if err == nil || is[*Error](err) {
		return err
	}
	for _, k := range kinds {
		if errors.Is(err, k.reason) {
			return &Error{code: cmp.Or(link.Code(err), k.code), retry: k.retry, err: err}
		}
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case is[*fs.PathError](err), is[*os.LinkError](err): // the trust store could not write
		return diskError("keep metadata", err)
	}
	return &Error{code: "pull", err: err}
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

// diskError tells a full disk from a broken one.
func diskError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return classify(fmt.Errorf("%s: %w: %w", doing, ErrDiskFull, err))
	default:
		return classify(fmt.Errorf("%s: %w: %w", doing, ErrDisk, err))
	}
}
