package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What a command may be answered.
var (
	// ErrNotNow says that the action does not fit the state the rollout is in.
	ErrNotNow = errors.New("not possible now")
	// ErrReason says that the command gives no reason or names no actor.
	ErrReason = errors.New("a reason is needed: it goes into the ledger")
	// ErrHeld says that another rollout of the same model has some of the devices.
	ErrHeld = errors.New("another rollout of the model has devices of this one")
	// ErrNobody says that the selector matches no device that could be offered anything.
	ErrNobody = errors.New("no device matches the selector")
)

// Actions are the actions of people that are possible now, in a fixed order.
func (s *State) Actions() []Action {
	var out []Action
	for _, a := range []Action{Start, Approve, Deny, Stop, Resume, Next, Retry, Revise, Abort, Rollback} {
		if s.allows(a) {
			out = append(out, a)
		}
	}
	return out
}

func (s *State) allows(a Action) bool {
	status := s.Header.Status
	switch a {
	case Start:
		return status == StatusDraft
	case Approve, Deny:
		return status == StatusAwaiting
	case Stop:
		return status == StatusRunning || status == StatusAwaiting
	case Resume:
		return status == StatusPaused || status == StatusHalted
	case Next:
		w := s.wave()
		return status == StatusRunning && w != nil && (w.State == WaveOpen || w.State == WaveSoaking)
	case Retry:
		return (status == StatusRunning || status == StatusPaused || status == StatusHalted) && len(s.retriable()) > 0
	case Abort: // of a completed one: it admits nobody any more
		return s.GoesOn()
	case Revise:
		return !status.Final()
	case Replace:
		return s.Replaceable()
	case Rollback:
		return s.Header.Wave > 0 && status != StatusReverting && status != StatusReverted && s.outstanding() > 0
	}
	return false
}

// retriable are the devices of opened waves that tried and are out.
func (s *State) retriable() []string {
	return s.pick(func(_ string, d *Device) bool {
		return d.Wave > 0 && d.Tries > 0 && (d.State == DeviceFailed || d.State == DeviceReverted || d.State == DeviceRefused)
	})
}

// obey carries out a command or says why not.
func (t *turn) obey(c Command) error {
	if strings.TrimSpace(c.Reason) == "" || c.Actor == "" {
		return fmt.Errorf("%s rollout %s: %w", c.Action, t.ID, ErrReason)
	}
	if in := t.takenBy(); c.Action == Rollback && in != "" {
		return fmt.Errorf("rollback rollout %s: %w: its devices are in %s now: roll that back", t.ID, ErrNotNow, in)
	}
	if !t.allows(c.Action) {
		return fmt.Errorf("%s rollout %s: %w: it is %s, possible are %v", c.Action, t.ID, ErrNotNow, t.Header.Status, t.Actions())
	}
	why := fmt.Sprintf("%s by %s: %s", c.Action, c.Actor, c.Reason)
	switch c.Action {
	case Start:
		return t.start(why)
	case Approve:
		t.Header.Approved = t.Header.Wave + 1
		t.setStatus(StatusRunning, why)
	case Deny:
		t.unapproved(why)
	case Stop:
		t.setStatus(StatusPaused, why)
	case Resume:
		t.resume(why)
	case Next:
		return t.next(&c)
	case Retry:
		t.retry(why)
	case Abort:
		t.abort(why)
	case Rollback:
		t.startBack(why)
	case Revise:
		return t.revise(&c, why)
	case Replace:
		t.takenOver(c.By, why)
	}
	return nil
}

// resume goes on. After a halt, whatever fails now is waived: the person has
// seen it. It fails again when it gets worse.
func (t *turn) resume(why string) {
	if w := t.wave(); w != nil && t.Header.Status == StatusHalted {
		t.waive()
		if w.State == WaveFailed {
			t.setWave(t.Header.Wave, WaveOpen, why)
		}
	}
	t.setStatus(StatusRunning, why)
}

func (t *turn) waive() {
	for _, g := range t.gates() {
		if g.Result != GateFail {
			continue
		}
		t.Header.Waived = slices.DeleteFunc(t.Header.Waived, func(w Waiver) bool { return w.Gate == g.Gate })
		t.Header.Waived = append(t.Header.Waived, Waiver{Gate: g.Gate, Wave: t.Header.Wave, Failed: g.Numerator})
	}
}

// next closes the newest wave as it stands and lets the one after it open. It
// does not overrule a gate that fails: resume does, after the halt.
func (t *turn) next(c *Command) error {
	for _, g := range t.gates() {
		if g.Result == GateFail {
			return fmt.Errorf("next wave of rollout %s: %w: gate %s fails: %s", t.ID, ErrNotNow, g.Gate, g.Text)
		}
	}
	t.Header.Approved = max(t.Header.Approved, t.Header.Wave+1)
	why := "closed by " + c.Actor
	if healthy, _, base := t.quorum(t.Header.Wave); healthy < base {
		why += fmt.Sprintf(" with %d of %d devices not healthy", base-healthy, base)
		if n := t.unfinished(t.Header.Wave); n > 0 {
			why += fmt.Sprintf(", %d of them go on and are watched", n)
		}
	}
	t.pass(t.Header.Wave, why+": "+c.Reason, true)
	return nil
}

// retry lets devices that tried and are out be offered the release again. The
// new offer is a new decision, so devices that refused it try it once more;
// until then they are to run the old one.
func (t *turn) retry(why string) {
	for _, id := range t.retriable() {
		t.withdraw(id, "", why)
	}
}
