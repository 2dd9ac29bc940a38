package deviceapi_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/deviceapi"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// metadata is a Trust.
type metadata map[string]string

func (m metadata) TrustMetadata(name string) ([]byte, error) {
	if s, ok := m[name]; ok {
		return []byte(s), nil
	}
	return nil, errors.New("none")
}

// blobs is a Blobs.
type blobs map[release.Digest][]byte

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

func (b blobs) Open(_ context.Context, d release.Digest) (io.ReadSeekCloser, int64, error) {
	data, ok := b[d]
	if !ok {
		return nil, 0, artifact.ErrNotFound
	}
	return nopCloser{bytes.NewReader(data)}, int64(len(data)), nil
}

// fleet is a Fleet.
type fleet struct {
	mu   sync.Mutex
	seen []string // guarded by mu
	fail error    // guarded by mu
}

func (f *fleet) Enrolled(_ context.Context, device string, labels map[string]string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, fmt.Sprint(device, labels))
	return f.fail
}

func (f *fleet) failWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// bench is a running server on a clock that the test moves.
type bench struct {
	t         *testing.T
	authority *access.Authority
	ca        *access.CA
	server    *deviceapi.Server
	fleet     *fleet
	deltas    *deltas
	truths    *truths
	blob      []byte

	log safeBuffer

	mu sync.Mutex
	at time.Time // guarded by mu
}

