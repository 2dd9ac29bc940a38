package rollout

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"
)

// PlanRate is the download rate, in bytes a second, that the times of a plan
// assume for each device: a poor mobile link.
const PlanRate = 128 << 10

// Plan is what a rollout would do, told before it starts.
type Plan struct {
	Spec     Spec              `json:"spec"`
	Devices  int               `json:"devices"`           // that would be offered it
	Already  []string          `json:"already,omitempty"` // run it now
	Refused  map[string]string `json:"refused,omitempty"` // cannot run it, with the reason
	Held     map[string]string `json:"held,omitempty"`    // are in another rollout, by its id
	Control  []string          `json:"control,omitempty"` // held out until the last wave
	Waves    []PlanWave        `json:"waves"`
	Bytes    int64             `json:"bytes"`    // at most, over all devices
	Expected time.Duration     `json:"expected"` // with every device at PlanRate and no waiting for people
	Warnings []string          `json:"warnings,omitempty"`
}

// PlanWave is one wave of a plan.
type PlanWave struct {
	Number     int            `json:"number"`
	Name       string         `json:"name"`
	Devices    []string       `json:"devices"` // in the order they would be offered it
	Profiles   map[string]int `json:"profiles"`
	Sites      map[string]int `json:"sites"`
	Bytes      int64          `json:"bytes"`
	Expected   time.Duration  `json:"expected"`
	Approval   bool           `json:"approval"`
	Detectable []Detectable   `json:"detectable,omitempty"`
}

// Detectable is the smallest regression that a gate would find in a wave in
// four of five cases, from how much devices differ now.
type Detectable struct {
	Gate  GateKind `json:"gate"`
	Limit float64  `json:"limit"`
	Least float64  `json:"least"` // 0 when nothing can be said
	Text  string   `json:"text"`
}

// MakePlan walks a rollout through its waves as if every device did well and
// nobody joined or left.
func MakePlan(id string, spec Spec, requires Requirements, f *Facts, now time.Time) Plan {
	t := newTurn(New(id, "", spec, requires, now), f, now)
	p := Plan{Spec: spec, Refused: map[string]string{}, Held: map[string]string{}}
	for n := 1; n <= len(t.Waves); n++ {
		p.Waves = append(p.Waves, t.planWave(n))
	}
	for id, d := range t.Devices {
		switch {
		case d.Already:
			p.Already = append(p.Already, id)
		case d.State == DeviceRefused:
			p.Refused[id] = d.Message
		case d.Control:
			p.Control = append(p.Control, id)
		}
	}
	for id, d := range f.Devices {
		if d.Selected && d.Holder != "" {
			p.Held[id] = d.Holder
		}
	}
	slices.Sort(p.Already)
	slices.Sort(p.Control)
	p.sum()
	p.warn()
	return p
}

func (t *turn) planWave(n int) PlanWave {
	if n == 1 {
		t.holdOut()
	}
	spec := t.waveSpec(n)
	w := PlanWave{Number: n, Name: spec.Name, Approval: t.needsApproval(n), Profiles: map[string]int{}, Sites: map[string]int{}}
	free, held := t.pool(n == len(t.Waves))
	t.Header.Wave = n
	if len(free) > 0 {
		w.Devices = choose(t.ID, forWaves, waveSize(spec, t.placed(), len(free), held), free)
	}
	t.place(w.Devices, n)
	var most int64
	for _, id := range w.Devices {
		f := t.facts.device(id)
		w.Profiles[f.Profile]++
		w.Sites[f.Site]++
		w.Bytes += t.Requires.bytes(f)
		most = max(most, t.Requires.bytes(f))
	}
	w.Expected = spec.soak() + t.transfer(len(w.Devices), most)
	if len(w.Devices) > 0 {
		w.Detectable = t.detectable(n == len(t.Waves))
	}
	return w
}

