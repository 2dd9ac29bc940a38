package runner

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	// keepers are completed rollouts that still have devices under way, which
	// nobody else may take.
	keepers []*rollout.State
}

// claims looks at the other rollouts of the model. Those that this rollout can
// end when it begins are not in its way.
func (r *Runner) claims(s *rollout.State) claims {
	now := r.cfg.Now()
	out := claims{own: claimOf(s, now), others: map[string]claim{}}
	if s.Header.Status.Final() && out.own.rank == begun {
		return r.afterCompleted(s, out)
	}
	parents := r.ancestors(s)
	out.keepers = r.keepers(s, parents)
	if out.own.rank == begun {
		parents = nil
	}
	r.inherit(&out.own, parents)
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
	for _, s := range c.keepers {
		if s.Keeps(d.ID) {
			return s.ID
		}
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

// keepers are the completed rollouts of the model that still have devices under
// way, but for those that this one is to supersede.
func (r *Runner) keepers(s *rollout.State, parents []string) []*rollout.State {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []*rollout.State
	for _, id := range slices.Sorted(maps.Keys(r.rollouts)) {
		o := r.rollouts[id].state
		if id != s.ID && o.Spec.Model == s.Spec.Model && !slices.Contains(parents, id) && o.KeepsAny() {
			out = append(out, o)
		}
	}
	return out
}

// inherit gives a rollout that has not begun the place in the queue of those
// that it supersedes: of one that has begun, or was replaced for it, the first.
func (r *Runner) inherit(own *claim, parents []string) {
	for _, id := range parents {
		p := r.chain(id).state
		queued := p.Header.Status == rollout.StatusQueued
		if p.Header.By != own.id && (p.Header.Status.Final() || p.Header.Started.IsZero() && !queued) {
			continue
		}
		c := claim{id: own.id, selector: own.selector, rank: waiting}
		if queued {
			c.since = p.Header.Since
		}
		if c.before(own) {
			*own = c
		}
	}
}

// heldBy adds to the refusal of a start how the rollouts stand that have the
// devices: what to do about them depends on it.
func (r *Runner) heldBy(err error, f *rollout.Facts) error {
	if !errors.Is(err, rollout.ErrHeld) {
		return err
	}
	stand := map[string]string{}
	for _, d := range f.Devices {
		c := r.chain(d.Holder)
		if !d.Selected || c == nil || stand[d.Holder] != "" {
			continue
		}
		how := string(c.state.Header.Status)
		switch how {
		case string(rollout.StatusQueued):
			how = "only queued itself"
		case string(rollout.StatusCompleted):
			how = "completed, with devices that are still under way"
		}
		stand[d.Holder] = d.Holder + " is " + how
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(slices.Sorted(maps.Values(stand)), ", "))
}
