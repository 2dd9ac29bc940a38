package runner

import (
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// driven are the rollouts that may decide something by themselves, by id: those
// that have not ended, and completed ones, which go on admitting devices, until
// a newer one for the same devices is complete and has taken them.
func (r *Runner) driven() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	newest := r.newestCompleted()
	var out []string
	for _, id := range slices.Sorted(maps.Keys(r.rollouts)) {
		if s := r.rollouts[id].state; s.GoesOn() && (!newest.outlive(s) || !s.Rests()) {
			out = append(out, id)
		}
	}
	return out
}

// starts are when the newest completed rollout of each choice of devices started.
type starts map[choice]time.Time

// choice is what a rollout is for.
type choice struct{ model, selector string }

// newestCompleted looks at every rollout once. The caller holds mu.
func (r *Runner) newestCompleted() starts {
	out := starts{}
	for _, c := range r.rollouts {
		s := c.state
		of := choice{s.Spec.Model, s.Spec.Selector}
		if s.Header.Status == rollout.StatusCompleted && s.Header.Started.After(out[of]) {
			out[of] = s.Header.Started
		}
	}
	return out
}

// outlive says that a newer completed rollout of the model is for all devices of
// a completed one.
func (newest starts) outlive(s *rollout.State) bool {
	if s.Header.Status != rollout.StatusCompleted {
		return false
	}
	same, all := newest[choice{s.Spec.Model, s.Spec.Selector}], newest[choice{s.Spec.Model, ""}]
	return same.After(s.Header.Started) || all.After(s.Header.Started)
}

// afterCompleted are the claims that a rollout has to respect after its end: of all
// rollouts of the model that have begun and not ended, whenever that was, and
// of completed ones that started later. So a device that matches the selectors
// of several completed rollouts belongs to the newest.
func (r *Runner) afterCompleted(s *rollout.State, out claims) claims {
	now := r.cfg.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, id := range slices.Sorted(maps.Keys(r.rollouts)) {
		o := r.rollouts[id].state
		if id == s.ID || o.Spec.Model != s.Spec.Model || o.Header.Started.IsZero() {
			continue
		}
		newer := o.Header.Status == rollout.StatusCompleted && o.Header.Started.After(s.Header.Started)
		if newer || !o.Header.Status.Final() {
			out.others[id] = claimOf(o, now)
			out.first = append(out.first, out.others[id])
		}
	}
	return out
}
