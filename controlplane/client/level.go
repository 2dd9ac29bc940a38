package client

import (
	"context"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// DriftLevel reads the groups of one level.
func (c *Client) DriftLevel(ctx context.Context, model string, q operator.LevelQuery) (*operator.DriftLevel, error) {
	return get[operator.DriftLevel](ctx, c, operator.EncodeQuery(q), "models", model, "levels")
}

// DriftGroup reads one group with its histograms.
func (c *Client) DriftGroup(ctx context.Context, model string, q operator.GroupQuery) (*operator.DriftGroupDetail, error) {
	return get[operator.DriftGroupDetail](ctx, c, operator.EncodeQuery(q), "models", model, "group")
}
