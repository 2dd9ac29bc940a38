// Package identity is who the device is: its key, its certificate, the control
// plane it belongs to, and the time it can trust.
//
// Parties and keys: the device makes its key (ECDSA P-256) and never gives it
// away. The enrolment token brings two digests that do not come from the server
// at enrolment: that of the control plane's CA, which the server has to show
// before anything is sent to it, and that of root.json, which package trust
// starts from. The CA signs the device's certificate, whose common name is the
// device id. For a renewal the device makes a new key; the old certificate
// vouches for it.
//
// Everything is in one file that changes as a whole or not at all. A key waits
// in a file of its own until its certificate has come, so that a power cut in
// the middle costs nothing: the same key asks again, and the server gives the
// same answer without using the token up.
package identity

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// What can go wrong, with what to do about it.
var (
	// ErrNotEnrolled says that the directory holds no identity.
	ErrNotEnrolled = errors.New("this device is not enrolled: create a token with `vedette device token create` and run `vedette-agent enrol TOKEN`")
	// ErrEnrolled says that the directory holds one already.
	ErrEnrolled = errors.New("this device is enrolled already: to enrol it anew, say so with --replace")
	// ErrDamaged says that the identity cannot be read. It is never replaced by
	// itself: that needs a new token.
	ErrDamaged = errors.New("the device's identity is damaged: enrol again with a token that may replace the device")
	// ErrWrongCA says that another server answers, or something between.
	ErrWrongCA = errors.New("the server is not the control plane of this token (another certificate authority answered): check the address, and whether a proxy or a login page is in between")
	// ErrWrongServer says that the control plane's certificate is for another name.
	ErrWrongServer = errors.New("the control plane's certificate does not cover this address: start it with this name among its hosts, or create a token with its right address")
	// ErrUnreachable says that no server answered.
	ErrUnreachable = errors.New("the control plane cannot be reached: check the network and the address")
	// ErrRoot says that the device was given another root of trust than the token's.
	ErrRoot = errors.New("the token names another root.json than this device was given: create the token with the same root.json")
	// ErrToken says that the server does not take the token; it tells why.
	ErrToken = errors.New("the control plane refused the token")
	// ErrTokenUsed is an ErrToken that was used already.
	ErrTokenUsed = fmt.Errorf("%w: it was used already", ErrToken)
	// ErrTokenExpired is an ErrToken whose time is over.
	ErrTokenExpired = fmt.Errorf("%w: it has expired", ErrToken)
	// ErrDeviceExists says that the id is another device's.
	ErrDeviceExists = errors.New("the device id is taken: choose another, or create a token with --replace")
	// ErrRevoked says that the control plane has revoked this device.
	ErrRevoked = errors.New("this device was revoked: ask the operator, then enrol again with a token that may replace the device")
	// ErrServer says that the server is in trouble, or asks to come later.
	ErrServer = errors.New("the control plane could not answer")
	// ErrAnswer says that the answer is not one of a control plane.
	ErrAnswer = errors.New("the answer is not one of a control plane")
)

// Config of an Identity. The zero value is right on a device.
type Config struct {
	Now     func() time.Time // the device's clock; nil: time.Now
	Timeout time.Duration    // of one request; 0: DefaultTimeout
	Logger  *slog.Logger     // nil: none
}

// DefaultTimeout is patience for a slow link and a server under a storm.
const DefaultTimeout = 60 * time.Second

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Identity is an enrolled device.
type Identity struct {
	dir   string
	cfg   Config
	clock *clock

	mu    sync.RWMutex
	state *state // guarded by mu; what it points to does not change
}

// state is one consistent set of what an identity is.
type state struct {
	Format    int            `json:"format"`
	Device    string         `json:"device"`
	DeviceAPI string         `json:"device_api"`
	MQTT      []string       `json:"mqtt"`
	Root      release.Digest `json:"root"` // SHA-256 of root.json
	CA        string         `json:"ca"`   // PEM
	Cert      string         `json:"certificate"`
	Key       string         `json:"key"` // PEM; the reason for the file's mode
	Enrolled  time.Time      `json:"enrolled"`

	ca   *x509.Certificate
	pair tls.Certificate
}

