package runner

import (
	"maps"
	"slices"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// gather is what is known about the devices that a rollout selects or has
// selected.
func (r *Runner) gather(s *rollout.State) *rollout.Facts {
	claims := r.claims(s)
	f := &rollout.Facts{Devices: map[string]*rollout.DeviceFacts{}}
	olds, labels, less := map[release.Digest]bool{}, s.Spec.Labels(), r.less(s.Spec.Release)
	for _, d := range r.cfg.Fleet.Devices(nil) {
		known, member := s.Device(d.ID)
		selected := claims.own.selector.Matches(d.Labels)
		if !selected && !member {
			continue
		}
		facts := deviceFacts(&d, s)
		facts.Selected, facts.Groups = selected, groups(d.Labels, labels)
		facts.Bytes = s.Requires.Download(facts, less(facts.Active))
		assigned := r.cfg.Desired.Assigned(d.ID, s.Spec.Model)
		facts.Assigned = assigned.Release
		facts.Holder = claims.holder(&d, assigned.Rollout)
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
		TimeZone: d.Facts.TimeZone, Metered: d.Metered, Power: d.Power, Battery: d.Battery,
		Generation: d.Generation, Reported: d.ReportedAt,
		Active: m.Active, Target: m.Target, Update: m.State, Serving: m.Serving,
		Outcomes: outcomes(&m, s.Spec.Release),
	}
}

// groups are a device's values of the labels that a budget names.
func groups(of map[string]string, labels []string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	out := make(map[string]string, len(labels))
	for _, l := range labels {
		out[l] = of[l]
	}
	return out
}

// less returns what devices download less for a release, by the one they have.
// Few releases are on many devices, so each is asked for once.
func (r *Runner) less(to release.Digest) func(from release.Digest) map[string]int64 {
	if r.cfg.Sizes == nil {
		return func(release.Digest) map[string]int64 { return nil }
	}
	known := map[release.Digest]map[string]int64{}
	return func(from release.Digest) map[string]int64 {
		sizes, ok := known[from]
		if !ok {
			sizes = r.cfg.Sizes.Less(from, to)
			known[from] = sizes
		}
		return sizes
	}
}

// outcomes are those of one release, also those of it as a shadow.
func outcomes(m *fleet.Model, of release.Digest) []rollout.Outcome {
	all := ends(m)
	if c := m.Challenger; c != nil {
		all = append(all, ends(&c.Model)...)
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

// ends are the outcomes of one place of a model, the newest first.
func ends(m *fleet.Model) []fleet.Outcome {
	if m.Outcome == nil {
		return slices.Clone(m.Refused)
	}
	return append([]fleet.Outcome{*m.Outcome}, m.Refused...)
}
