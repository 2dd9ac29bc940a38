package rollout

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// bench is a rollout with n devices on the release and m still on the old one.
func bench(t *testing.T, n, m int) *world {
	t.Helper()
	w := newWorld(t)
	w.create(Spec{Waves: []WaveSpec{{Percent: 50}, {Percent: 100}}}, Requirements{})
	w.state.Header.Wave, w.state.Header.Started = 1, begin
	for i := range n {
		id := fmt.Sprintf("new%d", i)
		w.state.Devices[id] = &Device{State: DeviceActive, Wave: 1, Tries: 1, Order: Order{Kind: Forward, Seq: 1}}
		w.set(id, func(f *DeviceFacts) { f.Selected, f.Profile = true, fmt.Sprintf("p%d", i%2) })
	}
	for i := range m {
		w.set(fmt.Sprintf("old%d", i), func(f *DeviceFacts) { f.Selected, f.Profile = true, fmt.Sprintf("p%d", i%2) })
	}
	return w
}

// fill gives every device evidence.
func (w *world) fill(newer, older func(i int) *Evidence) {
	for i, id := range w.ids() {
		w.set(id, func(f *DeviceFacts) {
			if d, ok := w.state.Devices[id]; ok && d.Tries > 0 {
				f.New = newer(i)
				return
			}
			f.Old = older(i)
		})
	}
}

func (w *world) gate(kind GateKind) GateResult {
	w.t.Helper()
	for _, g := range Judge(w.state, w.facts, w.now) {
		if g.Gate == kind {
			return g
		}
	}
	w.t.Fatalf("no gate %s", kind)
	return GateResult{}
}

// Devices differ from each other far more than chance inside one device would
// make them. A harmless release must not be stopped for that, at any of many
// looks; a harmful one must be.
func TestAccuracyGateTakesTheDeviceAsTheUnit(t *testing.T) {
	const fleets, looks = 300, 20
	run := func(drop float64) (stopped int) {
		for seed := range fleets {
			rnd := rand.New(rand.NewPCG(uint64(seed), 11))
			w := bench(t, 12, 12)
			skill := map[int]float64{}
			labels := map[int]*Evidence{}
			for range looks {
				more := func(drop float64) func(i int) *Evidence {
					return func(i int) *Evidence {
						if labels[i] == nil {
							skill[i], labels[i] = min(0.99, 0.9+0.03*rnd.NormFloat64()), &Evidence{}
						}
						e, p := labels[i], skill[i]-drop
						e.Labels, e.Rows = e.Labels+50, e.Rows+50
						e.Correct = min(e.Labels, e.Correct+uint64(max(0, math.Round(50*p+math.Sqrt(50*p*(1-p))*rnd.NormFloat64()))))
						return e
					}
				}
				w.fill(more(drop), more(0))
				if w.gate(Accuracy).Result == GateFail {
					stopped++
					break
				}
			}
		}
		return stopped
	}
	if got := run(0); got > fleets/50 {
		t.Errorf("%d of %d harmless releases were stopped, want at most 2 %%", got, fleets)
	}
	if got := run(0.02); got > fleets/20 {
		t.Errorf("%d of %d releases at the limit were stopped, want at most 5 %%", got, fleets)
	}
	if got := run(0.12); got < fleets*95/100 {
		t.Errorf("%d of %d harmful releases were stopped, want 95 %%", got, fleets)
	}
}

