package runner

import (
	"slices"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// deviceFacts are those that the device itself reports.
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
