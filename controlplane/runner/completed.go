package runner

import (
	"maps"
	"slices"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// driven are the rollouts that may decide something by themselves, by id: those
// that have not ended, and completed ones, which go on admitting devices, until
// a newer one for the same devices is complete and has taken them.
func (r *Runner) driven() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []string
	for _, id := range slices.Sorted(maps.Keys(r.rollouts)) {
		if s := r.rollouts[id].state; s.GoesOn() && !(r.outlived(s) && s.Rests()) {
			out = append(out, id)
		}
	}
	return out
}

// outlived says that a newer completed rollout of the model is for all devices
// of a completed one. The caller holds mu.
func (r *Runner) outlived(s *rollout.State) bool {
	if s.Header.Status != rollout.StatusCompleted {
		return false
	}
	for _, c := range r.rollouts {
		o := c.state
		all := o.Spec.Selector == s.Spec.Selector || o.Spec.Selector == ""
		if all && o.Spec.Model == s.Spec.Model && o.Header.Status == rollout.StatusCompleted && o.Header.Started.After(s.Header.Started) {
			return true
		}
	}
	return false
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
