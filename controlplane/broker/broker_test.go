package broker_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// site is a control plane as far as devices see it.
type site struct {
	t         testing.TB
	dir       string
	ca        *access.CA
	authority *access.Authority
	broker    *broker.Broker
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	s := &site{t: tb, dir: tb.TempDir(), ca: brokertest.CA(tb)}
	s.start()
	return s
}

// start runs the broker with the real certificates and revocations.
func (s *site) start() {
	s.t.Helper()
	s.broker = brokertest.StartAt(s.t, s.dir, s.ca)
	bucket, err := kvstore.Open(s.t.Context(), s.broker.Conn(), "ACCESS")
	if err != nil {
		s.t.Fatal(err)
	}
	s.authority, err = access.Open(s.t.Context(), access.Config{
		CA: s.ca, Dir: s.t.TempDir(), Bucket: bucket, Cut: s.broker.Disconnect,
		DeviceAPI: "https://localhost:1", MQTT: []string{"mqtts://localhost:1"},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.authority.Close)
	s.broker.Open(s.authority)
}

// device enrols and returns the TLS configuration of its connection.
func (s *site) device(id string) *tls.Config {
	s.t.Helper()
	secret, err := s.authority.CreateEnrolToken(s.t.Context(), operator.EnrolTokenCreate{Device: id, Replace: true})
	if err != nil {
		s.t.Fatal(err)
	}
	key, csr := request(s.t, id)
	e, err := s.authority.Enrol(s.t.Context(), protocol.EnrolRequest{Token: secret.Secret, CSR: csr})
	if err != nil {
		s.t.Fatal(err)
	}
	block, _ := pem.Decode(e.Certificate)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(e.CA)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}},
		RootCAs:      roots, ServerName: "localhost",
	}
}

