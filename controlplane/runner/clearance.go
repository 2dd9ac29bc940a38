package runner

import (
	"context"
	"fmt"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// Clearance says whether a release may go to the devices that a spec selects.
// It is asked before a rollout is made, started or revised, and not afterwards:
// what has begun is judged by its own gates.
type Clearance interface {
	Cleared(ctx context.Context, spec rollout.Spec) error
}

func (r *Runner) cleared(ctx context.Context, spec rollout.Spec) error {
	if r.cfg.Clearance == nil {
		return nil
	}
	return r.cfg.Clearance.Cleared(ctx, spec)
}

// mayAct asks for clearance again where a command lets devices be offered the
// release for the first time: gates may have been set since the rollout was made.
func (r *Runner) mayAct(ctx context.Context, id string, cmd *rollout.Command) error {
	if cmd.Action != rollout.Start {
		return nil
	}
	c := r.chain(id)
	if c == nil {
		return fmt.Errorf("rollout %q: %w", id, ErrNotFound)
	}
	if err := r.cleared(ctx, c.state.Spec); err != nil {
		return fmt.Errorf("start rollout %s: %w", id, err)
	}
	return nil
}
