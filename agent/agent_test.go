package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// enrol makes dir the state of an enrolled device. The control plane is gone
// afterwards: an agent has to work without one.
func enrol(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	sign := func(template *x509.Certificate, public any) []byte {
		der, err := x509.CreateCertificate(rand.Reader, template, ca, public, key)
		if err != nil {
			t.Error(err)
		}
		return der
	}
	der := sign(ca, key.Public())
	text := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in protocol.EnrolRequest
		_ = json.NewDecoder(r.Body).Decode(&in) // what is missing fails below
		block, _ := pem.Decode([]byte(in.CSR))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Error(err)
		}
		device := sign(&x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "cam-1"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, csr.PublicKey)
		_ = json.NewEncoder(w).Encode(protocol.EnrolResponse{Device: "cam-1", Certificate: text(device), CA: text(der), ServerMS: time.Now().UnixMilli()})
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	defer server.Close()
	token, err := (&protocol.EnrolmentToken{
		DeviceAPI: server.URL, MQTT: []string{"mqtts://" + server.Listener.Addr().String()}, CA: sha256.Sum256(der),
		Root: release.DigestOf([]byte("root.json")), Secret: "e1.x", Expires: ca.NotAfter,
	}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Enrol(t.Context(), filepath.Join(dir, IdentityDir), token, identity.Options{}); err != nil {
		t.Fatal(err)
	}
}

// install makes a scripted release the active one, as an update would have.
func install(t *testing.T, dir string, script agenttest.Script) {
	t.Helper()
	activate(t, dir, "v1", 1, script, func(held *slots.Slots) *slots.Slots { return held })
}

