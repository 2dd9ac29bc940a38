// Package client calls the operator HTTP API. A Client satisfies the same
// interfaces as the control plane's own service (package operator), so what is
// written for one runs on the other.
//
// Reads are repeated when the connection fails or the server says that it is
// not available; commands are sent once, since their first try may have been
// carried out. Errors are *operator.Error and say what to do next.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Limits of the client side.
const (
	// DefaultTimeout bounds one try of a call that is neither an upload nor a
	// stream; the server gives itself 30 s.
	DefaultTimeout = 45 * time.Second
	// DefaultTries is how often a read is tried. With the pauses between them a
	// restart of the server of a few seconds goes unnoticed.
	DefaultTries = 6
	// maxReply bounds one reply in bytes: a page of 1,000 devices is about 3 MiB.
	maxReply = 64 << 20
	// firstPause and maxPause bound the pauses between tries.
	firstPause, maxPause = 200 * time.Millisecond, 5 * time.Second
)

// Options change how a Client works. The zero value is useful.
type Options struct {
	RootCAs   *x509.CertPool    // nil: those of the system
	Transport http.RoundTripper // nil: one with RootCAs
	Timeout   time.Duration     // of one try; 0: DefaultTimeout
	Tries     int               // of a read; 0: DefaultTries
	UserAgent string
}

// Client calls one server with one token. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	token   string
	http    *http.Client
	timeout time.Duration
	tries   int
	agent   string
}

// The same interfaces as the server's own service.
var (
	_ operator.Reader     = (*Client)(nil)
	_ operator.Commander  = (*Client)(nil)
	_ operator.BlobStore  = (*Client)(nil)
	_ operator.TrustStore = (*Client)(nil)
)

// New makes a client of the server at an http or https URL. It does not call it.
func New(server, token string, o Options) (*Client, error) {
	base, err := parseServer(server)
	if err != nil {
		return nil, err
	}
	c := &Client{base: base, token: token, timeout: o.Timeout, tries: o.Tries, agent: o.UserAgent}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	if c.tries == 0 {
		c.tries = DefaultTries
	}
	if c.agent == "" {
		c.agent = "vedette-client"
	}
	transport := o.Transport
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // documented type
		t.TLSClientConfig = &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12}
		transport = t
	}
	// A redirect would carry the token elsewhere; the API sends none.
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

func parseServer(server string) (*url.URL, error) {
	base, err := url.Parse(strings.TrimRight(server, "/"))
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "server URL: %w", err)
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" || base.RawQuery != "" || base.User != nil {
		return nil, operator.Errorf(operator.Invalid, "server %q is not an http or https URL", base.Redacted()).
			WithHint("give it like https://control.example.org:8443")
	}
	return base, nil
}

// Address is the URL of the server.
func (c *Client) Address() string { return c.base.String() }

// call is one request. Body, when not nil, is sent as JSON.
type call struct {
	method   string
	path     string // below operator.Prefix, escaped
	query    url.Values
	body     any
	revision string // If-Match
}

