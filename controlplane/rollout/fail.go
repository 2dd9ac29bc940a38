package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// judge looks at the gates and stops the rollout when one fails. It does so
// while the rollout is paused, waits for an approval or is complete, too:
// evidence that comes late is evidence.
func (t *turn) judge() {
	w := t.wave()
	if w == nil || !t.watched() {
		return
	}
	gates := t.gates()
	if t.Header.Status == StatusCompleted {
		unproven(gates)
	}
	if (w.State != WavePassed || t.Header.Status == StatusCompleted) && !sameResults(w.Gates, gates) {
		w.Gates = gates
	}
	if failed := slices.DeleteFunc(slices.Clone(gates), func(g GateResult) bool { return g.Result != GateFail }); len(failed) > 0 {
		w.Gates = gates
		t.fail(failed)
	}
}

func sameResults(a, b []GateResult) bool {
	return slices.EqualFunc(a, b, func(x, y GateResult) bool { return x.Gate == y.Gate && x.Result == y.Result })
}

// fail stops the rollout because gates failed, and takes every device back if
// the spec says so.
func (t *turn) fail(failed []GateResult) {
	causes := make([]string, len(failed))
	for i, g := range failed {
		causes[i] = fmt.Sprintf("gate %s failed: %s", g.Gate, g.Text)
	}
	cause := strings.Join(causes, "; ")
	t.setWave(t.Header.Wave, WaveFailed, cause)
	t.halt(cause)
	if t.Spec.OnFailure == Revert {
		t.startBack(cause)
	}
}

// halt stops offering and takes back what has not gone active.
func (t *turn) halt(cause string) {
	t.setStatus(StatusHalted, cause)
	t.withdrawAll("offer withdrawn: the rollout was halted")
}

// startBack begins to bring every device back.
func (t *turn) startBack(cause string) {
	t.endWave(cause)
	t.Header.Recalled = t.now
	t.Header.NextOrder, t.Header.NextBytes, t.metered = time.Time{}, time.Time{}, nil // going back has a budget of its own
	t.setStatus(StatusReverting, cause)
}

// goBack sends devices back within the budget, and ends when all of them were
// seen off the release. Devices that serve nobody with it need no budget.
func (t *turn) goBack() {
	if t.Header.Status != StatusReverting {
		return
	}
	for _, id := range t.pick(func(_ string, d *Device) bool { return d.ours() && d.Order.Kind.on() }) {
		d, f := t.device(id), t.facts.device(id)
		if f.Holder != "" || t.moved(d, f) {
			t.move(id, DeviceSuperseded, CodeHeld, "another rollout has taken it over")
			continue
		}
		if d.State.arrived() {
			a := ask{facts: &f, harmless: t.unavailable(id, &f)}
			if !t.meter().passes(a) {
				continue
			}
			t.meter().take(a)
		}
		t.recall(id)
	}
	t.meter().keep(&t.Header)
	if t.outstanding() == 0 {
		t.setStatus(StatusReverted, "every device was seen off the release")
	}
}

// recallHindrance says what keeps a device that serves the release from being
// told to go back.
func (t *turn) recallHindrance(id string) hindrance {
	d, f := t.device(id), t.facts.device(id)
	if !d.State.arrived() {
		return hindrance{}
	}
	return t.meter().hinders(ask{facts: &f, harmless: t.unavailable(id, &f)})
}

// recallWaits tells what devices wait for that were not yet told to go back.
func (t *turn) recallWaits() []string {
	return t.waitsByWhat(func(id string, d *Device) bool { return d.ours() && d.Order.Kind.on() }, t.recallHindrance)
}

// ran counts the devices that have run the release through this rollout.
func (s *State) ran() int {
	return s.count(func(d *Device) bool { return !d.Already && (d.State.arrived() || d.State == DeviceReverted) })
}

// ours says that the device was changed by this rollout and still belongs to it.
func (d *Device) ours() bool {
	return d.Order.Kind != "" && !d.Already && d.State != DeviceSuperseded
}

// moved says that a later decision asked for yet another release.
func (t *turn) moved(d Device, f DeviceFacts) bool {
	return d.Order.Kind == Forward && d.Order.Seq > 0 && !f.Assigned.IsZero() && f.Assigned != t.Spec.Release
}

// recall orders one device back to its old release.
func (t *turn) recall(id string) {
	t.order(id, Back)
	d := t.device(id)
	d.Late = false
	d.Deadline = t.now.Add(time.Duration(t.waveSpec(d.Wave).Lateness))
	t.put(id, d)
	t.note(Change{
		Subject: SubjectDevices, Wave: d.Wave, From: string(d.State), To: "recalled",
		Why: "told to go back to its old release", Devices: []string{id},
	})
}

// returning counts devices that serve the release, were told to go back and
// are not late with it.
func (t *turn) returning() int {
	return t.count(func(d *Device) bool {
		return d.ours() && d.Order.Kind == Back && !d.Home && !d.Late && d.State.arrived()
	})
}

// outstanding counts devices that were not yet seen off the release.
func (s *State) outstanding() int {
	return s.count(func(d *Device) bool { return d.ours() && (d.Order.Kind.on() || !d.Home) })
}

// overdue says that the open wave has come to its deadline.
func (t *turn) overdue() bool {
	w := t.wave()
	return w != nil && !w.Deadline.IsZero() && !t.now.Before(w.Deadline)
}

// closeWave keeps the deadline of the open wave.
func (t *turn) closeWave() {
	if t.Header.Status != StatusRunning || !t.overdue() {
		return
	}
	cause := fmt.Sprintf("wave %d did not pass by its deadline", t.Header.Wave)
	if holds := t.runningWaits(); len(holds) > 0 {
		cause += ": " + strings.Join(holds, "; ")
	}
	t.setWave(t.Header.Wave, WaveFailed, cause)
	t.halt(cause)
}

// close keeps the deadline of the rollout's status.
func (t *turn) close() {
	h := &t.Header
	if h.Deadline.IsZero() || t.now.Before(h.Deadline) {
		return
	}
	switch h.Status {
	case StatusRunning:
		t.halt("the rollout did not end by its deadline")
	case StatusAwaiting:
		t.unapproved("nobody approved it in time")
	case StatusReverting:
		t.setStatus(StatusAborted, fmt.Sprintf("going back did not end by its deadline: %d devices were not seen off the release", t.outstanding()))
	case StatusQueued:
		t.abort("it could not begin in time: " + strings.Join(t.queuedWaits(), "; "))
	case StatusDraft, StatusPaused, StatusHalted:
		t.abort(fmt.Sprintf("nobody acted while it was %s", h.Status))
	case StatusReverted, StatusCompleted, StatusAborted, StatusReplaced:
	}
}

// unapproved ends a rollout that has touched nothing, and halts one that has.
func (t *turn) unapproved(cause string) {
	if t.Header.Wave == 0 {
		t.abort(cause)
		return
	}
	t.halt(cause)
}

// endWave closes a wave that is going on.
func (t *turn) endWave(cause string) {
	if w := t.wave(); w != nil && (w.State == WaveOpen || w.State == WaveSoaking) {
		t.setWave(t.Header.Wave, WaveFailed, cause)
	}
}

// abort ends the rollout. Devices keep what they run.
func (t *turn) abort(cause string) {
	t.endWave(cause)
	t.setStatus(StatusAborted, cause)
	t.withdrawAll("offer withdrawn: the rollout was aborted")
}
