package runner

import (
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// gather is what is known about the devices that a rollout selects or has
// selected.
func (r *Runner) gather(s *rollout.State) *rollout.Facts {
	selector, err := rollout.ParseSelector(s.Spec.Selector)
	if err != nil {
		selector = rollout.Selector{} // cannot be: the spec was validated when it was created
	}
	others := r.others(s)
	f := &rollout.Facts{Devices: map[string]*rollout.DeviceFacts{}}
	olds := map[release.Digest]bool{}
	for _, d := range r.cfg.Fleet.Devices(nil) {
		known, member := s.Device(d.ID)
		selected := selector.Matches(d.Labels)
		if !selected && !member {
			continue
		}
		facts := deviceFacts(&d, s)
		facts.Selected = selected
		assigned := r.cfg.Desired.Assigned(d.ID, s.Spec.Model)
		facts.Assigned = assigned.Release
		facts.Holder = holder(s, others, d, assigned.Rollout)
		f.Devices[d.ID] = facts
		model, _ := d.Model(s.Spec.Model)
		for _, old := range []release.Digest{facts.Active, model.Previous, known.Old} {
			olds[old] = true
		}
	}
	delete(olds, release.Digest{})
	delete(olds, s.Spec.Release)
	r.addEvidence(s, f, slices.SortedFunc(maps.Keys(olds), func(a, b release.Digest) int { return slices.Compare(a[:], b[:]) }))
	return f
}

func deviceFacts(d *fleet.Device, s *rollout.State) *rollout.DeviceFacts {
	m, _ := d.Model(s.Spec.Model)
	return &rollout.DeviceFacts{
		Revoked: d.Revoked != nil || d.Cloned != nil,
		Profile: d.Facts.Profile, Site: d.Site(),
		Arch: d.Facts.Arch, Agent: d.AgentVersion, Runtime: d.Facts.RuntimeVersion,
		MemoryBytes: d.Facts.MemoryBytes, Providers: d.Facts.Providers,
		Generation: d.Generation, Reported: d.ReportedAt,
		Active: m.Active, Target: m.Target, Update: m.State, Serving: m.Serving,
		Outcomes: outcomes(&m, s.Spec.Release),
	}
}

// outcomes are those of one release.
func outcomes(m *fleet.Model, of release.Digest) []rollout.Outcome {
	all := m.Refused
	if m.Outcome != nil {
		all = append([]fleet.Outcome{*m.Outcome}, all...)
	}
	var out []rollout.Outcome
	for _, o := range all {
		told := rollout.Outcome{Result: o.Result, Code: o.Code, Message: o.Message, Generation: o.Generation}
		if o.Release == of && !slices.Contains(out, told) {
			out = append(out, told)
		}
	}
	return out
}

// others are the rollouts of the same model that are going on.
func (r *Runner) others(s *rollout.State) map[string]other {
	out := map[string]other{}
	for _, id := range r.unfinished() {
		c := r.chain(id)
		if id == s.ID || c.state.Spec.Model != s.Spec.Model || c.state.Header.Status == rollout.StatusDraft {
			continue
		}
		selector, err := rollout.ParseSelector(c.state.Spec.Selector)
		if err == nil {
			out[id] = other{selector: selector, started: c.state.Header.Started}
		}
	}
	return out
}

type other struct {
	selector rollout.Selector
	started  time.Time
}

// holder is the other rollout that has the device: the one that decided about
// it last, otherwise the one that selects it and started first.
func holder(s *rollout.State, others map[string]other, d fleet.Device, decided string) string {
	if decided == s.ID {
		return ""
	}
	if _, ok := others[decided]; ok {
		return decided
	}
	first, since := "", s.Header.Started
	for _, id := range slices.Sorted(maps.Keys(others)) {
		o := others[id]
		if o.selector.Matches(d.Labels) && (since.IsZero() || o.started.Before(since)) {
			first, since = id, o.started
		}
	}
	return first
}

// addEvidence joins what devices counted. Before the start there is nothing to
// compare but the past.
func (r *Runner) addEvidence(s *rollout.State, f *rollout.Facts, olds []release.Digest) {
	model, started := s.Spec.Model, s.Header.Started
	set := func(found map[string]drift.Evidence, put func(d *rollout.DeviceFacts, e drift.Evidence)) {
		for id, e := range found {
			if d, ok := f.Devices[id]; ok {
				put(d, e)
			}
		}
	}
	for _, old := range olds {
		set(r.cfg.Evidence.Evidence(model, old, time.Time{}), func(d *rollout.DeviceFacts, e drift.Evidence) { d.Past = plus(d.Past, e) })
		if !started.IsZero() {
			set(r.cfg.Evidence.Evidence(model, old, started), func(d *rollout.DeviceFacts, e drift.Evidence) { d.Old = plus(d.Old, e) })
		}
	}
	if !started.IsZero() {
		set(r.cfg.Evidence.Evidence(model, s.Spec.Release, started), func(d *rollout.DeviceFacts, e drift.Evidence) { d.New = plus(d.New, e) })
	}
}

// plus adds evidence up. Of two releases, the latency is the mean by rows.
func plus(a *rollout.Evidence, b drift.Evidence) *rollout.Evidence {
	sum := &rollout.Evidence{}
	if a != nil {
		*sum = *a
	}
	if rows := sum.Rows + b.Rows; rows > 0 {
		p95 := float64(b.P95.Microseconds())
		sum.P95US = (sum.P95US*float64(sum.Rows) + p95*float64(b.Rows)) / float64(rows)
	}
	sum.Rows += b.Rows
	sum.FailedRows += b.FailedRows
	sum.Labels += b.Labels
	sum.Correct += b.Correct
	sum.Classes = plusClasses(sum.Classes, b.Classes)
	return sum
}

func plusClasses(sum, more []uint64) []uint64 {
	if sum == nil {
		return slices.Clone(more)
	}
	if len(sum) != len(more) {
		return sum // another set of classes: nothing to compare
	}
	out := slices.Clone(sum)
	for i, n := range more {
		out[i] += n
	}
	return out
}
