package client

import (
	"context"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Experiments lists what data scientists tracked.
func (c *Client) Experiments(ctx context.Context) ([]operator.Experiment, error) {
	return items[operator.Experiment](ctx, c, "experiments")
}

// Runs reads one page of runs.
func (c *Client) Runs(ctx context.Context, q operator.RunQuery) (*operator.Page[operator.Run], error) {
	return get[operator.Page[operator.Run]](ctx, c, operator.EncodeQuery(q), "runs")
}

// Run reads everything about one run.
func (c *Client) Run(ctx context.Context, id string) (*operator.RunDetail, error) {
	return get[operator.RunDetail](ctx, c, nil, "runs", id)
}

// RunMetric reads the history of one metric.
func (c *Client) RunMetric(ctx context.Context, id string, q operator.RunMetricQuery) ([]operator.MetricPoint, error) {
	list, err := get[[]operator.MetricPoint](ctx, c, operator.EncodeQuery(q), "runs", id, "metric")
	if err != nil {
		return nil, err
	}
	return *list, nil
}

// RunFiles lists one directory of a run's artifacts.
func (c *Client) RunFiles(ctx context.Context, id string, q operator.RunFileQuery) ([]operator.RunFile, error) {
	list, err := get[[]operator.RunFile](ctx, c, operator.EncodeQuery(q), "runs", id, "files")
	if err != nil {
		return nil, err
	}
	return *list, nil
}
