package client

import (
	"context"
	"net/http"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// RetrainEvent reads one request for retraining.
func (c *Client) RetrainEvent(ctx context.Context, id string) (*operator.RetrainEvent, error) {
	return get[operator.RetrainEvent](ctx, c, nil, "retrain-events", id)
}

// RequestRetraining asks for retraining now.
func (c *Client) RequestRetraining(ctx context.Context, model string, r operator.Reasoned) (*operator.RetrainEvent, error) {
	return send[operator.RetrainEvent](ctx, c, call{method: http.MethodPost, path: path("models", model, "retrain"), body: r})
}

// Redeliver tries the dead letters of a request again.
func (c *Client) Redeliver(ctx context.Context, id string, r operator.Reasoned) (*operator.RetrainEvent, error) {
	return send[operator.RetrainEvent](ctx, c, call{method: http.MethodPost, path: path("retrain-events", id, "redeliver"), body: r})
}
