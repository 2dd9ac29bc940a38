package updater

import (
	"context"
	"fmt"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// MaxModels bounds the models of one device: each costs a journal, slots and
// memory, and a desired state comes from outside.
const MaxModels = 64

// desired takes a message of the control plane: all of it or nothing.
func (u *Updater) desired(ctx context.Context, d *protocol.Desired) {
	if _, err := wants(d); err != nil {
		u.cfg.Log.Error("desired state refused", "generation", d.GetGeneration(), "error", err)
		u.emit("desired_refused", "", release.Digest{}, fmt.Sprintf("generation %d: %v", d.GetGeneration(), err))
		return
	}
	if u.stale(d) {
		u.cfg.Log.Info("older desired state ignored", "generation", d.GetGeneration(), "held", u.held.GetGeneration())
		return
	}
	if u.held.GetGeneration() != d.GetGeneration() || u.held == nil {
		if err := u.hold(d); err != nil {
			u.cfg.Log.Error("desired state not written down", "error", err)
		}
		u.nudge()
	}
	u.apply(ctx, d)
}

// stale says whether d is older than what is held. A lower generation that was
// sent later is not: the server was restored from a backup and counts again.
func (u *Updater) stale(d *protocol.Desired) bool {
	return u.held != nil && d.GetGeneration() < u.held.GetGeneration() && d.GetServerMs() <= u.held.GetServerMs()
}

// apply gives every machine its wish. The same one again changes nothing.
func (u *Updater) apply(ctx context.Context, d *protocol.Desired) {
	list, err := wants(d)
	if err != nil {
		return // cannot be: it was checked before it was held
	}
	for name := range list {
		u.set(func() { u.model(name) })
	}
	for _, name := range u.names() {
		want, ok := list[name]
		if !ok {
			want = update.Want{Generation: d.GetGeneration()}
		}
		u.step(ctx, u.models[name], update.Desired{Want: want})
	}
}

// wants reads the primary release of each model out of a desired state, or says
// why the whole of it is refused.
func wants(d *protocol.Desired) (map[string]update.Want, error) {
	if n := len(d.GetAssignments()); n > 2*MaxModels {
		return nil, fmt.Errorf("%d assignments, at most %d", n, 2*MaxModels)
	}
	list := map[string]update.Want{}
	for _, a := range d.GetAssignments() {
		if err := protocol.CheckName(a.GetModel()); err != nil {
			return nil, fmt.Errorf("model: %w", err)
		}
		digest, err := release.DigestFromBytes(a.GetRelease())
		if err != nil {
			return nil, fmt.Errorf("release of %s: %w", a.GetModel(), err)
		}
		if digest.IsZero() {
			return nil, fmt.Errorf("release of %s is all zeros", a.GetModel())
		}
		if role := a.GetRole(); role != infer.RolePrimary && role != "" {
			continue // another release beside the primary one is not run by this agent
		}
		if _, twice := list[a.GetModel()]; twice {
			return nil, fmt.Errorf("model %s has two primary releases", a.GetModel())
		}
		list[a.GetModel()] = update.Want{Release: digest, Decision: a.GetDecision(), Generation: d.GetGeneration()}
	}
	if len(list) > MaxModels {
		return nil, fmt.Errorf("%d models, at most %d", len(list), MaxModels)
	}
	return list, nil
}
