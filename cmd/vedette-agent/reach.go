package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"

	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/protocol"
)

// checkReach tries every address of the control plane as the agent would.
func checkReach(ctx context.Context, id *identity.Identity, offline bool) []Check {
	const name = "control plane"
	switch {
	case offline:
		return []Check{{Name: name, Result: checkSkipped, Detail: "--offline"}}
	case id == nil:
		return []Check{{Name: name, Result: checkSkipped, Detail: "this device has no identity to connect with"}}
	}
	var list []Check
	for _, u := range append([]string{id.DeviceAPI()}, id.MQTT()...) {
		c := Check{Name: name, Result: checkOK, Detail: u}
		if err := dial(ctx, u, id.TLS()); err != nil {
			what, next := unreachable(err)
			c.Result, c.Detail, c.Next = checkFailed, u+": "+what+": "+err.Error(), next
		}
		list = append(list, c)
	}
	if list[0].Result == checkOK { // an address that answers may still refuse this device
		list = append(list, checkAdmission(ctx, id))
	}
	return list
}

// unreachable names what keeps a connection from being made, and what to do.
func unreachable(err error) (what, next string) {
	var name *net.DNSError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return "the name is not known", "check the name server that this device uses (/etc/resolv.conf), and the name with who runs the control plane"
	case errors.As(err, &name):
		return "no name server answers", "check the network link and /etc/resolv.conf"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there", "check that the control plane runs, and that no firewall refuses the port"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "there is no way there", "check the network link and the route (ip route)"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer", "check the network link, and that no firewall drops the port"
	case errors.As(err, &record):
		return "what answers does not speak TLS", "a captive portal or a proxy may be in between: sign in to the network, or ask for a way out"
	case errors.As(err, &authority), errors.As(err, &host):
		return "another server answers", "a captive portal or a proxy that breaks TLS up may be in between; if the control plane has a new certificate authority, enrol again"
	case errors.As(err, &invalid):
		return "the server's certificate is not valid now", "check the clocks of this device and of the control plane"
	case errors.As(err, &alert):
		return "the control plane refuses this device's certificate", "if the device was revoked or cloned, enrol again with a new token"
	}
	return "cannot connect", "check network, name resolution and firewall between here and this address"
}

// checkAdmission asks whether the certificate is still taken: a connection does
// not tell.
func checkAdmission(ctx context.Context, id *identity.Identity) Check {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return admission(id.Device(), id.Admitted(ctx))
}

// admission says what a refusal means and what to do about it.
func admission(device string, err error) Check {
	c := Check{Name: "admission", Result: checkFailed}
	var refused *protocol.APIError
	errors.As(err, &refused)
	switch {
	case err == nil:
		c.Result, c.Detail = checkOK, "the control plane takes the certificate of "+device
	case errors.Is(err, identity.ErrRevoked):
		c.Detail = device + " was revoked: the control plane takes nothing of this device and gives it nothing"
		c.Next = "ask an operator; if it is to come back, enrol again (vedette-agent enrol --replace) with a token made by " +
			"`vedette device token create --device " + device + " --replace`"
	case refused != nil && refused.Code == protocol.CodeCertificate:
		c.Detail = refused.Message
		c.Next = "let the agent run, which renews an expired certificate by itself for 180 days; after that, enrol again"
	default:
		c.Result, c.Detail = checkWarning, err.Error()
		c.Next = "whether the control plane takes this device is not known: try again later, and look at the control plane's log"
	}
	return c
}

// dial makes a TLS connection as the device and closes it.
func dial(ctx context.Context, address string, config *tls.Config) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName = u.Hostname()
	}
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: config}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	return conn.Close()
}
