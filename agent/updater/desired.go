package updater

import (
	"context"
	"errors"
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
	list, err := wants(d)
	if err != nil {
		u.cfg.Log.Error("desired state refused", "generation", d.GetGeneration(), "error", err)
		u.emit("desired_refused", lane{}, release.Digest{}, fmt.Sprintf("generation %d: %v", d.GetGeneration(), err))
		return
	}
	if u.stale(d) {
		u.cfg.Log.Info("older desired state ignored", "generation", d.GetGeneration(), "held", u.held.GetGeneration())
		return
	}
	if u.held.GetGeneration() != d.GetGeneration() || u.held == nil {
		if err := u.hold(d); err != nil {
			u.place(list) // to say what they wait for
			u.postpone(d, err)
			return
		}
		u.nudge()
	}
	u.written()
	u.apply(ctx, d)
}

// written notes that desired states can be written down, again perhaps.
func (u *Updater) written() {
	if u.unheld == nil {
		return
	}
	u.cfg.Log.Info("desired state can be written again")
	u.unheld = nil
	for _, m := range u.models {
		w := m.waits
		w.journal = ""
		u.hinder(m, w, false)
	}
}

// postpone keeps a desired state until it can be written down.
func (u *Updater) postpone(d *protocol.Desired, err error) {
	if u.unheld == nil {
		u.cfg.Log.Error("desired state waits for the journal", "generation", d.GetGeneration(), "error", err)
	}
	u.unheld, u.holdAt = d, u.cfg.Now().Add(journalRetry)
	for _, m := range u.models {
		w := m.waits
		w.journal = err.Error()
		u.hinder(m, w, false)
	}
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
	u.set(func() { u.wishes = list })
	u.place(list)
	for _, l := range u.lanes() {
		switch m := u.models[l]; {
		case m == nil: // forgotten meanwhile, with its primary
		case l.challenger:
			u.challenge(ctx, m)
		default:
			want := list[l.name].primary
			want.Generation = d.GetGeneration()
			u.step(ctx, m, update.Desired{Want: want})
		}
	}
}

// place makes sure that every lane wished for is there.
func (u *Updater) place(list map[string]wish) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, w := range list {
		if !w.primary.Release.IsZero() {
			u.model(lane{name: name})
		}
		if w.challenger != nil {
			u.model(lane{name, true})
		}
	}
}

// wants reads the primary release and the challenger of each model out of a
// desired state, or says why the whole of it is refused.
func wants(d *protocol.Desired) (map[string]wish, error) {
	if n := len(d.GetAssignments()); n > 2*MaxModels {
		return nil, fmt.Errorf("%d assignments, at most %d", n, 2*MaxModels)
	}
	list := map[string]wish{}
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
		w := list[a.GetModel()]
		want := update.Want{Release: digest, Decision: a.GetDecision(), Generation: d.GetGeneration()}
		if err := w.add(want, a.GetRole(), a.GetShare()); err != nil {
			return nil, fmt.Errorf("model %s: %w", a.GetModel(), err)
		}
		if w != (wish{}) {
			list[a.GetModel()] = w
		}
	}
	if len(list) > MaxModels {
		return nil, fmt.Errorf("%d models, at most %d", len(list), MaxModels)
	}
	return list, nil
}

// add takes one assignment of the model. A role of a later version is left
// alone: this agent has no place for it.
func (w *wish) add(want update.Want, role string, share uint32) error {
	switch role {
	case infer.RolePrimary, "":
		if !w.primary.Release.IsZero() {
			return errors.New("it has two primary releases")
		}
		w.primary = want
	case infer.RoleShadow, infer.RoleShare:
		if w.challenger != nil {
			return errors.New("it has two challengers")
		}
		if share > infer.MaxShare || (role == infer.RoleShare && share == 0) {
			return fmt.Errorf("a %s of %d parts per thousand of the calls", role, share)
		}
		w.challenger = &challenge{Want: want, part: part{role: role, share: int(share)}}
	}
	return nil
}
