package uplink

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/protocol"
)

// tlsServer answers connections with serve, inside TLS with a certificate that ends at
// a time.
func tlsServer(t *testing.T, a *agenttest.Authority, ends time.Time, serve func(net.Conn)) string {
	t.Helper()
	cfg := a.Server(t, ends)
	return plainServer(t, func(c net.Conn) {
		if secure := tls.Server(c, cfg); secure.Handshake() == nil {
			serve(secure)
		}
	})
}

func plainServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	return "mqtts://" + agenttest.Listen(t, serve)
}

// TestFaultsOfTheNetwork puts every fault on the port of the broker. The session
// says which it is and what to do, and tries again; what the outbox holds is
// there when the link is good, all of it, once.
func TestFaultsOfTheNetwork(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	ca := agenttest.NewAuthority(t, soon)
	page := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 100))
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>sign in</html>")
	}
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for _, tt := range []struct {
		name string
		url  string
		want error
		code string
	}{
		{"no address for the name", "mqtts://control.invalid:8883", link.ErrName, "dns"},
		{"nobody listens", "mqtts://" + gone.Addr().String(), link.ErrUnreachable, "unreachable"},
		{"another authority", tlsServer(t, agenttest.NewAuthority(t, soon), soon, silent), link.ErrAuthority, "tls_authority"},
		{"expired server certificate", tlsServer(t, ca, time.Now().Add(-time.Minute), silent), link.ErrExpired, "tls_expired"},
		{"cut in the handshake", plainServer(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 100)) }), link.ErrCut, "cut"},
		{"silent in the handshake", plainServer(t, silent), link.ErrSilent, "timeout"},
		{"captive portal without TLS", plainServer(t, page), link.ErrNotTLS, "not_tls"},
		{"captive portal behind a proxy", tlsServer(t, ca, soon, page), ErrNotBroker, "not_broker"},
		{"cut after the handshake", tlsServer(t, ca, soon, func(net.Conn) {}), link.ErrCut, "cut"},
		{"silent after the handshake", tlsServer(t, ca, soon, silent), link.ErrSilent, "timeout"},
		{"a byte a second", tlsServer(t, ca, soon, drip), link.ErrSilent, "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			box, _, err := outbox.Open(filepath.Join(t.TempDir(), "outbox.db"), outbox.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer box.Close()
			const n = 40
			for i := range uint64(n) {
				w := &protocol.Window{Model: "m", Rows: i + 1}
				if err := box.Append(&protocol.Body{Kind: &protocol.Body_Window{Window: w}}); err != nil {
					t.Fatal(err)
				}
			}
			roots := ca.Pool()
			cfg := func(c *Config) {
				c.Outbox, c.ConnectTimeout, c.Brokers = box, 200*time.Millisecond, []string{tt.url}
				c.TLS = func() *tls.Config { return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12} }
			}
			u, stop := run(t, newBroker(t), nil, cfg)
			for deadline := time.Now().Add(20 * time.Second); u.Status().Code == "" && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond) // another goroutine writes the status
			}
			if st := u.Status(); st.Connected || st.Code != tt.code || !strings.Contains(st.LastError, tt.want.Error()) {
				t.Errorf("status is %+v, want %s", st, tt.code)
			}
			stop()
			good := newBroker(t)
			run(t, good, nil, func(c *Config) {
				cfg(c)
				c.Brokers = []string{tlsServer(t, ca, soon, good.serve)}
			})
			for seq := range uint64(n) {
				r := next(t, good.up, func(up *protocol.Up) bool { return up.GetRecord() != nil }).GetRecord()
				if r.GetSeq() != seq+1 {
					t.Fatalf("record %d came in the place of %d", r.GetSeq(), seq+1)
				}
				good.ack(&protocol.Ack{Epoch: r.GetEpoch(), Seq: r.GetSeq(), Chain: r.GetChain(), Total: r.GetTotal()})
			}
		})
	}
}

func drip(c net.Conn) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, b := range []byte{connack << 4, 0x80, 0x80, 0x80} { // a length that never ends
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
		<-tick.C
	}
	_, _ = io.Copy(io.Discard, c)
}

// TestRetriesAreSpreadAndCapped lets the broker end every connection for twelve
// simulated hours: the device tries on, with pauses that differ and never exceed
// their cap, and no oftener than that.
func TestRetriesAreSpreadAndCapped(t *testing.T) {
	address := strings.TrimPrefix(plainServer(t, func(net.Conn) {}), "mqtts")
	const hours = 12
	var tries []time.Time
	synctest.Test(t, func(t *testing.T) {
		u, err := New(Config{
			Device: "cam-1", Brokers: []string{"mqtts" + address}, Outbox: newQueue(3),
			Hello:  func() *protocol.Hello { return &protocol.Hello{} },
			Report: func() *protocol.Report { return &protocol.Report{} },
			TLS: func() *tls.Config { // asked for once in each try
				tries = append(tries, time.Now())
				return &tls.Config{MinVersion: tls.VersionTLS12}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), hours*time.Hour)
		defer cancel()
		if err := u.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	// Full jitter: half of the cap on the average, once it is reached.
	if n, want := len(tries), int(hours*time.Hour/(DefaultMaxBackoff/2)); n < want*3/4 || n > want*5/4+10 {
		t.Errorf("%d tries in %d hours, want about %d", n, hours, want)
	}
	var pauses []time.Duration
	for i := range tries[1:] {
		pauses = append(pauses, tries[i+1].Sub(tries[i]))
	}
	slices.Sort(pauses)
	if longest := pauses[len(pauses)-1]; longest > DefaultMaxBackoff+time.Second || longest < DefaultMaxBackoff*9/10 {
		t.Errorf("the longest pause is %v, want up to %v", longest, DefaultMaxBackoff)
	}
	if quarter, three := pauses[len(pauses)/4], pauses[len(pauses)*3/4]; three-quarter < DefaultMaxBackoff/4 {
		t.Errorf("half of the pauses lie between %v and %v: they are not spread", quarter, three)
	}
	if different := len(slices.Compact(pauses)); different < len(tries)*9/10 {
		t.Errorf("only %d different pauses of %d", different, len(tries))
	}
}