// activate puts a scripted release into those slots of a device that in picks.
func activate(t *testing.T, dir, version string, sequence uint64, script agenttest.Script, in func(*slots.Slots) *slots.Slots) *agenttest.Bundle {
	t.Helper()
	b, err := agenttest.NewBundle("meter", version, sequence, release.Limits{}, script)
	if err != nil {
		t.Fatal(err)
	}
	files, err := slots.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	all, err := slots.Open(files, dir)
	if err != nil {
		t.Fatal(err)
	}
	held := in(all)
	staged, err := held.Stage("meter", b.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return b.Write(staged) },
		func() error { return held.Verify("meter", b.Digest) },
		func() error {
			return held.Prove("meter", slots.Slot{Release: b.Digest, Variant: "variant-0", P95: time.Millisecond})
		},
		func() error { return held.Activate("meter", b.Digest) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// device is an agent that runs.
type device struct {
	*Agent
	t     *testing.T
	log   safeLog
	stop  context.CancelFunc
	ended chan error
}

func config(state string) Config {
	return Config{State: state, Runtime: agenttest.Runtime{}, Listen: "127.0.0.1:0", Version: "test"}
}

func launch(t *testing.T, cfg Config) *device {
	t.Helper()
	d := &device{t: t, ended: make(chan error, 1)}
	cfg.Logger = slog.New(slog.NewTextHandler(&d.log, nil))
	var err error
	if d.Agent, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	go func() {
		err := d.Run(ctx)
		d.ended <- errors.Join(err, d.Close())
	}()
	t.Cleanup(cancel)
	return d
}

// halt stops the agent and returns what Run and Close said.
func (d *device) halt() error {
	d.t.Helper()
	d.stop()
	select {
	case err := <-d.ended:
		return err
	case <-time.After(30 * time.Second):
		d.t.Fatal("the agent does not stop")
		return nil
	}
}

// url waits until predictions are served and returns where.
func (d *device) url() string {
	d.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if at := strings.Index(d.log.String(), "predictions are served"); at >= 0 {
			return "http://" + d.server.Addr().String()
		}
	}
	d.t.Fatalf("predictions are not served:\n%s", d.log.String())
	return ""
}

func (d *device) infer() (status int, answer string) {
	d.t.Helper()
	body := `{"inputs":[{"name":"X","shape":[2,4],"datatype":"FP32","data":[1,2,3,4,5,6,7,8]}]}`
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.url()+"/v2/models/meter/infer", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

// safeLog is written by many and read by one.
type safeLog struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// counted is what waits to be sent: rows of windows, and events by kind.
func counted(t *testing.T, state string) (rows uint64, events []string) {
	t.Helper()
	box, salvage, err := outbox.Open(filepath.Join(state, outboxFile), outbox.Options{})
	if err != nil || salvage != nil {
		t.Fatalf("open outbox: %v, salvage %+v", err, salvage)
	}
	defer box.Close()
	records, err := box.Send(protocol.MaxSent)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		b := &protocol.Body{}
		if err := proto.Unmarshal(r.GetBody(), b); err != nil {
			t.Fatal(err)
		}
		rows += b.GetWindow().GetRows()
		if k := b.GetEvent().GetKind(); k != "" {
			events = append(events, k)
		}
	}
	return rows, events
}

// The way of a device that has been on before and has no network now.
func TestServesAndCountsWithoutNetwork(t *testing.T) {
	state := t.TempDir()
	enrol(t, state)
	install(t, state, agenttest.Script{})
	cfg := config(state)
	cfg.GRPC, cfg.GRPCSocket = "127.0.0.1:0", filepath.Join(t.TempDir(), "grpc.sock")
	d := launch(t, cfg)
	if status, answer := d.infer(); status != http.StatusOK || !strings.Contains(answer, `"model_version":"v1"`) {
		t.Errorf("answer %d %s", status, answer)
	}
	where := fmt.Sprintf("address=%v grpc_address=%v grpc_socket=%s\n", d.server.Addr(), d.server.GRPCAddr(), cfg.GRPCSocket)
	if got := d.log.String(); !strings.Contains(got, where) {
		t.Errorf("logged\n%s want %s", got, where)
	}
	if s := d.status(); s.Device != "cam-1" || s.Uplink.Connected || len(s.Updates) != 1 {
		t.Errorf("status %+v", s)
	}
	if err := d.halt(); err != nil {
		t.Fatal(err)
	}
	if got := d.log.String(); strings.Contains(got, "level=ERROR") || strings.Count(got, "level=WARN") > 1 {
		t.Errorf("logged\n%s", got)
	}
	rows, events := counted(t, state)
	if rows != 2 || len(events) != 0 {
		t.Errorf("%d rows and events %v wait, want 2 rows and none", rows, events)
	}
	again := launch(t, config(state))
	if again.boot.Count != 2 || again.boot.Unclean {
		t.Errorf("start %d, unclean %v; want 2, clean", again.boot.Count, again.boot.Unclean)
	}
	if status, _ := again.infer(); status != http.StatusOK {
		t.Errorf("after a restart: %d", status)
	}
	if err := again.halt(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatNewRefuses(t *testing.T) {
	state := t.TempDir()
	if _, err := New(config(state)); !errors.Is(err, identity.ErrNotEnrolled) {
		t.Errorf("not enrolled: %v", err)
	}
	enrol(t, state)
	d := launch(t, config(state))
	d.url()
	if _, err := New(config(state)); !errors.Is(err, outbox.ErrInUse) {
		t.Errorf("second agent: %v, want %v", err, outbox.ErrInUse)
	}
	if err := d.halt(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(state, trustDir)), os.WriteFile(filepath.Join(state, trustDir), nil, 0o600)); err != nil { // where a folder should be
		t.Fatal(err)
	}
	if _, err := New(config(state)); err == nil || !strings.Contains(err.Error(), "open trust") {
		t.Errorf("damaged trust: %v", err)
	}
	if err := os.Remove(filepath.Join(state, trustDir)); err != nil {
		t.Fatal(err)
	}
	after := launch(t, config(state))
	if after.boot.Unclean {
		t.Error("a start that came to nothing counts as a crash")
	}
	if err := after.halt(); err != nil {
		t.Fatal(err)
	}
}

// A device whose identity is damaged serves what it has and says so; enrolled
// again, it is as before, and nothing it counted meanwhile is missing.
func TestDamagedIdentityKeepsServing(t *testing.T) {
	state := t.TempDir()
	enrol(t, state)
	path := filepath.Join(state, identityDir, "identity.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(config(state)); !errors.Is(err, identity.ErrDamaged) {
		t.Errorf("with nothing to serve: %v, want %v", err, identity.ErrDamaged)
	}
	install(t, state, agenttest.Script{})
	for _, damaged := range []bool{true, false} {
		content := good
		if damaged {
			content = good[:len(good)/2]
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		d := launch(t, config(state))
		if status, answer := d.infer(); status != http.StatusOK {
			t.Errorf("damaged %t: %d %s", damaged, status, answer)
		}
		s := d.status()
		if got := s.Uplink.Code == codeIdentity && s.Device == ""; got != damaged {
			t.Errorf("damaged %t: device %q, uplink %+v", damaged, s.Device, s.Uplink)
		}
		if got := strings.Contains(d.Summary(), "identity is damaged"); got != damaged {
			t.Errorf("damaged %t: %s", damaged, d.Summary())
		}
		if got := strings.Contains(d.log.String(), "enrol again"); got != damaged {
			t.Errorf("damaged %t: logged\n%s", damaged, d.log.String())
		}
		if err := d.halt(); err != nil {
			t.Error(err)
		}
	}
	if rows, _ := counted(t, state); rows != 4 {
		t.Errorf("%d rows are counted, want 4", rows)
	}
}

// A stage that fails ends the others, with its reason, and is no crash.
func TestFailedStageEndsTheRun(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	state := t.TempDir()
	enrol(t, state)
	cfg := config(state)
	cfg.Listen = taken.Addr().String()
	d := launch(t, cfg)
	select {
	case err := <-d.ended:
		if err == nil || !strings.Contains(err.Error(), "--listen") {
			t.Errorf("Run: %v, want what to do about the address", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the agent goes on without serving")
	}
	if got := d.log.String(); !strings.Contains(got, `msg="agent stopped" failed=true`) {
		t.Errorf("a failure is not told from a stop:\n%s", got)
	}
	next := launch(t, config(state))
	if next.boot.Unclean {
		t.Error("a taken port counts as a crash: it would be blamed on a model")
	}
	if err := next.halt(); err != nil {
		t.Fatal(err)
	}
}

// An agent that was killed says so once.
func TestKilledAgentIsReported(t *testing.T) {
	state := t.TempDir()
	enrol(t, state)
	killed, err := New(config(state))
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Close(); err != nil { // as the system does for a killed process
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		d := launch(t, config(state))
		d.url()
		if d.boot.Unclean != want {
			t.Errorf("start %d: unclean %v, want %v", d.boot.Count, d.boot.Unclean, want)
		}
		if err := d.halt(); err != nil {
			t.Fatal(err)
		}
	}
	if _, events := counted(t, state); len(events) != 1 || events[0] != "boot_unclean" {
		t.Errorf("events %v, want one boot_unclean", events)
	}
}

// A hung call cannot be ended: Run asks for another process, and the next one
// does not serve the release that hangs for long.
func TestHungCallAsksForAnotherProcess(t *testing.T) {
	t.Parallel() // five seconds of waiting
	state := t.TempDir()
	enrol(t, state)
	install(t, state, agenttest.Script{OnRun: agenttest.Hang, AfterRuns: 1}) // the first run warms it
	d := launch(t, config(state))
	if status, answer := d.infer(); status != http.StatusServiceUnavailable {
		t.Errorf("answer %d %s, want 503", status, answer)
	}
	select {
	case err := <-d.ended:
		if !errors.Is(err, ErrRestart) {
			t.Errorf("Run: %v, want %v", err, ErrRestart)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the agent goes on with a hung call")
	}
	next, err := New(config(state))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if !next.boot.Unclean {
		t.Error("the replaced process ended cleanly, says the next one")
	}
}

// A load that hangs asks for another process too, and that one serves the release
// before.
func TestHungLoadAsksForAnotherProcess(t *testing.T) {
	state := t.TempDir()
	enrol(t, state)
	install(t, state, agenttest.Script{})
	install(t, state, agenttest.Script{OnLoad: agenttest.Hang})
	cfg := config(state)
	cfg.Limits = update.DefaultLimits()
	cfg.Limits.Load = 300 * time.Millisecond
	d := launch(t, cfg)
	select {
	case err := <-d.ended:
		if !errors.Is(err, ErrRestart) {
			t.Errorf("Run: %v, want %v", err, ErrRestart)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the agent goes on with a hung load")
	}
	next := launch(t, config(state))
	if status, answer := next.infer(); status != http.StatusOK {
		t.Errorf("answer %d %s, want the release before", status, answer)
	}
	if err := next.halt(); err != nil {
		t.Fatal(err)
	}
}
