package rollout

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Codes of devices whose offer was withdrawn before they began.
const (
	CodeWindow   = "window_closed"
	CodeRequires = "not_fit_now" // does not show what the spec requires
)

// waits says that a member of a wave waits for an offer.
func (d *Device) waits() bool { return d.Wave > 0 && d.State == DeviceWaiting }

// askable says that a device waits for an order forward: to be offered the release,
// or, when it has run it as a shadow, to switch.
func (t *turn) askable(id string, d *Device) bool {
	return d.waits() || t.shadowEnds(d, t.facts.Devices[id])
}

// offer makes offers to members of all opened waves that are in a window and
// fulfil what is required, in order of rank, within the budget. A group that is
// at its limit is passed over; the others do not wait for it.
func (t *turn) offer() {
	if t.count(func(d *Device) bool { return d.waits() || d.State == DeviceShadowing }) == 0 {
		return
	}
	t.dropOut()
	t.keepFitness()
	m, shadows := t.meter(), t.count(func(d *Device) bool { return d.State == DeviceShadowing }) > 0
	if m.full() || m.crowded() && !shadows {
		return
	}
	ready := func(_ string, d *Device, f *DeviceFacts) bool {
		return (d.waits() || t.shadowEnds(d, f)) && t.unfit(f).what == ""
	}
	for _, id := range t.find(ready) {
		if m.full() || m.crowded() && !shadows {
			break
		}
		a := t.ask(id)
		if !m.passes(a) {
			continue
		}
		m.take(a)
		t.offerTo(id, t.device(id))
	}
	m.keep(&t.Header)
}

// ask is what the next order forward asks of a device. A shadow disturbs
// nobody; who ran one is under way already and has downloaded what it needs.
func (t *turn) ask(id string) ask {
	d, f := t.device(id), t.facts.Devices[id]
	if d.State == DeviceShadowing {
		return ask{facts: f, counted: true, harmless: t.unavailable(id, f)}
	}
	return ask{facts: f, bytes: t.download(id, f), harmless: t.unavailable(id, f) || t.shadowFirst(&d, f)}
}

// download is how many bytes an offer makes a device download. What it runs as
// a shadow it has.
func (t *turn) download(id string, f *DeviceFacts) int64 {
	switch {
	case t.device(id).State == DeviceShadowing:
		return 0
	case f.Bytes > 0:
		return f.Bytes
	}
	return t.Requires.bytes(*f)
}

// dropOut takes out members that wait and can be offered nothing any more.
func (t *turn) dropOut() {
	out := func(_ string, d *Device, f *DeviceFacts) bool {
		if !d.waits() && !t.shadowEnds(d, f) {
			return false
		}
		to, _, _ := t.barred(f)
		return to != ""
	}
	for _, id := range t.find(out) {
		to, code, why := t.barred(t.facts.Devices[id])
		if code == CodeUnselected && t.device(id).Order.Kind.on() {
			t.order(id, Back) // ends its shadow
		}
		t.move(id, to, code, why)
	}
}

// keepFitness bounds how long a member holds its wave up because it does not
// fulfil what is required: as long as one that is silent. It also remembers
// time zones where windows go by them, for Wake.
func (t *turn) keepFitness() {
	if t.Spec.Require == (Require{}) && !t.calendar().zones {
		return
	}
	stale := func(_ string, d *Device, f *DeviceFacts) bool {
		zone, deadline := t.fitness(d, f)
		return d.waits() && (zone != d.Zone || !deadline.Equal(d.Deadline))
	}
	for _, id := range t.find(stale) {
		d := t.device(id)
		d.Zone, d.Deadline = t.fitness(&d, t.facts.Devices[id])
		t.put(id, d)
	}
}

// fitness is the time zone and the deadline that a waiting device should have.
func (t *turn) fitness(d *Device, f *DeviceFacts) (zone string, deadline time.Time) {
	zone, deadline = d.Zone, d.Deadline
	if f == nil {
		return zone, deadline
	}
	if t.calendar().zones {
		zone = f.TimeZone
	}
	what, _ := t.Spec.Require.unmet(f)
	switch {
	case what == "" && t.Header.Status != StatusCompleted:
		deadline = time.Time{}
	case what != "" && d.Deadline.IsZero() && !d.Late:
		deadline = t.now.Add(time.Duration(t.waveSpec(d.Wave).Lateness))
	}
	return zone, deadline
}