func request(tb testing.TB, id string) (*ecdsa.PrivateKey, string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: id}}, key)
	if err != nil {
		tb.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// online connects a device under its own name.
func (s *site) online(id string) *client {
	s.t.Helper()
	return s.as(s.device(id), id)
}

func (s *site) as(cfg *tls.Config, id string) *client {
	s.t.Helper()
	c, err := dial(s.t, s.broker.MQTTAddr(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	if code, err := c.login(id, true, nil); err != nil || code != accepted {
		s.t.Fatalf("connect as %s: code %d, %v", id, code, err)
	}
	return c
}

// tap subscribes to everything inside the control plane.
func (s *site) tap() *nats.Subscription {
	s.t.Helper()
	sub, err := s.broker.Conn().SubscribeSync(">")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.broker.Ping(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return sub
}

// A stream's bound may be larger than the disk: how much is free when the server
// starts must not decide whether it does.
func TestBoundsAreNoReservations(t *testing.T) {
	js, err := jetstream.New(newSite(t).broker.Conn())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LARGE", Subjects: []string{"large"}, MaxBytes: 1 << 49}); err != nil {
		t.Error(err)
	}
}

func TestDeviceSpeaksAndIsSpokenTo(t *testing.T) {
	s := newSite(t)
	up, err := s.broker.Conn().SubscribeSync(protocol.Subject("vedette/v1/+/up"))
	if err != nil {
		t.Fatal(err)
	}
	c := s.online("cam-1")
	if got := c.subscribe(protocol.DownFilter("cam-1"), 0); got != 0 {
		t.Fatalf("subscribe: code %#x", got)
	}
	if err := c.publish(protocol.UpTopic("cam-1"), "hello", qos1); err != nil {
		t.Fatal(err)
	}
	m, err := up.NextMsg(wait)
	if err != nil || m.Subject != "vedette.v1.cam-1.up" || string(m.Data) != "hello" {
		t.Fatalf("got %+v, %v", m, err)
	}
	if err := s.broker.Conn().Publish(protocol.Subject(protocol.AckTopic("cam-1")), []byte("ack")); err != nil {
		t.Fatal(err)
	}
	if got, want := c.next(), (message{protocol.AckTopic("cam-1"), "ack", 0}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestForeignSubscriptionsAreRefused(t *testing.T) {
	s := newSite(t)
	c := s.online("cam-1")
	for _, filter := range []string{
		"#", "+", "vedette/#", "vedette/v1/#", "vedette/v1/+/up", "vedette/v1/+/down/+", "vedette/+/cam-1/down/+",
		"vedette/v1/cam-1/#", "vedette/v1/cam-1/down/#", "vedette/v1/cam-1/up", "vedette/v1/cam-1/status",
		"vedette/v1/cam-2/down/+", "vedette/v1/cam-2/down/ack", "vedette/v1/cam-1/down/ack/more",
		"$SYS/#", "$SYS/ACCOUNT/+/CONNECT", "$JS/#", "$JS/API/STREAM/LIST", "$JS/EVENT/#", "$MQTT/#", "$MQTT/sub/#", "$MQTT/msgs/#",
		"$MQTT/deliver/pubrel/+", "$KV/#", "$KV/ACCESS/#", "$O/#", "ledger/#", "in/#", "_INBOX/#", "_INBOX/+", "$share/g/vedette/v1/cam-2/down/+",
	} {
		for qos := range byte(2) {
			if got := c.subscribe(filter, qos); got != refused {
				t.Errorf("subscribe %s with QoS %d: code %#x, want refused", filter, qos, got)
			}
		}
	}
	c.sync() // still connected: a refusal is no reason to break off
}

func TestForeignPublishesGoNowhere(t *testing.T) {
	s := newSite(t)
	victim := s.online("cam-2")
	if got := victim.subscribe(protocol.DownFilter("cam-2"), 0); got != 0 {
		t.Fatalf("subscribe: code %#x", got)
	}
	tap := s.tap()
	cfg := s.device("cam-1")
	for _, topic := range []string{
		"vedette/v1/cam-2/up", "vedette/v1/cam-2/status", "vedette/v1/cam-2/down/desired", "vedette/v1/cam-1/down/desired",
		"vedette/v1/cam-1/up/more", "vedette/v1/cam-1", "in/cam-1", "ledger/operator", "$KV/ACCESS/token/x",
		"$JS/API/STREAM/DELETE/KV_ACCESS", "$SYS/REQ/SERVER/PING", "$MQTT/msgs/x", "$MQTT/rmsgs/x", "$MQTT/sess/x", "_INBOX/x", "other",
	} {
		for _, flags := range []byte{0, qos1, retain, qos1 | retain} {
			c := s.as(cfg, "cam-1")
			// Refused in silence or by closing: both are fine.
			if err := c.publish(topic, "forged", flags); err == nil {
				_ = c.send(pingreq, nil)
				_, _ = c.await(pingresp)
			}
			c.conn.Close()
		}
	}
	victim.sync()
	if len(victim.messages) > 0 {
		t.Errorf("another device got %+v", victim.messages)
	}
	for {
		m, err := tap.NextMsg(50 * time.Millisecond)
		if err != nil {
			break
		}
		if strings.Contains(string(m.Data), "forged") {
			t.Errorf("%s was published", m.Subject)
		}
	}
	if _, err := s.authority.Tokens(t.Context()); err != nil {
		t.Errorf("the bucket is gone: %v", err)
	}
}

func TestForeignWillIsNotPublished(t *testing.T) {
	s := newSite(t)
	status, err := s.broker.Conn().SubscribeSync("vedette.v1.*.status")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.device("cam-1")
	for _, retained := range []bool{false, true} {
		c, err := dial(t, s.broker.MQTTAddr(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.login("cam-1", true, &will{topic: protocol.StatusTopic("cam-2"), payload: "forged", retain: retained})
		if err == nil {
			c.sync()
		}
		c.conn.Close() // without DISCONNECT: the will is due
	}
	own, err := dial(t, s.broker.MQTTAddr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := own.login("cam-1", true, &will{topic: protocol.StatusTopic("cam-1"), payload: "gone"}); err != nil || code != accepted {
		t.Fatalf("connect with its own will: code %d, %v", code, err)
	}
	own.conn.Close()
	m, err := status.NextMsg(wait)
	if err != nil || m.Subject != "vedette.v1.cam-1.status" || string(m.Data) != "gone" {
		t.Errorf("got %+v, %v; want its own will alone", m, err)
	}
}

func TestNothingIsRetained(t *testing.T) {
	s := newSite(t)
	c := s.online("cam-1")
	for _, topic := range []string{protocol.UpTopic("cam-1"), protocol.StatusTopic("cam-1")} {
		if err := c.publish(topic, "keep me", qos1|retain); err != nil {
			t.Fatal(err)
		}
	}
	c.sync()
	js, err := jetstream.New(s.broker.Conn())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "$MQTT_rmsgs")
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context())
	if err != nil || info.State.Msgs != 0 {
		t.Errorf("%d messages are retained, %v", info.State.Msgs, err)
	}
}

func TestClientIDMustBeTheCertificatesName(t *testing.T) {
	s := newSite(t)
	victim := s.online("cam-2")
	cfg := s.device("cam-1")
	for _, id := range []string{"cam-2", "", "cam-1 ", "CAM-1", "cam-1/x", `cam-2 - "cam-1"`, `cam-2" - "cam-1`} {
		c, err := dial(t, s.broker.MQTTAddr(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if code, err := c.login(id, true, nil); err == nil && code == accepted {
			t.Errorf("connected as %q", id)
		}
		c.conn.Close()
	}
	victim.sync() // was not thrown off
}

// A device whose connection died without a word comes back at once,
// while the server still believes in the old one.
func TestADeviceTakesItsOwnSessionOver(t *testing.T) {
	s := newSite(t)
	cfg := s.device("cam-1")
	old := s.as(cfg, "cam-1")
	began := time.Now()
	back := s.as(cfg, "cam-1")
	if took := time.Since(began); took > wait/2 {
		t.Errorf("it had to wait for %v", took)
	}
	old.closed()
	if got := back.subscribe(protocol.DownFilter("cam-1"), 0); got != 0 {
		t.Errorf("subscribe: code %#x", got)
	}
}

func TestWithoutADeviceCertificateNobodyComesIn(t *testing.T) {
	s := newSite(t)
	good := s.device("cam-1")
	none := good.Clone()
	none.Certificates = nil
	foreign := newSiteCA(t).Clone()
	foreign.RootCAs = good.RootCAs
	for name, cfg := range map[string]*tls.Config{"no certificate": none, "another CA": foreign} {
		c, err := dial(t, s.broker.MQTTAddr(), cfg)
		if err != nil {
			continue
		}
		if code, err := c.login("cam-1", true, nil); err == nil {
			t.Errorf("%s: connected, code %d", name, code)
		}
	}
	plain, err := net.Dial("tcp", s.broker.MQTTAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	fmt.Fprintf(plain, "CONNECT {\"verbose\":false}\r\nPING\r\n")
	if err := plain.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	if n, _ := plain.Read(answer); strings.Contains(string(answer[:n]), "INFO") {
		t.Errorf("the server speaks without TLS: %q", answer[:n])
	}
}

// newSiteCA is the configuration of a device of another control plane.
func newSiteCA(t *testing.T) *tls.Config {
	t.Helper()
	return newSite(t).device("cam-1")
}

func TestRevocationCutsOff(t *testing.T) {
	s := newSite(t)
	cfg := s.device("cam-1")
	c, other := s.as(cfg, "cam-1"), s.online("cam-2")
	if err := s.authority.RevokeDevice(t.Context(), "cam-1", "stolen"); err != nil {
		t.Fatal(err)
	}
	c.closed()
	again, err := dial(t, s.broker.MQTTAddr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := again.login("cam-1", true, nil); err == nil && code == accepted {
		t.Error("a revoked device came back")
	}
	other.sync()
	s.broker.Close()
	s.start()
	again, err = dial(t, s.broker.MQTTAddr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := again.login("cam-1", true, nil); err == nil && code == accepted {
		t.Error("a revoked device came back after a restart")
	}
}

func TestReplacedDeviceIsCutOff(t *testing.T) {
	s := newSite(t)
	old := s.device("cam-1")
	c := s.as(old, "cam-1")
	fresh := s.device("cam-1")
	c.closed()
	s.as(fresh, "cam-1").sync()
	again, err := dial(t, s.broker.MQTTAddr(), old)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := again.login("cam-1", true, nil); err == nil && code == accepted {
		t.Error("the replaced device came back")
	}
}

func TestOversizePayloadIsRefused(t *testing.T) {
	s := newSite(t)
	up, err := s.broker.Conn().SubscribeSync("vedette.v1.*.up")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.device("cam-1")
	c := s.as(cfg, "cam-1")
	if err := c.publish(protocol.UpTopic("cam-1"), strings.Repeat("x", protocol.MaxPayload), qos1); err != nil {
		t.Fatalf("largest payload: %v", err)
	}
	if m, err := up.NextMsg(wait); err != nil || len(m.Data) != protocol.MaxPayload {
		t.Fatalf("largest payload: %v", err)
	}
	if err := c.publish(protocol.UpTopic("cam-1"), strings.Repeat("x", protocol.MaxPayload+1), qos1); err == nil {
		t.Error("a payload over the limit was acknowledged")
	}
	if m, err := up.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("a payload of %d bytes came through", len(m.Data))
	}
	s.as(cfg, "cam-1").sync() // the device may come back
}

func TestSubscriptionsAreBounded(t *testing.T) {
	s := newSite(t)
	c := s.online("cam-1")
	granted := 0
	for i := range 20 {
		c.id++
		body := append([]byte{0, byte(i + 1)}, text(fmt.Sprintf("vedette/v1/cam-1/down/x%d", i))...)
		if err := c.send(subscribe, append(body, 0)); err != nil {
			break
		}
		answer, err := c.await(suback)
		if err != nil {
			break
		}
		if answer[2] != refused {
			granted++
		}
	}
	if granted > 8 || granted == 0 {
		t.Errorf("%d subscriptions were granted, want 1 to 8", granted)
	}
}

// Devices are at the door before the control plane is ready, and stay there.
func TestDevicesWaitForOpen(t *testing.T) {
	s := newSite(t)
	cfg := s.device("cam-1")
	s.broker.Close()
	s.broker = brokertest.StartAt(t, s.dir, s.ca)
	c, err := dial(t, s.broker.MQTTAddr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := c.login("cam-1", true, nil)
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("the device was answered before Open: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.broker.Open(brokertest.AdmitAll{})
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

func TestStartRefuses(t *testing.T) {
	first := brokertest.Start(t)
	ca := brokertest.CA(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	locked := t.TempDir()
	brokertest.StartAt(t, locked, ca)
	for name, c := range map[string]struct {
		cfg  broker.Config
		want error
		text string
	}{
		"port taken":      {broker.Config{Dir: t.TempDir(), MQTT: first.MQTTAddr(), TLS: ca.ServerTLS()}, broker.ErrPortInUse, "another control plane"},
		"store locked":    {broker.Config{Dir: locked, MQTT: "127.0.0.1:0", TLS: ca.ServerTLS()}, broker.ErrLocked, fmt.Sprintf("process %d", os.Getpid())},
		"store is a file": {broker.Config{Dir: file, MQTT: "127.0.0.1:0", TLS: ca.ServerTLS()}, broker.ErrStore, file},
		"no TLS":          {broker.Config{Dir: t.TempDir(), MQTT: "127.0.0.1:0"}, nil, "certificate"},
		"no port":         {broker.Config{Dir: t.TempDir(), MQTT: "127.0.0.1", TLS: ca.ServerTLS()}, nil, "missing port"},
		"foreign address": {broker.Config{Dir: t.TempDir(), MQTT: "192.0.2.1:1883", TLS: ca.ServerTLS()}, nil, "192.0.2.1"},
	} {
		b, err := broker.Start(c.cfg)
		if err == nil {
			b.Close()
			t.Errorf("%s: started", name)
			continue
		}
		if c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v, want %v and %q", name, err, c.want, c.text)
		}
	}
	// What was refused holds nothing: the same directory starts afterwards.
	brokertest.StartAt(t, t.TempDir(), ca)
}

func TestUnwritableStore(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root can write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := broker.Start(broker.Config{Dir: dir, MQTT: "127.0.0.1:0", TLS: brokertest.CA(t).ServerTLS()})
	if !errors.Is(err, broker.ErrStore) {
		t.Errorf("got %v, want ErrStore", err)
	}
}

// With the shared connection and one per user, the control plane's own messages
// may be larger than a device's.
func TestConnectionsInside(t *testing.T) {
	b := brokertest.Start(t)
	nc, err := b.Connect("second")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("inside")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := b.Conn().Publish("inside", make([]byte, kvstore.MaxValue)); err != nil {
		t.Fatal(err)
	}
	if m, err := sub.NextMsg(wait); err != nil || len(m.Data) != kvstore.MaxValue {
		t.Errorf("got %v", err)
	}
	for range 20 { // far more than a device may have
		if _, err := nc.SubscribeSync(nats.NewInbox()); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil || nc.LastError() != nil {
		t.Errorf("subscriptions: %v, %v", err, nc.LastError())
	}
}

// What one device costs that comes back after an outage: a full TLS handshake,
// CONNECT and its subscription, client and server on the same cores.
func BenchmarkConnect(b *testing.B) {
	s := newSite(b)
	cfg := s.device("cam-1")
	for b.Loop() {
		c := s.as(cfg, "cam-1")
		if got := c.subscribe(protocol.DownFilter("cam-1"), 0); got != 0 {
			b.Fatalf("subscribe: code %#x", got)
		}
		c.conn.Close()
	}
}

// How many synced messages a second the store takes from concurrent writers.
func BenchmarkSyncedPublish(b *testing.B) {
	nc := brokertest.Start(b).Conn()
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "BENCH", Subjects: []string{"bench.>"}}); err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, 1024)
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	var once sync.Once
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := js.Publish(ctx, "bench.x", payload); err != nil {
				once.Do(func() { b.Error(err) })
				return
			}
		}
	})
}
