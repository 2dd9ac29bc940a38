package main

import (
	"math/rand/v2"
	"time"
)

// trouble is what goes wrong. Small numbers are how many times in a thousand;
// durations are the mean time between two, 0 for never.
type trouble struct {
	loss, repeat, late int // of messages
	cuts               int // of moments at which the power could go
	failures           int // of downloads and reads from disk
	clocks             int // of starts: the device's clock shows another time
	rollbacks          int // of looks at the metadata: it is shown old
	liars, vanishing   int // of devices

	partition   time.Duration // one site loses its network
	flap        time.Duration // one device loses its session
	powerOff    time.Duration // one device is without power for long
	broker      time.Duration // all sessions end at once
	crash       time.Duration // the server dies
	restore     time.Duration // the server's folds go back to an older checkpoint
	backup      time.Duration // the server goes back to an older backup of everything
	ledger      time.Duration // the ledger takes nothing for a while
	serverClock time.Duration // the server's clock is set
	labels      time.Duration // a label is changed
	revoke      time.Duration // a device is revoked, or taken back
	floor       time.Duration // a publisher raises the floor
}

// scenario is a kind of trouble.
type scenario struct {
	name, about string
	trouble     func(rnd *rand.Rand) trouble
}

// scenarios are those that can be asked for by name. The first is what seeds are
// run with.
var scenarios = []scenario{
	{"storm", "everything goes wrong now and then, how often depends on the seed", storm},
	{"baseline", "nothing goes wrong but releases and the usual of a network", baseline},
	{"liars", "a third of the devices deceive the server", liars},
	{"partition", "sites lose their network for hours and messages arrive days late", partitioned},
	{"restore", "the server crashes, and comes back with older folds", restored},
	{"backup", "the server is put back to a backup that is up to hours old", putBack},
	{"clock", "the clocks of devices and server jump", clocks},
}

func findScenario(name string) (scenario, bool) {
	for _, s := range scenarios {
		if s.name == name {
			return s, true
		}
	}
	return scenario{}, false
}

// sometimes is one of the values, the first as often as all others together.
func sometimes[T any](rnd *rand.Rand, values ...T) T {
	if rnd.IntN(2) == 0 {
		return values[0]
	}
	return values[1+rnd.IntN(len(values)-1)]
}

func baseline(*rand.Rand) trouble {
	return trouble{loss: 2, repeat: 2, flap: 3 * time.Hour, labels: 12 * time.Hour}
}

func storm(rnd *rand.Rand) trouble {
	return trouble{
		loss: sometimes(rnd, 0, 5, 50, 200), repeat: sometimes(rnd, 0, 20, 200), late: sometimes(rnd, 0, 5, 40),
		cuts: sometimes(rnd, 0, 2, 10, 40), failures: sometimes(rnd, 0, 20, 150), clocks: sometimes(rnd, 0, 300),
		rollbacks: sometimes(rnd, 0, 200), liars: sometimes(rnd, 0, 100, 300), vanishing: sometimes(rnd, 0, 100, 250),
		partition: sometimes(rnd, 0, time.Hour, 3*time.Hour), flap: sometimes(rnd, 0, 2*time.Minute, 20*time.Minute),
		powerOff: sometimes(rnd, 0, time.Hour), broker: sometimes(rnd, 0, 40*time.Minute, 3*time.Hour),
		crash: sometimes(rnd, 0, 15*time.Minute, 2*time.Hour), restore: sometimes(rnd, 0, time.Hour),
		ledger: sometimes(rnd, 0, time.Hour), serverClock: sometimes(rnd, 0, 0, time.Hour),
		labels: sometimes(rnd, 0, 30*time.Minute, 2*time.Hour), revoke: sometimes(rnd, 0, 2*time.Hour), floor: sometimes(rnd, 0, 2*time.Hour),
	}
}

func liars(rnd *rand.Rand) trouble {
	t := baseline(rnd)
	t.liars = 330
	return t
}

func partitioned(rnd *rand.Rand) trouble {
	t := baseline(rnd)
	t.late, t.repeat, t.loss = 40, 100, 50
	t.partition, t.flap, t.broker, t.powerOff = 40*time.Minute, 10*time.Minute, time.Hour, time.Hour
	return t
}

func restored(rnd *rand.Rand) trouble {
	t := baseline(rnd)
	t.crash, t.restore, t.ledger, t.cuts = 10*time.Minute, 30*time.Minute, time.Hour, 5
	return t
}

func putBack(rnd *rand.Rand) trouble {
	t := baseline(rnd)
	t.backup, t.crash = time.Hour, 3*time.Hour
	return t
}

func clocks(rnd *rand.Rand) trouble {
	t := baseline(rnd)
	t.clocks, t.cuts, t.serverClock = 500, 10, 30*time.Minute
	return t
}

// now and then lets something happen at random moments, mean apart, as long as
// there is trouble.
func (w *world) nowAndThen(mean time.Duration, do func()) {
	if mean == 0 {
		return
	}
	w.after(time.Duration(w.rnd.ExpFloat64()*float64(mean)), func() {
		if !w.healed {
			do()
			w.nowAndThen(mean, do)
		}
	})
}

