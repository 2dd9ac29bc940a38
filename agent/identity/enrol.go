package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
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
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// maxAnswer bounds an answer in bytes: three certificates.
const maxAnswer = 64 << 10

// Options of an enrolment. The zero value takes everything from the token.
type Options struct {
	Config

	Device  string         // id to propose; the token may fix another
	Root    release.Digest // of the root.json on the device's image; it must be the token's
	Replace bool           // enrol although the device is enrolled already
}

// Enrol gets the device its identity for a token and keeps it in a directory.
// After an error, or a power cut at any moment, the same call can be made again
// with the same token.
func Enrol(ctx context.Context, dir, token string, opts Options) (*Identity, error) {
	opts.Config = opts.withDefaults()
	t, err := protocol.ParseToken(token)
	if err != nil {
		return nil, err
	}
	if err := mayEnrol(dir, t, &opts); err != nil {
		return nil, err
	}
	key, err := pendingKey(dir)
	if err != nil {
		return nil, err
	}
	csr, err := makeCSR(key, opts.Device)
	if err != nil {
		return nil, err
	}
	answer, err := ask(ctx, dir, t, &opts, protocol.EnrolRequest{Token: t.Secret, Device: opts.Device, CSR: csr})
	if err != nil {
		return nil, fmt.Errorf("enrol at %s: %w", t.DeviceAPI, err)
	}
	s, err := enrolled(t, answer, key, opts.Now())
	if err != nil {
		return nil, fmt.Errorf("enrol at %s: %w", t.DeviceAPI, err)
	}
	if err := writeState(dir, s); err != nil {
		return nil, err
	}
	i := newIdentity(dir, opts.Config, s)
	i.TrustedTime(answer.ServerMS)
	return i, nil
}

// ask posts the request. A device that enrols may have no idea of the time, or
// a wrong one: a server whose certificate is not valid then is judged by the
// time that the agent and the token prove to have passed.
func ask(ctx context.Context, dir string, t *protocol.EnrolmentToken, opts *Options, in protocol.EnrolRequest) (answer *protocol.EnrolResponse, err error) {
	clock := openClock(dir, opts.Config, oldest.Add(100*365*24*time.Hour))
	for _, now := range []time.Time{clock.Now(), buildTime(), t.Expires} {
		answer, err = post(ctx, client(opts.Timeout, pinned(opts.Timeout, t.CA, now)), t.DeviceAPI+protocol.EnrolPath, in)
		if !errors.Is(err, link.ErrExpired) {
			break
		}
	}
	return answer, err
}

func mayEnrol(dir string, t *protocol.EnrolmentToken, opts *Options) error {
	if !opts.Root.IsZero() && opts.Root != release.Digest(t.Root) {
		return ErrRoot
	}
	if opts.Device != "" {
		if err := protocol.CheckDeviceID(opts.Device); err != nil {
			return err
		}
	}
	_, err := readState(dir)
	if opts.Replace || errors.Is(err, ErrNotEnrolled) {
		return nil
	}
	return cmp.Or(err, ErrEnrolled)
}

// enrolled builds the identity from the answer, believing nothing in it that the
// token does not vouch for.
func enrolled(t *protocol.EnrolmentToken, answer *protocol.EnrolResponse, key *ecdsa.PrivateKey, now time.Time) (*state, error) {
	ca, err := parseCertificate(answer.CA)
	if err != nil {
		return nil, fmt.Errorf("%w: CA: %w", ErrAnswer, err)
	}
	if sha256.Sum256(ca.Raw) != t.CA {
		return nil, ErrWrongCA
	}
	s := &state{
		DeviceAPI: strings.TrimSuffix(t.DeviceAPI, "/"), MQTT: t.MQTT, Root: release.Digest(t.Root), CA: answer.CA,
		Enrolled: now.UTC().Truncate(time.Second),
	}
	if len(answer.MQTT) > 0 {
		s.MQTT = answer.MQTT
	}
	if err := protocol.CheckMQTT(s.MQTT); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return s.certified(answer, key)
}