// transfer is how long n downloads take, budget at a time.
func (t *turn) transfer(n int, bytes int64) time.Duration {
	rounds := 1
	if b := t.Spec.Budget.InFlight; b > 0 {
		rounds = (n + b - 1) / b
	}
	return time.Duration(float64(rounds) * float64(bytes) / PlanRate * float64(time.Second)).Round(time.Second)
}

func (p *Plan) sum() {
	for _, w := range p.Waves {
		p.Devices += len(w.Devices)
		p.Bytes += w.Bytes
		p.Expected += w.Expected
	}
}

func (p *Plan) warn() {
	warn := func(format string, args ...any) { p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...)) }
	if p.Devices == 0 {
		warn("no device would be offered the release")
	}
	for _, w := range p.Waves {
		if len(w.Devices) == 0 && p.Devices > 0 {
			warn("wave %d would have no device and pass by itself", w.Number)
		}
	}
	if p.Devices > 1 && len(p.Waves[0].Devices)*2 > p.Devices {
		warn("the first wave has %d of %d devices: it protects few", len(p.Waves[0].Devices), p.Devices)
	}
	if len(p.Held) > 0 {
		warn("%d devices are in another rollout of the model: this one cannot start", len(p.Held))
	}
	if len(p.Refused) > 0 {
		warn("%d devices cannot run the release", len(p.Refused))
	}
}

// detectable says what the comparing gates could see once the wave is done,
// from the spread of the devices' own past.
func (t *turn) detectable(last bool) []Detectable {
	treated := t.placed()
	control := len(t.facts.Devices) - treated
	var out []Detectable
	for _, g := range t.Spec.Gates {
		m, unit := planMeasure(g)
		if g.Off || m == nil {
			continue
		}
		d := Detectable{Gate: g.Kind, Limit: g.limit()}
		sd, known := t.spreadNow(m)
		d.Least = least(sd, treated, control, last)
		switch {
		case treated < 2:
			d.Least, d.Text = 0, "one device cannot answer for the others: it will be unproven"
		case !known:
			d.Least, d.Text = 0, "not known: fewer than two devices have been measured on an old release"
		case math.IsInf(d.Least, 1):
			d.Least, d.Text = 0, "no device is left to compare with"
		default:
			d.Text = fmt.Sprintf("%.2f %s or more would be seen, the limit is %.2f", 100*d.Least, unit, 100*d.Limit)
		}
		out = append(out, d)
	}
	return out
}

func planMeasure(g GateSpec) (m measure, unit string) {
	switch g.Kind {
	case Accuracy:
		return func(e *Evidence) (metric, bool) {
			return share(e.Correct, max(e.Labels, 1)), e.Labels >= max(g.Min, 1)
		}, "points"
	case Latency:
		return func(e *Evidence) (metric, bool) {
			return metric{value: math.Log(max(e.P95US, 1))}, e.P95US > 0 && e.Rows >= g.Min
		}, "%"
	case Golden, Install, Crash, Errors, Drift:
	}
	return nil, ""
}

// spreadNow is the standard deviation of a metric over devices.
func (t *turn) spreadNow(m measure) (sd float64, known bool) {
	var all []metric
	for _, id := range slices.Sorted(maps.Keys(t.facts.Devices)) {
		if e := t.facts.device(id).Past; e != nil {
			if v, ok := m(e); ok {
				all = append(all, v)
			}
		}
	}
	if len(all) < 2 {
		return 0, false
	}
	between := squares(all) / float64(len(all)-1)
	inside := chance(all) * float64(len(all))
	return math.Sqrt(max(between, inside)), true
}

// least is the difference that the harm test finds with a chance of 80 percent
// when n devices are compared with m others, or in the last wave with
// themselves: before and after are taken to vary alike and independently.
func least(sd float64, n, m int, last bool) float64 {
	if last {
		m = n
	}
	if m < 1 {
		return math.Inf(1)
	}
	df := float64(max(1, min(n, max(m, 2))-1))
	factor := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: df}.Quantile(1-alphaFail) + distuv.UnitNormal.Quantile(0.8)
	return factor * sd * math.Sqrt(1/float64(n)+1/float64(m))
}
