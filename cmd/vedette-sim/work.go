package main

import (
	"slices"
	"time"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol/release"
)

// perform carries actions out as package updater does: each one ends the one
// before it, takes its time, and may be overtaken by a power cut.
func (l *lane) perform(actions []update.Action) {
	d := l.d
	for _, a := range actions {
		l.token++
		token := l.token
		switch a.Do {
		case update.Stop:
		case update.Discard:
			l.slots.staged = release.Digest{}
		case update.Revert:
			// The disk comes first: what is known to be bad is never loaded again.
			l.revertDisk(a.Release)
			if d.perhapsCut("while going back") {
				return
			}
			l.takes(d.w.between(200*time.Millisecond, 10*time.Second), token, func() update.Event { return l.reverted(a.Release) })
		case update.Resolve, update.Fetch, update.Verify, update.Trial, update.Activate, update.Remove:
			l.takes(d.lasts(a), token, func() update.Event { return l.carryOut(a) })
		}
	}
}

// takes ends an action after a while, unless another one was begun or the power
// went.
func (l *lane) takes(long time.Duration, token int, end func() update.Event) {
	d := l.d
	d.w.after(long, func() {
		if !d.on || l.token != token {
			return
		}
		e := end()
		if d.perhapsCut("after an action, before its news") {
			return
		}
		l.step(e)
	})
}

// lasts is how long an action takes.
func (d *device) lasts(a update.Action) time.Duration {
	c := d.w.release(a.Release)
	switch a.Do {
	case update.Fetch:
		return d.w.between(time.Second, 5*time.Second) + time.Duration(c.megabytes)*d.pace
	case update.Trial:
		return d.w.between(2*time.Second, 40*time.Second)
	case update.Resolve, update.Verify, update.Activate, update.Remove, update.Revert, update.Stop, update.Discard:
	}
	return d.w.between(200*time.Millisecond, 8*time.Second)
}

// carryOut is the end of an action.
func (l *lane) carryOut(a update.Action) update.Event {
	d := l.d
	switch a.Do {
	case update.Resolve:
		return d.resolve(a.Release)
	case update.Fetch:
		if !d.link.open || d.w.often(d.w.trouble.failures) {
			return failed(a, "link", true)
		}
		return update.Fetched{Release: a.Release}
	case update.Verify:
		if d.w.often(d.w.trouble.failures) {
			return failed(a, update.CodeDamaged, true)
		}
		l.slots.staged = a.Release
		return update.Verified{Release: a.Release}
	case update.Trial:
		return l.try(a.Release)
	case update.Activate:
		return l.activate(a)
	case update.Remove:
		l.serving, l.slots.active, l.slots.previous = release.Digest{}, release.Digest{}, release.Digest{}
		return update.Activated{}
	case update.Revert, update.Stop, update.Discard:
	}
	return update.Tick{}
}

func failed(a update.Action, code string, retryable bool) update.Event {
	return update.Failed{Release: a.Release, Code: code, Message: "simulated", Retryable: retryable}
}

// resolve asks for the manifest and its trust: only what publishers signed and
// what is not below the highest floor ever seen is taken. It is a model of
// package trust's store, whose rules it has and whose signatures it does not
// compute.
func (d *device) resolve(r release.Digest) update.Event {
	a := update.Action{Release: r}
	if !d.link.open || d.w.often(d.w.trouble.failures) {
		return failed(a, "link", true)
	}
	c := d.w.release(r)
	d.floor = max(d.floor, d.w.floorToldTo(d))
	d.disk.floor = d.floor
	switch {
	case !c.signed:
		return failed(a, "not_signed", false)
	case c.sequence < d.floor:
		return failed(a, "below_floor", false)
	}
	return update.Resolved{Release: r}
}

func (l *lane) try(r release.Digest) update.Event {
	d := l.d
	c := d.w.release(r)
	switch {
	case l.slots.staged != r:
		return update.Failed{Release: r, Code: update.CodeDamaged, Message: "nothing staged"}
	case c.hits(d, c.wrong, "wrong"):
		return update.Judged{Release: r, Code: "golden_mismatch", Message: "simulated"}
	case c.hits(d, c.unfit, "unfit"):
		return update.Judged{Release: r, Code: "memory_too_small", Message: "simulated"}
	}
	return update.Judged{Release: r, OK: true}
}

// activate loads first and writes down second.
func (l *lane) activate(a update.Action) update.Event {
	d := l.d
	c := d.w.release(a.Release)
	switch {
	case l.slots.staged != a.Release && l.slots.active != a.Release:
		return failed(a, "activate_failed", false)
	case c.hits(d, c.broken, "broken"):
		return failed(a, "load_failed", false)
	}
	l.serves(a.Release)
	if l.slots.active != a.Release && !l.challenger {
		l.slots.previous = l.slots.active
	}
	l.slots.active = a.Release
	l.slots.staged = release.Digest{}
	d.disk.order++
	return update.Activated{Release: a.Release, Order: d.disk.order}
}

func (l *lane) revertDisk(bad release.Digest) {
	if l.slots.active == bad {
		l.slots.active, l.slots.previous = l.slots.previous, release.Digest{}
	}
	if l.slots.staged == bad {
		l.slots.staged = release.Digest{}
	}
}

func (l *lane) reverted(bad release.Digest) update.Event {
	if l.serving != l.slots.active {
		l.serves(l.slots.active)
	}
	return update.Reverted{Release: bad, Active: l.slots.active, Previous: l.slots.previous}
}

// restore serves what is active after a start.
func (l *lane) restore() {
	d := l.d
	life, active := d.life, l.slots.active
	if active.IsZero() || !l.belongs() {
		return
	}
	d.w.after(d.w.between(100*time.Millisecond, 3*time.Second), func() {
		if d.on && d.life == life && l.slots.active == active && l.serving != active {
			l.serves(active)
		}
	})
}

// serves makes the runtime answer with a release. What is wrong with it shows
// after a while.
func (l *lane) serves(r release.Digest) {
	d := l.d
	l.serving = r
	d.nudge()
	if r.IsZero() {
		return
	}
	c, life := d.w.release(r), d.life
	d.w.check.serving(l, c)
	switch {
	case c.hits(d, c.crashes, "crashes"):
		d.w.after(d.w.between(20*time.Second, 2*time.Minute), func() {
			if d.on && d.life == life && l.serving == r {
				d.stop("the runtime crashes with " + c.version)
				d.boots(d.w.between(time.Second, 5*time.Second))
			}
		})
	case c.hits(d, c.hangs, "hangs"):
		d.w.after(d.w.between(time.Minute, 40*time.Minute), func() {
			if d.on && d.life == life && l.serving == r {
				l.step(update.Hung{Release: r})
			}
		})
	}
}

// refusedBefore says whether a machine has given a release up under a decision.
func refusedBefore(m *update.Machine, w update.Want) bool {
	return slices.ContainsFunc(m.Refused, func(o update.Outcome) bool { return o.Release == w.Release && o.Decision == w.Decision })
}
