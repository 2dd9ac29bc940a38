package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// plane is a control plane as the protocol describes it, with faults to order.
// The real one is on the other side of an import rule; the two meet in the
// end-to-end tests.
type plane struct {
	t      *testing.T
	server *httptest.Server
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey

	mu       sync.Mutex
	device   string                         // guarded by mu: name that certificates are for
	ends     time.Time                      // of server certificates; a day from now when zero
	begins   time.Time                      // guarded by mu: of device certificates
	lifetime time.Duration                  // guarded by mu: of device certificates
	now      int64                          // guarded by mu: ServerMS of answers
	keys     []string                       // guarded by mu: public keys that asked, in order
	peers    []string                       // guarded by mu: serials of client certificates, in order
	change   func(*protocol.EnrolResponse)  // guarded by mu: last touch to an answer
	fault    func(http.ResponseWriter) bool // guarded by mu: answers instead
	asked    chan string                    // path of each request
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{
		t: t, device: "cam-1", lifetime: 90 * 24 * time.Hour, now: time.Now().UnixMilli(), begins: time.Now().Add(-time.Hour),
		asked: make(chan string, 100),
	}
	p.caKey = newKey(t)
	p.ca = p.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
	}, p.caKey.Public())
	p.serve([]string{"127.0.0.1"})
	return p
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (p *plane) sign(template *x509.Certificate, public any) *x509.Certificate {
	p.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		p.t.Fatal(err)
	}
	template.SerialNumber = serial
	parent := p.ca
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, p.caKey)
	if err != nil {
		p.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return cert
}

// serve answers under a certificate for hosts.
func (p *plane) serve(hosts []string) {
	p.t.Helper()
	key := newKey(p.t)
	template := &x509.Certificate{
		NotBefore: time.Unix(0, 0), NotAfter: p.ends,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if p.ends.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if slices.Contains(hosts, "127.0.0.1") {
		template.IPAddresses = append(template.IPAddresses, []byte{127, 0, 0, 1})
	} else {
		template.DNSNames = hosts
	}
	leaf := p.sign(template, key.Public())
	p.server = httptest.NewUnstartedServer(p)
	p.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	p.server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, p.ca.Raw}, PrivateKey: key}},
		ClientAuth:   tls.RequestClientCert,
	}
	p.server.StartTLS()
	p.t.Cleanup(p.server.Close)
}

func (p *plane) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
}

// ServeHTTP answers enrolments and renewals alike, and has no metadata.
func (p *plane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked <- r.URL.Path
	if strings.HasPrefix(r.URL.Path, protocol.TrustPath) {
		p.metadata(w, r)
		return
	}
	var in struct{ Token, Device, CSR string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	block, _ := pem.Decode([]byte(in.CSR))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, string(csr.RawSubjectPublicKeyInfo))
	for _, peer := range r.TLS.PeerCertificates {
		p.peers = append(p.peers, peer.SerialNumber.String())
	}
	cert := p.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: p.device}, NotBefore: p.begins, NotAfter: p.begins.Add(p.lifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, csr.PublicKey)
	if p.fault != nil && p.fault(w) {
		return
	}
	answer := protocol.EnrolResponse{Device: p.device, Certificate: encode(cert), CA: encode(p.ca), ServerMS: p.now}
	if p.change != nil {
		p.change(&answer)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (p *plane) metadata(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, peer := range r.TLS.PeerCertificates {
		p.peers = append(p.peers, peer.SerialNumber.String())
	}
	if p.fault == nil || !p.fault(w) {
		http.NotFound(w, r)
	}
}

func encode(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

var root = release.DigestOf([]byte("root.json"))

func (p *plane) token() string { return p.tokenFor(p.server.URL) }

func (p *plane) tokenFor(url string) string {
	p.t.Helper()
	text, err := (&protocol.EnrolmentToken{
		DeviceAPI: url, MQTT: []string{"mqtts://127.0.0.1:8883"}, CA: sha256.Sum256(p.ca.Raw), Root: root,
		Secret: "e1.x", Expires: time.Now().Add(time.Hour),
	}).Encode()
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

func (p *plane) port() string { return p.server.URL[strings.LastIndex(p.server.URL, ":")+1:] }
