package main

import (
	"encoding/json"
	"fmt"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// lane is one of the two places of the model on a device: that of the release
// that answers, or that of the shadow beside it. Each has a machine and slots of
// its own; power, trials and the blame for a crash are shared.
type lane struct {
	d          *device
	challenger bool
	slots      slots

	// What a power cut takes away.
	machine update.Machine
	serving release.Digest
	token   int // of the action at work
	ticks   int // to know a tick that was planned before another
}

// slots are what a lane keeps through a power cut.
type slots struct {
	machine          update.Machine // its journal
	active, previous release.Digest
	staged           release.Digest // fetched, and proven by a trial
}

// makeLanes gives a device two lanes that were never started.
func (d *device) makeLanes() {
	d.lane = lane{d: d, slots: slots{machine: update.New(model)}}
	d.beside = lane{d: d, challenger: true, slots: slots{machine: update.NewChallenger(model)}}
	d.beside.machine = d.beside.slots.machine
}

// note adds a line to the trace.
func (l *lane) note(format string, args ...any) {
	if l.challenger {
		format = "shadow: " + format
	}
	l.d.note(format, args...)
}

// used says whether the lane ever had anything to do.
func (l *lane) used() bool { return !l.challenger || l.slots.machine.Want.Generation > 0 }

// wake starts the machines again, the one in front first. It says whether the
// device is still on.
func (d *device) wake(unclean bool) bool {
	lanes := []*lane{&d.lane, &d.beside}
	for _, l := range lanes {
		l.serving = release.Digest{}
		if l.used() {
			l.machine = journaled(l.slots.machine)
		}
	}
	suspect := d.suspects()
	for _, l := range lanes {
		if !l.used() {
			continue
		}
		l.step(update.Started{Active: l.slots.active, Previous: l.slots.previous, Unclean: unclean, Suspect: unclean && suspect(&l.machine)})
		if !d.on {
			return false
		}
		if l.machine.State != update.Reverting {
			l.restore()
		}
	}
	d.entered = true
	return true
}

// suspects tells which machines an unclean start speaks against. It is a model of
// package updater's rule: those whose release is new, the shadow's first,
// otherwise the newest.
func (d *device) suspects() func(m *update.Machine) bool {
	fresh := func(m *update.Machine) bool { return m.State == update.Watching || m.State == update.Activating }
	front, beside := &d.machine, &d.beside.machine
	anyFresh, freshBeside := fresh(front) || fresh(beside), fresh(beside)
	var newest uint64
	for _, m := range []*update.Machine{front, beside} {
		if !m.Active.IsZero() {
			newest = max(newest, m.Order)
		}
	}
	return func(m *update.Machine) bool {
		switch {
		case freshBeside:
			return fresh(m) && m.Challenger
		case anyFresh:
			return fresh(m)
		}
		return m.Order == newest
	}
}

// shadow is the desired shadow, zero for none.
func (d *device) shadow() update.Want { return wanted(d.disk.held, protocol.RoleShadow) }

// challenge tells the shadow's machine what to be. It is a model of package
// updater's rules: a shadow leaves before another one comes, and runs beside
// another release only, but one that is to answer stays until the lane in front
// has its files.
func (d *device) challenge() {
	l, front, want := &d.beside, &d.machine, d.shadow()
	if !d.on || !l.used() && want.Release.IsZero() {
		return
	}
	primary, own := wanted(d.disk.held, protocol.RolePrimary), l.machine.Active
	switch {
	case !want.Release.IsZero() && primary.Release.IsZero():
		want = update.Want{Generation: want.Generation}
	case !own.IsZero() && own == primary.Release && front.Lacks(primary):
		want = update.Want{Release: own, Decision: l.machine.Want.Decision, Generation: want.Generation}
	case want.Release == primary.Release, want.Release == front.Active, !own.IsZero() && own != want.Release:
		want = update.Want{Generation: want.Generation}
	}
	l.step(update.Desired{Want: want})
	if m := &l.machine; d.on && m.Active == want.Release && l.serving != m.Active && (m.State == update.Idle || m.State == update.Watching) {
		l.restore()
	}
}

// reconsider looks at the shadow again when the lane in front has moved on, or
// when it has left itself.
func (l *lane) reconsider(old, next *update.Machine) {
	if moved := old.Active != next.Active || !l.challenger && old.State != next.State; moved && l.d.entered && l.d.disk.held != nil {
		l.d.challenge()
	}
}

// belongs says whether what is active in the lane is to be loaded at a start.
func (l *lane) belongs() bool {
	return !l.challenger || l.slots.active == l.d.shadow().Release && l.slots.active != l.d.slots.active
}

// journaled is a machine as it comes back from the journal.
func journaled(m update.Machine) update.Machine {
	raw, err := json.Marshal(m)
	if err == nil {
		m = update.Machine{}
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		panic(fmt.Errorf("journal of a machine: %w", err)) // it is plain data
	}
	return m
}

// step takes an event: decide, journal, then act.
func (l *lane) step(e update.Event) {
	d := l.d
	old := l.machine
	next, actions := old.Step(d.clock(), e, update.DefaultLimits(), d.w.rnd.Float64())
	if d.perhapsCut("before a step was journaled") {
		return
	}
	l.slots.machine = next
	if d.perhapsCut("after a step was journaled") {
		return
	}
	l.machine = next
	d.w.check.stepped(l, &old, e, actions)
	if next.State != old.State {
		l.note("%s -> %s", old.State, next.State)
		d.nudge()
	}
	if next.Last != old.Last && next.Last != nil {
		l.note("update to %s ended: %s %s", d.w.version(next.Last.Release), next.Last.Result, next.Last.Code)
		d.w.count("update " + next.Last.Result)
		d.nudge()
	}
	l.planTick()
	l.perform(actions)
	l.reconsider(&old, &next)
}

// planTick wakes the machine when it asks for it.
func (l *lane) planTick() {
	d := l.d
	l.ticks++
	at, ok := l.machine.Wake(update.DefaultLimits())
	if !ok {
		return
	}
	planned := l.ticks
	d.w.after(at.Sub(d.clock()), func() {
		if d.on && l.ticks == planned {
			l.step(update.Tick{})
		}
	})
}
