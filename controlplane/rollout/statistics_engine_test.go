package rollout

import (
	"fmt"
	"math"
	"testing"
)

// influence is something that changes what devices count: a release, or the
// world. Shares in points, latency as a factor.
type influence struct {
	errors, accuracy, mix float64
	latency               float64
}

func (i influence) and(j influence) influence {
	return influence{i.errors + j.errors, i.accuracy + j.accuracy, i.mix + j.mix, i.latency * j.latency}
}

var unchanged = influence{latency: 1}

// nature is a device as it really is.
type nature struct {
	id               string
	wave             int // 0 for the control group
	failing, skill   float64
	p95, day         float64 // its latency, and by how much that differs from one day to the next
	past, old, newer Evidence
}

// count lets a device predict rows, half of them with labels.
func (n *nature) count(c chances, e *Evidence, rows uint64, in influence) {
	failed := min(rows, c.poisson(float64(rows)*(n.failing+in.errors)))
	e.FailedRows += failed
	e.Rows += rows - failed
	e.Labels += rows / 2
	e.Correct += rows/2 - min(rows/2, c.poisson(float64(rows/2)*(1-n.skill+in.accuracy)))
	e.P95US = n.p95 * in.latency * (1 + 0.3*c.NormFloat64()/math.Sqrt(float64(e.Rows)))
	first := uint64(math.Round(float64(rows) * min(0.95, 0.5+in.mix)))
	next := append([]uint64{}, e.Classes...)
	if len(next) == 0 {
		next = make([]uint64, 3)
	}
	next[0], next[1], next[2] = next[0]+first, next[1]+(rows-first)/2, next[2]+(rows-first)/2
	e.Classes = next
}

// trial is a rollout over unlike devices, with looks after every few rows.
type trial struct {
	*world
	devices []*nature
	open    []int // looks at which waves open
}

const (
	looks     = 48
	soakLooks = 5
	rowsALook = 60
)

// newTrial is a fleet of 100: 10 in the control group, waves of 6, 24 and 60.
func newTrial(t *testing.T, c chances, gates ...GateSpec) *trial {
	t.Helper()
	r := &trial{world: newWorld(t), open: []int{0, 14, 28}}
	r.create(Spec{Waves: []WaveSpec{{Percent: 6}, {Percent: 30}, {Percent: 100}}, Gates: gates}, Requirements{})
	r.state.Header.Started = begin
	sizes := []int{10, 6, 24, 60}
	records := map[string]*Device{}
	for wave, size := range sizes {
		if wave > 0 {
			r.state.Waves[wave-1].Planned = size
		}
		for range size {
			n := &nature{
				id: fmt.Sprintf("d%03d", len(r.devices)), wave: wave, failing: min(0.2, base*c.lognormal(1)),
				skill: min(0.99, 0.93+0.03*c.NormFloat64()), p95: 1000 * c.lognormal(0.5), day: math.Exp(0.1 * c.NormFloat64()),
			}
			n.count(c, &n.past, 2000, unchanged)
			r.devices = append(r.devices, n)
			records[n.id] = &Device{State: DeviceWaiting, Wave: wave, Control: wave == 0}
			r.facts.Devices[n.id] = &DeviceFacts{Selected: true, Past: &n.past}
		}
	}
	if err := r.state.replace(records, 1); err != nil {
		t.Fatal(err)
	}
	return r
}

