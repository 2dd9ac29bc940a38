package main

import (
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// model is the only model of the fleet.
const model = "meter"

// device is one machine: two lanes with the real update machine and the real
// outbox accounting, around a scripted disk, runtime and link.
type device struct {
	w    *world
	id   string
	site *site
	character
	link   link
	disk   disk
	lane        // of the release that answers
	beside lane // of the shadow

	// What a power cut takes away.
	on      bool
	entered bool // both machines have been started
	book    *outbox.Book
	floor   uint64 // lowest sequence it takes, from the newest metadata
	boot    []byte
	booted  time.Duration
	wall    time.Duration // its clock minus the true time
	reports int           // to know a report that was planned before another
	life    int           // starts so far

	enrolled  bool
	fronts    map[release.Digest]bool // releases that the ledger ever wanted in front
	orphan    uint64                  // generation it held when the ledger that gave it was lost
	end       time.Duration           // of a device that vanishes
	generated outbox.Sum              // taken over by its outbox
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
	held   *protocol.Desired
	order  uint64 // of the newest activation
	boots  uint64
	clean  bool   // the agent ended by itself
	floor  uint64 // highest seen
	frames []outbox.Frame
}

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
	d.recover()
	unclean := !d.disk.clean && d.disk.boots > 1
	d.disk.clean = false
	if !d.wake(unclean) {
		return
	}
	if d.disk.held != nil {
		d.obey(d.disk.held)
	}
	d.planWindow()
	d.link.up()
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
	d.on, d.entered = false, false
	for _, l := range []*lane{&d.lane, &d.beside} {
		l.token++
		l.ticks++
	}
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

// obey gives the machines their wishes.
func (d *device) obey(s *protocol.Desired) {
	d.step(update.Desired{Want: wanted(s, protocol.RolePrimary)})
	d.challenge()
}

// wanted is what a desired state wants of the model in a role.
func wanted(s *protocol.Desired, role string) update.Want {
	want := update.Want{Generation: s.GetGeneration()}
	for _, a := range s.GetAssignments() {
		if a.GetModel() == model && a.GetRole() == role {
			want.Release, want.Decision = digestOf(a.GetRelease()), a.GetDecision()
		}
	}
	return want
}
