package rollout

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// bench is a rollout with n healthy devices on the release and m in the control
// group.
func bench(t *testing.T, n, m int, gates ...GateSpec) *world {
	t.Helper()
	w := newWorld(t)
	w.create(Spec{Waves: []WaveSpec{{Percent: 50}, {Percent: 100}}, Gates: gates, Shadow: &ShadowSpec{Rows: 300}}, Requirements{})
	w.state.Header.Wave, w.state.Header.Started, w.state.Waves[0].Planned = 1, begin, n
	devices := map[string]*Device{}
	for i := range n {
		id := fmt.Sprintf("new%03d", i)
		devices[id] = &Device{State: DeviceHealthy, Wave: 1, Tries: 1, Order: Order{Kind: Forward, Seq: 1}}
		w.set(id, func(f *DeviceFacts) { f.Selected, f.Profile = true, fmt.Sprintf("p%d", i%2) })
	}
	for i := range m {
		id := fmt.Sprintf("old%03d", i)
		devices[id] = &Device{State: DeviceWaiting, Control: true}
		w.set(id, func(f *DeviceFacts) { f.Selected, f.Profile = true, fmt.Sprintf("p%d", i%2) })
	}
	if err := w.state.replace(devices, 1); err != nil {
		t.Fatal(err)
	}
	return w
}

// fill gives every device evidence: a past, and what it shows since.
func (w *world) fill(before, since func(i int) *Evidence) {
	for i, id := range w.ids() {
		d := w.state.Devices[id]
		w.set(id, func(f *DeviceFacts) {
			f.Past = before(i)
			if d.Control {
				f.Old = before(i)
				return
			}
			f.New = since(i)
		})
	}
}

// takeSigns takes the signs that are due, as a step does.
func (w *world) takeSigns() {
	turn := newTurn(w.state.clone(), w.facts, w.now)
	turn.takeSigns()
	w.state = turn.State
}

// gate takes the signs that are due and answers one gate.
func (w *world) gate(kind GateKind) GateResult {
	w.t.Helper()
	w.takeSigns()
	for _, g := range Judge(w.state, w.facts, w.now) {
		if g.Gate == kind {
			return g
		}
	}
	w.t.Fatalf("no gate %s", kind)
	return GateResult{}
}

func TestComparisons(t *testing.T) {
	rows := func(failed, all uint64) func(int) *Evidence {
		return func(int) *Evidence { return &Evidence{Rows: all - failed, FailedRows: failed} }
	}
	speed := func(us float64) func(i int) *Evidence {
		return func(i int) *Evidence { return &Evidence{Rows: 100, P95US: us * (1 + 0.02*float64(i%3))} }
	}
	hits := func(correct uint64) func(int) *Evidence {
		return func(int) *Evidence { return &Evidence{Rows: 500, Labels: 500, Correct: correct} }
	}
	classes := func(n ...uint64) func(int) *Evidence {
		return func(int) *Evidence { return &Evidence{Rows: 1000, Classes: n} }
	}
	nothing := func(int) *Evidence { return nil }
	for _, c := range []struct {
		name          string
		gate          GateKind
		n             int
		before, since func(int) *Evidence
		want          Result
	}{
		{"no failures", Errors, 4, rows(0, 1000), rows(0, 1000), GatePass},
		{"as many failures as before, few rows", Errors, 4, rows(30, 1000), rows(30, 1000), GateInconclusive},
		{"as many failures as before, many rows", Errors, 4, rows(300, 10_000), rows(300, 10_000), GatePass},
		{"one point more, just as allowed", Errors, 4, rows(300, 10_000), rows(400, 10_000), GateInconclusive},
		{"three points more", Errors, 4, rows(300, 10_000), rows(600, 10_000), GateFail},
		{"one device, many failures", Errors, 1, rows(0, 1000), rows(200, 1000), GateFail},
		{"one device fails its first rows", Errors, 1, rows(0, 1000), rows(5, 5), GateFail},
		{"one device, no failures", Errors, 1, rows(0, 1000), rows(0, 1000), GatePass},
		{"one device, no failures of few", Errors, 1, rows(0, 1000), rows(0, 300), GateInconclusive},
		{"a first release that works", Errors, 1, nothing, rows(0, 1000), GatePass},
		{"a first release that fails", Errors, 1, nothing, rows(30, 300), GateFail},
		{"as fast", Latency, 9, speed(1000), speed(1000), GatePass},
		{"twice as slow", Latency, 9, speed(1000), speed(2000), GateFail},
		{"eight devices are too few at 1.25 %", Latency, 8, speed(1000), speed(2000), GateInconclusive},
		{"one device twice as slow", Latency, 1, speed(1000), speed(2000), GateInconclusive},
		{"faster than ever, on a first release", Latency, 9, nothing, speed(1000), GateInconclusive},
		{"as accurate", Accuracy, 9, hits(490), hits(490), GatePass},
		{"less accurate", Accuracy, 9, hits(490), hits(400), GateFail},
		{"more accurate", Accuracy, 9, hits(300), hits(490), GatePass},
		{"one device less accurate", Accuracy, 1, hits(490), hits(400), GateInconclusive},
		{"no labels", Accuracy, 9, rows(0, 1000), rows(0, 1000), GateInconclusive},
		{"the same classes", Drift, 9, classes(500, 300, 200), classes(510, 290, 200), GatePass},
		{"other classes", Drift, 9, classes(500, 300, 200), classes(900, 50, 50), GateFail},
		{"too few classes to say", Drift, 9, classes(500, 300, 200), classes(10, 9, 1), GateInconclusive},
		{"another set of classes", Drift, 9, classes(500, 500), classes(500, 300, 200), GateInconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := bench(t, c.n, 1, GateSpec{Kind: Shadow, Off: true})
			w.fill(c.before, c.since)
			g := w.gate(c.gate)
			if g.Result != c.want {
				t.Errorf("%s is %s: %s, want %s", c.gate, g.Result, g.Text, c.want)
			}
			if g.Alpha != 0.0125 {
				t.Errorf("the gate has %v of 0.05 for four gates", g.Alpha)
			}
		})
	}
}

