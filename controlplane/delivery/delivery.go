// Package delivery sends small messages to servers of other people: events that
// ask for retraining, and news of incidents. It signs and posts one message, and
// says when to try again; what is to be sent, and what was, its callers keep.
//
// Parties: the operator names the receiver, and may share a secret with it. The
// signature is HMAC-SHA256 under that secret over the time and the body, so that
// a receiver knows who sent it and can refuse what was recorded long ago.
//
// Receivers are an operator's choice, and loopback is allowed. Still nothing of
// an answer but its status is kept, redirects are not followed, and link-local
// addresses, where clouds answer for credentials, are not dialled.
package delivery

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// SignatureHeader carries "t=<Unix seconds>,v1=<hex>": the HMAC-SHA256 of the
// seconds, a dot and the body, under the receiver's secret.
const SignatureHeader = "X-Vedette-Signature"

// Bounds of one attempt.
const (
	// SendTimeout is for the whole of it.
	SendTimeout = 10 * time.Second
	dialTimeout = 5 * time.Second
	maxAnswer   = 64 << 10 // read, to reuse the connection, and thrown away
)

// Bounds of a receiver.
const (
	maxURL = 2048
	// MaxSecret bounds a shared secret, bytes.
	MaxSecret = 1024
)

var (
	// ErrLinkLocal says that a host resolves to a link-local address.
	ErrLinkLocal = errors.New("link-local addresses are not dialled: use the receiver's own address")
	// ErrURL says that something is no URL that can be posted to.
	ErrURL = errors.New("not a URL that can be posted to")
	// ErrSignature says that a message was not signed with this secret, or long ago.
	ErrSignature = errors.New("the signature does not fit")
)

// Message is one POST.
type Message struct {
	URL         string
	Secret      string // signs it; empty for no signature
	ContentType string
	ID          string // the same at every attempt, in the header Idempotency-Key; may be empty
	Body        []byte
}

// Refusal is an answer other than success.
type Refusal struct {
	Status int
	Wait   time.Duration // asked for by the receiver
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("answered %d %s", r.Status, http.StatusText(r.Status))
}

// Retryable tells whether the same message may be taken later. Other answers
// below 500 mean that it never will be.
func (r *Refusal) Retryable() bool {
	switch r.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return r.Status >= http.StatusInternalServerError
}

// Post sends a message once. An answer other than success is a *Refusal. Errors
// do not hold the URL, which may be a secret itself.
func Post(ctx context.Context, client *http.Client, now time.Time, m *Message) error {
	ctx, cancel := context.WithTimeout(ctx, SendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL, bytes.NewReader(m.Body))
	if err != nil {
		return fmt.Errorf("make request: %w", bare(err))
	}
	req.Header.Set("Content-Type", m.ContentType)
	req.Header.Set("User-Agent", "vedette-control")
	if m.ID != "" {
		req.Header.Set("Idempotency-Key", m.ID)
	}
	if m.Secret != "" {
		req.Header.Set(SignatureHeader, Signature(m.Secret, now, m.Body))
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("send: %w", bare(err))
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswer)
	if res.StatusCode/100 == 2 {
		return nil
	}
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		seconds = 0 // a date, or nothing: the usual backoff will do
	}
	return &Refusal{res.StatusCode, min(time.Duration(min(seconds, 3600))*time.Second, LongestWait)}
}

// bare drops the URL that http puts into its errors: it may hold credentials.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Signature is the value of SignatureHeader for a body.
func Signature(secret string, at time.Time, body []byte) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(sum(secret, seconds, body))
}

func sum(secret, seconds string, body []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return mac.Sum(nil)
}

// Verify checks the value of SignatureHeader as a receiver does: it must be made
// with the secret, and no longer than tolerance from now.
func Verify(secret, header string, now time.Time, tolerance time.Duration, body []byte) error {
	t, v1, _ := strings.Cut(header, ",")
	seconds, isTime := strings.CutPrefix(t, "t=")
	code, isCode := strings.CutPrefix(v1, "v1=")
	given, err := hex.DecodeString(code)
	at, wrong := strconv.ParseInt(seconds, 10, 64)
	switch {
	case !isTime || !isCode || err != nil || wrong != nil || !hmac.Equal(given, sum(secret, seconds, body)):
		return ErrSignature
	case now.Sub(time.Unix(at, 0)).Abs() > tolerance:
		return fmt.Errorf("%w: it was made %v ago", ErrSignature, now.Sub(time.Unix(at, 0)).Round(time.Second))
	}
	return nil
}

// CheckURL refuses what cannot be posted to.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || len(s) > maxURL:
		return fmt.Errorf("%w: it must have at most %d bytes", ErrURL, maxURL) // not shown: it may hold a password
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Opaque != "":
		return fmt.Errorf("%w: %.64q must be http://… or https://…", ErrURL, Name(s))
	case u.Fragment != "":
		return fmt.Errorf("%w: %.64q has a fragment, which is never sent", ErrURL, Name(s))
	}
	return nil
}

// Name is a URL for people: without credentials and query.
func Name(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "webhook"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// NewDialer makes the dialer of all deliveries: it refuses link-local addresses.
func NewDialer() *net.Dialer {
	return &net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("read address: %w", err)
		}
		if refused(to.Addr()) {
			return ErrLinkLocal
		}
		return nil
	}}
}

var (
	nat64 = netip.MustParsePrefix("64:ff9b::/96") // IPv4 behind a translator [RFC 6052]
	// clouds answer there for credentials too, though it is not link-local.
	clouds = netip.MustParseAddr("fd00:ec2::254")
)

// refused says whether an address is not dialled, in whichever form it is written.
func refused(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	return ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip == clouds
}

// NewClient makes the client that webhooks are called with: bounded in time,
// without redirects, and refusing link-local addresses.
func NewClient() *http.Client {
	return &http.Client{
		Timeout: SendTimeout,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: NewDialer().DialContext, TLSHandshakeTimeout: dialTimeout,
			ResponseHeaderTimeout: SendTimeout, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
