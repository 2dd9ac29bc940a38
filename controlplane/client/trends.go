package client

import (
	"context"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Trends reads what a model did over months.
func (c *Client) Trends(ctx context.Context, model string, q operator.TrendQuery) (*operator.Trends, error) {
	return get[operator.Trends](ctx, c, operator.EncodeQuery(q), "models", model, "trends")
}
