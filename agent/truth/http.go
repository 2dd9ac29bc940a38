package truth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/protocol"
)

// ErrServer says that the control plane gave no batch.
var ErrServer = errors.New("the control plane gives no truths: look at its log; the device goes on trying")

// answerTimeout bounds one exchange: a batch has at most protocol.MaxTruthBatch bytes.
const answerTimeout = 2 * time.Minute

// HTTP is a Source: the control plane's device API. Client carries the device's
// certificate and trusts the control plane's CA alone.
type HTTP struct {
	Client *http.Client
	Base   string // URL up to the host, such as https://control.example:8443
}

var _ Source = (*HTTP)(nil)

// Next implements Source. A control plane that knows no truths has none.
func (h *HTTP) Next(ctx context.Context, taken *protocol.TruthTaken) (*protocol.TruthBatch, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	body, err := proto.Marshal(taken)
	if err != nil {
		return nil, fmt.Errorf("encode taken truths: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(h.Base, "/")+protocol.TruthPath, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("address of the control plane: %w", err)
	}
	req.Header.Set("Content-Type", protocol.MediaProtobuf)
	client := *h.Client
	// A control plane never sends a device elsewhere.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for truths: %w", link.Explain(err))
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode == http.StatusNoContent, res.StatusCode == http.StatusNotFound:
		return nil, nil
	case res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != protocol.MediaProtobuf:
		return nil, fmt.Errorf("%w (status %d)", ErrServer, res.StatusCode)
	}
	return decode(res.Body)
}

func decode(r io.Reader) (*protocol.TruthBatch, error) {
	raw, err := io.ReadAll(io.LimitReader(r, protocol.MaxTruthBatch+1))
	if err != nil {
		return nil, fmt.Errorf("read truths: %w", link.Explain(err))
	}
	if len(raw) > protocol.MaxTruthBatch {
		return nil, fmt.Errorf("%w: a batch is over %d bytes", ErrServer, protocol.MaxTruthBatch)
	}
	b := &protocol.TruthBatch{}
	if err := proto.Unmarshal(raw, b); err != nil {
		return nil, fmt.Errorf("%w: a batch is not readable: %w", ErrServer, err)
	}
	if n := len(b.GetTruths()); n > protocol.MaxTruths {
		return nil, fmt.Errorf("%w: a batch has %d truths, at most %d", ErrServer, n, protocol.MaxTruths)
	}
	return b, nil
}