// Devices of one release in shadow.
func TestShadowGate(t *testing.T) {
	for _, c := range []struct {
		agreed, failed uint64
		n              int
		want           Result
	}{
		{300, 0, 9, GatePass},
		{280, 0, 9, GateFail},         // 6.7 % differ, 2 % may
		{300, 20, 9, GateFail},        // rows that it could not compute
		{294, 0, 9, GateInconclusive}, // just at the limit: even
	} {
		w := bench(t, c.n, 1)
		for _, id := range w.ids()[:c.n] {
			w.set(id, func(f *DeviceFacts) { f.Shadow = &Agreement{Rows: 300, Agreed: c.agreed, Failed: c.failed} })
		}
		if g := w.gate(Shadow); g.Result != c.want || g.Denominator != float64(c.n)*float64(300+c.failed) {
			t.Errorf("%d of 300 agree on %d devices, %d failed: %s: %s, want %s", c.agreed, c.n, c.failed, g.Result, g.Text, c.want)
		}
	}
}

// A device is compared with its own past, however unlike others it is.
func TestComparedWithTheOwnPast(t *testing.T) {
	w := bench(t, 9, 0)
	w.fill(
		func(i int) *Evidence { return &Evidence{Labels: 500, Correct: uint64(260 + 26*i)} }, // very different devices
		func(i int) *Evidence { return &Evidence{Labels: 500, Correct: uint64(210 + 26*i)} }, // each worse by the same
	)
	if g := w.gate(Accuracy); g.Result != GateFail || math.Abs(g.Value-0.1) > 1e-9 || g.Worse != 9 {
		t.Errorf("accuracy is %s with a fall of %v: %s, want fail with 0.1", g.Result, g.Value, g.Text)
	}
}

