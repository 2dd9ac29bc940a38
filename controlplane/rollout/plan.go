package rollout

import (
	"maps"
	"slices"
	"time"
)

// PlanRate is the download rate, in bytes a second, that the times of a plan
// assume for each device: a poor mobile link.
const PlanRate = 128 << 10

// Plan is what a rollout would do, told before it starts. Its times are those of
// Replays: in each, devices are there at the hours at which they were heard of
// in the last 14 days, and all of them do well. Time that people take to approve
// is not in them.
type Plan struct {
	Spec       Spec              `json:"spec"`
	Begins     time.Time         `json:"begins"`               // when the times below begin
	FirstOffer time.Time         `json:"first_offer,omitzero"` // the first device is asked then, after a window has opened; zero when none is
	Devices    int               `json:"devices"`              // that would be offered it
	Already    []string          `json:"already,omitempty"`    // run it now
	Refused    map[string]string `json:"refused,omitempty"`    // cannot run it, with the reason
	Unmet      map[string]string `json:"unmet,omitempty"`      // do not fulfil now what the rollout requires, with the reason
	Held       map[string]string `json:"held,omitempty"`       // are in another rollout, by its id
	Conflicts  []Conflict        `json:"conflicts,omitempty"`  // those rollouts, by id
	Control    []string          `json:"control,omitempty"`    // held out until the last wave
	Unheard    []string          `json:"unheard,omitempty"`    // not heard of in the last 14 days
	Waves      []PlanWave        `json:"waves"`
	Bytes      int64             `json:"bytes"`      // at most, over all devices, deltas included
	FullBytes  int64             `json:"full_bytes"` // the same without deltas
	Expected   time.Duration     `json:"expected"`   // half of the replays end sooner; 0 when they do not end in time
	Slow       time.Duration     `json:"slow"`       // nine of ten do; 0 likewise
	Unfinished int               `json:"unfinished"` // replays that did not end by the deadline
	Warnings   []string          `json:"warnings,omitempty"`
}

// PlanWave is one wave of a plan.
type PlanWave struct {
	Number     int            `json:"number"`
	Name       string         `json:"name"`
	Devices    []string       `json:"devices"` // in the order they would be offered it
	Profiles   map[string]int `json:"profiles"`
	Sites      map[string]int `json:"sites"`
	Bytes      int64          `json:"bytes"`
	Expected   time.Duration  `json:"expected"` // from its opening, as of the whole rollout
	Slow       time.Duration  `json:"slow"`
	Unfinished int            `json:"unfinished"`
	Stalls     []string       `json:"stalls,omitempty"` // what it waits for longest, for people
	Approval   bool           `json:"approval"`
	Detectable []Detectable   `json:"detectable,omitempty"`
}

// Conflict is another rollout of the model that has some of the devices.
type Conflict struct {
	Rollout string `json:"rollout"`
	Devices int    `json:"devices"`
	Outcome string `json:"outcome"` // a Conflict… constant
}

// What becomes of a conflict.
const (
	ConflictRefused    = "refused"    // this rollout cannot start
	ConflictQueued     = "queued"     // it waits for the other to end
	ConflictSuperseded = "superseded" // it takes the devices over
)

// MakePlan walks a rollout through its waves as if every device did well and
// nobody joined or left, and says how long that takes with the presence of the
// last 14 days. Without presence every device is taken to be always there.
func MakePlan(id string, spec Spec, requires Requirements, f *Facts, presence Presence, now time.Time) Plan {
	p := Plan{Spec: spec, Refused: map[string]string{}, Unmet: map[string]string{}, Held: map[string]string{}}
	p.conflicts(f)
	t := newTurn(New(id, "", spec, requires, now), p.free(f), now)
	for n := 1; n <= len(t.Waves); n++ {
		p.Waves = append(p.Waves, t.planWave(n))
	}
	p.list(t)
	p.sum(t)
	r := t.newRehearsal(p.Waves, presence)
	p.time(r)
	p.warn(r)
	return p
}

