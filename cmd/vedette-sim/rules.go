package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
)

// stopSlack is how long the server may take from a fact to the last new offer.
const stopSlack = 5 * time.Second

// judge checks what must hold of every decision.
func (c *checker) judge(x *watched, before *rollout.State, d *rollout.Decision, seq uint64) {
	s := x.state
	if !s.Header.Status.Final() && s.Header.Deadline.IsZero() {
		c.w.fail("%s is %s and has no deadline", s.ID, s.Header.Status)
	}
	if s.Header.Wave != before.Header.Wave {
		c.opened(x, before)
	}
	if d.Command != nil || !judged(s) {
		x.stop = -1
	}
	var offered []string
	for id := range d.Patch.Devices {
		if c.device(x, before, id, seq) {
			offered = append(offered, id)
		}
	}
	if len(offered) > 0 {
		slices.Sort(offered)
		c.offers(x, before, d, offered)
	}
	for n := range d.Patch.Waves {
		c.wave(x, before, n)
	}
	c.ended(x, before)
	if last := s.Header.Wave == len(s.Waves); !last && len(x.runs) > x.allowed {
		c.w.fail("%s: %d devices are to run the release, the waves so far allow %d", s.ID, len(x.runs), x.allowed)
	}
}

// device checks a device that a decision has changed, and says whether it was
// told to run the release.
func (c *checker) device(x *watched, before *rollout.State, id string, seq uint64) (offered bool) {
	s := x.state
	now, _ := s.Device(id)
	was, _ := before.Device(id)
	if !s.Header.Status.Final() && s.DeadlineOf(id).IsZero() {
		c.w.fail("%s in %s is %s and has no deadline", id, s.ID, now.State)
	}
	if now.Order.Kind != "" && now.Order.Seq == 0 {
		c.w.fail("%s in %s has an order of no decision", id, s.ID)
	}
	if now.Order.Kind == rollout.Beside && (now.State == rollout.DeviceActive || now.State == rollout.DeviceHealthy) {
		c.w.fail("%s in %s is %s with a shadow", id, s.ID, now.State)
	}
	x.take(id, &now)
	if now.State != was.State || now.Code != was.Code {
		c.outcome(s, &was, &now, id)
	}
	return tells(&now) && now.Order.Seq == seq
}

// tells says whether a rollout wants its release on the device. One that was
// revoked or went to another rollout is none of this one's.
func tells(d *rollout.Device) bool {
	return on(d) && !d.Already && d.State != rollout.DeviceSuperseded
}

// on says whether a device is to run the release, in front or beside.
func on(d *rollout.Device) bool {
	return d.Order.Kind == rollout.Forward || d.Order.Kind == rollout.Beside
}

// outcome checks that a device counts as failed, refused or reverted only for
// what it said of the newest order.
func (c *checker) outcome(s *rollout.State, was, now *rollout.Device, id string) {
	if now.State != rollout.DeviceFailed && now.State != rollout.DeviceReverted && now.State != rollout.DeviceRefused {
		return
	}
	switch now.Code {
	case rollout.CodeDeadline, rollout.CodeNotRunning, rollout.CodeRolledBack, rollout.CodeAgent, rollout.CodeRuntime, rollout.CodeMemory, rollout.CodeVariant:
		return
	}
	entry, _ := c.w.server.fleet.Device(id)
	m, _ := entry.Model(model)
	all := m.Refused
	if m.Outcome != nil {
		all = append(slices.Clone(all), *m.Outcome)
	}
	if b := m.Challenger; b != nil && b.Outcome != nil {
		all = append(slices.Clone(all), *b.Outcome)
	}
	if b := m.Challenger; b != nil {
		all = append(slices.Clone(all), b.Refused...)
	}
	for _, o := range all {
		if o.Release == s.Spec.Release && o.Code == now.Code && o.Generation >= was.Order.Seq {
			return
		}
	}
	c.w.fail("%s in %s is %s (%s), which it never said of order %d", id, s.ID, now.State, now.Code, was.Order.Seq)
}

