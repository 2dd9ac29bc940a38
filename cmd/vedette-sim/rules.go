package main

import (
	"math"
	"slices"
	"time"

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
	if d.Command != nil || s.Header.Status.Final() {
		x.stop = -1
	}
	var offered []string
	for id, dev := range d.Patch.Devices {
		if !s.Header.Status.Final() && s.DeadlineOf(id).IsZero() {
			c.w.fail("%s in %s is %s and has no deadline", id, s.ID, dev.State)
		}
		forward := dev.Order.Kind == rollout.Forward && !dev.Already
		x.told[id] = forward
		if !forward {
			delete(x.told, id)
		}
		if now, _ := s.Device(id); forward && now.Order.Seq == seq {
			offered = append(offered, id)
		}
	}
	if len(offered) > 0 {
		slices.Sort(offered)
		c.offers(x, before, d, offered)
	}
	if last := s.Header.Wave == len(s.Waves); !last && len(x.told) > x.allowed {
		c.w.fail("%s: %d devices are to run the release, the waves so far allow %d", s.ID, len(x.told), x.allowed)
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
		if d.enrolled && sel.Matches(c.wish(d.id).labels) {
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
	if limit := s.Spec.Budget.InFlight; limit > 0 {
		if n := underWay(s); n > limit {
			c.w.fail("%s: %d devices are under way, the budget is %d", s.ID, n, limit)
		}
	}
	if x.stop >= 0 && c.w.t > x.stop && d.Command == nil {
		c.w.fail("%s: %v are offered the release %v after no more may be: %s", s.ID, ids, c.w.t-x.stop, x.why)
	}
}

// offering says whether a rollout makes offers. A completed one goes on with
// devices that come later.
func offering(s *rollout.State) bool {
	return s.Header.Status == rollout.StatusRunning || s.Header.Status == rollout.StatusCompleted
}

// holder is another rollout that goes on and has told the device to run its
// release.
func (c *checker) holder(rolloutID, device string) string {
	for _, id := range c.ids() {
		x := c.rollouts[id]
		dev, _ := x.state.Device(device)
		if id != rolloutID && x.told[device] && !x.state.Header.Status.Final() && dev.State != rollout.DeviceSuperseded {
			return id
		}
	}
	return ""
}

// underWay counts the devices between offer and service that are not given up.
func underWay(s *rollout.State) int {
	n := 0
	for _, d := range s.Devices {
		if d.Order.Kind != rollout.Forward || d.Late || d.Already {
			continue
		}
		switch d.State {
		case rollout.DeviceOffered, rollout.DeviceDownloading, rollout.DeviceVerifying, rollout.DeviceTrialing:
			n++
		case rollout.DeviceWaiting, rollout.DeviceShadowing, rollout.DeviceActive, rollout.DeviceHealthy, rollout.DeviceFailed,
			rollout.DeviceReverted, rollout.DeviceRefused, rollout.DeviceSuperseded:
		}
	}
	return n
}

// reported looks for facts after which no more offers may be made.
func (c *checker) reported(d *device, r *protocol.Report) {
	for _, m := range r.GetModels() {
		for _, o := range append([]*protocol.Outcome{m.GetOutcome()}, m.GetRefused()...) {
			if o.GetCode() == "golden_mismatch" && !m.GetServing() || o.GetCode() == "golden_mismatch" && digestOf(m.GetActive()) != digestOf(o.GetRelease()) {
				c.disagrees(d, o)
			}
		}
	}
}

// disagrees takes in that golden vectors disagree on a device: a gate whose limit
// is none must stop the rollout.
func (c *checker) disagrees(d *device, o *protocol.Outcome) {
	if entry, ok := c.w.server.fleet.Device(d.id); !ok || entry.Revoked != nil {
		return
	}
	for _, id := range c.ids() {
		x := c.rollouts[id]
		s := x.state
		dev, _ := s.Device(d.id)
		concerned := s.Spec.Release == digestOf(o.GetRelease()) && dev.Order.Kind == rollout.Forward && !dev.Already && dev.Tries > 0 && o.GetGeneration() >= dev.Order.Seq
		if !concerned || dev.State == rollout.DeviceSuperseded || s.Header.Status != rollout.StatusRunning || !zeroLimit(s, rollout.Golden) || len(s.Header.Waived) > 0 {
			continue
		}
		if x.stop < 0 {
			x.stop, x.why = c.w.t+stopSlack, "golden vectors disagree on "+d.id
		}
	}
}

func zeroLimit(s *rollout.State, kind rollout.GateKind) bool {
	return slices.ContainsFunc(s.Spec.Gates, func(g rollout.GateSpec) bool {
		return g.Kind == kind && !g.Off && g.Limit != nil && *g.Limit == 0
	})
}
