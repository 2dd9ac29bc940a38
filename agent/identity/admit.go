package identity

import (
	"context"
	"fmt"
	"net/http"

	"github.com/vedette-edge/vedette/protocol"
)

// Admitted asks the control plane whether it still takes the device's
// certificate, by a request that changes nothing. A connection alone does not
// tell: a revoked certificate is refused only once something is asked for. The
// error says why not: ErrRevoked, ErrUnreachable, or a *protocol.APIError.
func (i *Identity) Admitted(ctx context.Context) error {
	url := i.now().DeviceAPI + protocol.TrustPath + "timestamp.json"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	status, answer, err := exchange(client(i.cfg.Timeout, i.dial), req)
	switch {
	case err != nil:
		return err
	case status == http.StatusOK, status == http.StatusNotFound: // nothing was published yet
		return nil
	}
	return refusal(status, answer)
}