// A sign is frozen: a device that does better afterwards has been worse.
func TestSignsAreTakenOnce(t *testing.T) {
	w := bench(t, 9, 0)
	past := func(int) *Evidence { return &Evidence{Rows: 500, P95US: 1000} }
	w.fill(past, func(int) *Evidence { return &Evidence{Rows: 5, P95US: 9000} })
	if g := w.gate(Latency); g.Worse != 0 || g.Result != GateInconclusive {
		t.Errorf("with 5 rows: %s: %s, want no sign", g.Result, g.Text)
	}
	w.fill(past, func(int) *Evidence { return &Evidence{Rows: 50, P95US: 9000} })
	if g := w.gate(Latency); g.Worse != 9 || g.Result != GateFail {
		t.Errorf("with 50 rows: %s: %s, want nine worse", g.Result, g.Text)
	}
	w.fill(past, func(int) *Evidence { return &Evidence{Rows: 5000, P95US: 900} })
	if g := w.gate(Latency); g.Worse != 9 || math.Abs(g.Value+0.1) > 1e-6 {
		t.Errorf("with 5000 rows: %v of %d worse, want still nine, faster by a tenth", g.Value, g.Worse)
	}
}

// Signs are taken after the soak time, and not of devices that were on the
// release before, went to another rollout or are revoked.
func TestWhoGivesSigns(t *testing.T) {
	slow := func(int) *Evidence { return &Evidence{Rows: 500, P95US: 9000} }
	fast := func(int) *Evidence { return &Evidence{Rows: 500, P95US: 1000} }
	for name, c := range map[string]struct {
		change  func(d *Device)
		revoked bool
		want    int
	}{
		"healthy":         {change: func(*Device) {}, want: 1},
		"soaking":         {change: func(d *Device) { d.State = DeviceActive }},
		"already on it":   {change: func(d *Device) { d.Already = true }},
		"taken over":      {change: func(d *Device) { d.State = DeviceSuperseded }},
		"on its way back": {change: func(d *Device) { d.Order.Kind = Back }},
		"revoked":         {change: func(*Device) {}, revoked: true},
	} {
		w := bench(t, 1, 0)
		w.fill(fast, slow)
		w.set("new000", func(f *DeviceFacts) { f.Revoked = c.revoked })
		d := w.state.device("new000")
		c.change(&d)
		if err := w.state.replace(map[string]*Device{"new000": &d}, 1); err != nil {
			t.Fatal(err)
		}
		if g := w.gate(Latency); g.Worse != c.want {
			t.Errorf("%s: %d devices are worse, want %d", name, g.Worse, c.want)
		}
	}
}

// Evidence that comes when all waves have passed still gives signs, as long as
// the rollout is watched.
func TestSignsOfCompletedRollouts(t *testing.T) {
	for status, want := range map[Status]int{StatusCompleted: 9, StatusHalted: 9, StatusReverted: 0, StatusAborted: 0} {
		w := bench(t, 9, 0)
		w.fill(
			func(int) *Evidence { return &Evidence{Rows: 500, P95US: 1000} },
			func(int) *Evidence { return &Evidence{Rows: 500, P95US: 9000} },
		)
		w.state.Header.Status, w.state.Header.Since = status, w.now
		if g := w.gate(Latency); g.Worse != want {
			t.Errorf("%s: %d signs, want %d", status, g.Worse, want)
		}
	}
}

// What happened to the control group as well is not the release's doing.
func TestTheWorldChanges(t *testing.T) {
	w := bench(t, 30, 3)
	fast := func(int) *Evidence { return &Evidence{Rows: 500, P95US: 1000} }
	slow := func(int) *Evidence { return &Evidence{Rows: 500, P95US: 2000} }
	w.fill(fast, slow)
	for _, id := range w.ids()[30:] {
		w.set(id, func(f *DeviceFacts) { f.Old = slow(0) })
	}
	if g := w.gate(Latency); g.Result != GateInconclusive || g.Worse != 0 || g.Fine != 0 {
		t.Errorf("latency is %s: %s, want no device to be blamed", g.Result, g.Text)
	}

	w = bench(t, 30, 12) // the control group is hit only after the signs were taken
	w.fill(fast, slow)
	if g := w.gate(Latency); g.Result != GateFail {
		t.Errorf("latency is %s: %s, want fail", g.Result, g.Text)
	}
	for _, id := range w.ids()[30:] {
		w.set(id, func(f *DeviceFacts) { f.Old = slow(0) })
	}
	if g := w.gate(Latency); g.Result != GateInconclusive || g.EControl < 1/g.Alpha || !strings.Contains(g.Text, "the world, not the release") {
		t.Errorf("latency is %s: %s, want inconclusive", g.Result, g.Text)
	}
}

