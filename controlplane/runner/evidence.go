package runner

import (
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// addEvidence joins what a device counted. Before the start there is nothing to
// compare but the past; from then on the past stays what it is.
func (r *Runner) addEvidence(s *rollout.State, id string, f *rollout.DeviceFacts) {
	model, started, own := s.Spec.Model, s.Header.Started, s.Spec.Release
	_, f.Past = split(r.cfg.Evidence.EvidenceOf(id, model, time.Time{}, started), own)
	if started.IsZero() {
		return
	}
	f.New, f.Old = split(r.cfg.Evidence.EvidenceOf(id, model, started, time.Time{}), own)
	if s.Spec.Shadow == nil {
		return
	}
	if c, ok := r.cfg.Evidence.ShadowOf(id, model, own, started); ok {
		f.Shadow = &rollout.Agreement{Rows: c.Compared, Agreed: c.Agreed, Failed: c.FailedRows}
	}
}

// split parts what was counted on one release from what was on all others.
func split(found map[release.Digest]drift.Evidence, own release.Digest) (on, others *rollout.Evidence) {
	for _, d := range slices.SortedFunc(maps.Keys(found), func(a, b release.Digest) int { return slices.Compare(a[:], b[:]) }) {
		if d == own {
			on = plus(on, found[d])
		} else {
			others = plus(others, found[d])
		}
	}
	return on, others
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
