package access

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// Lifetimes of certificates.
const (
	CALifetime     = 10 * 365 * 24 * time.Hour
	DeviceLifetime = 90 * 24 * time.Hour
	serverLifetime = 90 * 24 * time.Hour
	// RenewGrace is how long after its end a device certificate may still ask
	// for a new one: a device may have been in a drawer.
	RenewGrace = 180 * 24 * time.Hour
	// skew lets a device whose clock is a little behind use its certificate now.
	skew = time.Hour
)

// beginning is when the CA's and the server's certificates begin to be valid:
// before any build of the agent, because a device without a clock takes its own
// build time for now.
var beginning = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// What is said about certificates.
var (
	// ErrCertificate says that a device's certificate is missing, not of this CA
	// or expired.
	ErrCertificate = errors.New("device certificate is not accepted")
	// ErrCSR says that a certificate request is not usable.
	ErrCSR = errors.New("certificate request is not usable")
	// ErrRevoked says that the device, or this certificate of it, was revoked.
	ErrRevoked = errors.New("device certificate was revoked: enrol again with a token that may replace the device")
)

const caFile = "device-ca.pem"

// ErrCA says that the file of the CA is there but not usable. It is not made
// again by itself: every device would have to enrol again.
var ErrCA = errors.New("device CA cannot be read: restore it from a backup, or remove it and enrol all devices again")

// CA is the device CA, and issues the server's own certificates.
type CA struct {
	cert  *x509.Certificate
	key   crypto.Signer
	pool  *x509.CertPool
	hosts []string
	now   func() time.Time

	mu   sync.Mutex
	leaf *tls.Certificate // guarded by mu: the server's certificate in use
}

// OpenCA loads the CA from a directory, or makes it at the first start. Hosts
// are the names and addresses that devices reach the server by. A nil now is
// time.Now.
func OpenCA(dir string, hosts []string, now func() time.Time) (*CA, error) {
	if now == nil {
		now = time.Now
	}
	path := filepath.Join(dir, caFile)
	data, err := os.ReadFile(path)
	var ca *CA
	if errors.Is(err, fs.ErrNotExist) {
		ca, err = makeCA(path, now())
	} else if ca, err = parseCA(data, err); err != nil {
		err = fmt.Errorf("%w: %s: %w", ErrCA, path, err)
	}
	if err != nil {
		return nil, err
	}
	ca.hosts, ca.now = slices.Clone(hosts), now
	return ca, nil
}

// parseCA takes what was read and the error of reading it.
func parseCA(data []byte, err error) (*CA, error) {
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(data, data) // also checks that they belong together
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("not a certificate authority")
	}
	return newCA(pair.Leaf, key), nil
}

func newCA(cert *x509.Certificate, key crypto.Signer) *CA {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &CA{cert: cert, key: key, pool: pool}
}

func makeCA(path string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make device CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "Vedette device CA"},
		NotBefore:             beginning,
		NotAfter:              now.Add(CALifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make device CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make device CA: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make device CA: %w", err)
	}
	var data bytes.Buffer
	_ = pem.Encode(&data, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}) // a buffer takes everything
	_ = pem.Encode(&data, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeSecret(path, data.Bytes()); err != nil {
		return nil, fmt.Errorf("keep device CA: %w", err)
	}
	return newCA(cert, key), nil
}

func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] &= 0x7f           // positive
	b[0] |= 0x40           // and of full length
	return new(big.Int).SetBytes(b[:])
}

func (ca *CA) sign(template *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	template.SerialNumber = newSerial()
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// ServerTLS is the configuration of a listener for devices: the server's
// certificate with the CA behind it, and the CA to check devices against. How
// strictly is the listener's choice.
func (ca *CA) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientCAs:  ca.pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return ca.serverCertificate()
		},
	}
}

// serverCertificate is made in memory and anew when two thirds of its life are
// over: devices pin the CA, not it.
func (ca *CA) serverCertificate() (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	now := ca.now()
	if c := ca.leaf; c != nil && now.Before(c.Leaf.NotAfter.Add(-serverLifetime/3)) {
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Vedette control plane"},
		NotBefore:   beginning,
		NotAfter:    now.Add(serverLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	template.DNSNames, template.IPAddresses = splitHosts(ca.hosts)
	leaf, err := ca.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	ca.leaf = &tls.Certificate{
		Certificate: [][]byte{leaf.Raw, ca.cert.Raw}, // the CA too: a new device checks it against its token
		PrivateKey:  key,
		Leaf:        leaf,
	}
	return ca.leaf, nil
}

// DefaultHosts are the names a server is reached by on its own machine.
func DefaultHosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && name != "" {
		hosts = append(hosts, name)
	}
	return hosts
}

func splitHosts(hosts []string) (names []string, addresses []net.IP) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			addresses = append(addresses, ip)
		} else {
			names = append(names, h)
		}
	}
	return names, addresses
}

// SHA256 is the digest of the CA's certificate that tokens carry.
func (ca *CA) SHA256() [sha256.Size]byte { return sha256.Sum256(ca.cert.Raw) }

// PEM is the CA's certificate.
func (ca *CA) PEM() []byte { return certPEM(ca.cert) }

// VerifyDevice checks that the first of certs is a device's certificate of this
// CA and returns the device. A certificate that ended less than RenewGrace ago is
// reported as expired, which is good for a renewal and nothing else.
func (ca *CA) VerifyDevice(certs []*x509.Certificate) (device string, expired bool, err error) {
	if len(certs) == 0 {
		return "", false, fmt.Errorf("%w: none was sent", ErrCertificate)
	}
	cert, now := certs[0], ca.now()
	if now.After(cert.NotAfter.Add(RenewGrace)) {
		return "", true, fmt.Errorf("%w: it expired on %s, too long ago to be renewed: enrol again", ErrCertificate, cert.NotAfter.Format(time.DateOnly))
	}
	if now.After(cert.NotAfter) {
		now, expired = cert.NotAfter, true
	}
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: ca.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", expired, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	device = cert.Subject.CommonName
	if err := protocol.CheckDeviceID(device); err != nil {
		return "", expired, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return device, expired, nil
}

// issue signs a device's certificate.
func (ca *CA) issue(device string, public crypto.PublicKey) (*x509.Certificate, error) {
	now := ca.now().Truncate(time.Second)
	return ca.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: device},
		NotBefore:   now.Add(-skew),
		NotAfter:    now.Add(DeviceLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public)
}

// parseCSR reads a request for a certificate and checks that whoever made it has
// the key. Nothing but the key and the common name is taken from it.
func parseCSR(text []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: not one PEM block of it", ErrCSR)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the key must be ECDSA P-256", ErrCSR)
	}
	return csr, nil
}

func certPEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// writeSecret puts a file in place as a whole or not at all, readable by the
// owner alone, in a folder that may not be there yet.
func writeSecret(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(path, data)
}
