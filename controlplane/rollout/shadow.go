package rollout

import (
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// CodeUnproven marks a device whose shadow has not compared enough rows in time.
const CodeUnproven = "shadow_unproven"

// withDefaults returns the shadow phase with every empty field filled in.
func (s *ShadowSpec) withDefaults() *ShadowSpec {
	if s == nil {
		return nil
	}
	out := *s
	if out.Rows == 0 {
		out.Rows = DefaultShadowRows
	}
	setDuration(&out.Deadline, DefaultShadowDeadline)
	return &out
}

func (s *Spec) checkShadow() error {
	switch {
	case s.Shadow == nil:
		return nil
	case s.Shadow.Share < 0 || s.Shadow.Share > protocol.MaxShare:
		return refused("shadow: share is %d, must be 0 for all calls or 1 to %d parts per thousand of them", s.Shadow.Share, protocol.MaxShare)
	case s.Shadow.Rows == 0 || s.Shadow.Deadline <= 0:
		return refused("shadow: rows and deadline must be above zero")
	}
	return nil
}

// underWay says that the device is between an order of the rollout and serving
// the release.
func (s DeviceState) underWay() bool {
	return s == DeviceShadowing || s == DeviceOffered || s.working()
}

// on says that the device is to run the release, in front or beside.
func (k OrderKind) on() bool { return k == Forward || k == Beside }

// shadowFirst says that the release is to run as a shadow on a device before it
// may answer there. A device that has shown enough once is not asked again, and
// beside nothing there is nothing to show.
func (t *turn) shadowFirst(d *Device, f *DeviceFacts) bool {
	return t.Spec.Shadow != nil && d.State != DeviceShadowing && !t.shown(f) &&
		!f.Active.IsZero() && f.Active != t.Spec.Release
}

// shown says that the shadow on a device has compared what the spec asks for.
func (t *turn) shown(f *DeviceFacts) bool {
	return f.Shadow != nil && f.Shadow.Rows >= t.Spec.Shadow.Rows
}

// shadowEnds says that the shadow phase of a device is over, with or without
// proof.
func (t *turn) shadowEnds(d *Device, f *DeviceFacts) bool {
	if d.State != DeviceShadowing || d.Order.Kind != Beside {
		return false
	}
	return t.Spec.Shadow == nil || d.Code == CodeUnproven || f != nil && (t.shown(f) || f.Active == t.Spec.Release)
}

// beside has a device run the release beside the one it has. A device that
// nobody has assigned anything to keeps what it runs by this decision.
func (t *turn) beside(id string, d Device) {
	t.put(id, d)
	t.move(id, DeviceShadowing, "", "runs the release beside the old one, which answers")
	t.order(id, Beside)
	if f := t.facts.device(id); f.Assigned.IsZero() {
		t.assign[asked{device: id}] = d.Old
	}
}

// shadowWhy is why a device is offered the release after its shadow phase.
func (t *turn) shadowWhy(d *Device, f *DeviceFacts) string {
	switch {
	case d.Code == CodeUnproven:
		return "offered the release unproven: " + d.Message
	case t.Spec.Shadow == nil || f.Shadow == nil:
		return "offered the release"
	}
	return fmt.Sprintf("offered the release: its shadow agreed on %d of %d rows", f.Shadow.Agreed, f.Shadow.Rows)
}

// endShadow ends the wait for a shadow. One that has shown enough waits for
// something else by now: for a window, or for a person.
func (t *turn) endShadow(id string, d Device) {
	f := t.facts.device(id)
	d.Deadline = time.Time{}
	if t.Spec.Shadow == nil || t.shown(&f) {
		t.put(id, d)
		return
	}
	var rows uint64
	if f.Shadow != nil {
		rows = f.Shadow.Rows
	}
	d.Code, d.Message = CodeUnproven, fmt.Sprintf("its shadow has compared %d of %d rows in time", rows, t.Spec.Shadow.Rows)
	t.put(id, d)
	t.note(Change{
		Subject: SubjectDevices, Wave: d.Wave, From: string(d.State), To: "unproven", Why: d.Message, Devices: []string{id},
	})
}

// observeBeside watches a device that was told to run the release as a shadow.
// What it says of it there counts as if the device had been offered it.
func (t *turn) observeBeside(id string, d Device, f DeviceFacts) {
	o, ended := f.ended(d.Order.Seq)
	switch {
	case f.Revoked:
		t.move(id, DeviceSuperseded, CodeRevoked, "revoked or cloned: nothing it says is taken")
	case f.Holder != "":
		t.move(id, DeviceSuperseded, CodeHeld, "rollout "+f.Holder+" has taken it over")
	case ended && d.State == DeviceShadowing:
		t.move(id, o.state(), o.Code, o.Message)
	}
}

// besideStirs says that observeBeside has something to say.
func besideStirs(d *Device, f *DeviceFacts) bool {
	_, ended := f.ended(d.Order.Seq)
	return f.Revoked || f.Holder != "" || ended && d.State == DeviceShadowing
}

// newShadows is the evidence of single rows for the gate of the shadow phase,
// without any yet. Both releases computed the same rows, so there is no past to
// compare with and no world to excuse anything: on how many rows two versions
// disagree is about them, and one canary that sees it on most is enough.
func (j *judge) newShadows(g GateSpec) *rows {
	return &rows{limit: g.limit(), weight: j.s.waveWeight(), quiet: map[int]int{}}
}

func (r *rows) addShadow(wave int, a *Agreement) {
	if a == nil {
		return
	}
	n := disagreed(a)
	r.add(wave, nil, &Evidence{Rows: n.all - min(n.bad, n.all), FailedRows: n.bad})
}

// agreement adds the evidence of rows to that of signs. The mean of two e-values
// is one.
func (j *judge) agreement(c *comparison, r *GateResult) {
	r.Numerator, r.Denominator = float64(c.counts.bad), float64(c.counts.all)
	r.EHarm, r.EFine = (r.EHarm+j.shadows.harm(j.alpha))/2, (r.EFine+j.shadows.fine(j.beta))/2
}

// asked is a device and a role of the model on it.
type asked struct{ device, role string }

// shadowRole is what a shadow is called in desired state.
const shadowRole = protocol.RoleShadow