// conflicts lists who is in another rollout, and what becomes of that.
func (p *Plan) conflicts(f *Facts) {
	held := conflicts(f)
	for id, d := range f.Devices {
		if d.Selected && d.Holder != "" {
			p.Held[id] = d.Holder
		}
	}
	outcome := ConflictRefused
	if p.Spec.OnConflict == Queue {
		outcome = ConflictQueued
	}
	for _, holder := range slices.Sorted(maps.Keys(held)) {
		p.Conflicts = append(p.Conflicts, Conflict{Rollout: holder, Devices: held[holder], Outcome: outcome})
	}
}

// Supersede adds a rollout that this one ends when it starts.
func (p *Plan) Supersede(s *State) {
	c := Conflict{Rollout: s.ID, Outcome: ConflictSuperseded}
	for i := range p.Waves {
		for _, id := range p.Waves[i].Devices {
			if d, ok := s.Device(id); ok && d.Wave > 0 {
				c.Devices++
			}
		}
	}
	p.Conflicts = append(p.Conflicts, c)
	p.say("rollout %s has %d of the devices: this one takes them over", c.Rollout, c.Devices)
}

// free is what is known when the rollout starts: it starts when nobody else has
// its devices, however that comes about.
func (p *Plan) free(f *Facts) *Facts {
	if len(p.Held) == 0 {
		return f
	}
	out := &Facts{Devices: maps.Clone(f.Devices)}
	for id := range p.Held {
		mine := f.device(id)
		mine.Holder = ""
		out.Devices[id] = &mine
	}
	return out
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
	for _, id := range w.Devices {
		f := t.facts.Devices[id]
		w.Profiles[f.Profile]++
		w.Sites[f.Site]++
		w.Bytes += t.toDownload(f)
	}
	if len(w.Devices) > 0 {
		w.Detectable = t.detectable()
	}
	return w
}

// toDownload is how many bytes a device has to download, deltas included.
func (t *turn) toDownload(f *DeviceFacts) int64 {
	if f.Bytes > 0 {
		return f.Bytes
	}
	return t.Requires.bytes(*f)
}

// list names the devices that are not offered the release as the others are.
func (p *Plan) list(t *turn) {
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
	slices.Sort(p.Already)
	slices.Sort(p.Control)
}

func (p *Plan) sum(t *turn) {
	for _, w := range p.Waves {
		p.Devices += len(w.Devices)
		p.Bytes += w.Bytes
		for _, id := range w.Devices {
			f := t.facts.Devices[id]
			p.FullBytes += t.Requires.bytes(*f)
			if what, why := p.Spec.Require.unmet(f); what != "" {
				p.Unmet[id] = hindrance{what: what, why: why}.String()
			}
		}
	}
}

// firstOffer is when the first device is asked, or never.
func (r *run) firstOffer() int64 {
	first := never
	for _, s := range r.stages {
		for i := range s.members {
			first = min(first, s.members[i].offered)
		}
	}
	return first
}

// Quantiles of a plan's times.
const (
	p50 = 0.5
	p90 = 0.9
)

// time says how long the waves take.
func (p *Plan) time(r *rehearsal) {
	took := r.rehearse()
	p.Begins = r.moment(r.begins)
	p.Expected, p.Slow, p.Unfinished = took.total.at(p50), took.total.at(p90), took.total.unfinished()
	usual := r.replay(took.usual())
	if first := usual.firstOffer(); first < never {
		p.FirstOffer = r.moment(first)
	}
	for i := range p.Waves {
		w, s := &p.Waves[i], took.waves[i]
		w.Expected, w.Slow, w.Unfinished = s.at(p50), s.at(p90), s.unfinished()
		w.Stalls = usual.stages[i].stalls(w.Number)
	}
	for i := range r.devices {
		if !r.devices[i].there.ever() {
			p.Unheard = append(p.Unheard, r.devices[i].id)
		}
	}
	slices.Sort(p.Unheard)
}
