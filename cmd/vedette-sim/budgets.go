package main

import (
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// budget checks that new orders keep to the budget as far as orders go.
func (c *checker) budget(x *watched, before *rollout.State, d *rollout.Decision, ids []string) {
	s := x.state
	b := s.Spec.Budget
	if n := underWay(s); b.InFlight > 0 && n > b.InFlight && slices.ContainsFunc(ids, func(id string) bool { return !begun(before, id) }) {
		c.w.fail("%s: %d devices are under way, the budget is %d", s.ID, n, b.InFlight)
	}
	c.rate(x, d, len(ids))
	for _, u := range b.Unavailable {
		for _, id := range ids {
			if dev, _ := s.Device(id); dev.Order.Kind == rollout.Forward && !c.harmless(before, id) {
				c.group(s, u, c.labels(id)[u.Label])
			}
		}
	}
}

// begun says whether a device was under way. A shadow that is told to answer
// was: its order adds none to those that came back late.
func begun(s *rollout.State, id string) bool {
	d, _ := s.Device(id)
	return on(&d) && !d.Late && isUnderWay(d.State)
}

// rate checks orders a minute by the server's clock. A clock that was set back
// makes the server forget, and a revision may change the rate.
func (c *checker) rate(x *watched, d *rollout.Decision, n int) {
	limit := x.state.Spec.Budget.PerMinute
	if len(x.orders) > 0 && d.At.Before(x.orders[len(x.orders)-1]) || x.limit != limit {
		x.orders = nil
	}
	x.limit = limit
	for range n {
		x.orders = append(x.orders, d.At)
	}
	x.orders = slices.DeleteFunc(x.orders, func(at time.Time) bool { return d.At.Sub(at) >= time.Minute })
	if limit > 0 && len(x.orders) > limit {
		c.w.fail("%s: %d orders within a minute, the budget is %d", x.state.ID, len(x.orders), limit)
	}
}

// harmless says whether an order takes nothing from a device's group: it did not
// answer anyway.
func (c *checker) harmless(s *rollout.State, id string) bool { return c.unavailable(s, id) }

// unavailable says whether a device is disturbed by the rollout or is known not
// to answer.
func (c *checker) unavailable(s *rollout.State, id string) bool {
	d, _ := s.Device(id)
	if !d.Late && d.Order.Kind == rollout.Forward && isUnderWay(d.State) {
		return true
	}
	if arrived := d.State == rollout.DeviceActive || d.State == rollout.DeviceHealthy; !d.Late && d.Order.Kind == rollout.Back && arrived && !d.Home {
		return true
	}
	entry, _ := c.w.server.fleet.Device(id)
	m, _ := entry.Model(model)
	return entry.Revoked == nil && !m.Active.IsZero() && !m.Serving
}

// labels are a device's, as the fleet has them: those that could not be noted in
// the ledger hold until somebody repeats the change.
func (c *checker) labels(id string) map[string]string {
	entry, _ := c.w.server.fleet.Device(id)
	return entry.Labels
}

// group checks the devices that share the value of a label.
func (c *checker) group(s *rollout.State, u rollout.Unavailable, value string) {
	sel, err := rollout.ParseSelector(s.Spec.Selector)
	if err != nil {
		c.w.fail("%s: %w", s.ID, err)
	}
	size, down := 0, 0
	for _, d := range c.w.devices {
		labels := c.labels(d.id)
		_, member := s.Device(d.id)
		if !d.enrolled || labels[u.Label] != value || !sel.Matches(labels) && !member {
			continue
		}
		if sel.Matches(labels) {
			size++
		} else if dev, _ := s.Device(d.id); dev.Order.Kind == "" {
			continue
		}
		if c.unavailable(s, d.id) {
			down++
		}
	}
	most := u.Max
	if u.Percent > 0 {
		most = max(1, int(u.Percent/100*float64(size)+1e-9))
	}
	if down > most {
		c.w.fail("%s: %d devices with %s=%s are disturbed or do not serve, the budget allows %d of %d", s.ID, down, u.Label, value, most, size)
	}
}

// conditions checks the time and the state in which devices are offered a
// release.
func (c *checker) conditions(s *rollout.State, d *rollout.Decision, ids []string) {
	if at := d.At.Sub(d.At.Truncate(time.Hour)); len(s.Spec.Windows) > 0 && at > openFor {
		c.w.fail("%s: %v are offered the release at %s, outside its windows", s.ID, ids, d.At.Format(time.TimeOnly))
	}
	if s.Header.Started.Before(s.Spec.StartAt) {
		c.w.fail("%s: started at %v, not to before %v", s.ID, s.Header.Started, s.Spec.StartAt)
	}
	for _, id := range ids {
		entry, _ := c.w.server.fleet.Device(id)
		if r := s.Spec.Require; r.Unmetered && entry.Metered != "no" || r.Mains && entry.Power == "battery" {
			c.w.fail("%s: %s is offered the release, its link is metered %q and it runs on %q", s.ID, id, entry.Metered, entry.Power)
		}
	}
}
