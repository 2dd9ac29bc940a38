package serve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/vedette-edge/vedette/agent/infer"
)

// Bounds of what traces may cost a device.
const (
	traceQueue = 512 // spans waiting for the collector; more are dropped
	traceBatch = 128
	traceEvery = 5 * time.Second
)

// tracer makes one span for every prediction and sends them by OTLP over HTTP.
// A caller that sends W3C trace context decides whether its prediction is
// sampled; without one all are. A nil tracer does nothing and costs nothing.
type tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	context  propagation.TraceContext
}

// newTracer sends to the collector at endpoint, a URL like
// http://127.0.0.1:4318/v1/traces; nil for an empty one.
func newTracer(ctx context.Context, cfg *Config) (*tracer, error) {
	if cfg.Traces == "" {
		return nil, nil //nolint:nilnil // nil is the tracer that does nothing
	}
	out, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.Traces))
	if err != nil {
		return nil, fmt.Errorf("send traces to %s: %w", cfg.Traces, err)
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(out, sdk.WithMaxQueueSize(traceQueue), sdk.WithMaxExportBatchSize(traceBatch), sdk.WithBatchTimeout(traceEvery)),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", serverName), attribute.String("service.version", cfg.Version), attribute.String("service.instance.id", cfg.Device),
		)),
		sdk.WithSampler(sdk.ParentBased(sdk.AlwaysSample())),
	)
	return &tracer{provider: provider, tracer: provider.Tracer("github.com/vedette-edge/vedette/agent/serve")}, nil
}

// stop sends what waits, until ctx ends.
func (t *tracer) stop(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// carrier gives a request's headers by name, in lower case.
type carrier func(key string) string

// Get is the header's value.
func (c carrier) Get(key string) string { return c(key) }

// Set does nothing: answers carry no trace context.
func (carrier) Set(string, string) {}

// Keys is not asked for by the W3C propagator.
func (carrier) Keys() []string { return nil }

// span makes the span of an answered or refused prediction, from when it
// arrived. The run lies at its end.
func (t *tracer) span(ctx context.Context, headers carrier, req *infer.Request, resp *infer.Response, start time.Time, err error) {
	_, span := t.tracer.Start(t.context.Extract(ctx, headers), "infer "+req.Model, trace.WithTimestamp(start), trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.String("vedette.model", req.Model))
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		span.SetAttributes(attribute.Bool("vedette.refused", errors.Is(err, infer.ErrBusy)))
		return
	}
	span.SetAttributes(
		attribute.String("vedette.version", resp.Version), attribute.String("vedette.release", resp.Release.String()),
		attribute.String("vedette.prediction_id", resp.ID), attribute.Int("vedette.rows", resp.Rows),
		attribute.Int64("vedette.wait_us", resp.Waited.Microseconds()), attribute.Int64("vedette.run_us", resp.Latency.Microseconds()),
	)
}
