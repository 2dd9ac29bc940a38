package runner

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// claim is what a rollout has on the devices that it selects. Of two rollouts
// of a model the one with the earlier claim has the devices of both.
type claim struct {
	id       string
	selector rollout.Selector
	rank     claimRank
	since    time.Time
}

// claimRank orders claims of rollouts at different stages.
type claimRank int

const (
	begun   claimRank = iota // since its start
	waiting                  // in the queue, since the command to start it
	wanting                  // nobody has started it, or its time has not come
)

func claimOf(s *rollout.State, now time.Time) claim {
	selector, err := rollout.ParseSelector(s.Spec.Selector)
	if err != nil {
		selector = rollout.Selector{} // cannot be: the spec was validated when it was created
	}
	c := claim{id: s.ID, selector: selector, rank: wanting, since: s.Header.Created}
	switch {
	case !s.Header.Started.IsZero():
		c.rank, c.since = begun, s.Header.Started
	case s.Header.Status == rollout.StatusQueued && !now.Before(s.Spec.StartAt):
		c.rank, c.since = waiting, s.Header.Since
	}
	return c
}

// before orders claims. Two of one millisecond go by id.
func (c *claim) before(o *claim) bool {
	return cmp.Or(cmp.Compare(c.rank, o.rank), c.since.Compare(o.since), cmp.Compare(c.id, o.id)) < 0
}

// claims are those that a rollout has to respect.
type claims struct {
	own    claim
	others map[string]claim // of unfinished rollouts of the model, by id
	first  []claim          // of them those that come before its own, first claim first
}

// claims looks at the other rollouts of the model. Those that this rollout can
// end when it begins are not in its way.
func (r *Runner) claims(s *rollout.State) claims {
	now := r.cfg.Now()
	out := claims{own: claimOf(s, now), others: map[string]claim{}}
	if s.Header.Status == rollout.StatusCompleted {
		return r.afterCompleted(s, out)
	}
	var parents []string
	if out.own.rank != begun {
		parents = r.ancestors(s)
	}
	for _, id := range r.unfinished() {
		c := r.chain(id)
		if id == s.ID || c.state.Spec.Model != s.Spec.Model || slices.Contains(parents, id) && c.state.Replaceable() {
			continue
		}
		if o := claimOf(c.state, now); o.rank != wanting {
			out.others[id] = o
			if o.before(&out.own) {
				out.first = append(out.first, o)
			}
		}
	}
	slices.SortFunc(out.first, func(a, b claim) int {
		if a.before(&b) {
			return -1
		}
		return 1
	})
	return out
}

// holder is the other rollout that has the device: the one that decided about
// it last, otherwise the one with the earliest claim.
func (c *claims) holder(d *fleet.Device, decided string) string {
	if decided == c.own.id {
		return ""
	}
	if _, goesOn := c.others[decided]; goesOn {
		return decided
	}
	for i := range c.first {
		if c.first[i].selector.Matches(d.Labels) {
			return c.first[i].id
		}
	}
	return ""
}

// ancestors are the rollouts that one is to supersede: the one it names, the
// one that that one names, and so on. One that was superseded before it began
// still stands between its parent and whoever comes after it.
func (r *Runner) ancestors(s *rollout.State) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	seen := map[string]bool{}
	for id := s.Spec.Supersedes; id != "" && !seen[id]; {
		c := r.rollouts[id]
		if c == nil {
			break
		}
		seen[id] = true
		id = c.state.Spec.Supersedes
	}
	delete(seen, s.ID)
	return slices.Sorted(maps.Keys(seen))
}
