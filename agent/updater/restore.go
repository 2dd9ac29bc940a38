package updater

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Patience is how long a start waits for a release that is still being loaded
// before the others are served without it.
const Patience = 5 * time.Second

// hungRest is how long a model whose only release hangs when it is loaded is left
// off before a new process tries again: the fault may have been in a driver.
const hungRest = time.Hour

// comeBack begins to serve what is active after a start and returns what is
// closed when that has come to an end. Going back serves by itself, and a
// challenger that is not assigned any more is about to go.
func (u *Updater) comeBack(ctx context.Context, m *model) chan struct{} {
	switch {
	case m.machine.State == update.Reverting:
		close(m.restored)
		return m.done
	case m.challenger && !u.challenges(m):
		close(m.restored)
	default:
		u.restore(ctx, m)
	}
	return m.restored
}

// await waits until all are closed, but no longer than Patience.
func await(ctx context.Context, all []chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for _, one := range all {
		select {
		case <-one:
		case <-ctx.Done():
			return
		}
	}
}

// restore serves what the slots say is active, beside all other work, and then
// closes m.restored. A challenger waits for its primary.
func (u *Updater) restore(ctx context.Context, m *model) {
	active, restored, before := m.slots.Get(m.name).Active, m.restored, ended
	if p := u.models[m.beside()]; m.challenger && p != nil {
		before = p.restored
	}
	u.workers.Go(func() {
		<-before
		err := u.serveActive(ctx, m, active)
		close(restored) // before the news, for going back waits for it
		r := result{lane: m.lane, restored: true, mend: err}
		if err != nil {
			r.event = update.Broken{Release: active.Release, Code: code(err, codeActivate), Message: err.Error()}
		}
		u.tell(ctx, r)
	})
}

// serveActive reads a release back and serves it: a card that changed a bit must
// not change a prediction.
func (u *Updater) serveActive(ctx context.Context, m *model, active slots.Slot) error {
	if active.Empty() {
		return nil
	}
	if err := m.slots.Check(m.name, active.Release); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Limits.Load)
	defer cancel()
	return u.serve(ctx, m, active)
}

// mended takes the news whether what is active serves. If it does not and there
// is nothing to go back to, it is tried again later; after a load that hangs in
// another process, for each would leave a thread behind.
func (u *Updater) mended(ctx context.Context, m *model, r result) {
	if r.mend == nil || u.serves(m, m.machine.Active) { // or another release by now
		m.mends = 0
		u.notServing(m, "")
		return
	}
	u.cfg.Log.Error("active release does not serve", "model", m.String(), "release", m.machine.Active.Short(), "error", r.mend)
	u.step(ctx, m, r.event)
	hangs := errors.Is(r.mend, infer.ErrLoading)
	switch {
	case hangs && m.machine.State == update.Reverting:
		u.replace(r.mend)
	case hangs:
		m.hangs, m.mendAt = r.mend, u.cfg.Now().Add(hungRest)
	default:
		m.mends++
		m.mendAt = u.cfg.Now().Add(u.cfg.Limits.Backoff(m.mends, u.cfg.Random()))
	}
	u.notServing(m, r.mend.Error())
}

// replace ends Run: the process has to be replaced.
func (u *Updater) replace(err error) {
	select {
	case u.stuck <- fmt.Errorf("%w: %w", ErrStuck, err):
	default:
	}
}

// mend tries again to serve what is active, unless a switch does that anyway.
func (u *Updater) mend(ctx context.Context, m *model) {
	m.mendAt = time.Time{}
	switching := m.machine.State == update.Activating || m.machine.State == update.Reverting
	switch {
	case switching || u.serves(m, m.machine.Active):
		m.mends, m.hangs = 0, nil
		u.notServing(m, "")
	case m.hangs != nil:
		u.replace(m.hangs)
	default:
		m.restored = make(chan struct{})
		u.restore(ctx, m)
	}
}

func (u *Updater) serves(m *model, d release.Digest) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return m.serving == d
}

// notServing notes why what is active does not serve, nothing when it does.
func (u *Updater) notServing(m *model, why string) {
	w := m.waits
	if w.serve == "" && why == "" {
		return
	}
	if w.serve = ""; why != "" {
		w.serve = "the active release does not serve: " + why
	}
	u.hinder(m, w, false)
}
