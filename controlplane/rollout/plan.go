package rollout

import (
	"fmt"
	"slices"
	"time"
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
		w.Detectable = t.detectable()
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
