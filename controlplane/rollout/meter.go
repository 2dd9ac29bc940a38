package rollout

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// hindrance is what keeps a device from being given an order now.
type hindrance struct {
	what string // that it waits for, in words that fit all who wait for it; empty for none
	why  string // about this device, if there is more to say
}

func (h hindrance) String() string {
	if h.why == "" {
		return h.what
	}
	return h.what + ": " + h.why
}

// ask is an order that a device is to be given.
type ask struct {
	facts    *DeviceFacts
	bytes    int64 // to download for it
	counted  bool  // among those under way already
	harmless bool  // it takes nothing from the device's group: the device does not serve anyway, or goes on serving
}

// meter lets the orders of one step through within a budget.
type meter struct {
	budget Budget
	now    time.Time
	free   int // devices that may still come under way
	orders rate
	bytes  rate
	groups []group
}

// group counts the devices that share the value of one label.
type group struct {
	limit Unavailable
	size  map[string]int // selected, by value
	down  map[string]int // disturbed, or selected and not serving
}

// meter is that of the direction in which the rollout goes, made when a step
// asks for it first.
func (t *turn) meter() *meter {
	if t.metered != nil {
		return t.metered
	}
	b, underWay := t.Spec.Budget, t.underWay
	if t.Header.Status == StatusReverting {
		b, underWay = t.Spec.Revert, t.returning
	}
	m := &meter{budget: b, now: t.now, free: math.MaxInt, bytes: byteRate(t.Header.NextBytes), groups: t.groups(b)}
	if b.InFlight > 0 {
		m.free = b.InFlight - underWay()
	}
	if b.PerMinute > 0 {
		m.orders = orderRate(b.PerMinute, t.Header.NextOrder)
	}
	t.metered = m
	return m
}

// groups counts the devices by the labels that the budget names.
func (t *turn) groups(b Budget) []group {
	out := make([]group, len(b.Unavailable))
	for i, u := range b.Unavailable {
		out[i] = group{limit: u, size: map[string]int{}, down: map[string]int{}}
	}
	if len(out) == 0 {
		return nil
	}
	for _, e := range t.roll() {
		f := e.f
		if f == nil {
			continue
		}
		down := e.d != nil && e.d.disturbed() || f.unanswered()
		for i := range out {
			value := f.Groups[out[i].limit.Label]
			if f.Selected {
				out[i].size[value]++
			}
			if down {
				out[i].down[value]++
			}
		}
	}
	return out
}

// unavailable says that a device is being disturbed, or selected and known not
// to answer although it has a release. One that never had any is no loss to its
// group.
func (t *turn) unavailable(id string, f *DeviceFacts) bool {
	if d := t.Devices[id]; d != nil && d.disturbed() {
		return true
	}
	return f.unanswered()
}

// unanswered says that a selected device is known not to answer.
func (f *DeviceFacts) unanswered() bool {
	return f.Selected && !f.Revoked && !f.Active.IsZero() && !f.Serving
}

// disturbed says that the device is between an order to change what answers and
// what that leads to.
func (d *Device) disturbed() bool {
	if d.Late {
		return false
	}
	switch d.Order.Kind {
	case Forward:
		return d.State == DeviceOffered || d.State.working()
	case Back:
		return d.State.arrived() && !d.Home
	case Beside:
	}
	return false
}

// most is how many devices of a group may be unavailable.
func (g *group) most(value string) int {
	if g.limit.Max > 0 {
		return g.limit.Max
	}
	return max(1, int(g.limit.Percent/100*float64(g.size[value])+1e-9))
}

// full says that no order passes, whatever it is.
func (m *meter) full() bool { return m.budget.PerMinute > 0 && !m.orders.passes(m.now) }