// Faults of a few devices among others are no evidence against the release, and
// some among many stop nothing while the mean is within the limit.
func TestFaultyDevicesOfMany(t *testing.T) {
	for faulty, evidence := range map[int]bool{1: false, 5: false, 8: true} {
		w := bench(t, 400, 1)
		clean := func(int) *Evidence { return &Evidence{Rows: 1000} }
		w.fill(clean, func(i int) *Evidence {
			if i < faulty {
				return &Evidence{Rows: 600, FailedRows: 400}
			}
			return clean(i)
		})
		g := w.gate(Errors)
		if g.Result == GateFail || g.EHarm >= 1/g.Alpha != evidence || math.Abs(g.Value-0.4*float64(faulty)/400) > 1e-6 {
			t.Errorf("%d faulty: errors is %s with %v: %s", faulty, g.Result, g.Value, g.Text)
		}
	}
}

// What is bad for one kind of device is found among those that are fine.
func TestOneProfileIsWorse(t *testing.T) {
	w := bench(t, 100, 10)
	w.fill(func(int) *Evidence { return &Evidence{Rows: 5000, P95US: 1000} }, func(i int) *Evidence {
		if i < 15 {
			return &Evidence{Rows: 5000, P95US: 5000}
		}
		return &Evidence{Rows: 5000, P95US: 1000}
	})
	for _, id := range w.ids()[:15] {
		d := w.state.device(id)
		d.Profile = "jetson"
		w.state.Devices[id] = &d
	}
	g := w.gate(Latency)
	if g.Result != GateFail || g.Worse != 15 || g.Fine != 85 {
		t.Errorf("latency is %s: %s, want fail for 15 of 100", g.Result, g.Text)
	}
}

// A few that are very much slower keep the gate from passing, when most are fine.
func TestMeanOverTheLimitDoesNotPass(t *testing.T) {
	w := bench(t, 100, 10)
	w.fill(func(int) *Evidence { return &Evidence{Rows: 5000, P95US: 1000} }, func(i int) *Evidence {
		if i%10 < 3 {
			return &Evidence{Rows: 5000, P95US: 10_000}
		}
		return &Evidence{Rows: 5000, P95US: 1000}
	})
	if g := w.gate(Latency); g.Result != GateInconclusive || g.EFine < 20 || g.Value < 0.5 {
		t.Errorf("latency is %s: %s, want inconclusive", g.Result, g.Text)
	}
}

// Few calls show too low a p95, and a release at the limit must still not look
// fine more often than a coin: exponential latencies, past of a thousand calls.
func TestFewCallsAreNotFine(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	p95 := func(n int, mean float64) float64 {
		calls := make([]float64, n)
		for i := range calls {
			calls[i] = rnd.ExpFloat64() * mean
		}
		slices.Sort(calls)
		return calls[int(0.95*float64(n-1))] // as the sketch of latencies takes it
	}
	g := GateSpec{Kind: Latency, Limit: new(0.5), Min: 20}
	for _, n := range []int{20, 60, 500} {
		const trials = 2000
		fine := 0
		for range trials {
			before, now := &Evidence{Rows: 1000, P95US: p95(1000, 1000)}, &Evidence{Rows: uint64(n), P95US: p95(n, 1500)}
			if c, ok := slower(g, before, now); ok && c.sign(g.bar(), shift{}) == Fine {
				fine++
			}
		}
		if share := float64(fine) / trials; share > 0.5 {
			t.Errorf("at the limit %d calls look fine in %.2f of cases, want at most half", n, share)
		} else {
			t.Logf("%d calls at the limit look fine in %.2f of cases", n, share)
		}
	}
}

// A device that nothing is known of is suspected only when most rows fail.
func TestDeviceWithoutAPast(t *testing.T) {
	for failed, want := range map[uint64]Result{50: GateInconclusive, 950: GateFail} {
		w := bench(t, 1, 4)
		w.fill(func(int) *Evidence { return &Evidence{Rows: 950, FailedRows: 50} }, func(int) *Evidence { return nil })
		w.set("new000", func(f *DeviceFacts) { f.Past, f.New = nil, &Evidence{Rows: 1000 - failed, FailedRows: failed} })
		if g := w.gate(Errors); g.Result != want {
			t.Errorf("%d of 1000 rows fail: %s: %s, want %s", failed, g.Result, g.Text, want)
		}
	}
}

