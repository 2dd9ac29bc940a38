package api

import (
	"cmp"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// addProgress adds what a person who watches a rollout asks next: who holds it
// up, how the control group is, and what its spec was before.
func (s *Service) addProgress(out *operator.Rollout, v runner.View) {
	out.ControlCounts = map[string]int{}
	for _, d := range v.State.Devices {
		if d.Control {
			out.ControlCounts[string(d.State)]++
		}
	}
	out.Returns = map[string]int{}
	for old, n := range v.State.Returns() {
		version := ""
		if !old.IsZero() {
			version = cmp.Or(s.ref(v.State.Spec.Model, old).Version, old.String()[:10])
		}
		out.Returns[version] += n
	}
	out.Next = nextWave(rollout.NextWave(v.State, v.Facts, s.d.Now()))
	stuck := v.State.Stuck()
	out.StuckTotal = len(stuck)
	explain := s.explainer(v)
	for _, id := range stuck[:min(len(stuck), operator.MaxStuck)] {
		out.Stuck = append(out.Stuck, explain(id))
	}
	out.Revisions = revisions(v.Timeline)
}

// nextWave is the wave that waits for approval; nil for none.
func nextWave(w *rollout.PlanWave) *operator.NextWave {
	if w == nil {
		return nil
	}
	return &operator.NextWave{
		Number: w.Number, Name: w.Name, Total: len(w.Devices), Devices: append([]string{}, w.Devices[:min(len(w.Devices), operator.MaxListed)]...),
		Profiles: w.Profiles, Sites: w.Sites,
	}
}

// revisions are the specs that a rollout has had.
func revisions(timeline []runner.Entry) []operator.SpecRevision {
	var out []operator.SpecRevision
	for _, e := range timeline {
		if e.Spec != nil {
			out = append(out, operator.SpecRevision{
				Number: len(out), Seq: e.Seq, At: e.At, Actor: e.Actor, Reason: e.Reason, Spec: rolloutSpec(*e.Spec),
			})
		}
	}
	return out
}

func (s *Service) waveProgress(v runner.View, n int) operator.WaveProgress {
	if v.State.Waves[n-1].Opened.IsZero() || v.Facts == nil {
		return operator.WaveProgress{}
	}
	p := v.State.Progress(n, v.Facts, s.d.Now())
	return operator.WaveProgress{
		Healthy: p.Healthy, Needed: p.Needed, Counted: p.Counted, Devices: p.Devices, Inferences: p.Inferences, Hours: p.Hours,
	}
}
