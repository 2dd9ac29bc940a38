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
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
)

// peer is what stands at the other end: a certificate by an authority, or less.
type peer struct {
	roots *x509.CertPool
	leaf  tls.Certificate
}

func newPeer(t *testing.T, leaf x509.Certificate) peer {
	t.Helper()
	soon := time.Now().Add(time.Hour)
	if leaf.NotAfter.IsZero() {
		leaf.NotAfter = soon
	}
	ca := agenttest.NewAuthority(t, soon)
	return peer{roots: ca.Pool(), leaf: ca.Certificate(t, leaf)}
}

func (p peer) tls(change func(*tls.Config)) func(net.Conn) {
	cfg := &tls.Config{Certificates: []tls.Certificate{p.leaf}, MinVersion: tls.VersionTLS12}
	if change != nil {
		change(cfg)
	}
	return func(conn net.Conn) {
		secure := tls.Server(conn, cfg)
		if secure.Handshake() == nil {
			_, _ = io.WriteString(secure, "hello")
		}
	}
}

// Every way a connection can fail has its own name and says what to do.
func TestEveryFailureHasItsName(t *testing.T) {
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	good := newPeer(t, x509.Certificate{IPAddresses: loopback})
	stranger := newPeer(t, x509.Certificate{IPAddresses: loopback})
	expired := newPeer(t, x509.Certificate{IPAddresses: loopback, NotAfter: time.Now().Add(-time.Minute)})
	elsewhere := newPeer(t, x509.Certificate{DNSNames: []string{"elsewhere.example"}})
	closed := agenttest.Listen(t, func(net.Conn) {})
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for _, tt := range []struct {
		name    string
		address string
		roots   *x509.CertPool
		want    error
		code    string
	}{
		{"a name that does not exist", "control.invalid:443", nil, ErrName, "dns"},
		{"nobody listens", gone.Addr().String(), nil, ErrUnreachable, "unreachable"},
		{"another authority", agenttest.Listen(t, stranger.tls(nil)), good.roots, ErrAuthority, "tls_authority"},
		{"an expired certificate", agenttest.Listen(t, expired.tls(nil)), expired.roots, ErrExpired, "tls_expired"},
		{"a certificate for another name", agenttest.Listen(t, elsewhere.tls(nil)), elsewhere.roots, ErrServerName, "tls_name"},
		{"a web server without TLS", agenttest.Listen(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1024))
			_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>sign in</html>")
		}), nil, ErrNotTLS, "not_tls"},
		{"a handshake that is cut", closed, nil, ErrCut, "cut"},
		{"a handshake that is cut in the middle", agenttest.Listen(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1024))
			_, _ = c.Write([]byte{22, 3, 3, 0, 100, 2})
		}), nil, ErrCut, "cut"},
		{"a server that is silent", agenttest.Listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), nil, ErrSilent, "timeout"},
		{"a server that wants another certificate", agenttest.Listen(t, good.tls(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })), good.roots, ErrRefused, "tls_refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Explain(dial(t, tt.address, tt.roots))
			if !errors.Is(err, tt.want) || Code(err) != tt.code {
				t.Fatalf("got %v (%s), want %v", err, Code(err), tt.want)
			}
			if again := Explain(fmt.Errorf("later: %w", err)); strings.Count(again.Error(), tt.want.Error()) != 1 {
				t.Errorf("explained twice: %v", again)
			}
		})
	}
	if err := dial(t, agenttest.Listen(t, good.tls(nil)), good.roots); err != nil {
		t.Errorf("a good server: %v", err)
	}
}

// dial connects and reads one byte, because a refusal comes after the handshake.
func dial(t *testing.T, address string, roots *x509.CertPool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestWhatHasNoReasonStaysAsItIs(t *testing.T) {
	err := errors.New("something else")
	if got := Explain(err); !errors.Is(got, err) || got.Error() != err.Error() || Code(got) != "" {
		t.Errorf("got %v, want %v", got, err)
	}
	if got := Explain(nil); got != nil {
		t.Errorf("got %v for no error", got)
	}
	if got := Code(Explain(http.ErrSchemeMismatch)); got != "not_tls" {
		t.Errorf("an HTTP server on the HTTPS port is %q, want not_tls", got)
	}
}
