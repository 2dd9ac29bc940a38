package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
)

// site is a place whose devices share a network.
type site struct {
	name string
	open bool
}

// sizes are the fleets that seeds get: most are small, for a small one meets as
// many edges as a large one.
func (w *world) size() int {
	switch n := w.rnd.IntN(100); {
	case w.plan.devices > 0:
		return w.plan.devices
	case n < 75:
		return 4 + w.rnd.IntN(7)
	case n < 99:
		return 10 + w.rnd.IntN(15)
	default:
		return 40 + w.rnd.IntN(60)
	}
}

// makeFleet enrols most devices at once, with the first release on them, and
// the others later, with nothing.
func (w *world) makeFleet() {
	for i := range 1 + w.rnd.IntN(4) {
		w.sites = append(w.sites, &site{name: fmt.Sprintf("s%d", i), open: true})
	}
	if w.length == 0 {
		w.length = w.between(time.Hour, 5*time.Hour)
	}
	n := w.size()
	for i := range n {
		d := w.makeDevice(i)
		w.devices = append(w.devices, d)
		w.byID[d.id] = d
		if i > 0 && w.often(150) {
			w.after(w.between(0, w.length), d.join)
			continue
		}
		d.slots.active = w.releases[0].digest
		d.enrol()
	}
	w.factory()
	for _, d := range w.devices {
		if d.enrolled {
			d.start()
		}
	}
}

func (w *world) makeDevice(i int) *device {
	d := &device{
		w: w, id: fmt.Sprintf("d%d", i+1), site: w.sites[w.rnd.IntN(len(w.sites))],
		character: character{
			profile: fmt.Sprintf("p%d", w.rnd.IntN(3)), pace: w.between(100*time.Millisecond, 20*time.Second),
			metered: []string{"no", "no", "yes", ""}[w.rnd.IntN(4)], power: []string{"mains", "mains", "battery"}[w.rnd.IntN(3)],
			traffic: uint64(w.rnd.IntN(400)), vanishes: w.often(w.trouble.vanishing), //nolint:gosec // small
		},
	}
	if w.often(w.trouble.liars) {
		d.lie = []lie{mute, parrot, boastful}[w.rnd.IntN(3)]
	}
	if d.vanishes {
		d.end = w.between(0, w.length)
	}
	d.link.d = d
	d.makeLanes()
	return d
}

// enrol makes the device known to the server.
func (d *device) enrol() {
	labels := map[string]string{fleet.SiteLabel: d.site.name, "ring": []string{"a", "b"}[d.w.rnd.IntN(2)]}
	d.w.server.guarded(func() {
		if err := d.w.server.fleet.Enrolled(d.w.ctx, d.id, labels); err != nil {
			d.note("not enrolled: %v", err)
			return
		}
		d.enrolled = true
		d.w.server.lookIn(d.w.server.gap())
	})
}

// join enrols a device that was not there at the beginning.
func (d *device) join() {
	d.enrol()
	if !d.enrolled {
		d.w.after(d.w.between(time.Second, time.Minute), d.join)
		return
	}
	d.note("joins")
	d.w.count("late joiner")
	d.start()
}

// gone says whether the device is never heard of again.
func (d *device) gone() bool { return d.vanishes && d.w.t >= d.end }

// factory records that the first devices were given the first release, by a
// rollout that has ended.
func (w *world) factory() {
	s := w.server
	first := w.releases[0]
	spec := rollout.Spec{Model: model, Version: first.version, Release: first.digest}.WithDefaults()
	st := rollout.New("factory", "sim", spec, rollout.Requirements{}, s.now())
	st.Header.Status, st.Header.Deadline = rollout.StatusAborted, time.Time{}
	var ids []string
	for _, d := range w.devices {
		if d.slots.active == first.digest {
			ids = append(ids, d.id)
		}
	}
	slices.Sort(ids)
	created, err := (&journal{s}).Append(w.ctx, desired.RolloutChain(st.ID), 0, runner.KindCreated, "sim", runner.Created{State: st})
	if err != nil {
		w.fail("factory: %w", err)
		return
	}
	d := rollout.Decision{Format: rollout.Format, At: st.Header.Created, Assign: []rollout.Assigned{{Model: model, Release: first.digest, Devices: ids}}}
	if _, err := (&journal{s}).Append(w.ctx, created.Chain, created.Seq, runner.KindStep, "sim", runner.Record{Decision: d}); err != nil {
		w.fail("factory: %w", err)
		return
	}
	s.start()
}
