package drift

import (
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Monitor folds what devices report. Tell it releases, labels and floors
// before the first Apply: windows of a release it does not know count in totals
// only.
type Monitor struct {
	mu  sync.Mutex
	cfg Config
}

// New makes an empty monitor.
func New(cfg Config) *Monitor { return &Monitor{cfg: cfg} }

// SetRelease makes a release's windows scorable. The same release again is a no-op.
func (m *Monitor) SetRelease(r Release, b *sketch.Baseline) error { return b.Validate() }

// SetLabels replaces a device's labels.
func (m *Monitor) SetLabels(device string, labels map[string]string) {}

// SetFloor sets the lowest accuracy a model may have, 0 for none.
func (m *Monitor) SetFloor(model string, accuracy float64) {}

// Apply folds one message of the uplink stream. A sequence at or below the last one folded changes nothing.
func (m *Monitor) Apply(seq uint64, a *protocol.Accepted) {}

// Evaluate scores everything and returns the alarms raised or cleared by it.
func (m *Monitor) Evaluate(now time.Time) []Alarm { return nil }

// Scores are those of the newest Evaluate, by model and release; model "" means all.
func (m *Monitor) Scores(model string) []Score { return nil }

// Alarms returns the raised alarms and the newest cleared ones, newest first; model "" means all.
func (m *Monitor) Alarms(model string) []Alarm { return nil }

// Evidence returns by device what a release showed in windows that began at since or later.
func (m *Monitor) Evidence(model string, d release.Digest, since time.Time) map[string]Evidence {
	return nil
}

// Totals returns what every device reported, by device, model and release.
func (m *Monitor) Totals() []Total { return nil }

// Series returns the charts of a model, by release and cohort.
func (m *Monitor) Series(model string) []Series { return nil }

// Dirty returns the checkpoint records changed since the last call.
func (m *Monitor) Dirty() []Record { return nil }

// Load restores checkpoint records. Call it once, before the first Apply.
func (m *Monitor) Load(records []Record) error { return nil }

// Forget drops everything known of a device that was removed from the fleet.
func (m *Monitor) Forget(device string) {}