// barred says why a member that has not begun has dropped out.
func (t *turn) barred(f *DeviceFacts) (to DeviceState, code, why string) {
	switch {
	case f == nil:
		return DeviceSuperseded, CodeUnselected, "the fleet no longer knows it"
	case f.Revoked:
		return DeviceSuperseded, CodeRevoked, "revoked or cloned: nothing it says is taken"
	case f.Holder != "":
		return DeviceSuperseded, CodeHeld, "rollout " + f.Holder + " has taken it over"
	case !f.Selected:
		return DeviceSuperseded, CodeUnselected, "its labels no longer match the selector"
	}
	if code, why := t.Requires.Refuses(*f); code != "" {
		return DeviceRefused, code, why
	}
	return "", "", ""
}

// unfit says why a device must not begin now, whatever the budget.
func (t *turn) unfit(f *DeviceFacts) hindrance {
	if f == nil {
		return hindrance{what: "a report"}
	}
	if o := t.calendar().in(f.TimeZone); !o.open {
		h := hindrance{what: "a window, the next begins at " + o.until.Format(time.RFC3339)}
		if !o.known {
			h.why = "its time zone is not known, so it goes by UTC"
		}
		return h
	}
	what, why := t.Spec.Require.unmet(f)
	return hindrance{what: what, why: why}
}

// calendar is that of this step.
func (t *turn) calendar() *calendar {
	if t.windows == nil {
		t.windows = t.Spec.calendar(t.now)
	}
	return t.windows
}

// takeBack withdraws offers that devices have not begun to follow and must not
// begin now: the window has ended, the device no longer fulfils what is
// required, or its labels no longer match. That is no failure, and what was
// late stays late: an offer at night must not hold up the day.
func (t *turn) takeBack() {
	switch t.Header.Status {
	case StatusRunning, StatusPaused, StatusAwaiting, StatusCompleted:
	case StatusDraft, StatusQueued, StatusHalted, StatusReverting, StatusReverted, StatusAborted, StatusReplaced:
		return
	}
	if t.count(func(d *Device) bool { return d.State == DeviceOffered }) == 0 {
		return
	}
	unfit := func(id string, d *Device) bool { return d.State == DeviceOffered && t.begunWrongly(id) != "" }
	for _, id := range t.pick(unfit) {
		late, code := t.device(id).Late, t.begunWrongly(id)
		t.withdraw(id, code, withdrawals[code])
		if d := t.device(id); late {
			d.Late = true
			t.put(id, d)
		}
	}
}

var withdrawals = map[string]string{
	CodeWindow:     "offer withdrawn: the window has ended",
	CodeRequires:   "offer withdrawn: the device no longer fulfils what is required",
	CodeUnselected: "offer withdrawn: its labels no longer match the selector",
}

// begunWrongly says why an offered device must not begin now; empty if it may.
func (t *turn) begunWrongly(id string) (code string) {
	f := t.facts.Devices[id]
	if f == nil {
		return ""
	}
	what, _ := t.Spec.Require.unmet(f)
	switch {
	case !f.Selected:
		return CodeUnselected
	case !t.calendar().in(f.TimeZone).open:
		return CodeWindow
	case what != "":
		return CodeRequires
	}
	return ""
}

// hindered says what keeps a waiting member from being asked now.
func (t *turn) hindered(id string) hindrance {
	f := t.facts.Devices[id]
	if h := t.unfit(f); h.what != "" {
		return h
	}
	return t.meter().hinders(t.ask(id))
}

// hindrances tells for what members wait that hold their wave up.
func (t *turn) hindrances() []string {
	out := t.waitsByWhat(func(id string, d *Device) bool { return !d.Late && t.askable(id, d) }, t.hindered)
	if len(out) > 0 {
		out = append(out, t.stuckGroups()...)
	}
	return out
}

// waitsByWhat tells for what devices wait and how many.
func (t *turn) waitsByWhat(who func(id string, d *Device) bool, hindered func(id string) hindrance) []string {
	byWhat := map[string][]string{}
	for id, d := range t.Devices {
		if who(id, d) {
			what := hindered(id).what
			byWhat[what] = append(byWhat[what], id)
		}
	}
	var out []string
	for _, what := range slices.Sorted(maps.Keys(byWhat)) {
		ids, state := byWhat[what], "are waiting"
		if what != "" {
			state = "wait for " + what
		}
		out = append(out, fmt.Sprintf("%d devices %s (%s)", len(ids), state, some(ids)))
	}
	return out
}
