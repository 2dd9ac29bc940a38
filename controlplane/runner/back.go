package runner

import (
	"cmp"
	"slices"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// history is what became of the releases of a model.
type history struct {
	begun     []*rollout.State // the rollouts that have begun, the newest first
	condemned map[release.Digest]bool
}

// historyOf looks at the rollouts of a model but one. A release is condemned
// when the newest rollout of it took it back.
func (r *Runner) historyOf(s *rollout.State) history {
	r.mu.RLock()
	defer r.mu.RUnlock()
	h := history{condemned: map[release.Digest]bool{}}
	for _, c := range r.rollouts {
		if o := c.state; o.ID != s.ID && o.Spec.Model == s.Spec.Model && !o.Header.Started.IsZero() {
			h.begun = append(h.begun, o)
		}
	}
	slices.SortFunc(h.begun, func(a, b *rollout.State) int {
		return cmp.Or(b.Header.Started.Compare(a.Header.Started), cmp.Compare(b.ID, a.ID))
	})
	judged := map[release.Digest]bool{}
	for _, o := range h.begun {
		if d := o.Spec.Release; !judged[d] {
			judged[d] = true
			if o.Condemns() {
				h.condemned[d] = true
			}
		}
	}
	return h
}

// back is where a device of a rollout goes back to, past releases that were
// condemned since it was offered this one: what it had before the rollout that
// brought it there, and so on. Nil is for what its record says.
func (h *history) back(s *rollout.State, device string) *release.Digest {
	d, ok := s.Device(device)
	if !ok || d.Order.Kind == "" || d.Already || !h.condemned[d.Old] {
		return nil
	}
	to, own := d.Old, s.Spec.Release
	for _, o := range h.begun {
		if o.Header.Started.After(s.Header.Started) || o.Spec.Release != to || to != own && !h.condemned[to] {
			continue
		}
		if was, ok := o.Device(device); ok && was.Order.Kind != "" && !was.Already {
			to = was.Old
		}
	}
	if to == d.Old {
		return nil // nobody knows what it had before
	}
	return &to
}
