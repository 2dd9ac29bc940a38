package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// model is the only model of the fleet.
const model = "meter"

// device is one machine: the real update machine and the real outbox
// accounting, around a scripted disk, runtime and link.
type device struct {
	w    *world
	id   string
	site *site
	character
	link link
	disk disk

	// What a power cut takes away.
	on      bool
	machine update.Machine
	serving release.Digest
	book    *outbox.Book
	floor   uint64 // lowest sequence it takes, from the newest metadata
	boot    []byte
	booted  time.Duration
	wall    time.Duration // its clock minus the true time
	token   int           // of the action at work
	ticks   int           // to know a tick that was planned before another
	reports int           // likewise
	life    int           // starts so far
	mends   int           // tries to load what is active

	enrolled  bool
	orphan    uint64        // generation it held when the ledger that gave it was lost
	end       time.Duration // of a device that vanishes
	generated outbox.Sum    // taken over by its outbox
}

// character is what a device does all its life.
type character struct {
	profile  string
	pace     time.Duration // of one megabyte
	traffic  uint64        // rows in a window
	lie      lie
	metered  string // its link: yes, no, "" for not known
	power    string // mains or battery
	vanishes bool   // some day it is never heard of again
}

// lie is how a device deceives the server.
type lie string

const (
	honest   lie = ""
	mute     lie = "says that the new release is active and does not answer with it"
	parrot   lie = "says that it runs whatever it is told to"
	boastful lie = "says that every update has succeeded"
)

// disk is what a device keeps through a power cut.
type disk struct {
	machine          update.Machine // its journal
	held             *protocol.Desired
	active, previous release.Digest
	staged           release.Digest // fetched, and proven by a trial
	order            uint64
	boots            uint64
	clean            bool   // the agent ended by itself
	floor            uint64 // highest seen
	frames           []outbox.Frame
}

// newMachine is the journal of a device that was never started.
func newMachine() update.Machine { return update.New(model) }

// note adds a line to the trace.
func (d *device) note(format string, args ...any) { d.w.note(d.id, format, args...) }

// clock is what the device's clock shows.
func (d *device) clock() time.Time { return d.w.now().Add(d.wall) }

// start is the agent's start.
func (d *device) start() {
	if d.on {
		return
	}
	d.on = true
	d.life++
	d.disk.boots++
	d.boot = fmt.Appendf(nil, "%-10.10s%06d", d.id, d.disk.boots%1_000_000)
	d.booted = d.w.t
	d.serving = release.Digest{}
	d.machine = journaled(d.disk.machine)
	d.recover()
	unclean := !d.disk.clean && d.disk.boots > 1
	d.disk.clean = false
	d.mends = 0
	d.step(update.Started{Active: d.disk.active, Previous: d.disk.previous, Unclean: unclean, Suspect: unclean})
	if !d.on {
		return
	}
	if d.machine.State != update.Reverting {
		d.restore()
	}
	if d.disk.held != nil {
		d.obey(d.disk.held)
	}
	d.planWindow()
	d.link.up()
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

// cut takes the power away. The device starts again later.
func (d *device) cut(why string) {
	d.stop(why)
	d.boots(d.w.between(2*time.Second, 3*time.Minute))
}

// stop ends the process, whatever it does.
func (d *device) stop(why string) {
	d.note("power cut: %s", why)
	d.w.count("power cut")
	d.on = false
	d.token++
	d.ticks++
	d.link.drop(-1)
}

// boots starts the device after a while. Its clock may show another time then.
func (d *device) boots(after time.Duration) {
	life := d.life
	d.w.after(after, func() {
		if d.life != life {
			return
		}
		if d.w.often(d.w.trouble.clocks) {
			d.wall = []time.Duration{0, -57 * 365 * 24 * time.Hour, 10 * 365 * 24 * time.Hour, -time.Hour}[d.w.rnd.IntN(4)]
			d.w.count("device clock jumped")
		}
		d.note("starts, its clock shows %d", d.clock().Year())
		d.start()
	})
}

// perhapsCut is a moment at which the power may go.
func (d *device) perhapsCut(moment string) bool {
	if !d.w.often(d.w.trouble.cuts) {
		return false
	}
	d.cut(moment)
	return true
}

// step takes an event: decide, journal, then act.
func (d *device) step(e update.Event) {
	old := d.machine
	next, actions := old.Step(d.clock(), e, update.DefaultLimits(), d.w.rnd.Float64())
	if d.perhapsCut("before a step was journaled") {
		return
	}
	d.disk.machine = next
	if d.perhapsCut("after a step was journaled") {
		return
	}
	d.machine = next
	d.w.check.stepped(d, old, e, actions)
	if next.State != old.State {
		d.note("%s -> %s", old.State, next.State)
		d.nudge()
	}
	if next.Last != old.Last && next.Last != nil {
		d.note("update to %s ended: %s %s", d.w.version(next.Last.Release), next.Last.Result, next.Last.Code)
		d.w.count("update " + next.Last.Result)
		d.nudge()
	}
	d.planTick()
	d.perform(actions)
}

// planTick wakes the machine when it asks for it.
func (d *device) planTick() {
	d.ticks++
	at, ok := d.machine.Wake(update.DefaultLimits())
	if !ok {
		return
	}
	planned := d.ticks
	d.w.after(at.Sub(d.clock()), func() {
		if d.on && d.ticks == planned {
			d.step(update.Tick{})
		}
	})
}

// hears is a message that comes down.
func (d *device) hears(m *protocol.Down) {
	if !d.on {
		return
	}
	if a := m.GetAck(); a != nil {
		d.acknowledged(a)
	}
	if s := m.GetDesired(); s != nil {
		d.desired(s)
	}
}

// desired takes a desired state as package updater does: an older one that was
// sent earlier is ignored, another one is written down before it is followed.
func (d *device) desired(s *protocol.Desired) {
	held := d.disk.held
	if held != nil && s.GetGeneration() < held.GetGeneration() && s.GetServerMs() <= held.GetServerMs() {
		d.w.count("older desired state ignored")
		return
	}
	d.w.check.heard(d, s)
	if held == nil || held.GetGeneration() != s.GetGeneration() {
		if d.perhapsCut("before a desired state was written down") {
			return
		}
		d.disk.held = s
		d.nudge()
	}
	d.obey(s)
}

// obey gives the machine its wish.
func (d *device) obey(s *protocol.Desired) {
	want := update.Want{Generation: s.GetGeneration()}
	for _, a := range s.GetAssignments() {
		if a.GetModel() == model && a.GetRole() == protocol.RolePrimary {
			want.Release, want.Decision = digestOf(a.GetRelease()), a.GetDecision()
		}
	}
	d.step(update.Desired{Want: want})
}
