package access

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// bench is an authority with a clock that the test moves.
type bench struct {
	*Authority
	t      *testing.T
	dir    string
	bucket *kvstore.Memory

	mu  sync.Mutex
	at  time.Time // guarded by mu
	cut []string  // guarded by mu: devices disconnected
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), bucket: kvstore.NewMemory(), at: time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)}
	b.open()
	return b
}

func (b *bench) open() {
	b.t.Helper()
	ca, err := OpenCA(b.dir, []string{"localhost", "127.0.0.1"}, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Authority, err = Open(b.t.Context(), Config{
		CA: ca, Dir: b.dir, Bucket: b.bucket, DeviceAPI: "https://localhost:8443", MQTT: []string{"mqtts://localhost:8883"},
		Cut: b.disconnect,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(b.Close)
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = b.at.Add(d)
}

func (b *bench) disconnect(device string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut = append(b.cut, device)
	return nil
}

func (b *bench) token(c operator.EnrolTokenCreate) *operator.EnrolSecret {
	b.t.Helper()
	s, err := b.CreateEnrolToken(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// hardware is a device's key.
type hardware struct{ key *ecdsa.PrivateKey }

func newHardware(t *testing.T) hardware {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return hardware{key}
}

func (h hardware) csr(t *testing.T, name string) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: name, Organization: []string{"ignored"}},
		DNSNames: []string{"control.example"},
	}, h.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func (b *bench) enrol(h hardware, secret, name string) (*x509.Certificate, error) {
	b.t.Helper()
	e, err := b.Enrol(b.t.Context(), protocol.EnrolRequest{Token: secret, Device: name, CSR: h.csr(b.t, name)})
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(e.Certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		b.t.Fatal(err)
	}
	return cert, nil
}

func (b *bench) mustEnrol(h hardware, secret, name string) *x509.Certificate {
	b.t.Helper()
	cert, err := b.enrol(h, secret, name)
	if err != nil {
		b.t.Fatal(err)
	}
	return cert
}

func TestEnrolledCertificate(t *testing.T) {
	b, h := newBench(t), newHardware(t)
	secret := b.token(operator.EnrolTokenCreate{Device: "cam-1", Labels: map[string]string{"site": "a"}})
	e, err := b.Enrol(t.Context(), protocol.EnrolRequest{Token: secret.Secret, CSR: h.csr(t, "whatever")})
	if err != nil {
		t.Fatal(err)
	}
	if e.Device != "cam-1" || e.Labels["site"] != "a" || e.Replaced || !slices.Equal(e.MQTT, []string{"mqtts://localhost:8883"}) {
		t.Errorf("enrolment is %+v", e)
	}
	block, _ := pem.Decode(e.Certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cert.Subject.String(), "CN=cam-1"; got != want {
		t.Errorf("subject is %q, want %q: nothing but the key may come from the request", got, want)
	}
	if len(cert.DNSNames) > 0 || cert.IsCA || !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("certificate is good for more than a device: %v, CA %v, %v", cert.DNSNames, cert.IsCA, cert.ExtKeyUsage)
	}
	if !h.key.PublicKey.Equal(cert.PublicKey) {
		t.Error("certificate is of another key")
	}
	if got, want := cert.NotAfter, b.now().Add(DeviceLifetime); !got.Equal(want) {
		t.Errorf("ends %s, want %s", got, want)
	}
	device, expired, err := b.ca.VerifyDevice([]*x509.Certificate{cert})
	if device != "cam-1" || expired || err != nil {
		t.Errorf("verified as %q, expired %v, %v", device, expired, err)
	}
	if err := b.Admit("cam-1", cert); err != nil {
		t.Errorf("not admitted: %v", err)
	}
}

func TestEnrolmentIsRefused(t *testing.T) {
	b, h := newBench(t), newHardware(t)
	open := func(c operator.EnrolTokenCreate) string { return b.token(c).Secret }
	revoked := b.token(operator.EnrolTokenCreate{Device: "cam-1"})
	if err := b.RevokeEnrolToken(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	used := open(operator.EnrolTokenCreate{})
	b.mustEnrol(newHardware(t), used, "cam-0")
	good := open(operator.EnrolTokenCreate{Uses: 100})
	wrong := good[:len(good)-1] + map[bool]string{true: "B", false: "A"}[good[len(good)-1] == 'A']
	expired := open(operator.EnrolTokenCreate{TTL: release.Duration(time.Minute)})
	b.pass(time.Minute)
	for name, c := range map[string]struct {
		secret, device, csr string
		want                error
	}{
		"unknown id":       {"e1.000000000000." + strings.Repeat("A", 43), "cam-1", "", ErrTokenUnknown},
		"wrong secret":     {wrong, "cam-1", "", ErrTokenUnknown},
		"no token":         {"", "cam-1", "", ErrTokenUnknown},
		"operator token":   {"vop1_x", "cam-1", "", ErrTokenUnknown},
		"huge token":       {"e1." + strings.Repeat("A", 1<<20), "cam-1", "", ErrTokenUnknown},
		"expired":          {expired, "cam-1", "", ErrTokenExpired},
		"used":             {used, "cam-1", "", ErrTokenUsed},
		"revoked":          {revoked.Secret, "cam-1", "", ErrTokenRevoked},
		"taken id":         {good, "cam-0", "", ErrDeviceExists},
		"no id":            {good, "", "", ErrNoDevice},
		"bad id":           {good, "Cam/1", "", protocol.ErrDeviceID},
		"wildcard id":      {good, "*", "", protocol.ErrDeviceID},
		"no CSR":           {good, "cam-1", "x", ErrCSR},
		"two CSRs":         {good, "cam-1", h.csr(t, "a") + h.csr(t, "b"), ErrCSR},
		"forged CSR":       {good, "cam-1", forged(t, h), ErrCSR},
		"RSA key":          {good, "cam-1", rsaCSR(t), ErrCSR},
		"another PEM type": {good, "cam-1", string(b.ca.PEM()), ErrCSR},
	} {
		t.Run(name, func(t *testing.T) {
			csr := c.csr
			if csr == "" {
				csr = h.csr(t, c.device)
			}
			_, err := b.Enrol(t.Context(), protocol.EnrolRequest{Token: c.secret, Device: c.device, CSR: csr})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	// None of it has cost a use.
	for _, token := range mustList(t, b.EnrolTokens) {
		if token.Uses != 100 && token.Uses > 1 {
			t.Errorf("token %s has %d uses left", token.ID, token.Uses)
		}
	}
}

// A token whose label was taken before the rule was kept is refused by name, and
// costs no use.
func TestEnrolRefusesLabelOfOldToken(t *testing.T) {
	b := newBench(t)
	s := b.token(operator.EnrolTokenCreate{Device: "cam-1"})
	if _, err := change(t.Context(), b.Authority, enrolKey(s.ID), func(t *enrolToken) error {
		t.Labels = map[string]string{"site": "../.."}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.enrol(newHardware(t), s.Secret, ""); !errors.Is(err, protocol.ErrLabel) {
		t.Errorf("got %v, want %v", err, protocol.ErrLabel)
	}
	if got := mustList(t, b.EnrolTokens)[0]; got.Uses != 1 {
		t.Errorf("token has %d uses left, want 1", got.Uses)
	}
}

// forged is a CSR whose signature does not fit.
func forged(t *testing.T, h hardware) string {
	t.Helper()
	block, _ := pem.Decode([]byte(h.csr(t, "cam-1")))
	block.Bytes[len(block.Bytes)-1] ^= 1
	return string(pem.EncodeToMemory(block))
}

func rsaCSR(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func mustList[T any](t *testing.T, list func(context.Context) ([]T, error)) []T {
	t.Helper()
	all, err := list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A device whose answer was lost asks again and gets one, without another use.
func TestLostAnswerIsAskedForAgain(t *testing.T) {
	b, h := newBench(t), newHardware(t)
	secret := b.token(operator.EnrolTokenCreate{Device: "cam-1"}).Secret
	first, second := b.mustEnrol(h, secret, ""), b.mustEnrol(h, secret, "")
	for _, cert := range []*x509.Certificate{first, second} {
		if err := b.Admit("cam-1", cert); err != nil {
			t.Errorf("certificate refused: %v", err)
		}
	}
	if _, err := b.enrol(newHardware(t), secret, ""); !errors.Is(err, ErrTokenUsed) {
		t.Errorf("another key: got %v, want ErrTokenUsed", err)
	}
	// Also with a new token, when the first one has run out meanwhile.
	b.pass(2 * DefaultEnrolTTL)
	if _, err := b.enrol(h, secret, ""); !errors.Is(err, ErrTokenExpired) {
		t.Errorf("old token: got %v, want ErrTokenExpired", err)
	}
	b.mustEnrol(h, b.token(operator.EnrolTokenCreate{Device: "cam-1"}).Secret, "")
	if len(b.cut) > 0 {
		t.Errorf("%v were disconnected: nobody was replaced", b.cut)
	}
}

func TestTokenWithSeveralUses(t *testing.T) {
	b := newBench(t)
	ctx := operator.WithPrincipal(t.Context(), operator.Principal{Name: "ada", Role: operator.Operator})
	s, err := b.CreateEnrolToken(ctx, operator.EnrolTokenCreate{Uses: 2, Labels: map[string]string{"site": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	b.mustEnrol(newHardware(t), s.Secret, "cam-1")
	b.mustEnrol(newHardware(t), s.Secret, "cam-2")
	if _, err := b.enrol(newHardware(t), s.Secret, "cam-3"); !errors.Is(err, ErrTokenUsed) {
		t.Errorf("third use: got %v, want ErrTokenUsed", err)
	}
	got := mustList(t, b.EnrolTokens)[0]
	if got.Uses != 0 || !slices.Equal(got.Used, []string{"cam-1", "cam-2"}) || got.CreatedBy != "ada" {
		t.Errorf("token is %+v", got)
	}
}

// Devices that use one token at once take one use each, and never more.
func TestUsesAreNotOverdrawn(t *testing.T) {
	b := newBench(t)
	secret := b.token(operator.EnrolTokenCreate{Uses: 3}).Secret
	const devices = 8
	errs := make(chan error, devices)
	for i := range devices {
		h := newHardware(t)
		name := "cam-" + string(rune('a'+i))
		go func() {
			_, err := b.Enrol(t.Context(), protocol.EnrolRequest{Token: secret, CSR: h.csr(t, name)})
			errs <- err
		}()
	}
	enrolled := 0
	for range devices {
		if err := <-errs; err == nil {
			enrolled++
		} else if !errors.Is(err, ErrTokenUsed) {
			t.Error(err)
		}
	}
	if enrolled != 3 {
		t.Errorf("%d devices enrolled, want 3", enrolled)
	}
}

func TestReplacementRefusesTheOldDevice(t *testing.T) {
	b := newBench(t)
	old := newHardware(t)
	first := b.mustEnrol(old, b.token(operator.EnrolTokenCreate{Device: "cam-1"}).Secret, "")
	renewed, err := b.Renew(t.Context(), "cam-1", first, []byte(old.csr(t, "")))
	if err != nil {
		t.Fatal(err)
	}
	second := b.mustEnrol(newHardware(t), b.token(operator.EnrolTokenCreate{Device: "cam-1", Replace: true}).Secret, "")
	for name, cert := range map[string]*x509.Certificate{"first": first, "renewed": renewed} {
		if err := b.Admit("cam-1", cert); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s certificate of the old device: got %v, want ErrRevoked", name, err)
		}
		if _, err := b.Renew(t.Context(), "cam-1", cert, []byte(old.csr(t, ""))); !errors.Is(err, ErrRevoked) {
			t.Errorf("renewal with the %s certificate: got %v, want ErrRevoked", name, err)
		}
	}
	if err := b.Admit("cam-1", second); err != nil {
		t.Errorf("new device: %v", err)
	}
	if !slices.Equal(b.cut, []string{"cam-1"}) {
		t.Errorf("disconnected %v, want cam-1 once", b.cut)
	}
}

// The records may be older than the device: restored from a backup.
func TestReplacementOfAForgottenDevice(t *testing.T) {
	b := newBench(t)
	old := b.mustEnrol(newHardware(t), b.token(operator.EnrolTokenCreate{Device: "cam-1"}).Secret, "")
	if err := b.bucket.Delete(t.Context(), deviceKey("cam-1")); err != nil {
		t.Fatal(err)
	}
	b.pass(time.Minute)
	fresh := b.mustEnrol(newHardware(t), b.token(operator.EnrolTokenCreate{Device: "cam-1", Replace: true}).Secret, "")
	if err := b.Admit("cam-1", old); !errors.Is(err, ErrRevoked) {
		t.Errorf("old device: got %v, want ErrRevoked", err)
	}
	if err := b.Admit("cam-1", fresh); err != nil {
		t.Errorf("new device: %v", err)
	}
}

func TestRevokedDeviceComesBackOnlyByReplacement(t *testing.T) {
	b, h := newBench(t), newHardware(t)
	other := b.mustEnrol(newHardware(t), b.token(operator.EnrolTokenCreate{Device: "cam-2"}).Secret, "")
	cert := b.mustEnrol(h, b.token(operator.EnrolTokenCreate{Device: "cam-1"}).Secret, "")
	if err := b.RevokeDevice(t.Context(), "cam-1", "stolen"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.cut, []string{"cam-1"}) {
		t.Errorf("disconnected %v, want cam-1", b.cut)
	}
	b.Close()
	b.open() // as after a restart
	if err := b.Admit("cam-1", cert); !errors.Is(err, ErrRevoked) {
		t.Errorf("got %v, want ErrRevoked", err)
	}
	if err := b.Admit("cam-2", other); err != nil {
		t.Errorf("another device: %v", err)
	}
	if _, err := b.Renew(t.Context(), "cam-1", cert, []byte(h.csr(t, ""))); !errors.Is(err, ErrRevoked) {
		t.Errorf("renewal: got %v, want ErrRevoked", err)
	}
	if _, err := b.enrol(h, b.token(operator.EnrolTokenCreate{Device: "cam-1"}).Secret, ""); !errors.Is(err, ErrDeviceExists) {
		t.Errorf("plain token, same key: got %v, want ErrDeviceExists", err)
	}
	b.pass(time.Minute)
	fresh := b.mustEnrol(h, b.token(operator.EnrolTokenCreate{Device: "cam-1", Replace: true}).Secret, "")
	if err := b.Admit("cam-1", fresh); err != nil {
		t.Errorf("after replacement: %v", err)
	}
	if err := b.Admit("cam-1", cert); !errors.Is(err, ErrRevoked) {
		t.Errorf("old certificate after replacement: got %v, want ErrRevoked", err)
	}
}

// A revocation by another process of the control plane is seen through the bucket.
func TestRevocationIsWatched(t *testing.T) {
	b := newBench(t)
	cert := b.mustEnrol(newHardware(t), b.token(operator.EnrolTokenCreate{Device: "cam-1"}).Secret, "")
	first := b.Authority
	b.open()
	if err := first.RevokeDevice(t.Context(), "cam-1", ""); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for b.Admit("cam-1", cert) == nil {
		if time.Now().After(deadline) {
			t.Fatal("not seen")
		}
		runtime.Gosched()
	}
	// What cannot be read is refused rather than let in.
	if _, err := b.bucket.Put(t.Context(), revokedKey("cam-9"), []byte("{torn")); err != nil {
		t.Fatal(err)
	}
	for !b.Revoked("cam-9") {
		if time.Now().After(deadline) {
			t.Fatal("a torn record lets the device in")
		}
		runtime.Gosched()
	}
}

func TestRenewal(t *testing.T) {
	b, h := newBench(t), newHardware(t)
	cert := b.mustEnrol(h, b.token(operator.EnrolTokenCreate{Device: "cam-1"}).Secret, "")
	verify := func() (bool, error) {
		_, expired, err := b.ca.VerifyDevice([]*x509.Certificate{cert})
		return expired, err
	}
	b.pass(DeviceLifetime + time.Second)
	if expired, err := verify(); !expired || err != nil {
		t.Errorf("just expired: expired %v, %v", expired, err)
	}
	b.pass(RenewGrace - time.Second)
	if expired, err := verify(); !expired || err != nil {
		t.Errorf("expired for 180 days: expired %v, %v", expired, err)
	}
	next, err := b.Renew(t.Context(), "cam-1", cert, []byte(newHardware(t).csr(t, "cam-9")))
	if err != nil || next.Subject.CommonName != "cam-1" || !next.NotAfter.After(b.now()) {
		t.Errorf("renewed as %v, %v", next, err)
	}
	b.pass(time.Second)
	if _, err := verify(); !errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), "too long ago") {
		t.Errorf("expired for longer: got %v", err)
	}
	// A device of a time before the last backup is renewed too.
	if err := b.bucket.Delete(t.Context(), deviceKey("cam-1")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Renew(t.Context(), "cam-1", next, []byte(h.csr(t, ""))); err != nil {
		t.Errorf("device without a record: %v", err)
	}
}

func TestForeignCertificatesAreRefused(t *testing.T) {
	b, other := newBench(t), newBench(t)
	foreign := other.mustEnrol(newHardware(t), other.token(operator.EnrolTokenCreate{Device: "cam-1"}).Secret, "")
	server, err := b.ca.serverCertificate()
	if err != nil {
		t.Fatal(err)
	}
	for name, certs := range map[string][]*x509.Certificate{
		"another CA": {foreign}, "the server's own": {server.Leaf}, "the CA's own": {b.ca.cert}, "none": nil,
	} {
		if device, _, err := b.ca.VerifyDevice(certs); !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: verified as %q, %v", name, device, err)
		}
	}
}

func TestServerCertificate(t *testing.T) {
	b := newBench(t)
	first, err := b.ca.serverCertificate()
	if err != nil {
		t.Fatal(err)
	}
	// A device without a clock is at its build time, long before this certificate
	// was made.
	_, err = first.Leaf.Verify(x509.VerifyOptions{
		Roots: b.ca.pool, DNSName: "localhost", CurrentTime: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	})
	if err != nil {
		t.Errorf("at build time: %v", err)
	}
	if err := first.Leaf.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	if err := first.Leaf.VerifyHostname("other"); err == nil {
		t.Error("certificate covers any name")
	}
	if last := first.Certificate[len(first.Certificate)-1]; !bytes.Equal(last, b.ca.cert.Raw) {
		t.Error("the CA is not in the chain")
	}
	b.pass(serverLifetime / 2)
	if same, err := b.ca.serverCertificate(); err != nil || same != first {
		t.Errorf("made anew too early, %v", err)
	}
	b.pass(serverLifetime / 4)
	next, err := b.ca.serverCertificate()
	if err != nil || !next.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Errorf("not made anew in time, %v", err)
	}
}

func TestCAIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenCA(dir, DefaultHosts(), nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, caFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v; want 0600", info.Mode(), err)
	}
	second, err := OpenCA(dir, nil, nil)
	if err != nil || first.SHA256() != second.SHA256() {
		t.Errorf("another CA after a restart, %v", err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := brokenPair(t, whole)
	for name, data := range map[string][]byte{
		"empty": {}, "zeros": make([]byte, len(whole)), "half": whole[:len(whole)/2], "another key": other,
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenCA(dir, nil, nil); !errors.Is(err, ErrCA) {
			t.Errorf("%s: got %v, want ErrCA", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// brokenPair is the certificate of one CA with the key of another.
func brokenPair(t *testing.T, whole []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	if _, err := OpenCA(dir, nil, nil); err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil {
		t.Fatal(err)
	}
	key, _ := pem.Decode(other)
	_, rest := pem.Decode(whole)
	return append(pem.EncodeToMemory(key), rest...)
}

func TestDefaultHostsCoverThisMachine(t *testing.T) {
	hosts := DefaultHosts()
	names, addresses := splitHosts(hosts)
	if !slices.Contains(names, "localhost") || len(addresses) != 2 || !addresses[0].Equal(net.IPv4(127, 0, 0, 1)) {
		t.Errorf("got %v", hosts)
	}
}
