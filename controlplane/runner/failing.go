package runner

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
)

// failure is what can go wrong with one rollout in a pass.
type failure struct {
	rollout string
	start   bool // the start of one that others were replaced for
}

// inOrder are failures by rollout, so that a log is the same each time.
func inOrder[V any](of map[failure]V) []failure {
	return slices.SortedFunc(maps.Keys(of), func(a, b failure) int { return cmp.Compare(a.rollout, b.rollout) })
}

// complain says of each failure once that it came, and once that it is over: a
// rollout that goes on failing hides nothing of the others and fills no log.
func (r *Runner) complain(failed map[failure]error) {
	now := map[failure]struct{}{}
	for _, f := range inOrder(failed) {
		now[f] = struct{}{}
		err := failed[f]
		if _, said := r.failing[f]; said {
			continue
		}
		if f.start {
			r.cfg.Logger.Error("rollout not started", slog.String("rollout", f.rollout), slog.Any("error", err))
		} else {
			r.cfg.Logger.Error("rollout not driven", slog.String("rollout", f.rollout), slog.Any("error", err))
		}
	}
	for _, f := range inOrder(r.failing) {
		if _, still := now[f]; !still {
			r.cfg.Logger.Info("rollout is driven again", slog.String("rollout", f.rollout))
		}
	}
	r.failing = now
}