// planTrouble begins what goes wrong.
func (w *world) planTrouble() {
	t, s := w.trouble, w.server
	w.nowAndThen(t.partition, w.partition)
	w.nowAndThen(t.flap, func() {
		w.anyDevice().link.drop(w.between(time.Second, 20*time.Minute))
	})
	w.nowAndThen(t.powerOff, func() {
		if d := w.anyDevice(); d.on {
			d.stop("somebody pulls the plug")
			d.boots(w.between(time.Minute, 10*time.Hour))
		}
	})
	w.nowAndThen(t.broker, func() {
		w.note("server", "the broker restarts")
		s.disconnectAll()
	})
	w.nowAndThen(t.crash, func() { s.dieSoon() })
	w.nowAndThen(t.restore, s.forget)
	w.nowAndThen(t.ledger, s.refuseWrites)
	w.nowAndThen(t.serverClock, func() {
		s.clock = []time.Duration{0, -10 * time.Minute, 10 * time.Minute, -3 * time.Hour, 3 * time.Hour}[w.rnd.IntN(5)]
		w.note("server", "its clock is %v off", s.clock)
		s.stirred = true
		w.count("server clock jumped")
	})
	w.nowAndThen(5*time.Minute, s.probe)
	w.nowAndThen(t.labels, w.relabel)
	w.nowAndThen(t.revoke, w.revoke)
	w.nowAndThen(t.floor, w.raiseFloor)
	if t.backup > 0 {
		w.nowAndThen(30*time.Minute, func() { s.backups = append(s.backups, s.copyDurable()) })
		w.nowAndThen(t.backup, s.putBack)
	}
	if t.crash > 0 || t.restore > 0 {
		w.nowAndThen(20*time.Minute, s.keep)
	}
}

func (w *world) anyDevice() *device { return w.devices[w.rnd.IntN(len(w.devices))] }

// partition takes a site's network away for a while.
func (w *world) partition() {
	s := w.sites[w.rnd.IntN(len(w.sites))]
	if !s.open {
		return
	}
	s.open = false
	w.note("server", "site %s has no network", s.name)
	w.count("partition")
	for _, d := range w.devices {
		if d.site == s {
			d.link.drop(w.between(time.Minute, 5*time.Minute))
		}
	}
	w.after(w.between(time.Minute, 6*time.Hour), func() { s.open = true })
}

// dieSoon lets the server die at one of its next calls to the outside.
func (s *server) dieSoon() {
	if s.up && s.fuse == 0 {
		s.fuse = 1 + s.w.rnd.IntN(20)
		s.downFor = s.w.between(time.Second, sometimes(s.w.rnd, time.Minute, time.Hour, 5*time.Hour))
	}
}

// forget crashes the server and starts it with a fold as it was written down
// once: the stream must bring it up to date.
func (s *server) forget() {
	if !s.up {
		return
	}
	for id := range s.checkpoint {
		delete(s.checkpoint, id)
	}
	s.w.count("checkpoint lost")
	s.downFor = s.w.between(time.Second, time.Minute)
	s.crash()
}

// putBack crashes the server and starts it from an older backup of everything.
func (s *server) putBack() {
	if !s.up || len(s.backups) == 0 {
		return
	}
	n := s.w.rnd.IntN(len(s.backups))
	s.downFor = s.w.between(time.Minute, 20*time.Minute)
	s.crash()
	s.durable = s.backups[n]
	s.backups = s.backups[:n]
	s.w.note("server", "is put back to an older backup, at ledger record %d", s.ledger.Last())
	s.w.count("backup put back")
	s.w.check.rebuild()
	for _, d := range s.w.devices {
		if held := d.disk.held.GetGeneration(); held > s.ledger.Last() {
			d.orphan = held
		}
		if d.enrolled && s.w.check.wish(d.id).generation == 0 { // nobody knows it any more
			d.enrolled = false
			s.w.after(s.downFor, d.join)
		}
	}
}

func (s *server) refuseWrites() {
	s.broken = true
	s.w.note("server", "the ledger takes nothing")
	s.w.after(s.w.between(time.Second, 20*time.Minute), func() { s.broken, s.mended = false, s.w.t })
}

// raiseFloor forbids the oldest release that may still run, but never what the
// fleet began with, which is where devices go back to.
func (w *world) raiseFloor() {
	if w.check.floor < 1 {
		w.check.floor = 1
		w.note("operator", "raises the floor to 1")
	}
}

// heal ends all trouble: the network is whole, everybody has power and a right
// clock, and the server runs.
func (w *world) heal() {
	w.healed = true
	w.trouble = trouble{}
	w.note("server", "everything is healed")
	for _, s := range w.sites {
		s.open = true
	}
	w.server.broken, w.server.fuse, w.server.clock, w.server.downFor = false, 0, 0, 0
	w.server.lookIn(0)
	for _, d := range w.devices {
		if !d.on && d.enrolled {
			d.boots(0)
		}
	}
}
