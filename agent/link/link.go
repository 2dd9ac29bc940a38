// Package link says why a connection to the control plane does not come about:
// a name for reports that never changes, and what a person can do about it. The
// stages that connect (pull, identity, uplink) share it.
package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
)

// Why there is no connection.
var (
	// ErrName says that the server's name has no address here.
	ErrName = errors.New("the server's name cannot be resolved: check the network's DNS, and the address the device was enrolled with")
	// ErrUnreachable says that nothing accepts connections there.
	ErrUnreachable = errors.New("the server cannot be reached: check the network, the firewall, and whether the control plane runs")
	// ErrAuthority says that somebody else answers.
	ErrAuthority = errors.New("another certificate authority answers than the control plane's: sign in if this network has a login page, and look for a proxy that opens TLS")
	// ErrExpired says that the server's certificate is not valid at the device's trusted time.
	ErrExpired = errors.New("the server's certificate is not valid at this time: renew it on the control plane, and compare its clock with the device's")
	// ErrServerName says that the certificate is for another name.
	ErrServerName = errors.New("the server's certificate does not cover the address in use: start the control plane with this name among its hosts")
	// ErrNotTLS says that what answers speaks another protocol.
	ErrNotTLS = errors.New("what answers does not speak TLS: sign in if this network has a login page, and check the port")
	// ErrRefused says that the server ended the handshake with a reason of its own.
	ErrRefused = errors.New("the server refuses the device's certificate: check that the device is not revoked and its certificate has not ended")
	// ErrSilent says that the server was given time enough.
	ErrSilent = errors.New("the server does not answer in time: the link is slow or dead, or the server hangs; the device goes on trying")
	// ErrCut says that the connection ended in the middle.
	ErrCut = errors.New("the connection was cut: the link is bad, or a firewall ends it; the device goes on trying")
)

// reasons are looked for in this order: the first that fits is taken.
var reasons = []struct {
	reason error
	code   string
	fits   func(error) bool
}{
	{ErrName, "dns", is[*net.DNSError]},
	{ErrAuthority, "tls_authority", is[x509.UnknownAuthorityError]},
	{ErrServerName, "tls_name", is[x509.HostnameError]},
	{ErrExpired, "tls_expired", func(err error) bool {
		invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
		return ok && invalid.Reason == x509.Expired
	}},
	{ErrAuthority, "tls_authority", is[*tls.CertificateVerificationError]},
	{ErrNotTLS, "not_tls", func(err error) bool {
		return is[tls.RecordHeaderError](err) || errors.Is(err, http.ErrSchemeMismatch)
	}},
	{ErrRefused, "tls_refused", func(err error) bool {
		op, ok := errors.AsType[*net.OpError](err)
		return ok && op.Op == "remote error" // an alert of TLS; its type is not exported
	}},
	{ErrSilent, "timeout", func(err error) bool {
		timeout, ok := errors.AsType[net.Error](err)
		return ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
	}},
	{ErrUnreachable, "unreachable", func(err error) bool {
		return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
	}},
	{ErrCut, "cut", func(err error) bool {
		return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	}},
}

func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// Explain puts the reason for a failed connection before err. An error that has
// none, or already has it, comes back as it is.
func Explain(err error) error {
	if err == nil || Code(err) != "" {
		return err
	}
	for _, r := range reasons {
		if r.fits(err) {
			return fmt.Errorf("%w: %w", r.reason, err)
		}
	}
	return err
}

// Code is the name of the reason that Explain has put into err, "" when there
// is none. It does not change between versions.
func Code(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.reason) {
			return r.code
		}
	}
	return ""
}
