package client

import (
	"context"
	"net/http"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Truths lists the uploads of truths of a model.
func (c *Client) Truths(ctx context.Context, model string) (*operator.Truths, error) {
	return get[operator.Truths](ctx, c, nil, "models", model, "truths")
}

// TruthUpload is one upload of truths.
func (c *Client) TruthUpload(ctx context.Context, model, upload string) (*operator.TruthUpload, error) {
	return get[operator.TruthUpload](ctx, c, nil, "models", model, "truths", upload)
}

// BeginTruths begins an upload, or finds how far it is. It may be repeated.
func (c *Client) BeginTruths(ctx context.Context, model string, b operator.TruthBegin) (*operator.TruthUpload, error) {
	return repeat[operator.TruthUpload](ctx, c, call{method: http.MethodPost, path: path("models", model, "truths"), body: b})
}

// PushTruths uploads one chunk. It may be repeated: the same chunk changes nothing.
func (c *Client) PushTruths(ctx context.Context, model, upload, chunk string, t operator.TruthChunk) (*operator.TruthChunkResult, error) {
	return repeat[operator.TruthChunkResult](ctx, c, call{
		method: http.MethodPut, path: path("models", model, "truths", upload, "chunks", chunk), body: t,
	})
}

// Samples sums up the rows of a model that wait to be labelled.
func (c *Client) Samples(ctx context.Context, model string, q operator.SampleQuery) (*operator.Samples, error) {
	return get[operator.Samples](ctx, c, operator.EncodeQuery(q), "models", model, "samples")
}

// SealedSamples is a page of sealed rows, oldest first.
func (c *Client) SealedSamples(ctx context.Context, model string, q operator.SampleQuery) (*operator.Page[operator.SealedSample], error) {
	return get[operator.Page[operator.SealedSample]](ctx, c, operator.EncodeQuery(q), "models", model, "samples", "sealed")
}

// repeat is send for commands that change nothing the second time.
func repeat[R any](ctx context.Context, c *Client, r call) (result *R, err error) {
	err = c.retry(ctx, func() error {
		result, err = send[R](ctx, c, r)
		return err
	})
	return result, err
}
