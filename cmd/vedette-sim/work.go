package main

import (
	"slices"
	"time"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol/release"
)

// perform carries actions out as package updater does: each one ends the one
// before it, takes its time, and may be overtaken by a power cut.
func (d *device) perform(actions []update.Action) {
	for _, a := range actions {
		d.token++
		token := d.token
		switch a.Do {
		case update.Stop:
		case update.Discard:
			d.disk.staged = release.Digest{}
		case update.Revert:
			// The disk comes first: what is known to be bad is never loaded again.
			d.revertDisk(a.Release)
			if d.perhapsCut("while going back") {
				return
			}
			d.takes(d.w.between(200*time.Millisecond, 10*time.Second), token, func() update.Event { return d.reverted(a.Release) })
		case update.Resolve, update.Fetch, update.Verify, update.Trial, update.Activate, update.Remove:
			d.takes(d.lasts(a), token, func() update.Event { return d.carryOut(a) })
		}
	}
}

// takes ends an action after a while, unless another one was begun or the power
// went.
func (d *device) takes(long time.Duration, token int, end func() update.Event) {
	d.w.after(long, func() {
		if !d.on || d.token != token {
			return
		}
		e := end()
		if d.perhapsCut("after an action, before its news") {
			return
		}
		d.step(e)
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
func (d *device) carryOut(a update.Action) update.Event {
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
		d.disk.staged = a.Release
		return update.Verified{Release: a.Release}
	case update.Trial:
		return d.try(a.Release)
	case update.Activate:
		return d.activate(a)
	case update.Remove:
		d.serving, d.disk.active, d.disk.previous = release.Digest{}, release.Digest{}, release.Digest{}
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

func (d *device) try(r release.Digest) update.Event {
	c := d.w.release(r)
	switch {
	case d.disk.staged != r:
		return update.Failed{Release: r, Code: update.CodeDamaged, Message: "nothing staged"}
	case c.hits(d, c.wrong, "wrong"):
		return update.Judged{Release: r, Code: "golden_mismatch", Message: "simulated"}
	case c.hits(d, c.unfit, "unfit"):
		return update.Judged{Release: r, Code: "memory_too_small", Message: "simulated"}
	}
	return update.Judged{Release: r, OK: true}
}

// activate loads first and writes down second.
func (d *device) activate(a update.Action) update.Event {
	c := d.w.release(a.Release)
	switch {
	case d.disk.staged != a.Release && d.disk.active != a.Release:
		return failed(a, "activate_failed", false)
	case c.hits(d, c.broken, "broken"):
		return failed(a, "load_failed", false)
	}
	d.serves(a.Release)
	if d.disk.active != a.Release {
		d.disk.previous, d.disk.active = d.disk.active, a.Release
	}
	d.disk.staged = release.Digest{}
	d.disk.order++
	return update.Activated{Release: a.Release, Order: d.disk.order}
}

func (d *device) revertDisk(bad release.Digest) {
	if d.disk.active == bad {
		d.disk.active, d.disk.previous = d.disk.previous, release.Digest{}
	}
	if d.disk.staged == bad {
		d.disk.staged = release.Digest{}
	}
}

func (d *device) reverted(bad release.Digest) update.Event {
	if d.serving != d.disk.active {
		d.serves(d.disk.active)
	}
	return update.Reverted{Release: bad, Active: d.disk.active, Previous: d.disk.previous}
}

// restore serves what is active after a start.
func (d *device) restore() {
	life, active := d.life, d.disk.active
	if active.IsZero() {
		return
	}
	d.w.after(d.w.between(100*time.Millisecond, 3*time.Second), func() {
		if d.on && d.life == life && d.disk.active == active && d.serving != active {
			d.serves(active)
		}
	})
}

// serves makes the runtime answer with a release. What is wrong with it shows
// after a while.
func (d *device) serves(r release.Digest) {
	d.serving = r
	d.nudge()
	if r.IsZero() {
		return
	}
	c, life := d.w.release(r), d.life
	d.w.check.serving(d, c)
	switch {
	case c.hits(d, c.crashes, "crashes"):
		d.w.after(d.w.between(20*time.Second, 2*time.Minute), func() {
			if d.on && d.life == life && d.serving == r {
				d.stop("the runtime crashes with " + c.version)
				d.boots(d.w.between(time.Second, 5*time.Second))
			}
		})
	case c.hits(d, c.hangs, "hangs"):
		d.w.after(d.w.between(time.Minute, 40*time.Minute), func() {
			if d.on && d.life == life && d.serving == r {
				d.step(update.Hung{Release: r})
			}
		})
	}
}

// refusedBefore says whether a machine has given a release up under a decision.
func refusedBefore(m *update.Machine, w update.Want) bool {
	return slices.ContainsFunc(m.Refused, func(o update.Outcome) bool { return o.Release == w.Release && o.Decision == w.Decision })
}