func TestComparisons(t *testing.T) {
	rows := func(failed uint64) func(int) *Evidence {
		return func(int) *Evidence { return &Evidence{Rows: 1000 - failed, FailedRows: failed} }
	}
	speed := func(us float64) func(i int) *Evidence {
		return func(i int) *Evidence { return &Evidence{Rows: 100, P95US: us * (1 + 0.02*float64(i%3))} }
	}
	hits := func(correct uint64) func(int) *Evidence {
		return func(int) *Evidence { return &Evidence{Rows: 500, Labels: 500, Correct: correct} }
	}
	for _, c := range []struct {
		name         string
		gate         GateKind
		n, m         int
		newer, older func(int) *Evidence
		want         Result
	}{
		{"no failures", Errors, 4, 4, rows(0), rows(0), GatePass},
		{"as many failures as before", Errors, 4, 4, rows(30), rows(30), GateInconclusive}, // 3 % ± chance is not surely below 1 %
		{"many failures", Errors, 4, 4, rows(200), rows(0), GateFail},
		{"one device, many failures", Errors, 1, 4, rows(200), rows(0), GateFail},
		{"one device, no failures", Errors, 1, 4, rows(0), rows(0), GatePass},
		{"one device, no old release", Errors, 1, 0, rows(0), rows(0), GatePass},
		{"failures without an old release", Errors, 3, 0, rows(300), rows(0), GateFail},
		{"as fast", Latency, 6, 6, speed(1000), speed(1000), GatePass},
		{"twice as slow", Latency, 6, 6, speed(2000), speed(1000), GateFail},
		{"one device twice as slow", Latency, 1, 6, speed(2000), speed(1000), GateInconclusive},
		{"no old release", Latency, 6, 0, speed(1000), speed(1000), GateInconclusive},
		{"as accurate", Accuracy, 8, 8, hits(490), hits(490), GatePass},
		{"less accurate", Accuracy, 8, 8, hits(400), hits(490), GateFail},
		{"more accurate", Accuracy, 8, 8, hits(490), hits(300), GatePass},
		{"one device less accurate", Accuracy, 1, 8, hits(400), hits(490), GateInconclusive},
		{"no labels", Accuracy, 8, 8, rows(0), rows(0), GateInconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := bench(t, c.n, c.m)
			w.fill(c.newer, c.older)
			if g := w.gate(c.gate); g.Result != c.want {
				t.Errorf("%s is %s: %s, want %s", c.gate, g.Result, g.Text, c.want)
			}
		})
	}
}

// After the last wave has opened there is nobody to compare with but the past.
func TestComparedWithTheOwnPast(t *testing.T) {
	w := bench(t, 6, 0)
	for i, id := range w.ids() {
		w.set(id, func(f *DeviceFacts) {
			f.Past = &Evidence{Rows: 500, Labels: 500, Correct: uint64(300 + 30*i)} // very different devices
			f.New = &Evidence{Rows: 500, Labels: 500, Correct: uint64(250 + 30*i)}  // each worse by the same
		})
	}
	if g := w.gate(Accuracy); g.Result != GateFail || math.Abs(g.Value-0.1) > 1e-9 {
		t.Errorf("accuracy is %s with a fall of %v: %s, want fail with 0.1", g.Result, g.Value, g.Text)
	}
}

// Cameras see different things. One that differs by no more than they do from
// each other says nothing about the release.
func TestDriftGateKnowsHowDevicesDiffer(t *testing.T) {
	own := func(i int) *Evidence {
		e := &Evidence{Rows: 1000, Classes: []uint64{100, 100, 100, 100}}
		e.Classes[i%4] += 600 // each has its own favourite
		return e
	}
	stuck := func(int) *Evidence { return &Evidence{Rows: 1000, Classes: []uint64{1000, 0, 0, 0}} }
	w := bench(t, 1, 8)
	w.fill(own, own)
	if g := w.gate(Drift); g.Result != GateInconclusive || g.Value < 0.25 {
		t.Errorf("a camera like the others: %s: %s, want inconclusive above the limit", g.Result, g.Text)
	}
	w.fill(stuck, own)
	if g := w.gate(Drift); g.Result != GateFail {
		t.Errorf("a release that knows one class: %s: %s, want fail", g.Result, g.Text)
	}
	w = bench(t, 4, 4)
	w.fill(own, own)
	if g := w.gate(Drift); g.Result != GatePass {
		t.Errorf("the same mix on both sides: %s: %s, want pass", g.Result, g.Text)
	}
}

