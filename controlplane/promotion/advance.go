package promotion

import (
	"context"
	"errors"
	"fmt"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// maxSteps bounds the steps of one look: there are fewer states.
const maxSteps = 8

// advance moves one promotion on as far as it goes now, and tells of it.
// k.stepping is held.
func (k *Keeper) advance(ctx context.Context, r record) error {
	r, err := k.walk(ctx, r)
	if err != nil {
		return err
	}
	k.measure(ctx, &r)
	return k.tell(ctx, r)
}

// walk takes steps until nothing is to be done. Each state is stored before its
// action. k.stepping is held.
func (k *Keeper) walk(ctx context.Context, r record) (record, error) {
	f, err := k.gather(ctx, &r)
	if err != nil {
		return r, err
	}
	for range maxSteps {
		next, act := step(r, f, k.cfg.Now().UTC())
		if next.Promotion != r.Promotion {
			if err := k.keep(ctx, next, Actor); err != nil {
				return r, err
			}
		}
		moved := next.State != r.State
		r = next
		switch act {
		case actStart:
			f.lasting, f.started = k.start(ctx, &r)
			f.rollout = k.find(&r)
		case actStage:
			f.staged, f.unstaged = true, k.stage(ctx, &r)
		case actNothing:
			if !moved || r.State.Final() {
				return r, nil
			}
		}
	}
	return r, nil
}

// measure has the lab at work while a promotion waits for its gates, and no
// longer. What the lab refuses keeps the promotion waiting, as its gates say.
func (k *Keeper) measure(ctx context.Context, r *record) {
	if k.cfg.Lab == nil || r.Policy.Gates != Required {
		return
	}
	var err error
	if r.State == operator.PromotionGates {
		err = k.cfg.Lab.Try(ctx, r.Model, r.Release, r.Created)
	} else {
		err = k.cfg.Lab.Done(ctx, r.Model, r.Release)
	}
	if err != nil {
		k.cfg.Log.Warn("lab trial of a promotion not set", "model", r.Model, "version", r.Version, "error", err)
	}
}

// gather finds out what step needs to know.
func (k *Keeper) gather(ctx context.Context, r *record) (facts, error) {
	v, err := k.cfg.Versions.Release(r.Release)
	if err != nil {
		return facts{}, fmt.Errorf("promote %s %s: %w", r.Model, r.Version, err)
	}
	f := facts{withdrawn: v.Withdrawn || v.BelowFloor, newer: k.newer(r), staged: v.Stage == r.Policy.Stage}
	if r.State == operator.PromotionGates && r.Policy.Gates == Required {
		f.cleared = k.cfg.Gates.Cleared(ctx, r.Model, r.Release)
	}
	if r.State == operator.PromotionStarting || r.State == operator.PromotionRollingOut {
		f.rollout = k.find(r)
	}
	return f, nil
}

// newer is the version of a promotion of the same model that goes on with a
// higher sequence.
func (k *Keeper) newer(r *record) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, o := range k.promotions {
		if o.Model == r.Model && o.Sequence > r.Sequence && !o.State.Final() {
			return o.Version
		}
	}
	return ""
}

func (k *Keeper) find(r *record) *seen {
	id, status, cause, ok := k.cfg.Fleet.Find(r.name())
	if !ok {
		return nil
	}
	return &seen{ID: id, Status: status, Cause: cause}
}

// start makes the rollout, unless it was made before. A lasting error comes
// again however often it is tried.
func (k *Keeper) start(ctx context.Context, r *record) (lasting bool, err error) {
	spec := r.Policy.Spec(r.Model, r.Version)
	spec.Release = r.Release
	err = k.cfg.Fleet.Start(ctx, r.name(), r.reason(), spec)
	if err != nil {
		k.cfg.Log.Warn("rollout of a promotion not started", "model", r.Model, "version", r.Version, "error", err)
	}
	return errors.Is(err, rollout.ErrSpec), err
}

// reason is why the rollout is made, for its ledger.
func (r *record) reason() string {
	reason := "promotion of " + r.Model + " " + r.Version + ": " + r.Why
	if r.Decided != "" {
		reason += ", approved by " + r.Decided
	}
	return brief(reason)
}

func (k *Keeper) stage(ctx context.Context, r *record) error {
	err := k.cfg.Stages.SetStage(ctx, r.Model, r.Version, r.Policy.Stage, "rollout "+r.Rollout+" is complete")
	if err != nil {
		k.cfg.Log.Error("stage of a promoted version not set", "model", r.Model, "version", r.Version, "error", err)
	}
	return err
}

// owes says whether somebody is still to be told of the state.
func (r *record) owes() bool { return r.Told != r.due() }

// due is the state that the request for retraining and people should know of.
func (r *record) due() string {
	switch r.State {
	case operator.PromotionCompleted:
		return operator.RetrainRolledOut
	case operator.PromotionRejected, operator.PromotionFailed, operator.PromotionSuperseded:
		return operator.RetrainRejected
	case operator.PromotionAwaiting, operator.PromotionStarting, operator.PromotionRollingOut:
		return operator.RetrainValidated
	case operator.PromotionGates:
	}
	return ""
}

// tell tells the request that a version answers, and people of a bad end. It is
// done again until it succeeds.
func (k *Keeper) tell(ctx context.Context, r record) error {
	if !r.owes() {
		return nil
	}
	now := k.cfg.Now()
	if k.cfg.Requests != nil && r.Retrain != "" && r.due() != "" {
		if err := k.cfg.Requests.Advance(ctx, now, r.Retrain, r.due(), r.Version, r.Text); err != nil {
			return fmt.Errorf("tell request %s: %w", r.Retrain, err)
		}
	}
	if k.cfg.Notifier != nil && r.State.Final() && r.State != operator.PromotionSuperseded {
		text := ""
		if r.State != operator.PromotionCompleted {
			text = r.Text
		}
		if err := k.cfg.Notifier.Notify(ctx, now, r.Promotion, text); err != nil {
			return fmt.Errorf("tell of promotion of %s %s: %w", r.Model, r.Version, err)
		}
	}
	r.Told = r.due()
	return k.keep(ctx, r, Actor)
}
