package runner

import (
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// addEvidence joins what devices counted. Before the start there is nothing to
// compare but the past; from then on the past stays what it is.
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
		set(r.cfg.Evidence.Evidence(model, old, time.Time{}, started), func(d *rollout.DeviceFacts, e drift.Evidence) { d.Past = plus(d.Past, e) })
		if !started.IsZero() {
			set(r.cfg.Evidence.Evidence(model, old, started, time.Time{}), func(d *rollout.DeviceFacts, e drift.Evidence) { d.Old = plus(d.Old, e) })
		}
	}
	if !started.IsZero() {
		set(r.cfg.Evidence.Evidence(model, s.Spec.Release, started, time.Time{}), func(d *rollout.DeviceFacts, e drift.Evidence) { d.New = plus(d.New, e) })
		r.addShadows(s, f)
	}
}

// addShadows joins what devices counted with the release as a shadow.
func (r *Runner) addShadows(s *rollout.State, f *rollout.Facts) {
	if s.Spec.Shadow == nil {
		return
	}
	for id, c := range r.cfg.Evidence.Shadowed(s.Spec.Model, s.Spec.Release, s.Header.Started) {
		if d, ok := f.Devices[id]; ok {
			d.Shadow = &rollout.Agreement{Rows: c.Compared, Agreed: c.Agreed, Failed: c.FailedRows}
		}
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