// get reads with retries.
func get[R any](ctx context.Context, c *Client, query url.Values, segments ...string) (*R, error) {
	var result *R
	err := c.retry(ctx, func() error {
		result = new(R)
		return c.do(ctx, call{method: http.MethodGet, path: path(segments...), query: query}, result)
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// send calls once.
func send[R any](ctx context.Context, c *Client, r call) (*R, error) {
	result := new(R)
	if err := c.do(ctx, r, result); err != nil {
		return nil, err
	}
	return result, nil
}

// path joins escaped segments.
func path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// do sends one request and decodes the reply into result unless that is nil.
func (c *Client) do(ctx context.Context, r call, result any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := c.jsonRequest(ctx, r)
	if err != nil {
		return err
	}
	return c.exchange(req, func(res *http.Response) error {
		if result == nil || res.StatusCode == http.StatusNoContent {
			return nil
		}
		return decodeReply(res, result)
	})
}

func (c *Client) jsonRequest(ctx context.Context, r call) (*http.Request, error) {
	var body io.Reader = http.NoBody
	if r.body != nil {
		encoded, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(encoded)
	}
	req, err := c.request(ctx, r.method, r.path, r.query, body)
	if err != nil {
		return nil, err
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.revision != "" {
		req.Header.Set("If-Match", strconv.Quote(r.revision))
	}
	return req, nil
}

// request makes a request with the token.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Request, error) {
	target := c.base.String() + operator.Prefix + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "make request: %w", err)
	}
	req.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// exchange sends a request and gives a response of status 2xx to read. Any
// other is an error.
func (c *Client) exchange(req *http.Request, read func(*http.Response) error) error {
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(req.Context(), err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode < 200 || res.StatusCode >= 300 {
		return c.refusal(res)
	}
	return read(res)
}

// refusal reads the error of a response.
func (c *Client) refusal(res *http.Response) error {
	body := operator.Error{}
	raw, err := io.ReadAll(io.LimitReader(res.Body, operator.MaxBody))
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil || body.Code == "" {
		return operator.Errorf(operator.UnknownResponse, "%s answered %q, which is not the operator API", c.base, res.Status).
			WithHint("check the server URL, and any proxy between")
	}
	if body.Code == operator.Unauthorized {
		body.Hint = "set a valid token: vedette login, --token-file FILE or VEDETTE_TOKEN"
	}
	return &body
}

// unreachable explains a request that got no answer. Context errors stay
// recognisable.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // its text repeats the whole URL
	}
	e := operator.Errorf(operator.Unreachable, "no answer from %s: %w", c.base, err)
	if _, badCert := errors.AsType[*tls.CertificateVerificationError](err); badCert {
		return e.WithHint("trust the CA of the server's certificate: give it with --ca FILE or VEDETTE_CA")
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return e
	}
	return e.WithHint("check that vedette-control runs and that the server URL is right: --server URL or VEDETTE_SERVER")
}

func decodeReply(res *http.Response, result any) error {
	if media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return operator.Errorf(operator.UnknownResponse, "the reply is %q, not JSON", res.Header.Get("Content-Type")).
			WithHint("check the server URL, and any proxy between")
	}
	if raw, ok := result.(*json.RawMessage); ok {
		all, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
		*raw = all
		return broken(err)
	}
	return broken(json.NewDecoder(io.LimitReader(res.Body, maxReply)).Decode(result))
}

// broken marks a reply that ended early as a failed connection.
func broken(err error) error {
	if err == nil {
		return nil
	}
	if _, isSyntax := errors.AsType[*json.SyntaxError](err); isSyntax {
		return operator.Errorf(operator.UnknownResponse, "read reply: %w", err)
	}
	if _, isType := errors.AsType[*json.UnmarshalTypeError](err); isType {
		return operator.Errorf(operator.UnknownResponse, "read reply: %w", err).WithHint("server and client may be of different versions")
	}
	return operator.Errorf(operator.Unreachable, "read reply: %w", err)
}

// Temporary says whether the same call may succeed a little later.
func Temporary(err error) bool {
	switch operator.CodeOf(err) { //nolint:exhaustive // all others are lasting
	case operator.Unreachable:
		return !errors.Is(err, context.Canceled) && !isBadCertificate(err)
	case operator.Unavailable, operator.TooMany:
		return true
	default:
		return false
	}
}

func isBadCertificate(err error) bool {
	_, bad := errors.AsType[*tls.CertificateVerificationError](err)
	return bad
}

// retry tries fn until it succeeds, fails for good, or has had all its tries.
func (c *Client) retry(ctx context.Context, fn func() error) error {
	for try := 1; ; try++ {
		err := fn()
		if err == nil || try >= c.tries || !Temporary(err) || ctx.Err() != nil {
			return err
		}
		if !wait(ctx, pause(try)) {
			return err
		}
	}
}

// pause is the time before the try after try number n: exponential, with full
// jitter in its upper half.
func pause(n int) time.Duration {
	d := firstPause
	for range n - 1 {
		d = min(2*d, maxPause)
	}
	return d/2 + rand.N(d/2) //nolint:gosec // spreads load, guards nothing
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
