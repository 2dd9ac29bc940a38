package client

import (
	"context"
	"net/http"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Promotions reads the versions of a model on their way to the fleet.
func (c *Client) Promotions(ctx context.Context, model string) ([]operator.Promotion, error) {
	list, err := get[[]operator.Promotion](ctx, c, nil, "models", model, "promotions")
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// PromotionPolicy reads what happens by itself after a version was published.
func (c *Client) PromotionPolicy(ctx context.Context, model string) (*operator.PromotionPolicy, error) {
	return get[operator.PromotionPolicy](ctx, c, nil, "models", model, "promotion-policy")
}

// SetPromotionPolicy sets what happens by itself.
func (c *Client) SetPromotionPolicy(ctx context.Context, model string, p operator.PromotionPolicyChange) (*operator.PromotionPolicy, error) {
	return send[operator.PromotionPolicy](ctx, c, call{method: http.MethodPut, path: path("models", model, "promotion-policy"), body: p})
}

// DecidePromotion approves or denies the rollout of a version.
func (c *Client) DecidePromotion(ctx context.Context, model, version string, d operator.PromotionDecision) (*operator.Promotion, error) {
	return send[operator.Promotion](ctx, c, call{method: http.MethodPost, path: path("models", model, "versions", version, "promotion"), body: d})
}

// Lineage walks from a version back to run, data and code.
func (c *Client) Lineage(ctx context.Context, model, version string) (*operator.Provenance, error) {
	return get[operator.Provenance](ctx, c, nil, "models", model, "versions", version, "lineage")
}

// DeviceLineage walks from what a device predicted back to run, data and code.
func (c *Client) DeviceLineage(ctx context.Context, device string, q operator.LineageQuery) (*operator.Provenance, error) {
	return get[operator.Provenance](ctx, c, operator.EncodeQuery(q), "devices", device, "lineage")
}
