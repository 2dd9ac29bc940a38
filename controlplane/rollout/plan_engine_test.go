package rollout

import (
	"fmt"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// enacted is how long the engine itself takes with n devices as planned has
// them, which do what they are told while they are there and report every tick.
func enacted(t *testing.T, n int, spec Spec, there func(id string, t time.Time) bool) time.Duration {
	t.Helper()
	w := newWorld(t)
	ids := make([]string, n)
	for i := range n {
		ids[i] = fmt.Sprintf("d%03d", i)
		site := fmt.Sprint("s", i%4)
		w.set(ids[i], func(f *DeviceFacts) {
			f.Selected, f.Profile, f.Site, f.Bytes = true, "pi", site, 10*60*PlanRate
			f.Active, f.Serving, f.Groups = v1, true, map[string]string{"site": site}
		})
	}
	w.create(spec, Requirements{})
	if _, err := w.step(&Command{Action: Start, Actor: "alice", Reason: "compare with the plan"}); err != nil {
		t.Fatal(err)
	}
	worked := map[string]time.Duration{}
	for w.state.Header.Status == StatusRunning {
		w.now = w.now.Add(tick)
		for _, id := range ids {
			if there(id, w.now) {
				w.report(id, func(f *DeviceFacts) { followed(f, id, worked) })
			}
		}
		w.look()
	}
	if w.state.Header.Status != StatusCompleted {
		return 0
	}
	return w.now.Sub(begin)
}

// tick is how often devices report.
const tick = 2 * time.Minute

// look takes a step now and whenever the engine asks for one until the next
// tick, as the runner does.
func (w *world) look() {
	for next := w.now.Add(tick); ; {
		if _, err := w.step(nil); err != nil {
			w.t.Fatal(err)
		}
		wake := w.state.Wake(w.now)
		if wake.IsZero() || !wake.Before(next) {
			break
		}
		w.now = wake
	}
	w.now = w.now.Truncate(tick)
}

// followed lets a device work for a tick on what it is told.
func followed(f *DeviceFacts, id string, worked map[string]time.Duration) {
	switch {
	case f.Assigned != v2 || f.Active == v2:
		return
	case worked[id] >= 10*time.Minute:
		serve(v2)(f)
	default:
		f.Target, f.Update = v2, "downloading"
		worked[id] += tick
	}
}

// TestPlanAgreesWithTheEngine plans rollouts and lets the engine run them with the
// same devices. Every device that others wait for may report a tick later.
func TestPlanAgreesWithTheEngine(t *testing.T) {
	off := []GateSpec{{Kind: Errors, Off: true}, {Kind: Latency, Off: true}, {Kind: Drift, Off: true}, {Kind: Accuracy, Off: true}}
	waves := []WaveSpec{{Count: 2}, {Percent: 50}, {Percent: 100}}
	always := func(string, time.Time) bool { return true }
	nights := func(_ string, t time.Time) bool { return between(20, 6)(t) }
	some := func(share int, there func(string, time.Time) bool) func(string, time.Time) bool {
		return func(id string, t time.Time) bool {
			var i int
			_, _ = fmt.Sscanf(id, "d%d", &i) // ids are made above
			return i%10 >= share || there(id, t)
		}
	}
	never := func(string, time.Time) bool { return false }
	window := []WindowSpec{{Cron: "0 22 * * *", Duration: release.Duration(3 * time.Hour)}}
	for _, c := range []struct {
		name  string
		spec  Spec
		there func(id string, t time.Time) bool
	}{
		{"always there", Spec{}, always},
		{"three at a time", Spec{Budget: Budget{InFlight: 3}}, always},
		{"two a minute", Spec{Budget: Budget{PerMinute: 2}}, always},
		{"bytes", Spec{Budget: Budget{BytesPerSecond: PlanRate}}, always},
		{"one of a site", Spec{Budget: Budget{Unavailable: []Unavailable{{Label: "site", Max: 1}}}}, always},
		{"a window", Spec{Windows: window}, always},
		{"a window and a budget", Spec{Windows: window, Budget: Budget{InFlight: 2}}, always},
		{"nobody before the evening", Spec{}, nights},
		{"three of ten before the evening", Spec{}, some(7, nights)},
		{"seven of ten before the evening", Spec{}, some(3, nights)},
		{"seven of ten before the evening, three at a time", Spec{Budget: Budget{InFlight: 3}}, some(3, nights)},
		{"one of ten never", Spec{}, some(1, never)},
		{"one of ten never, in a window", Spec{Windows: window}, some(1, never)},
		{"everybody but three never", Spec{}, some(8, never)},
	} {
		spec := c.spec
		spec.Waves, spec.Gates, spec.Control, spec.Deadline = waves, off, new(0.0), release.Duration(48*time.Hour)
		presence := heardAt{}
		for i := range 20 {
			id := fmt.Sprintf("d%03d", i)
			presence[id] = hoursOf(begin, HeardHours, func(t time.Time) bool { return c.there(id, t) })
		}
		p := planned(t, 20, spec, presence, func(i int, f *DeviceFacts) { f.Groups = map[string]string{"site": f.Site} })
		want := enacted(t, 20, p.Spec, c.there)
		if d := p.Expected - want; d.Abs() > 10*tick {
			t.Errorf("%s: planned %v, the engine takes %v; stalls %v %v %v", c.name, p.Expected, want, p.Waves[0].Stalls, p.Waves[1].Stalls, p.Waves[2].Stalls)
		}
	}
}