// certified returns a copy of s with the certificate of an answer.
func (s *state) certified(answer *protocol.EnrolResponse, key *ecdsa.PrivateKey) (*state, error) {
	pemKey, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	next := *s
	next.Format, next.Device, next.Cert, next.Key = stateFormat, answer.Device, answer.Certificate, string(pemKey)
	if err := protocol.CheckDeviceID(next.Device); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if err := next.parse(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if !sameKey(next.pair.Leaf, key) {
		return nil, fmt.Errorf("%w: the certificate is of another key", ErrAnswer)
	}
	return &next, nil
}

func makeCSR(key *ecdsa.PrivateKey, device string) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: device}}, key)
	if err != nil {
		return "", fmt.Errorf("make certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// pinned dials a server that must show the CA of that digest in its chain and a
// certificate by it for the name dialled.
func pinned(timeout time.Duration, ca [sha256.Size]byte, now time.Time) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: timeout}, Config: &tls.Config{
			MinVersion: tls.VersionTLS12,
			ServerName: host,
			// The pool of the system means nothing here; VerifyConnection checks
			// against the token alone.
			InsecureSkipVerify: true, //nolint:gosec // see above
			VerifyConnection: func(cs tls.ConnectionState) error {
				return verifyPinned(cs.PeerCertificates, ca, host, now)
			},
		}}
		return d.DialContext(ctx, network, address)
	}
}

func verifyPinned(chain []*x509.Certificate, pin [sha256.Size]byte, host string, now time.Time) error {
	roots := x509.NewCertPool()
	found := false
	for _, cert := range chain {
		if sha256.Sum256(cert.Raw) == pin {
			roots.AddCert(cert)
			found = true
		}
	}
	if !found {
		return ErrWrongCA
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now})
	if err = link.Explain(err); errors.Is(err, link.ErrExpired) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrongCA, err)
	}
	if err := chain[0].VerifyHostname(host); err != nil {
		return fmt.Errorf("%w: %w", ErrWrongServer, err)
	}
	return nil
}

// post sends a request and reads the certificate that answers it.
func post(ctx context.Context, c *http.Client, url string, body any) (*protocol.EnrolResponse, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	status, answer, err := exchange(c, req)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, refusal(status, answer)
	}
	var out protocol.EnrolResponse
	if err := json.Unmarshal(answer, &out); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return &out, nil
}

// exchange sends a request and reads the answer, both within the client's
// timeout. A server that sees the connection closed then may end its answer in
// good order, so the end of the time counts, not only an error of the read.
func exchange(c *http.Client, req *http.Request) (status int, answer []byte, err error) {
	whole := req.Context()
	ctx, cancel := context.WithTimeout(whole, c.Timeout)
	defer cancel()
	once := *c
	once.Timeout = 0
	res, err := once.Do(req.WithContext(ctx))
	if err != nil {
		return 0, nil, transportError(whole, err)
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, nil, transportError(whole, err)
	}
	return res.StatusCode, answer, nil
}

// transportError tells a server that is not the right one from one that is not
// there, and says why.
func transportError(ctx context.Context, err error) error {
	why := link.Explain(err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrWrongCA), errors.Is(err, ErrWrongServer), errors.Is(err, ErrAnswer), errors.Is(why, link.ErrExpired):
		return why
	case errors.Is(why, link.ErrAuthority), errors.Is(why, link.ErrNotTLS):
		return fmt.Errorf("%w: %w", ErrWrongCA, why)
	case errors.Is(why, link.ErrServerName):
		return fmt.Errorf("%w: %w", ErrWrongServer, why)
	default:
		return fmt.Errorf("%w: %w", ErrUnreachable, why)
	}
}

// refusals are the codes of the device API that a person can do something about.
var refusals = map[string]error{
	protocol.CodeTokenUnknown: ErrToken,
	protocol.CodeTokenExpired: ErrTokenExpired,
	protocol.CodeTokenUsed:    ErrTokenUsed,
	protocol.CodeTokenRevoked: ErrToken,
	protocol.CodeDeviceExists: ErrDeviceExists,
	protocol.CodeRevoked:      ErrRevoked,
	protocol.CodeTooMany:      ErrServer,
	protocol.CodeUnavailable:  ErrServer,
	protocol.CodeInternal:     ErrServer,
}

func refusal(status int, body []byte) error {
	var e protocol.APIError
	switch err := json.Unmarshal(body, &e); {
	case (err != nil || e.Code == "") && status >= http.StatusInternalServerError:
		return fmt.Errorf("%w: status %d", ErrServer, status)
	case err != nil || e.Code == "":
		return fmt.Errorf("%w: status %d", ErrAnswer, status)
	}
	if known, ok := refusals[e.Code]; ok {
		return fmt.Errorf("%w: %w", known, &e)
	}
	return &e
}
