package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// superseded checks the rollout that the spec of rollout id names as its parent.
// Without an id there is no rollout yet, and a parent that has ended is refused
// unless it still has devices under way: it has none to take over. One may end
// later.
func (r *Runner) superseded(id string, spec *rollout.Spec) error {
	if spec.Supersedes == "" {
		return nil
	}
	parent := r.chain(spec.Supersedes)
	switch {
	case spec.Supersedes == id:
		return fmt.Errorf("%w: supersedes: a rollout cannot supersede itself", rollout.ErrSpec)
	case parent == nil:
		return fmt.Errorf("%w: supersedes: rollout %q: %w", rollout.ErrSpec, spec.Supersedes, ErrNotFound)
	case parent.state.Spec.Model != spec.Model:
		return fmt.Errorf("%w: supersedes: rollout %s is of model %s, not of %s", rollout.ErrSpec, spec.Supersedes, parent.state.Spec.Model, spec.Model)
	case id == "" && parent.state.Header.Status.Final() && !parent.state.KeepsAny():
		return fmt.Errorf("%w: supersedes: rollout %s is %s and has no device to take over: leave supersedes out", rollout.ErrSpec, spec.Supersedes, parent.state.Header.Status)
	case slices.Contains(r.ancestors(parent.state), id):
		return fmt.Errorf("%w: supersedes: rollout %s is to supersede this one itself", rollout.ErrSpec, spec.Supersedes)
	}
	return nil
}

// takeOver ends the rollouts that this one supersedes before it begins, so that
// no device is ever in two. It says whether any was ended: then what was
// gathered for the beginning is no longer so.
func (r *Runner) takeOver(ctx context.Context, s, next *rollout.State, cmd *rollout.Command) (ended bool, err error) {
	if !s.Header.Started.IsZero() || next.Header.Started.IsZero() {
		return false, nil
	}
	replace := rollout.Command{Action: rollout.Replace, Actor: Actor, Reason: "its turn has come", By: s.ID}
	if cmd != nil {
		replace.Actor, replace.Reason = cmd.Actor, cmd.Reason
	}
	for _, id := range r.ancestors(s) {
		if r.chain(id).state.Header.Status.Final() {
			continue
		}
		err := r.decideLocked(ctx, id, &replace)
		if c := r.chain(id); err != nil && (!errors.Is(err, rollout.ErrNotNow) || !c.state.Header.Status.Final()) {
			return ended, fmt.Errorf("supersede rollout %s: %w", id, err)
		}
		ended = true
	}
	return ended, nil
}

// resumeStarts starts the rollouts whose parents were replaced for them and
// that did not begin: the server ended between the two commits. It returns what
// went wrong.
func (r *Runner) resumeStarts(ctx context.Context) map[failure]error {
	failed := map[failure]error{} // one that cannot start keeps no other from it
	for _, parent := range r.unstarted() {
		child, last := parent.state.Header.By, parent.timeline[len(parent.timeline)-1] // which is its replacement
		start := rollout.Command{Action: rollout.Start, Actor: last.Actor, Reason: last.Reason}
		if err := r.decide(ctx, child, &start); err != nil {
			failed[failure{rollout: child, start: true}] = fmt.Errorf("start rollout %s, for which %s was replaced: %w", child, parent.state.ID, err)
		}
	}
	return failed
}

// unstarted are the rollouts that were replaced by one that nobody has started,
// one for each of those.
func (r *Runner) unstarted() []*chain {
	r.mu.RLock()
	defer r.mu.RUnlock()
	parents := map[string]*chain{}
	for _, c := range r.rollouts {
		by := c.state.Header.By
		if child := r.rollouts[by]; child != nil && c.state.Header.Status == rollout.StatusReplaced && child.state.Header.Status == rollout.StatusDraft {
			parents[by] = c
		}
	}
	return slices.Collect(maps.Values(parents))
}