// Without drift PSI is what chance makes it; known values of it.
func TestPSINoise(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const trials = 1000
	var sum, noise float64
	for range trials {
		a, b := make([]uint64, 10), make([]uint64, 10)
		for range 2000 {
			a[rnd.IntN(10)]++
		}
		for range 1000 {
			b[rnd.IntN(10)]++
		}
		value, expected := psi(a, b)
		sum, noise = sum+value, noise+expected
	}
	if math.Abs(sum/noise-1) > 0.05 {
		t.Errorf("PSI is %.4f in the mean, want about %.4f", sum/trials, noise/trials)
	}
	if value, _ := psi([]uint64{500, 500}, []uint64{900, 100}); math.Abs(value-0.8789) > 1e-3 {
		t.Errorf("PSI is %.4f, want 0.8789", value) // 0.4·ln 1.8 − 0.4·ln 0.2
	}
}

// What devices report absurdly does not end up in a ledger that cannot hold it.
func TestAbsurdEvidenceStaysFinite(t *testing.T) {
	w := bench(t, 4, 2)
	w.fill(
		func(i int) *Evidence {
			if i == 0 {
				return &Evidence{Rows: math.MaxUint64, FailedRows: math.MaxUint64, P95US: math.Inf(1), Labels: math.MaxUint64}
			}
			return &Evidence{Rows: 30, P95US: 1, Labels: 30, Classes: []uint64{math.MaxUint64, 30}}
		},
		func(i int) *Evidence {
			if i == 1 {
				return &Evidence{FailedRows: math.MaxUint64, P95US: math.NaN(), Classes: []uint64{30, math.MaxUint64}}
			}
			return &Evidence{Rows: math.MaxUint64, FailedRows: 1, P95US: 1e300, Labels: 30, Correct: math.MaxUint64}
		},
	)
	w.set("new003", func(f *DeviceFacts) { f.Shadow = &Agreement{Rows: math.MaxUint64, Failed: 7} })
	w.takeSigns()
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
	p := MakePlan("r", w.state.Spec, w.state.Requires, w.facts, nil, w.now)
	if p.Devices != 100 || p.Bytes != 100*10<<20 || len(p.Waves) != 3 {
		t.Fatalf("plan is for %d devices, %d bytes, %d waves", p.Devices, p.Bytes, len(p.Waves))
	}
	accuracy := func(wave int) Detectable {
		return p.Waves[wave].Detectable[slices.IndexFunc(p.Waves[wave].Detectable, func(d Detectable) bool { return d.Gate == Accuracy })]
	}
	if d := accuracy(0); d.Least != 0 || !strings.Contains(d.Text, "when 9 devices are worse, and 1 can be compared") {
		t.Errorf("one canary can see %+v, want nothing", d)
	}
	if d := accuracy(1); d.Least < 0.02 || d.Least > 0.04 {
		t.Errorf("half of the fleet can see %+v, want somewhat more than the limit of 2 points", d)
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
	p := MakePlan("r", w.state.Spec, w.state.Requires, w.facts, nil, w.now)
	if len(p.Waves) != 2 || len(p.Waves[0].Devices) != 2 || len(p.Waves[0].Detectable) == 0 {
		t.Fatalf("plan %+v", p.Waves)
	}
	if last := p.Waves[1]; len(last.Devices) != 0 || len(last.Detectable) != 0 {
		t.Errorf("the empty wave can see %+v, want nothing said", last)
	}
}

// A ledger that was written on one kind of processor replays on another.
func TestLastDigitsAreNotStated(t *testing.T) {
	for _, v := range []float64{0, 1, 1.0 / 3, 20.123456, 1e300, 4e-9} {
		for _, off := range []float64{math.Nextafter(v, math.Inf(1)), math.Nextafter(v, math.Inf(-1)), v * (1 + 1e-13)} {
			if v > 0 && stated(v) != stated(off) {
				t.Errorf("%v is stated as %v, %v as %v", v, stated(v), off, stated(off))
			}
		}
		if got := stated(v); math.Abs(got-v) > 1e-5*v {
			t.Errorf("%v is stated as %v", v, got)
		}
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if got := stated(v); got != 0 {
			t.Errorf("%v is stated as %v", v, got)
		}
	}
}