// safeBuffer is a log that may be read while it is written.
type safeBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
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

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, fleet: &fleet{}, deltas: &deltas{}, truths: &truths{}, at: time.Now(), blob: bytes.Repeat([]byte("0123456789"), 100_000)}
	var err error
	if b.ca, err = access.OpenCA(t.TempDir(), []string{"127.0.0.1"}, b.now); err != nil {
		t.Fatal(err)
	}
	b.authority, err = access.Open(t.Context(), access.Config{
		CA: b.ca, Dir: t.TempDir(), Bucket: kvstore.NewMemory(),
		DeviceAPI: "https://127.0.0.1:1", MQTT: []string{"mqtts://127.0.0.1:2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.authority.Close)
	b.server = deviceapi.New(deviceapi.Config{
		CA: b.ca, Access: b.authority, Fleet: b.fleet, EnrolRate: 1e-6, EnrolBurst: 20,
		Trust: metadata{"root.1": `{"root":1}`}, Blobs: blobs{release.DigestOf(b.blob): b.blob}, Deltas: b.deltas, Truths: b.truths,
		Logger: slog.New(slog.NewTextHandler(&b.log, nil)),
	})
	if err := b.server.Start(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// device is a key with, after enrolment, its certificate.
type device struct {
	b    *bench
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	http *http.Client
}

func (b *bench) device() *device {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	d := &device{b: b, key: key}
	d.connect()
	return d
}

// connect makes a client with the certificate that the device has now.
func (d *device) connect() {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(d.b.ca.PEM())
	cfg := &tls.Config{RootCAs: roots, Time: d.b.now}
	if d.cert != nil {
		cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{d.cert.Raw}, PrivateKey: d.key}}
	}
	transport := &http.Transport{TLSClientConfig: cfg}
	d.b.t.Cleanup(transport.CloseIdleConnections)
	d.http = &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func (d *device) csr() string {
	d.b.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, d.key)
	if err != nil {
		d.b.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// answer is a response whose body has been read.
type answer struct {
	StatusCode int
	Header     http.Header
}

func (d *device) do(method, path string, body any, header ...string) (answer, []byte) {
	d.b.t.Helper()
	var in io.Reader = http.NoBody
	switch v := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(v)
	default:
		data, err := json.Marshal(v)
		if err != nil {
			d.b.t.Fatal(err)
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(d.b.t.Context(), method, "https://"+d.b.server.Addr()+path, in)
	if err != nil {
		d.b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := d.http.Do(req)
	if err != nil {
		d.b.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		d.b.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header}, data
}

// refused checks an answer that is no success.
func refused(t *testing.T, res answer, body []byte, status int, code string) {
	t.Helper()
	var e protocol.APIError
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("status %d, body %q: %v", res.StatusCode, body, err)
	}
	if res.StatusCode != status || e.Code != code || e.Message == "" {
		t.Errorf("got %d %+v, want %d %s", res.StatusCode, e, status, code)
	}
}

func (b *bench) token(c operator.EnrolTokenCreate) string {
	b.t.Helper()
	s, err := b.authority.CreateEnrolToken(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Secret
}

// enrolled is a device that is in.
func (b *bench) enrolled(id string) *device {
	b.t.Helper()
	d := b.device()
	res, body := d.do(http.MethodPost, protocol.EnrolPath, protocol.EnrolRequest{
		Token: b.token(operator.EnrolTokenCreate{Device: id, Labels: map[string]string{"site": "a"}, Replace: true}), CSR: d.csr(),
	})
	d.take(res, body)
	return d
}

// take uses the certificate of an answer.
func (d *device) take(res answer, body []byte) protocol.EnrolResponse {
	d.b.t.Helper()
	var out protocol.EnrolResponse
	if err := json.Unmarshal(body, &out); err != nil || res.StatusCode != http.StatusOK {
		d.b.t.Fatalf("status %d, %q, %v", res.StatusCode, body, err)
	}
	block, _ := pem.Decode([]byte(out.Certificate))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		d.b.t.Fatal(err)
	}
	d.cert = cert
	d.connect()
	return out
}

func TestEnrolAndRead(t *testing.T) {
	b := newBench(t)
	d := b.enrolled("cam-1")
	if got, want := b.fleet.seen, "cam-1map[site:a]"; len(got) != 1 || got[0] != want {
		t.Errorf("fleet was told %v, want %s", got, want)
	}
	res, body := d.do(http.MethodGet, protocol.TrustPath+"root.1.json", nil)
	if res.StatusCode != http.StatusOK || string(body) != `{"root":1}` {
		t.Errorf("metadata: %d %q", res.StatusCode, body)
	}
	res, body = d.do(http.MethodGet, protocol.BlobPath+release.DigestOf(b.blob).String(), nil)
	if res.StatusCode != http.StatusOK || !bytes.Equal(body, b.blob) {
		t.Errorf("blob: %d, %d bytes", res.StatusCode, len(body))
	}
}

func TestBlobRanges(t *testing.T) {
	b := newBench(t)
	d := b.enrolled("cam-1")
	path := protocol.BlobPath + release.DigestOf(b.blob).String()
	size := len(b.blob)
	for header, want := range map[string][2]int{
		"bytes=0-":                             {0, size},
		"bytes=500000-":                        {500_000, size},
		"bytes=10-19":                          {10, 20},
		fmt.Sprintf("bytes=%d-", size-1):       {size - 1, size},
		"bytes=-5":                             {size - 5, size},
		fmt.Sprintf("bytes=0-%d", size+100000): {0, size},
	} {
		res, body := d.do(http.MethodGet, path, nil, "Range", header)
		if res.StatusCode != http.StatusPartialContent || !bytes.Equal(body, b.blob[want[0]:want[1]]) {
			t.Errorf("%s: %d, %d bytes", header, res.StatusCode, len(body))
		}
	}
	res, _ := d.do(http.MethodGet, path, nil, "Range", fmt.Sprintf("bytes=%d-", size))
	if res.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("beyond the end: %d", res.StatusCode)
	}
}

func TestReadsNeedACertificate(t *testing.T) {
	b, other := newBench(t), newBench(t)
	expired := b.enrolled("cam-1")
	foreign := other.enrolled("cam-2")
	foreign.b = b
	foreign.connect()
	selfMade := b.device()
	selfMade.selfSign()
	for name, d := range map[string]*device{"none": b.device(), "another CA": foreign, "self-made": selfMade} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{protocol.TrustPath + "root.1.json", protocol.BlobPath + release.DigestOf(b.blob).String()} {
				res, body := d.do(http.MethodGet, path, nil)
				refused(t, res, body, http.StatusForbidden, protocol.CodeCertificate)
			}
			res, body := d.do(http.MethodPost, protocol.RenewPath, protocol.RenewRequest{CSR: d.csr()})
			refused(t, res, body, http.StatusForbidden, protocol.CodeCertificate)
		})
	}
	b.pass(access.DeviceLifetime + time.Minute)
	expired.connect()
	res, body := expired.do(http.MethodGet, protocol.TrustPath+"root.1.json", nil)
	refused(t, res, body, http.StatusForbidden, protocol.CodeCertificate)
	res, body = expired.do(http.MethodPost, protocol.RenewPath, protocol.RenewRequest{CSR: expired.csr()})
	if answer := expired.take(res, body); answer.Device != "cam-1" {
		t.Errorf("renewed as %+v", answer)
	}
	if res, _ := expired.do(http.MethodGet, protocol.TrustPath+"root.1.json", nil); res.StatusCode != http.StatusOK {
		t.Errorf("after renewal: %d", res.StatusCode)
	}
	b.pass(access.DeviceLifetime + access.RenewGrace + time.Minute)
	expired.connect()
	res, body = expired.do(http.MethodPost, protocol.RenewPath, protocol.RenewRequest{CSR: expired.csr()})
	refused(t, res, body, http.StatusForbidden, protocol.CodeCertificate)
}

// selfSign gives the device a certificate that it signed itself.
func (d *device) selfSign() {
	d.b.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cam-1"},
		NotBefore: d.b.now().Add(-time.Hour), NotAfter: d.b.now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, d.key.Public(), d.key)
	if err != nil {
		d.b.t.Fatal(err)
	}
	if d.cert, err = x509.ParseCertificate(der); err != nil {
		d.b.t.Fatal(err)
	}
	d.connect()
}

