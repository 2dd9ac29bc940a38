package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/link"
)

// behind is a server with the plane's certificate that answers with h.
func (p *plane) behind(h http.HandlerFunc) string {
	p.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = p.server.Config.ErrorLog
	s.TLS = &tls.Config{Certificates: p.server.TLS.Certificates, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	p.t.Cleanup(s.Close)
	return s.URL
}

// TestFaultsOfTheNetwork puts every fault between a device and its control plane
// while it enrols, renews and asks whether it is admitted: the same reason each
// time, and afterwards it does what it was to do.
func TestFaultsOfTheNetwork(t *testing.T) {
	p, other, expired := newPlane(t), newPlane(t), newPlane(t)
	expired.ca, expired.caKey = p.ca, p.caKey
	expired.ends = time.Now().Add(-400 * 24 * time.Hour)
	expired.server.Close()
	expired.serve([]string{"127.0.0.1"})
	page := func(res http.ResponseWriter, _ *http.Request) {
		res.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(res, "<html>sign in</html>")
	}
	drip := func(res http.ResponseWriter, req *http.Request) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			_, _ = res.Write([]byte(" "))
			res.(http.Flusher).Flush()
			select {
			case <-tick.C:
			case <-req.Context().Done():
				return
			}
		}
	}
	for _, tt := range []struct {
		name string
		api  string
		want error
		code string
	}{
		{"no address for the name", "https://control.invalid", ErrUnreachable, "dns"},
		{"nobody listens", "https://" + closedPort(t), ErrUnreachable, "unreachable"},
		{"another authority", other.server.URL, ErrWrongCA, ""},
		{"expired server certificate", expired.server.URL, link.ErrExpired, "tls_expired"},
		{"cut in the handshake", "https://" + agenttest.Listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 100)) }), ErrUnreachable, "cut"},
		{"silent in the handshake", "https://" + agenttest.Listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), ErrUnreachable, "timeout"},
		{"captive portal without TLS", "https://" + agenttest.Listen(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
		}), ErrWrongCA, "not_tls"},
		{"captive portal behind a proxy", p.behind(page), ErrAnswer, ""},
		{"redirect to a portal", p.behind(func(res http.ResponseWriter, req *http.Request) {
			http.Redirect(res, req, "http://portal.invalid/login", http.StatusFound)
		}), ErrAnswer, ""},
		{"500", p.behind(func(res http.ResponseWriter, _ *http.Request) { http.Error(res, "oops", 500) }), ErrServer, ""},
		{"502 with a page", p.behind(func(res http.ResponseWriter, req *http.Request) { res.WriteHeader(502); page(res, req) }), ErrServer, ""},
		{"silent after the handshake", p.behind(func(_ http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body)
			<-req.Context().Done()
		}), ErrUnreachable, "timeout"},
		{"a byte a second", p.behind(drip), ErrUnreachable, "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Timeout: 300 * time.Millisecond}
			dir := t.TempDir()
			check := func(doing string, err error) {
				t.Helper()
				code := link.Code(err)
				if code == "tls_authority" { // known by its digest while enrolling, by TLS later
					code = ""
				}
				if !errors.Is(err, tt.want) || code != tt.code {
					t.Errorf("%s: %v (%s), want %v (%s)", doing, err, code, tt.want, tt.code)
				}
			}
			_, err := Enrol(t.Context(), dir, p.tokenFor(tt.api), Options{Config: cfg})
			check("enrol", err)
			i := enrol(t, p, dir)
			moved := *i.state
			moved.DeviceAPI = tt.api
			lost := newIdentity(dir, cfg.withDefaults(), &moved)
			check("renew", lost.Renew(t.Context()))
			if !strings.HasPrefix(tt.name, "captive portal behind") { // it answers this question as it answers all
				check("admitted", lost.Admitted(t.Context()))
			}
			if err := i.Renew(t.Context()); err != nil {
				t.Errorf("renew over a good network: %v", err)
			}
		})
	}
}

// TestRenewalIsPatient lets a control plane be away for four simulated days: the
// device asks no oftener than its pauses say, jittered and capped, all the time.
func TestRenewalIsPatient(t *testing.T) {
	var asked int
	var mu sync.Mutex
	api := "https://" + agenttest.Listen(t, func(net.Conn) { // takes the connection and ends it
		mu.Lock()
		asked++
		mu.Unlock()
	})
	p := newPlane(t)
	p.begins, p.lifetime = buildTime().Add(-100*time.Hour), 101*time.Hour
	i := enrol(t, p, t.TempDir())
	moved := *i.state
	moved.DeviceAPI = api
	i.state = &moved
	const days = 4
	synctest.Test(t, func(t *testing.T) {
		i.clock.heard = time.Now() // the bubble has a monotonic clock of its own
		ctx, cancel := context.WithTimeout(t.Context(), days*24*time.Hour)
		defer cancel()
		if err := i.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("run ended with %v", err)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	// Full jitter: once the pauses are capped, half of retryMax on the average.
	if want := int(days * 24 * time.Hour / (retryMax/2 + retryMin/2)); asked < want*3/4 || asked > want*5/4+10 {
		t.Errorf("asked %d times in %d days, want about %d", asked, days, want)
	}
}
