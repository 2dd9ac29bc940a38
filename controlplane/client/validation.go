package client

import (
	"context"
	"net/http"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// GatePolicy reads the gates of a model.
func (c *Client) GatePolicy(ctx context.Context, model string) (*operator.GatePolicy, error) {
	return get[operator.GatePolicy](ctx, c, nil, "models", model, "gates")
}

// SetGatePolicy sets the gates of a model.
func (c *Client) SetGatePolicy(ctx context.Context, model string, p operator.GatePolicyChange) (*operator.GatePolicy, error) {
	return send[operator.GatePolicy](ctx, c, call{method: http.MethodPut, path: path("models", model, "gates"), body: p})
}

// Validation reads how a version stands with the gates.
func (c *Client) Validation(ctx context.Context, model, version string) (*operator.Validation, error) {
	return get[operator.Validation](ctx, c, nil, "models", model, "versions", version, "gates")
}

// AddEvidence brings evidence for the gates of a version.
func (c *Client) AddEvidence(ctx context.Context, model, version string, e operator.EvidenceAdded) (*operator.Validation, error) {
	return send[operator.Validation](ctx, c, call{method: http.MethodPost, path: path("models", model, "versions", version, "evidence"), body: e})
}

// OverrideGate lets a version past one gate.
func (c *Client) OverrideGate(ctx context.Context, model, version, gate string, r operator.Reasoned) (*operator.Validation, error) {
	return send[operator.Validation](ctx, c, call{
		method: http.MethodPost, path: path("models", model, "versions", version, "gates", gate, "override"), body: r,
	})
}

// SetLabTrial has lab devices try a version, or stop.
func (c *Client) SetLabTrial(ctx context.Context, model, version string, l operator.LabTrialChange) (*operator.Validation, error) {
	return send[operator.Validation](ctx, c, call{method: http.MethodPut, path: path("models", model, "versions", version, "lab"), body: l})
}

// History reads what was in production, where, when, by whom and why.
func (c *Client) History(ctx context.Context, model string, q operator.HistoryQuery) (*operator.History, error) {
	return get[operator.History](ctx, c, operator.EncodeQuery(q), "models", model, "history")
}