func TestRevokedDeviceIsRefusedOnAnOpenConnection(t *testing.T) {
	b := newBench(t)
	d := b.enrolled("cam-1")
	if res, _ := d.do(http.MethodGet, protocol.TrustPath+"root.1.json", nil); res.StatusCode != http.StatusOK {
		t.Fatalf("before: %d", res.StatusCode)
	}
	if err := b.authority.RevokeDevice(t.Context(), "cam-1", ""); err != nil {
		t.Fatal(err)
	}
	res, body := d.do(http.MethodGet, protocol.TrustPath+"root.1.json", nil)
	refused(t, res, body, http.StatusForbidden, protocol.CodeRevoked)
	res, body = d.do(http.MethodPost, protocol.RenewPath, protocol.RenewRequest{CSR: d.csr()})
	refused(t, res, body, http.StatusForbidden, protocol.CodeRevoked)
	b.pass(access.DeviceLifetime + time.Minute)
	d.connect()
	res, body = d.do(http.MethodPost, protocol.RenewPath, protocol.RenewRequest{CSR: d.csr()})
	refused(t, res, body, http.StatusForbidden, protocol.CodeRevoked)
}

func TestRequestsAreRefused(t *testing.T) {
	b := newBench(t)
	d := b.enrolled("cam-1")
	taken := b.token(operator.EnrolTokenCreate{Device: "cam-1"})
	fresh := b.device()
	for name, c := range map[string]struct {
		who          *device
		method, path string
		body         any
		status       int
		code         string
	}{
		"unknown token":      {fresh, http.MethodPost, protocol.EnrolPath, protocol.EnrolRequest{Token: "x", CSR: fresh.csr()}, 401, protocol.CodeTokenUnknown},
		"taken id":           {fresh, http.MethodPost, protocol.EnrolPath, protocol.EnrolRequest{Token: taken, CSR: fresh.csr()}, 409, protocol.CodeDeviceExists},
		"no CSR":             {fresh, http.MethodPost, protocol.EnrolPath, protocol.EnrolRequest{Token: taken}, 400, protocol.CodeInvalid},
		"no JSON":            {fresh, http.MethodPost, protocol.EnrolPath, "x", 400, protocol.CodeInvalid},
		"two values":         {fresh, http.MethodPost, protocol.EnrolPath, `{} {}`, 400, protocol.CodeInvalid},
		"unknown field":      {fresh, http.MethodPost, protocol.EnrolPath, `{"tokens":"x"}`, 400, protocol.CodeInvalid},
		"large body":         {fresh, http.MethodPost, protocol.EnrolPath, `{"token":"` + strings.Repeat("x", 64<<10) + `"}`, 413, protocol.CodeTooLarge},
		"large renewal":      {d, http.MethodPost, protocol.RenewPath, `{"csr":"` + strings.Repeat("x", 64<<10) + `"}`, 413, protocol.CodeTooLarge},
		"unknown metadata":   {d, http.MethodGet, protocol.TrustPath + "root.2.json", nil, 404, protocol.CodeNotFound},
		"metadata no JSON":   {d, http.MethodGet, protocol.TrustPath + "root.1", nil, 404, protocol.CodeNotFound},
		"metadata path":      {d, http.MethodGet, protocol.TrustPath + "..%2fdevice-ca.pem.json", nil, 404, protocol.CodeNotFound},
		"unknown blob":       {d, http.MethodGet, protocol.BlobPath + strings.Repeat("0", 64), nil, 404, protocol.CodeNotFound},
		"blob of a bad name": {d, http.MethodGet, protocol.BlobPath + "..%2f..%2fetc", nil, 404, protocol.CodeNotFound},
		"unknown route":      {d, http.MethodGet, "/device/v2/enrol", nil, 404, protocol.CodeNotFound},
		"wrong method":       {d, http.MethodGet, protocol.EnrolPath, nil, 405, protocol.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := c.who.do(c.method, c.path, c.body)
			refused(t, res, body, c.status, c.code)
		})
	}
}