// The noise quantile is what PSI stays below by chance.
func TestPSINoise(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const trials = 1000
	above := 0
	for range trials {
		a, b := make([]uint64, 10), make([]uint64, 10)
		for range 2000 {
			a[rnd.IntN(10)]++
		}
		for range 1000 {
			b[rnd.IntN(10)]++
		}
		if value, noise := psi(a, b); value > noise {
			above++
		}
	}
	if got := float64(above) / trials; got > 5*alphaFail {
		t.Errorf("PSI is above its noise in %.4f of the cases, want about %.4f", got, alphaFail)
	}
	if value, _ := psi([]uint64{500, 500}, []uint64{900, 100}); math.Abs(value-0.8789) > 1e-3 {
		t.Errorf("PSI is %.4f, want 0.8789", value) // 0.4·ln 1.8 − 0.4·ln 0.2
	}
}

// What devices report absurdly does not end up in a ledger that cannot hold it.
func TestAbsurdEvidenceStaysFinite(t *testing.T) {
	w := bench(t, 2, 2)
	w.fill(
		func(int) *Evidence {
			return &Evidence{Rows: math.MaxUint64, FailedRows: 1, P95US: math.Inf(1), Labels: 30, Correct: math.MaxUint64}
		},
		func(int) *Evidence { return &Evidence{Rows: 30, P95US: 1, Labels: 30} },
	)
	for _, g := range Judge(w.state, w.facts, w.now) {
		if math.IsNaN(g.Value) || math.IsInf(g.Value, 0) || math.IsNaN(g.Numerator) {
			t.Errorf("gate %s has value %v of %v", g.Gate, g.Value, g.Numerator)
		}
	}
	asJSON(t, Judge(w.state, w.facts, w.now))
}

func TestPlanSaysWhatCanBeSeen(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 100 {
		w.set(fmt.Sprintf("d%d", i), func(f *DeviceFacts) {
			f.Selected, f.Profile, f.Site = true, "pi", fmt.Sprintf("s%d", i%4)
			f.Past = &Evidence{Rows: 1000, Labels: 1000, Correct: uint64(900 + rnd.IntN(60)), P95US: 1000 + 100*rnd.Float64()}
		})
	}
	w.create(Spec{Control: new(0.0)}, Requirements{Variants: []Variant{{Bytes: 10 << 20}}})
	p := MakePlan("r", w.state.Spec, w.state.Requires, w.facts, w.now)
	if p.Devices != 100 || p.Bytes != 100*10<<20 || len(p.Waves) != 3 {
		t.Fatalf("plan is for %d devices, %d bytes, %d waves", p.Devices, p.Bytes, len(p.Waves))
	}
	accuracy := func(wave int) Detectable { return p.Waves[wave].Detectable[1] }
	if d := accuracy(0); d.Gate != Accuracy || d.Least != 0 {
		t.Errorf("one canary can see %+v, want nothing", d)
	}
	if d := accuracy(1); d.Least < 0.005 || d.Least > 0.05 {
		t.Errorf("half of the fleet can see %+v, want about 1.5 points", d)
	}
	if got := p.Waves[1].Sites; len(got) != 4 {
		t.Errorf("half of the fleet is on sites %v, want four", got)
	}
}

// A wave that no device is left for has nothing to be compared.
func TestPlanOfAnEmptyWave(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"a", "b"} {
		w.set(id, func(f *DeviceFacts) { f.Selected = true })
	}
	w.create(Spec{Control: new(0.0), Waves: []WaveSpec{{Count: 2}, {Percent: 100}}}, Requirements{})
	p := MakePlan("r", w.state.Spec, w.state.Requires, w.facts, w.now)
	if len(p.Waves) != 2 || len(p.Waves[0].Devices) != 2 || len(p.Waves[0].Detectable) == 0 {
		t.Fatalf("plan %+v", p.Waves)
	}
	if last := p.Waves[1]; len(last.Devices) != 0 || len(last.Detectable) != 0 {
		t.Errorf("the empty wave can see %+v, want nothing said", last)
	}
}