// look lets all devices predict and moves them on.
func (r *trial) look(c chances, at int, release, world influence) {
	records := map[string]*Device{}
	today := func(n *nature, in influence) influence { in.latency *= n.day; return in }
	for _, n := range r.devices {
		f := r.facts.device(n.id)
		switch {
		case n.wave == 0 || at < r.open[n.wave-1]:
			n.count(c, &n.old, rowsALook, today(n, world))
			old := n.old
			f.Old = &old
		default:
			n.count(c, &n.newer, rowsALook, today(n, world.and(release)))
			newer := n.newer
			f.New = &newer
		}
		r.facts.Devices[n.id] = &f
		if n.wave > 0 && at == r.open[n.wave-1] {
			records[n.id] = &Device{State: DeviceActive, Wave: n.wave, Tries: 1, Order: Order{Kind: Forward, Seq: 2}}
		}
		if n.wave > 0 && at == r.open[n.wave-1]+soakLooks {
			d := r.state.device(n.id)
			d.State = DeviceHealthy
			records[n.id] = &d
		}
	}
	for i, open := range r.open {
		if at == open {
			r.state.Waves[i].State, r.state.Header.Wave = WaveOpen, i+1
		}
	}
	if err := r.state.replace(records, 2); err != nil {
		r.t.Fatal(err)
	}
	r.takeSigns()
}

// verdict is how a trial ended: the gate that stopped it and how many devices
// had the release, or the gates that had passed at the end.
type verdict struct {
	stopped GateKind
	exposed int
	passed  map[GateKind]bool
}

// judged runs a trial to its end. The world changes at a look.
func judged(t *testing.T, c chances, release, world influence, changes int, gates ...GateSpec) verdict {
	t.Helper()
	r := newTrial(t, c, gates...)
	v := verdict{passed: map[GateKind]bool{}}
	for at := range looks {
		in := unchanged
		if at >= changes {
			in = world
		}
		r.look(c, at, release, in)
		v.passed = map[GateKind]bool{}
		for _, g := range Judge(r.state, r.facts, r.now) {
			if g.Result == GateFail {
				v.stopped = g.Gate
				v.exposed = r.state.count(func(d *Device) bool { return d.Order.Kind == Forward })
				return v
			}
			v.passed[g.Gate] = g.Result == GatePass
		}
	}
	return v
}

// The whole of it: signs, rows, frozen and judged at every look while waves
// open, on devices that differ from each other by far more than chance.
func TestStatisticsOfGates(t *testing.T) {
	n := trials(30)
	if raced {
		t.Skip("computes only: left to the run without the race detector")
	}
	strict := []GateSpec{{Kind: Errors, Limit: new(0.0)}, {Kind: Latency, Limit: new(0.0)}, {Kind: Accuracy, Limit: new(0.0)}}
	later := influence{errors: 0.03, accuracy: 0.06, mix: 0.35, latency: 2}
	for _, q := range []struct {
		name           string
		release, world influence
		changes        int
		stop           float64 // at most, or at least if it is to be stopped
		harmful        bool
		bad            []GateKind // that must not pass
		gates          []GateSpec
	}{
		{name: "harmless, with nothing tolerated", release: unchanged, world: unchanged, stop: 0.05, gates: strict, bad: []GateKind{Errors, Latency, Accuracy}},
		{name: "harmless", release: unchanged, world: unchanged, stop: 0.05},
		{name: "better", release: influence{errors: -0.001, accuracy: -0.02, latency: 0.7}, world: unchanged, stop: 0.05},
		{name: "just at every limit", release: influence{errors: 0.01, accuracy: 0.02, latency: 1.5}, world: unchanged, stop: 0.05, bad: []GateKind{Errors, Latency, Accuracy}},
		{name: "errors 3 points up", release: influence{errors: 0.03, latency: 1}, world: unchanged, harmful: true, stop: 0.95, bad: []GateKind{Errors}},
		{name: "twice as slow", release: influence{latency: 2}, world: unchanged, harmful: true, stop: 0.95, bad: []GateKind{Latency}},
		{name: "accuracy 6 points down", release: influence{accuracy: 0.06, latency: 1}, world: unchanged, harmful: true, stop: 0.95, bad: []GateKind{Accuracy}},
		{name: "other classes", release: influence{mix: 0.4, latency: 1}, world: unchanged, harmful: true, stop: 0.95, bad: []GateKind{Drift}},
		{name: "the world changes before all", release: unchanged, world: later, stop: 0.05},
		{name: "the world changes in the second wave", release: unchanged, world: later, changes: 12, stop: 0.05},
		{name: "the world changes before the last wave", release: unchanged, world: later, changes: 27, stop: 0.05},
		{name: "the world hides twice as slow", release: influence{latency: 2}, world: influence{latency: 0.5}, stop: 1, bad: []GateKind{Latency}},
	} {
		t.Run(q.name, func(t *testing.T) {
			c := newChances(7)
			stopped, exposed, passed := 0.0, []float64{}, map[GateKind]float64{}
			by := map[GateKind]int{}
			for range n {
				v := judged(t, c, q.release, q.world, q.changes, q.gates...)
				if v.stopped != "" {
					stopped++
					by[v.stopped]++
					exposed = append(exposed, float64(v.exposed))
				}
				for gate, ok := range v.passed {
					if ok {
						passed[gate]++
					}
				}
			}
			got := stopped / float64(n)
			t.Logf("stopped %.3f by %v, with %.0f devices exposed; passed: errors %.2f latency %.2f drift %.2f accuracy %.2f", got, by, median(exposed),
				passed[Errors]/float64(n), passed[Latency]/float64(n), passed[Drift]/float64(n), passed[Accuracy]/float64(n))
			if q.harmful && got < q.stop {
				t.Errorf("stopped %.3f, want at least %.2f", got, q.stop)
			}
			if !q.harmful {
				atMost(t, "stopped", got, q.stop, n)
			}
			for _, gate := range q.bad {
				atMost(t, string(gate)+" passed", passed[gate]/float64(n), 0.05, n)
			}
		})
	}
}