// stateFormat is the version of the file. History:
//
//	1  2026-11-23  first
const stateFormat = 1

// Load opens the identity of a directory, as Open does with a zero Config.
func Load(dir string) (*Identity, error) { return Open(dir, Config{}) }

// Open opens the identity of a directory: ErrNotEnrolled when there is none.
func Open(dir string, cfg Config) (*Identity, error) {
	cfg = cfg.withDefaults()
	s, err := readState(dir)
	if err != nil {
		return nil, err
	}
	return newIdentity(dir, cfg, s), nil
}

func newIdentity(dir string, cfg Config, s *state) *Identity {
	return &Identity{dir: dir, cfg: cfg, clock: openClock(dir, cfg, s.ca.NotAfter), state: s}
}

func (i *Identity) now() *state {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.state
}

// Device is the device's id.
func (i *Identity) Device() string { return i.now().Device }

// MQTT are the brokers to connect to, in order of preference.
func (i *Identity) MQTT() []string { return slices.Clone(i.now().MQTT) }

// DeviceAPI is the URL of the control plane's device API, up to the host.
func (i *Identity) DeviceAPI() string { return i.now().DeviceAPI }

// RootDigest is the SHA-256 of the root.json that trust starts from.
func (i *Identity) RootDigest() release.Digest { return i.now().Root }

// Expires is when the certificate ends. For 180 days more it can be renewed.
func (i *Identity) Expires() time.Time { return i.now().pair.Leaf.NotAfter }

// CASHA256 is the digest of the control plane's CA certificate.
func (i *Identity) CASHA256() [sha256.Size]byte { return sha256.Sum256(i.now().ca.Raw) }

// Now is the latest of the device's clock, the agent's build time and the time
// the control plane has told, which goes on since. A clock that is far ahead of
// what was told since the start is not believed.
func (i *Identity) Now() time.Time { return i.clock.Now() }

// TrustedTime takes the server's time, in Unix milliseconds, from an
// authenticated answer. It is written down at most every few minutes.
func (i *Identity) TrustedTime(ms int64) { i.clock.Trust(ms) }

// TLS is the configuration of a connection to the control plane: the device's
// certificate, the pinned CA, the trusted time. It is for one connection: after
// a renewal there is another.
func (i *Identity) TLS() *tls.Config {
	s := i.now()
	pool := x509.NewCertPool()
	pool.AddCert(s.ca)
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{s.pair},
		RootCAs:      pool,
		Time:         i.clock.ForConnection,
	}
}

// client makes an HTTP client for a few requests; it keeps no connection open.
func client(timeout time.Duration, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialTLSContext:    dial,
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return fmt.Errorf("%w: it redirects", ErrAnswer)
		},
	}
}

// parse checks that the parts of a state belong together.
func (s *state) parse() error {
	if s.Format != stateFormat {
		return fmt.Errorf("format %d is not known to this agent, which knows %d", s.Format, stateFormat)
	}
	var err error
	if s.ca, err = parseCertificate(s.CA); err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	if s.pair, err = tls.X509KeyPair([]byte(s.Cert), []byte(s.Key)); err != nil {
		return fmt.Errorf("certificate and key: %w", err)
	}
	if err := s.pair.Leaf.CheckSignatureFrom(s.ca); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if name := s.pair.Leaf.Subject.CommonName; name != s.Device {
		return fmt.Errorf("certificate is of %q, not of %q", name, s.Device)
	}
	return nil
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("not a certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// sameKey says whether a certificate is of a key.
func sameKey(cert *x509.Certificate, key *ecdsa.PrivateKey) bool {
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	return ok && public.Equal(key.Public())
}
