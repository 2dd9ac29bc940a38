package updater

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/update"
)

const (
	// checkpointEvery is how often clocks are written down while they matter. A
	// power cut takes back at most that much of a deadline.
	checkpointEvery = time.Minute
	// journalRetry is how long a step waits when the journal cannot be written.
	journalRetry = 10 * time.Second
)

// Run serves what is active, then keeps the models as desired until ctx ends,
// or until a load hangs (ErrStuck). When it returns, all it started has ended
// and the journal is up to date.
func (u *Updater) Run(outer context.Context) error {
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	u.start(ctx)
	checkpoint := u.cfg.Now().Add(checkpointEvery)
	for {
		timer := time.NewTimer(u.wake(checkpoint).Sub(u.cfg.Now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			u.workers.Wait()
			u.checkpoint(u.cfg.Now())
			return nil
		case err := <-u.stuck:
			timer.Stop()
			if outer.Err() != nil {
				err = nil // told to stop meanwhile
			}
			cancel()
			u.workers.Wait()
			u.checkpoint(u.cfg.Now())
			return err
		case d := <-u.inbox:
			u.desired(ctx, d)
		case a := <-u.asks:
			a.reply <- u.hung(ctx, a)
		case r := <-u.results:
			u.news(ctx, r)
		case <-timer.C:
			u.tick(ctx)
			if now := u.cfg.Now(); !now.Before(checkpoint) {
				u.checkpoint(now)
				checkpoint = now.Add(checkpointEvery)
			}
		}
		timer.Stop()
	}
}

// wake is when something is due next.
func (u *Updater) wake(next time.Time) time.Time {
	if u.unheld != nil && u.holdAt.Before(next) {
		next = u.holdAt
	}
	for _, m := range u.models {
		at, ok := m.machine.Wake(u.cfg.Limits)
		if len(m.backlog) > 0 { // deadlines wait too: they could not be journaled either
			at, ok = m.again, true
		}
		if ok && at.Before(next) {
			next = at
		}
		if !m.mendAt.IsZero() && m.mendAt.Before(next) {
			next = m.mendAt
		}
	}
	return next
}

// start enters every machine again and begins to serve what is active, each
// lane on its own and before anything that needs the network.
func (u *Updater) start(ctx context.Context) {
	_ = slots.KeepReserve(u.cfg.FS) // as at every checkpoint
	suspect := u.suspects()
	var first []chan struct{}
	for _, l := range u.lanes() {
		m := u.models[l]
		u.adopt(m)
		m.restored = make(chan struct{})
		set := m.slots.Get(m.name)
		e := update.Started{
			Active: set.Active.Release, Previous: set.Previous.Release,
			Unclean: u.cfg.Unclean, Suspect: suspect(m.machine),
		}
		u.step(ctx, m, e)
		first = append(first, u.comeBack(ctx, m))
	}
	u.workers.Go(func() {
		await(ctx, first)
		close(u.loaded)
		u.nudge()
	})
	u.entered = true
	if u.held != nil {
		u.apply(ctx, u.held)
	}
}

// suspects tells which machines an unclean start speaks against: those whose
// release is new, or else the one activated last. Of new ones the challengers
// come first: taking one away costs nobody an answer. Blaming all would take
// good models back.
func (u *Updater) suspects() func(update.Machine) bool {
	var newest uint64
	fresh := func(m update.Machine) bool { return m.State == update.Watching || m.State == update.Activating }
	anyFresh, freshChallenger := false, false
	for _, m := range u.models {
		anyFresh = anyFresh || fresh(m.machine)
		freshChallenger = freshChallenger || fresh(m.machine) && m.challenger
		if !m.machine.Active.IsZero() {
			newest = max(newest, m.machine.Order)
		}
	}
	return func(m update.Machine) bool {
		switch {
		case freshChallenger:
			return fresh(m) && m.Challenger
		case anyFresh:
			return fresh(m)
		}
		return m.Order == newest
	}
}

// adopt finds the active release again when the slots' record was damaged.
func (u *Updater) adopt(m *model) {
	if !slices.Contains(m.slots.Lost(), m.name) || m.machine.Active.IsZero() {
		return
	}
	err := m.slots.Adopt(m.name, slots.Slot{Release: m.machine.Active})
	if err != nil {
		u.cfg.Log.Warn("active release lost", "model", m.String(), "error", err)
	}
	u.emit("slots_damaged", m.lane, m.machine.Active, "the record of the model's slots could not be read")
}

// tick gives every machine the time that has come for it.
func (u *Updater) tick(ctx context.Context) {
	now := u.cfg.Now()
	if d := u.unheld; d != nil && !now.Before(u.holdAt) {
		u.desired(ctx, d)
	}
	for _, l := range u.lanes() {
		m := u.models[l]
		if m == nil { // forgotten meanwhile, with its primary
			continue
		}
		if len(m.backlog) > 0 && !now.Before(m.again) {
			u.drain(ctx, m)
		}
		if at, ok := m.machine.Wake(u.cfg.Limits); ok && !now.Before(at) && len(m.backlog) == 0 {
			u.step(ctx, m, update.Tick{})
		}
		if !m.mendAt.IsZero() && !now.Before(m.mendAt) {
			u.mend(ctx, m)
		}
	}
}

// news takes what a worker found out, unless it was told to stop meanwhile.
func (u *Updater) news(ctx context.Context, r result) {
	m := u.models[r.lane]
	if m != nil && r.restored {
		u.mended(ctx, m, r)
		return
	}
	if m == nil || r.token != m.token {
		return
	}
	if r.trial != nil {
		u.set(func() { m.trial = r.trial })
	}
	u.step(ctx, m, r.event)
}

func (u *Updater) hung(ctx context.Context, a ask) error {
	m := u.blamed(a.model, a.release)
	if m == nil {
		return fmt.Errorf("note hung call: no model %q here", a.model)
	}
	u.emit(update.CodeCallHung, m.lane, a.release, "a call to this release did not return")
	return u.take(ctx, m, update.Hung{Release: a.release})
}

// step takes an event, or keeps it until the journal can be written again. Of
// two wishes kept in a row only the newer one counts, and the same news twice is
// kept once: a disk may stay full for months.
func (u *Updater) step(ctx context.Context, m *model, e update.Event) {
	last := len(m.backlog) - 1
	if last < 0 {
		m.backlog = append(m.backlog, e)
		u.drain(ctx, m)
		return
	}
	_, wish := e.(update.Desired)
	_, wished := m.backlog[last].(update.Desired)
	if (wish && wished) || m.backlog[last] == e {
		m.backlog[last] = e
		return
	}
	m.backlog = append(m.backlog, e)
}

// drain takes what was kept, until the journal fails.
func (u *Updater) drain(ctx context.Context, m *model) {
	for len(m.backlog) > 0 {
		if err := u.take(ctx, m, m.backlog[0]); err != nil {
			if m.again.IsZero() {
				u.cfg.Log.Error("update waits for the journal", "model", m.String(), "error", err)
			}
			m.again = u.cfg.Now().Add(journalRetry)
			w := m.waits
			w.journal = err.Error()
			u.hinder(m, w, false)
			return
		}
		m.backlog = m.backlog[1:]
	}
	if !m.again.IsZero() {
		u.cfg.Log.Info("journal can be written again", "model", m.String())
		m.again = time.Time{}
		w := m.waits
		w.journal = ""
		u.hinder(m, w, false)
	}
}

// take is one step: decide, journal, then act.
func (u *Updater) take(ctx context.Context, m *model, e update.Event) error {
	old := m.machine
	next, actions := old.Step(u.cfg.Now(), e, u.cfg.Limits, u.cfg.Random())
	at := m.at
	if next.Last != old.Last {
		at = u.cfg.Stamp()
	}
	if err := u.write(m, next, m.trial, at); err != nil && !entersAgain(e, old, next) {
		return err
	}
	u.set(func() { m.machine, m.at = next, at })
	u.announce(m, old, next)
	u.hinder(m, m.waits.after(e, old, next), next.Target == old.Target)
	u.perform(ctx, m, actions)
	if next.Gone() && !u.assigned(m.lane) {
		u.leave(m, old)
	}
	u.reconsider(ctx, m, old, next)
	return nil
}

// entersAgain says whether a start only does again what the journal says. That
// needs no journal: a full disk must not keep a release from serving.
func entersAgain(e update.Event, old, next update.Machine) bool {
	_, start := e.(update.Started)
	return start && next.State == old.State && next.Target == old.Target
}