// wave checks a wave that a decision has changed.
func (c *checker) wave(x *watched, before *rollout.State, n int) {
	s := x.state
	now := s.Waves[n-1]
	if now.State != rollout.WavePassed || now.Forced || now.Planned == 0 || before.Waves[n-1].State == rollout.WavePassed {
		return
	}
	healthy, base := 0, 0
	for _, d := range s.Devices {
		if d.Wave != n || d.Already || d.State == rollout.DeviceRefused || d.State == rollout.DeviceSuperseded {
			continue
		}
		base++
		if d.State == rollout.DeviceHealthy {
			healthy++
		}
	}
	spec := s.Spec.Waves[n-1]
	if need := spec.Quorum*float64(base) - 1e-9; float64(healthy) < need || healthy == 0 {
		c.w.fail("%s: wave %d passed with %d of %d devices healthy, the quorum is %.0f %%", s.ID, n, healthy, base, 100*spec.Quorum)
	}
	was := before.Waves[n-1]
	if soak := time.Duration(*spec.Soak); was.State == rollout.WaveSoaking && now.Closed.Sub(was.Since) < soak || was.State == rollout.WaveOpen && soak > 0 {
		c.w.fail("%s: wave %d passed %v after its devices were through, it is to soak for %v", s.ID, n, now.Closed.Sub(was.Since), soak)
	}
}

// ended checks a rollout that stops or has gone back.
func (c *checker) ended(x *watched, before *rollout.State) {
	s := x.state
	if s.Header.Status == before.Header.Status {
		return
	}
	switch s.Header.Status {
	case rollout.StatusHalted, rollout.StatusAborted:
		if n := underWay(s); n > 0 && before.Header.Status != rollout.StatusReverting {
			c.w.fail("%s is %s and %d devices are still to run the release", s.ID, s.Header.Status, n)
		}
	case rollout.StatusReverted:
		c.back(s)
	case rollout.StatusDraft, rollout.StatusQueued, rollout.StatusAwaiting, rollout.StatusRunning, rollout.StatusPaused,
		rollout.StatusReverting, rollout.StatusCompleted, rollout.StatusReplaced:
	}
}

// back checks that no device runs the release of a rollout that has gone back,
// liars aside.
func (c *checker) back(s *rollout.State) {
	for _, id := range slices.Sorted(maps.Keys(s.Devices)) {
		d, dev := c.w.byID[id], s.Devices[id]
		ours := dev.Order.Kind != "" && !dev.Already && dev.State != rollout.DeviceSuperseded
		if ours && d.lie == honest && d.slots.active == s.Spec.Release && dev.Old != s.Spec.Release {
			c.w.fail("%s is reverted and %s runs its release", s.ID, id)
		}
	}
}

// opened works out how many devices may be on the release now, from the spec and
// the devices that are selected.
func (c *checker) opened(x *watched, before *rollout.State) {
	s := x.state
	selected := c.selected(s)
	for n := before.Header.Wave + 1; n <= s.Header.Wave; n++ {
		w := s.Spec.Waves[n-1]
		more := x.allowed + w.Count
		if w.Percent > 0 {
			more = max(x.allowed+1, int(math.Ceil(float64(selected)*w.Percent/100-1e-9)))
		}
		x.allowed = more
	}
}

// selected counts the devices that a rollout's selector matches.
func (c *checker) selected(s *rollout.State) int {
	sel, err := rollout.ParseSelector(s.Spec.Selector)
	if err != nil {
		c.w.fail("%s: %w", s.ID, err)
	}
	n := 0
	for _, d := range c.w.devices {
		if d.enrolled && sel.Matches(c.labels(d.id)) {
			n++
		}
	}
	return n
}

// offers checks new orders to run the release.
func (c *checker) offers(x *watched, before *rollout.State, d *rollout.Decision, ids []string) {
	s := x.state
	if !offering(s) && !offering(before) {
		c.w.fail("%s: %v are offered the release while the rollout is %s", s.ID, ids, s.Header.Status)
	}
	for _, id := range ids {
		dev, _ := s.Device(id)
		if dev.Control && s.Header.Wave < len(s.Waves) {
			c.w.fail("%s: %s of the control group is offered the release in wave %d", s.ID, id, s.Header.Wave)
		}
		if other := c.holder(s.ID, id); other != "" {
			c.w.fail("%s: %s is offered the release while %s has it", s.ID, id, other)
		}
	}
	c.budget(x, before, d, ids)
	c.conditions(s, d, ids)
	if x.stop >= 0 && c.w.t > x.stop && d.Command == nil {
		c.w.fail("%s: %v are offered the release %v after no more may be: %s", s.ID, ids, c.w.t-x.stop, x.why)
	}
}