// When the fleet cannot note the device, the device asks again and gets in.
func TestEnrolmentIsWholeOrRepeated(t *testing.T) {
	b := newBench(t)
	b.fleet.failWith(errors.New("bucket is away: its secret text"))
	d := b.device()
	req := protocol.EnrolRequest{Token: b.token(operator.EnrolTokenCreate{Device: "cam-1"}), CSR: d.csr()}
	res, body := d.do(http.MethodPost, protocol.EnrolPath, req)
	refused(t, res, body, http.StatusInternalServerError, protocol.CodeInternal)
	if strings.Contains(string(body), "secret text") {
		t.Errorf("the fault's text is told to strangers: %s", body)
	}
	b.fleet.failWith(protocol.CheckLabels(map[string]string{"site": "../.."}))
	res, body = d.do(http.MethodPost, protocol.EnrolPath, req)
	refused(t, res, body, http.StatusBadRequest, protocol.CodeInvalid)
	if !strings.Contains(string(body), "labels are") {
		t.Errorf("the rule of labels is not told: %s", body)
	}
	b.fleet.failWith(nil)
	res, body = d.do(http.MethodPost, protocol.EnrolPath, req)
	d.take(res, body)
}

func TestRatesAreLimited(t *testing.T) {
	b := newBench(t)
	d := b.enrolled("cam-1")
	limited := false
	for range 30 {
		res, body := d.do(http.MethodPost, protocol.EnrolPath, protocol.EnrolRequest{})
		if limited = res.StatusCode == http.StatusTooManyRequests; limited {
			refused(t, res, body, http.StatusTooManyRequests, protocol.CodeTooMany)
			if res.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			break
		}
	}
	if !limited {
		t.Error("enrolments are not limited")
	}
	if res, _ := d.do(http.MethodGet, protocol.TrustPath+"root.1.json", nil); res.StatusCode != http.StatusOK {
		t.Errorf("another route: %d", res.StatusCode)
	}
	limited = false
	for range 10 {
		res, _ := d.do(http.MethodPost, protocol.RenewPath, protocol.RenewRequest{})
		limited = limited || res.StatusCode == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("renewals are not limited")
	}
}

func TestPortInUse(t *testing.T) {
	b := newBench(t)
	second := deviceapi.New(deviceapi.Config{CA: b.ca})
	err := second.Start(t.Context(), b.server.Addr())
	if !errors.Is(err, deviceapi.ErrPortInUse) || !strings.Contains(err.Error(), "another control plane") {
		t.Errorf("got %v, want ErrPortInUse and what to do", err)
	}
}

// Every refresh of every device ends with a root that is not there yet: that is
// no news. Other refusals are.
func TestLookingForANewerRootIsNoNews(t *testing.T) {
	b := newBench(t)
	d := b.enrolled("cam-1")
	res, body := d.do(http.MethodGet, protocol.TrustPath+"root.2.json", nil)
	refused(t, res, body, http.StatusNotFound, protocol.CodeNotFound)
	if got := b.log.String(); strings.Contains(got, "refused") {
		t.Errorf("logged %s", got)
	}
	res, body = d.do(http.MethodGet, protocol.BlobPath+release.DigestOf([]byte("none")).String(), nil)
	refused(t, res, body, http.StatusNotFound, protocol.CodeNotFound)
	if got := b.log.String(); !strings.Contains(got, "refused") {
		t.Error("a missing blob was not logged")
	}
}

// A listener that breaks ends the device API by itself, which somebody must know.
func TestServingThatEndsIsTold(t *testing.T) {
	b := newBench(t)
	told := make(chan error, 1)
	s := deviceapi.New(deviceapi.Config{CA: b.ca, Failed: func(err error) { told <- err }})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(l)
	l.Close()
	if err := <-told; !errors.Is(err, net.ErrClosed) {
		t.Errorf("told %v, want %v", err, net.ErrClosed)
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}