// silent is a trial at its end of which only the control group was heard.
func (r *trial) silent() *trial {
	out := &trial{world: newWorld(r.t), devices: r.devices}
	out.create(r.state.Spec, Requirements{})
	out.state.Header = r.state.Header
	records := map[string]*Device{}
	for _, n := range r.devices {
		d := r.state.device(n.id)
		d.Signs = Signs{}
		records[n.id] = &d
		out.set(n.id, func(f *DeviceFacts) {
			*f = r.facts.device(n.id)
			f.New = nil
		})
	}
	if err := out.state.replace(records, 1); err != nil {
		r.t.Fatal(err)
	}
	return out
}

// hear lets the evidence of devices arrive, in an order and a few at a time.
func (r *trial) hear(from *trial, order []int, many int) []GateResult {
	for i, at := range order {
		id := r.devices[at].id
		r.set(id, func(f *DeviceFacts) { f.New = from.facts.device(id).New })
		if i%many == 0 {
			r.takeSigns()
			Judge(r.state, r.facts, r.now)
		}
	}
	r.takeSigns()
	return Judge(r.state, r.facts, r.now)
}

// Reports come late and in any order. What they add up to is the same: e-values
// depend on sums alone, and a device gives its sign when its evidence is there.
func TestLateEvidenceAddsUpToTheSame(t *testing.T) {
	c := newChances(9)
	whole := newTrial(t, c)
	for at := range looks {
		whole.look(c, at, influence{errors: 0.012, accuracy: 0.025, mix: 0.1, latency: 1.6}, unchanged)
	}
	all := c.Perm(len(whole.devices))
	want := asJSON(t, whole.silent().hear(whole, all, len(all)+1))
	for seed := range uint64(10) {
		order := newChances(seed).Perm(len(all))
		if got := asJSON(t, whole.silent().hear(whole, order, 1+int(seed))); got != want {
			t.Fatalf("in another order the gates say\n%s\nwant\n%s", got, want)
		}
	}
	var worse int
	for _, g := range whole.silent().hear(whole, all, 7) {
		worse += g.Worse
	}
	if worse < 20 {
		t.Errorf("%d signs are worse: the test has become too kind to show anything", worse)
	}
}