// offering says whether a rollout makes offers. A completed one goes on with
// devices that come later.
func offering(s *rollout.State) bool {
	return s.Header.Status == rollout.StatusRunning || s.Header.Status == rollout.StatusCompleted
}

// judged says whether a gate that fails must stop the rollout: also while it is
// paused or waits for a person.
func judged(s *rollout.State) bool {
	switch s.Header.Status {
	case rollout.StatusRunning, rollout.StatusPaused, rollout.StatusAwaiting:
		return true
	case rollout.StatusDraft, rollout.StatusQueued, rollout.StatusHalted, rollout.StatusReverting, rollout.StatusReverted,
		rollout.StatusCompleted, rollout.StatusAborted, rollout.StatusReplaced:
	}
	return false
}

// holder is another rollout that goes on and has told the device to run its
// release.
func (c *checker) holder(rolloutID, device string) string {
	for _, id := range c.ids() {
		x := c.rollouts[id]
		if id != rolloutID && x.told[device] && !x.state.Header.Status.Final() {
			return id
		}
	}
	return ""
}

// underWay counts the devices between offer and service that are not given up.
func underWay(s *rollout.State) int {
	n := 0
	for id, d := range s.Devices {
		if !d.Already && begun(s, id) {
			n++
		}
	}
	return n
}

func isUnderWay(s rollout.DeviceState) bool {
	return s == rollout.DeviceShadowing || s == rollout.DeviceOffered || s == rollout.DeviceDownloading || s == rollout.DeviceVerifying || s == rollout.DeviceTrialing
}

// reported looks for facts after which no more offers may be made.
func (c *checker) reported(d *device, r *protocol.Report) {
	for _, m := range r.GetModels() {
		beside := m.GetChallenger().GetState()
		for _, o := range slices.Concat([]*protocol.Outcome{m.GetOutcome(), beside.GetOutcome()}, m.GetRefused(), beside.GetRefused()) {
			serves := m.GetServing() && digestOf(m.GetActive()) == digestOf(o.GetRelease())
			if kind := gateOf(o); kind != "" && !serves {
				c.fails(d, o, kind)
			}
		}
	}
}

// gateOf is the gate that a single bad outcome fails when its limit is none.
func gateOf(o *protocol.Outcome) rollout.GateKind {
	switch code, result := o.GetCode(), o.GetResult(); {
	case code == rollout.CodeGolden:
		return rollout.Golden
	case result == update.ResultReverted:
		return rollout.Crash
	case result == update.ResultFailed:
		return rollout.Install
	}
	return "" // also a refusal, which may be about the device
}

// fails takes in that a gate whose limit is none must stop a rollout.
func (c *checker) fails(d *device, o *protocol.Outcome, kind rollout.GateKind) {
	if entry, ok := c.w.server.fleet.Device(d.id); !ok || entry.Revoked != nil {
		return
	}
	for _, id := range c.ids() {
		x := c.rollouts[id]
		dev, _ := x.state.Device(d.id)
		answers := x.state.Spec.Release == digestOf(o.GetRelease()) && dev.Tries > 0 && tells(&dev) && o.GetGeneration() >= dev.Order.Seq
		if !answers || !judged(x.state) || !zeroLimit(x.state, kind) || len(x.state.Header.Waived) > 0 || x.stop >= 0 {
			continue
		}
		x.stop, x.why = c.w.t+stopSlack, fmt.Sprintf("gate %s fails with what %s said", kind, d.id)
		c.w.count("gate " + string(kind) + " must fail")
		c.w.after(stopSlack+time.Second, func() { c.stopped(x) })
	}
}

// stopped checks that a rollout has stopped for a gate that fails, if the server
// was there all the time.
func (c *checker) stopped(x *watched) {
	srv := c.w.server
	if x.stop >= 0 && srv.up && !srv.broken && c.w.t-srv.upSince > 2*stopSlack && c.w.t-srv.mended > time.Minute {
		c.w.fail("%s is %s %v after %s", x.state.ID, x.state.Header.Status, stopSlack, x.why)
	}
}

func zeroLimit(s *rollout.State, kind rollout.GateKind) bool {
	return slices.ContainsFunc(s.Spec.Gates, func(g rollout.GateSpec) bool {
		return g.Kind == kind && !g.Off && g.Limit != nil && *g.Limit == 0
	})
}
