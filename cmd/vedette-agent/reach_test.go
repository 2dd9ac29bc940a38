package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Every way in which a control plane cannot be reached has a name and advice.
func TestUnreachableIsNamed(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "https://" + closed.Addr().String()
	closed.Close()
	portal := httptest.NewServer(http.NotFoundHandler())
	defer portal.Close()
	other := httptest.NewUnstartedServer(http.NotFoundHandler())
	other.Config.ErrorLog = log.New(io.Discard, "", 0)
	other.StartTLS()
	defer other.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	trusting := other.Client().Transport.(*http.Transport).TLSClientConfig
	elsewhere := trusting.Clone()
	elsewhere.ServerName = "control.invalid"
	for name, c := range map[string]struct {
		address    string
		config     *tls.Config
		what, next string
	}{
		"nobody":        {nobody, &tls.Config{}, "nothing listens there", "control plane runs"},
		"portal":        {strings.Replace(portal.URL, "http:", "https:", 1), &tls.Config{}, "does not speak TLS", "captive portal"},
		"other server":  {other.URL, &tls.Config{RootCAs: x509.NewCertPool()}, "another server answers", "captive portal"},
		"other name":    {other.URL, elsewhere, "another server answers", "enrol again"},
		"no such name":  {"https://control.invalid:1", &tls.Config{}, "name", "/etc/resolv.conf"},
		"no way to say": {"://", &tls.Config{}, "cannot connect", "firewall"},
	} {
		err := dial(t.Context(), c.address, c.config)
		if err == nil {
			t.Errorf("%s: connected", name)
			continue
		}
		if what, next := unreachable(err); !strings.Contains(what, c.what) || !strings.Contains(next, c.next) {
			t.Errorf("%s: %v is %q, %q; want %q, %q", name, err, what, next, c.what, c.next)
		}
	}
	if err := dial(t.Context(), other.URL, trusting); err != nil {
		t.Errorf("a server that is all right: %v", err)
	}
	for err, want := range map[error]string{context.DeadlineExceeded: "no answer", io.EOF: "cannot connect"} {
		if what, _ := unreachable(err); what != want {
			t.Errorf("%v is %q, want %q", err, what, want)
		}
	}
}
