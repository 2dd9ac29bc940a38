package runner

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// StopBounds are the upper bounds, in seconds, by which Stats.Stops counts. The
// bar for a stop is one report interval and 5 s; of those, this is the part that
// the server needs.
var StopBounds = []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// Answer is a gate with its result.
type Answer struct {
	Gate   rollout.GateKind
	Result rollout.Result
}

// Stats counts what this runner committed since it was opened.
type Stats struct {
	Orders  map[rollout.OrderKind]uint64 // given to devices, by direction
	Answers map[Answer]uint64            // of gates, when they became what they are
	// Stops counts by StopBounds, not cumulated, how long it took to stop a
	// rollout: from the arrival of the report that showed the harm to the commit
	// of the decision. The last counts those over all bounds.
	Stops   []uint64
	StopSum time.Duration // of all stops
}

// tally counts decisions.
type tally struct {
	mu    sync.Mutex // guards stats
	stats Stats
}

func newTally() *tally {
	return &tally{stats: Stats{
		Orders: map[rollout.OrderKind]uint64{}, Answers: map[Answer]uint64{}, Stops: make([]uint64, len(StopBounds)+1),
	}}
}

// Stats counts what was committed since the runner was opened.
func (r *Runner) Stats() Stats {
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	s := r.tally.stats
	s.Orders, s.Answers, s.Stops = maps.Clone(s.Orders), maps.Clone(s.Answers), slices.Clone(s.Stops)
	return s
}

// decided counts a decision about a rollout that was in state before, committed
// at a time.
func (t *tally) decided(before *rollout.State, body *Record, committed time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &body.Decision.Patch
	for _, d := range p.Devices {
		if d.Order.Kind != "" && d.Order.Seq == 0 {
			t.stats.Orders[d.Order.Kind]++
		}
	}
	for n, w := range p.Waves {
		for _, g := range w.Gates {
			if n > len(before.Waves) || !answers(before.Waves[n-1].Gates, g) {
				t.stats.Answers[Answer{g.Gate, g.Result}]++
			}
		}
	}
	if at := stoppedBy(body); !at.IsZero() {
		took := max(committed.Sub(at), 0)
		i, _ := slices.BinarySearch(StopBounds, took.Seconds())
		t.stats.Stops[i]++
		t.stats.StopSum += took
	}
}

// answers says whether a gate had that result before.
func answers(gates []rollout.GateResult, g rollout.GateResult) bool {
	return slices.ContainsFunc(gates, func(old rollout.GateResult) bool { return old.Gate == g.Gate && old.Result == g.Result })
}

// stoppedBy is when the report arrived that made the engine stop a rollout: the
// newest of a device that failed in the same decision, otherwise the newest of
// all. It is zero for any other decision.
func stoppedBy(body *Record) time.Time {
	d := &body.Decision
	stops := d.Command == nil && slices.ContainsFunc(d.Changes, func(c rollout.Change) bool {
		return c.Subject == rollout.SubjectRollout && (c.To == string(rollout.StatusHalted) || c.To == string(rollout.StatusReverting))
	})
	if !stops {
		return time.Time{}
	}
	var failed, newest time.Time
	for id, f := range body.Facts.Devices {
		newest = later(newest, f.Reported)
		if now := d.Patch.Devices[id]; now != nil && harmed(now.State) {
			failed = later(failed, f.Reported)
		}
	}
	if !failed.IsZero() {
		return failed
	}
	return newest
}

// harmed says that the release did a device no good.
func harmed(s rollout.DeviceState) bool {
	return s == rollout.DeviceFailed || s == rollout.DeviceReverted || s == rollout.DeviceRefused
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
