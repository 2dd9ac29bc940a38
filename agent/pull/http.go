package pull

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// Paths of the control plane's device API.
const (
	blobPath  = protocol.BlobPath
	trustPath = protocol.TrustPath
)

const (
	// maxOffer bounds the answer to a question for a delta, in bytes.
	maxOffer = 4 << 10
	// maxWait bounds the patience that a server can ask for.
	maxWait = 10 * time.Minute
	// metadataTimeout bounds one metadata file, of which the largest has 1 MiB.
	metadataTimeout = 2 * time.Minute
)

// HTTP reads blobs and metadata from the control plane's device API. Client
// carries the device's certificate and trusts the control plane's CA alone.
type HTTP struct {
	Client *http.Client
	Base   string // URL up to the host, such as https://control.example:8443

	patience time.Duration // bounds one metadata file; metadataTimeout when 0
}

var (
	_ BlobSource    = (*HTTP)(nil)
	_ DeltaSource   = (*HTTP)(nil)
	_ trust.Fetcher = (*HTTP)(nil)
)

// Open implements BlobSource. When the server does not know ranges, the bytes
// before offset are read and dropped.
func (h *HTTP) Open(ctx context.Context, d release.Digest, offset int64) (io.ReadCloser, error) {
	res, err := h.get(ctx, blobPath+d.String(), offset)
	if err != nil {
		return nil, err
	}
	skip, err := bodyStart(res, offset)
	if err != nil {
		return nil, errors.Join(err, res.Body.Close())
	}
	return &tail{ReadCloser: res.Body, skip: skip}, nil
}

// tail drops the first bytes of a body. Each Read drops one buffer and returns
// nothing, so that whoever watches the reader sees that it moves.
type tail struct {
	io.ReadCloser
	skip int64
}

func (t *tail) Read(b []byte) (int, error) {
	if t.skip == 0 {
		return t.ReadCloser.Read(b)
	}
	n, err := t.ReadCloser.Read(b[:min(int64(len(b)), t.skip)])
	t.skip -= int64(n)
	return 0, err
}

// bodyStart says how many bytes of the body come before offset.
func bodyStart(res *http.Response, offset int64) (skip int64, err error) {
	if res.StatusCode == http.StatusOK {
		return offset, nil
	}
	if offset == 0 || res.StatusCode == http.StatusNoContent {
		return 0, classify(fmt.Errorf("%w: nothing or a part came where all was asked for", ErrServer))
	}
	at, _, ok := strings.Cut(strings.TrimPrefix(res.Header.Get("Content-Range"), "bytes "), "-")
	if got, err := strconv.ParseInt(at, 10, 64); !ok || err != nil || got != offset {
		return 0, classify(fmt.Errorf("%w: asked for bytes from %d on, got %q", ErrServer, offset, res.Header.Get("Content-Range")))
	}
	return 0, nil
}

// Delta implements DeltaSource. A server that knows no deltas has none.
func (h *HTTP) Delta(ctx context.Context, to release.Digest, from []release.Digest) (o Offer, err error) {
	names := make([]string, len(from))
	for i, d := range from {
		names[i] = d.String()
	}
	res, err := h.get(ctx, blobPath+to.String()+protocol.DeltaSuffix+"?from="+strings.Join(names, ","), 0)
	if err != nil {
		return o, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return o, classify(fmt.Errorf("%w: no delta was made", ErrNotFound))
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxOffer))
	if err != nil {
		return o, linkError(ctx, "read offer of a delta", err)
	}
	var answer protocol.DeltaOffer
	if err := json.Unmarshal(body, &answer); err != nil {
		return o, fmt.Errorf("%w: %w", errOffer, err)
	}
	o.Size = answer.Size
	if o.From, err = release.ParseDigest(answer.From); err == nil {
		o.Delta, err = release.ParseDigest(answer.Delta)
	}
	if err != nil {
		return o, fmt.Errorf("%w: %w", errOffer, err)
	}
	return o, nil
}

// Metadata implements trust.Fetcher.
func (h *HTTP) Metadata(ctx context.Context, name string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(h.patience, metadataTimeout), errStalled)
	defer cancel()
	res, err := h.get(ctx, trustPath+url.PathEscape(name)+".json", 0)
	if errors.Is(err, ErrNotFound) {
		// Not an *Error: for the end of a chain of roots this is the usual answer,
		// and a server without any metadata will have some later.
		return nil, fmt.Errorf("%w: %v", trust.ErrNotFound, err) //nolint:errorlint // see above
	}
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil || ctx.Err() != nil {
		return nil, linkError(ctx, "read "+name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s is over %d bytes", trust.ErrTampered, name, limit)
	}
	return b, nil
}

// get sends a request and turns every answer but a file into an error.
func (h *HTTP) get(ctx context.Context, path string, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(h.Base, "/")+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("address of the control plane: %w", err)
	}
	// A proxy that compresses would change offsets.
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	// A control plane never sends a device elsewhere.
	client := *h.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return nil, linkError(ctx, "ask the control plane", err)
	}
	if ctx.Err() != nil { // the server answers that the connection was closed
		return nil, errors.Join(context.Cause(ctx), res.Body.Close())
	}
	if err := refusal(res); err != nil {
		return nil, errors.Join(err, res.Body.Close())
	}
	return res, nil
}

// refusal is the error that a response stands for, or nil.
func refusal(res *http.Response) error {
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	page := kind == "text/html" || kind == "application/xhtml+xml"
	switch code := res.StatusCode; {
	case page && code < http.StatusInternalServerError && code != http.StatusNotFound:
		return classify(fmt.Errorf("%w (status %d)", ErrPortal, code))
	case res.Header.Get("Location") != "" && code/100 == 3:
		return classify(fmt.Errorf("%w: it redirects to %q", ErrPortal, res.Header.Get("Location")))
	case code == http.StatusOK, code == http.StatusPartialContent, code == http.StatusNoContent:
		return nil
	case code == http.StatusNotFound, code == http.StatusGone:
		return classify(fmt.Errorf("%w (status %d)", ErrNotFound, code))
	case code == http.StatusRequestedRangeNotSatisfiable:
		return classify(fmt.Errorf("%w: the server's file is shorter than the signed one", ErrDigest))
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= http.StatusInternalServerError:
		return &Error{code: "server", retry: true, after: retryAfter(res), err: fmt.Errorf("%w (status %d)", ErrServer, code)}
	default:
		return classify(fmt.Errorf("%w (status %d)", ErrRefused, code))
	}
}

// retryAfter is the patience that the server asks for, in seconds.
func retryAfter(res *http.Response) time.Duration {
	s, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return min(time.Duration(s)*time.Second, maxWait)
}

// linkError marks an error of the connection, unless the caller gave up.
func linkError(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return classify(fmt.Errorf("%s: %w: %w", doing, ErrLink, link.Explain(err)))
}
