package client

import (
	"context"
	"net/http"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// SetLabels sets and removes labels of a device.
func (c *Client) SetLabels(ctx context.Context, id string, l operator.LabelChange) (*operator.Device, error) {
	return send[operator.Device](ctx, c, call{method: http.MethodPatch, path: path("devices", id, "labels"), body: l, revision: l.Revision})
}

// RevokeDevice refuses a device's certificate from now on.
func (c *Client) RevokeDevice(ctx context.Context, id string, r operator.Reasoned) error {
	return c.do(ctx, call{method: http.MethodPost, path: path("devices", id, "revoke"), body: r}, nil)
}

// SetStage moves a version to a stage.
func (c *Client) SetStage(ctx context.Context, model, version string, s operator.StageChange) (*operator.Version, error) {
	return send[operator.Version](ctx, c, call{
		method: http.MethodPut, path: path("models", model, "versions", version, "stage"), body: s, revision: s.Revision,
	})
}

// SetChallenge puts a version beside the primary one of its model.
func (c *Client) SetChallenge(ctx context.Context, model string, n operator.ChallengeCreate) (*operator.Challenge, error) {
	return send[operator.Challenge](ctx, c, call{method: http.MethodPut, path: path("models", model, "challenge"), body: n})
}

// EndChallenge takes a model's challenger away.
func (c *Client) EndChallenge(ctx context.Context, model string, r operator.Reasoned) (*operator.Challenge, error) {
	return send[operator.Challenge](ctx, c, call{method: http.MethodPost, path: path("models", model, "challenge", "end"), body: r})
}

// InstallRoot installs a root of trust, or the next one of the chain.
func (c *Client) InstallRoot(ctx context.Context, u operator.RootUpload) (*operator.Trust, error) {
	return send[operator.Trust](ctx, c, call{method: http.MethodPut, path: "/trust/root", body: u})
}

// Publish publishes signed targets.
func (c *Client) Publish(ctx context.Context, u operator.TargetsUpload) (*operator.Published, error) {
	return send[operator.Published](ctx, c, call{method: http.MethodPost, path: "/trust/targets", body: u})
}

// CreateRollout makes a rollout.
func (c *Client) CreateRollout(ctx context.Context, r operator.RolloutCreate) (*operator.Rollout, error) {
	return send[operator.Rollout](ctx, c, call{method: http.MethodPost, path: "/rollouts", body: r})
}

// ActOnRollout starts, pauses, resumes, aborts … a rollout.
func (c *Client) ActOnRollout(ctx context.Context, id string, a operator.RolloutAction) (*operator.Rollout, error) {
	return send[operator.Rollout](ctx, c, call{method: http.MethodPost, path: path("rollouts", id, "actions"), body: a})
}

// SetRetrainPolicy changes when a model asks for retraining.
func (c *Client) SetRetrainPolicy(ctx context.Context, p operator.RetrainPolicy) (*operator.RetrainPolicy, error) {
	return send[operator.RetrainPolicy](ctx, c, call{method: http.MethodPut, path: path("models", p.Model, "retrain-policy"), body: p})
}

// CreateEnrolToken makes an enrolment token.
func (c *Client) CreateEnrolToken(ctx context.Context, t operator.EnrolTokenCreate) (*operator.EnrolSecret, error) {
	return send[operator.EnrolSecret](ctx, c, call{method: http.MethodPost, path: "/enrol-tokens", body: t})
}

// RevokeEnrolToken revokes an enrolment token.
func (c *Client) RevokeEnrolToken(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: path("enrol-tokens", id)}, nil)
}

// CreateToken makes an operator token.
func (c *Client) CreateToken(ctx context.Context, t operator.TokenCreate) (*operator.TokenSecret, error) {
	return send[operator.TokenSecret](ctx, c, call{method: http.MethodPost, path: "/tokens", body: t})
}

// RevokeToken revokes an operator token.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: path("tokens", id)}, nil)
}

// SetSettings changes what is asked of all devices.
func (c *Client) SetSettings(ctx context.Context, s operator.Settings) (*operator.Settings, error) {
	return send[operator.Settings](ctx, c, call{method: http.MethodPut, path: "/settings", body: s})
}