// hinders says what in the budget keeps an order from being given.
func (m *meter) hinders(a ask) hindrance {
	switch {
	case m.crowded() && !a.counted:
		return hindrance{what: fmt.Sprintf("others to get through: the budget allows %d under way", m.budget.InFlight)}
	case m.full():
		return hindrance{what: fmt.Sprintf("a turn: the budget allows %d orders a minute", m.budget.PerMinute)}
	case m.loaded() && a.bytes > 0:
		return hindrance{what: fmt.Sprintf("earlier downloads, which take until %s: the budget allows %d bytes a second",
			m.bytes.next.Format(time.RFC3339), m.budget.BytesPerSecond)}
	}
	if g := m.crowd(a); g != nil {
		value := a.facts.Groups[g.limit.Label]
		return hindrance{what: fmt.Sprintf("others of %s=%s: the budget allows %d under way or not serving, and there are %d",
			g.limit.Label, value, g.most(value), g.down[value])}
	}
	return hindrance{}
}

// passes says that nothing hinders an order. It makes no words: it is asked of
// every device that waits.
func (m *meter) passes(a ask) bool {
	return (!m.crowded() || a.counted) && !m.full() && (!m.loaded() || a.bytes == 0) && m.crowd(a) == nil
}

// crowded says that as many devices are under way as may be.
func (m *meter) crowded() bool { return m.free <= 0 }

// loaded says that earlier downloads take up all bytes a second.
func (m *meter) loaded() bool { return m.budget.BytesPerSecond > 0 && !m.bytes.passes(m.now) }

// crowd is a group of the device that is at its limit; nil for none.
func (m *meter) crowd(a ask) *group {
	if a.harmless {
		return nil
	}
	for i := range m.groups {
		g := &m.groups[i]
		if value := a.facts.Groups[g.limit.Label]; g.down[value] >= g.most(value) {
			return g
		}
	}
	return nil
}

// take lets an order through.
func (m *meter) take(a ask) {
	if !a.counted && m.budget.InFlight > 0 {
		m.free--
	}
	if m.budget.PerMinute > 0 {
		m.orders.take(m.now, costOfOrder(m.budget.PerMinute))
	}
	if m.budget.BytesPerSecond > 0 && a.bytes > 0 {
		m.bytes.take(m.now, costOfBytes(a.bytes, m.budget.BytesPerSecond))
	}
	for i := range m.groups {
		if g := &m.groups[i]; !a.harmless {
			g.down[a.facts.Groups[g.limit.Label]]++
		}
	}
}

// keep remembers what the rates need to know for the next step.
func (m *meter) keep(h *Header) {
	if m.budget.PerMinute > 0 {
		h.NextOrder = m.orders.kept()
	}
	if m.budget.BytesPerSecond > 0 {
		h.NextBytes = m.bytes.kept()
	}
}

// ratesWake is when the rates of a budget let something pass that waits now.
func (h *Header) ratesWake(b Budget) (orders, bytes time.Time) {
	if b.PerMinute > 0 {
		r := orderRate(b.PerMinute, h.NextOrder)
		orders = r.wake()
	}
	if b.BytesPerSecond > 0 {
		r := byteRate(h.NextBytes)
		bytes = r.wake()
	}
	return orders, bytes
}

// stuckGroups says which groups have so many devices that do not serve that the
// budget allows no other device of them to be asked.
func (t *turn) stuckGroups() []string {
	var out []string
	for _, g := range t.groups(t.Spec.Budget) {
		for _, value := range slices.Sorted(maps.Keys(g.down)) {
			if down, most := t.silentIn(g.limit.Label, value), g.most(value); down >= most && down < g.size[value] {
				out = append(out, fmt.Sprintf("%d devices of %s=%s do not serve and the budget allows %d: no other device of them is asked until they serve again",
					down, g.limit.Label, value, most))
			}
		}
	}
	return out
}

// silentIn counts devices of a group that are unavailable without being asked
// anything.
func (t *turn) silentIn(label, value string) int {
	n := 0
	for id, f := range t.facts.Devices {
		if d := t.Devices[id]; f.Groups[label] == value && (d == nil || !d.disturbed()) && t.unavailable(id, f) {
			n++
		}
	}
	return n
}
