package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/uplink"
	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
)

// authority issues the certificates of one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) issue(name string) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// everyone admits every certificate of the authority.
type everyone struct{}

func (everyone) Admit(string, *x509.Certificate) error { return nil }

// site is the server half: the embedded broker and ingest over real files.
type site struct {
	t      *testing.T
	ca     *authority
	dir    string
	addr   string
	broker *broker.Broker
	ingest *ingest.Ingest
}

func (s *site) start() {
	s.t.Helper()
	cert := s.ca.issue("server")
	b, err := broker.Start(broker.Config{Dir: s.dir, MQTT: s.addr, TLS: &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: s.ca.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	cursors, err := kvstore.Open(s.t.Context(), b.Conn(), "CURSORS")
	if err != nil {
		s.t.Fatal(err)
	}
	s.broker, s.addr = b, b.MQTTAddr()
	if s.ingest, err = ingest.Start(s.t.Context(), b.Conn(), ingest.Config{Cursors: cursors}); err != nil {
		s.t.Fatal(err)
	}
	b.Open(everyone{})
}

func (s *site) stop() {
	s.ingest.Stop(context.Background())
	s.broker.Close()
}

// totals reads the whole stream until it accounts for want.
func (s *site) totals(want outbox.Sum) outbox.Sum {
	s.t.Helper()
	// Longer than a connection attempt may hang that the server's end caught in
	// its handshake (30 s).
	ctx, cancel := context.WithTimeout(s.t.Context(), 90*time.Second)
	defer cancel()
	var sv server
	err := s.ingest.Follow(ctx, 1, func(_ uint64, a *protocol.Accepted) error {
		sv.store(a, sound)
		if add(sv.held, sv.lost) == want {
			cancel()
		}
		return nil
	})
	if ctx.Err() == nil {
		s.t.Fatal(err)
	}
	if sv.uncertain {
		s.t.Error("totals are uncertain")
	}
	return add(sv.held, sv.lost)
}

func (s *site) uplink(device string, o *outbox.Outbox, cert tls.Certificate) *uplink.Uplink {
	s.t.Helper()
	u, err := uplink.New(uplink.Config{
		Device: device, Brokers: []string{"mqtts://" + s.addr}, Outbox: o, AckTimeout: time.Second, MaxBackoff: 100 * time.Millisecond,
		TLS:    func() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: s.ca.pool} },
		Hello:  func() *protocol.Hello { return &protocol.Hello{AgentVersion: "test"} },
		Report: func() *protocol.Report { return &protocol.Report{} },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

// Four devices generate over the real MQTT wire while the server is stopped and
// started under them; every row and label arrives exactly once.
func TestTotalsOverTheWire(t *testing.T) {
	s := &site{t: t, ca: newAuthority(t), dir: t.TempDir(), addr: "127.0.0.1:0"}
	s.start()
	defer func() { s.stop() }()
	ctx, cancel := context.WithCancel(t.Context())
	var running, generating sync.WaitGroup
	var rows, labels atomic.Uint64
	for n, name := range []string{"cam-a", "cam-b", "cam-c", "cam-d"} {
		o, _, err := outbox.Open(filepath.Join(t.TempDir(), "outbox.db"), outbox.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		u := s.uplink(name, o, s.ca.issue(name))
		running.Go(func() {
			if err := u.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		generating.Go(func() {
			for k := range uint64(100) {
				w := protocol.Body{Kind: &protocol.Body_Window{Window: &protocol.Window{Model: "m", Release: digest, Rows: k + uint64(n)}}}
				l := protocol.Body{Kind: &protocol.Body_Labels{Labels: &protocol.Labels{Model: "m", Release: digest, Matched: 1}}}
				if err := o.Append(&w, &l); err != nil {
					t.Errorf("Append: %v", err)
				}
				rows.Add(k + uint64(n))
				labels.Add(1)
			}
		})
	}
	s.stop()
	generating.Wait()
	s.start()
	want := outbox.Sum{Rows: rows.Load(), Labels: labels.Load()}
	if got := s.totals(want); got != want {
		t.Errorf("server accounts for %+v, generated %+v", got, want)
	}
	cancel()
	running.Wait()
}
