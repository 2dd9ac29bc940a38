package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Devices reads one page of the fleet.
func (c *Client) Devices(ctx context.Context, q operator.DeviceQuery) (*operator.Page[operator.Device], error) {
	return get[operator.Page[operator.Device]](ctx, c, operator.EncodeQuery(q), "devices")
}

// Device reads everything about one device.
func (c *Client) Device(ctx context.Context, id string) (*operator.DeviceDetail, error) {
	return get[operator.DeviceDetail](ctx, c, nil, "devices", id)
}

// Totals reads what devices counted and what is known to be lost.
func (c *Client) Totals(ctx context.Context, q operator.TotalQuery) (*operator.Totals, error) {
	return get[operator.Totals](ctx, c, operator.EncodeQuery(q), "totals")
}

// Models reads the registry.
func (c *Client) Models(ctx context.Context) ([]operator.Model, error) {
	return items[operator.Model](ctx, c, "models")
}

// items reads a list that comes whole.
func items[T any](ctx context.Context, c *Client, segments ...string) ([]T, error) {
	list, err := get[[]T](ctx, c, nil, segments...)
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// Model reads a model with its versions.
func (c *Client) Model(ctx context.Context, name string) (*operator.ModelDetail, error) {
	return get[operator.ModelDetail](ctx, c, nil, "models", name)
}

// Version reads everything about one version.
func (c *Client) Version(ctx context.Context, model, version string) (*operator.VersionDetail, error) {
	return get[operator.VersionDetail](ctx, c, nil, "models", model, "versions", version)
}

// Challenges lists the versions that run beside primary ones.
func (c *Client) Challenges(ctx context.Context) ([]operator.Challenge, error) {
	return items[operator.Challenge](ctx, c, "challenges")
}

// Challenge reads a model's newest challenge.
func (c *Client) Challenge(ctx context.Context, model string) (*operator.ChallengeDetail, error) {
	return get[operator.ChallengeDetail](ctx, c, nil, "models", model, "challenge")
}

// Rollouts reads one page of rollouts.
func (c *Client) Rollouts(ctx context.Context, q operator.RolloutQuery) (*operator.Page[operator.RolloutSummary], error) {
	return get[operator.Page[operator.RolloutSummary]](ctx, c, operator.EncodeQuery(q), "rollouts")
}

// Rollout reads everything about one rollout.
func (c *Client) Rollout(ctx context.Context, id string) (*operator.Rollout, error) {
	return get[operator.Rollout](ctx, c, nil, "rollouts", id)
}

// RolloutDevices reads one page of a rollout's devices.
func (c *Client) RolloutDevices(ctx context.Context, id string, q operator.RolloutDeviceQuery) (*operator.Page[operator.WaveDevice], error) {
	return get[operator.Page[operator.WaveDevice]](ctx, c, operator.EncodeQuery(q), "rollouts", id, "devices")
}

// RolloutDevice asks where a device is in a rollout, and why.
func (c *Client) RolloutDevice(ctx context.Context, id, device string) (*operator.WaveDevice, error) {
	return get[operator.WaveDevice](ctx, c, nil, "rollouts", id, "devices", device)
}

// RolloutDecisions reads one page of a rollout's decisions.
func (c *Client) RolloutDecisions(ctx context.Context, id string, p operator.Paging) (*operator.Page[operator.Decision], error) {
	return get[operator.Page[operator.Decision]](ctx, c, operator.EncodeQuery(p), "rollouts", id, "decisions")
}

// ExplainRollout asks why a rollout is where it is.
func (c *Client) ExplainRollout(ctx context.Context, id string) (*operator.Explanation, error) {
	return get[operator.Explanation](ctx, c, nil, "rollouts", id, "explain")
}

// PlanRollout asks what a rollout would do. It changes nothing, so it is
// repeated like a read.
func (c *Client) PlanRollout(ctx context.Context, s operator.RolloutSpec) (plan *operator.Plan, err error) {
	err = c.retry(ctx, func() error {
		plan, err = send[operator.Plan](ctx, c, call{method: http.MethodPost, path: "/rollouts/plan", body: s})
		return err
	})
	return plan, err
}

// Drift reads the heat map of one model.
func (c *Client) Drift(ctx context.Context, model string) (*operator.Drift, error) {
	return get[operator.Drift](ctx, c, nil, "models", model, "drift")
}

// Alarms reads one page of alarms.
func (c *Client) Alarms(ctx context.Context, q operator.AlarmQuery) (*operator.Page[operator.Alarm], error) {
	return get[operator.Page[operator.Alarm]](ctx, c, operator.EncodeQuery(q), "alarms")
}

// Quality reads a model's time series.
func (c *Client) Quality(ctx context.Context, q operator.QualityQuery) (*operator.Quality, error) {
	return get[operator.Quality](ctx, c, operator.EncodeQuery(q), "models", q.Model, "quality")
}

// RetrainEvents reads one page of requests for retraining.
func (c *Client) RetrainEvents(ctx context.Context, q operator.RetrainQuery) (*operator.Page[operator.RetrainEvent], error) {
	return get[operator.Page[operator.RetrainEvent]](ctx, c, operator.EncodeQuery(q), "retrain-events")
}

// RetrainPolicy reads when a model asks for retraining.
func (c *Client) RetrainPolicy(ctx context.Context, model string) (*operator.RetrainPolicy, error) {
	return get[operator.RetrainPolicy](ctx, c, nil, "models", model, "retrain-policy")
}

// Ledger reads one page of the ledger.
func (c *Client) Ledger(ctx context.Context, q operator.LedgerQuery) (*operator.Page[operator.LedgerRecord], error) {
	return get[operator.Page[operator.LedgerRecord]](ctx, c, operator.EncodeQuery(q), "ledger")
}

// ExportLedger writes the whole ledger as JSON lines. It is not repeated: part
// of it may have been written. An error means that w holds no whole ledger.
func (c *Client) ExportLedger(ctx context.Context, w io.Writer) error {
	req, err := c.request(ctx, http.MethodGet, "/ledger/export", nil, http.NoBody)
	if err != nil {
		return err
	}
	return c.exchange(req, func(res *http.Response) error {
		if _, err := io.Copy(w, res.Body); err != nil {
			return operator.Errorf(operator.Unreachable, "the export broke off: %w", err).WithHint("run it again")
		}
		return nil
	})
}

// EnrolTokens lists enrolment tokens.
func (c *Client) EnrolTokens(ctx context.Context) ([]operator.EnrolToken, error) {
	return items[operator.EnrolToken](ctx, c, "enrol-tokens")
}

// Tokens lists operator tokens.
func (c *Client) Tokens(ctx context.Context) ([]operator.Token, error) {
	return items[operator.Token](ctx, c, "tokens")
}

// Server reads what the control plane is.
func (c *Client) Server(ctx context.Context) (*operator.ServerInfo, error) {
	return get[operator.ServerInfo](ctx, c, nil, "server")
}

// Overview reads the fleet at a glance.
func (c *Client) Overview(ctx context.Context) (*operator.Overview, error) {
	return get[operator.Overview](ctx, c, nil, "overview")
}

// Settings reads what is asked of all devices.
func (c *Client) Settings(ctx context.Context) (*operator.Settings, error) {
	return get[operator.Settings](ctx, c, nil, "settings")
}

// BlobStatus asks how far the upload of a blob is.
func (c *Client) BlobStatus(ctx context.Context, d release.Digest) (*operator.Upload, error) {
	return get[operator.Upload](ctx, c, nil, "uploads", d.String())
}

// Trust reads the state of the server's TUF repository.
func (c *Client) Trust(ctx context.Context) (*operator.Trust, error) {
	return get[operator.Trust](ctx, c, nil, "trust")
}

// TrustMetadata reads one signed metadata file, byte for byte.
func (c *Client) TrustMetadata(ctx context.Context, name string) ([]byte, error) {
	raw, err := get[json.RawMessage](ctx, c, nil, "trust", "metadata", name)
	if err != nil {
		return nil, err
	}
	return *raw, nil
}
