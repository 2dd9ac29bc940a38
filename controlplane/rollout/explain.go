package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Explanation says where a rollout stands and what it waits for.
type Explanation struct {
	Summary string   `json:"summary"` // one sentence
	Waiting []string `json:"waiting"` // what must happen before it moves, one sentence each
}

// Explain says why the rollout is where it is.
func Explain(s *State, f *Facts, now time.Time) Explanation {
	t := newTurn(s.clone(), f, now)
	h := s.Header
	e := Explanation{Summary: fmt.Sprintf("%s since %s", h.Status, h.Since.Format(time.RFC3339))}
	if h.Wave > 0 {
		e.Summary += fmt.Sprintf(", wave %d of %d is %s", h.Wave, len(s.Waves), s.wave().State)
	}
	if h.Cause != "" {
		e.Summary += ": " + h.Cause
	}
	if n := s.ran(); n > 0 && (h.Status == StatusHalted || h.Status == StatusReverting || h.Status == StatusReverted) {
		e.Summary += fmt.Sprintf("; %d devices ran the release", n)
	}
	e.Waiting = t.waitsFor()
	if w := s.wave(); w != nil && h.Status == StatusRunning && !w.Deadline.IsZero() && w.Deadline.Before(h.Deadline) {
		e.Waiting = append(e.Waiting, "otherwise the wave halts it at "+w.Deadline.Format(time.RFC3339))
	} else if !h.Deadline.IsZero() {
		e.Waiting = append(e.Waiting, "otherwise it ends by "+h.Deadline.Format(time.RFC3339))
	}
	return e
}

func (t *turn) waitsFor() []string {
	switch t.Header.Status {
	case StatusDraft:
		return []string{"a person must start it"}
	case StatusQueued:
		return t.queuedWaits()
	case StatusAwaiting:
		return t.approvalWaits()
	case StatusPaused:
		return []string{"a person must resume it; devices under way go on"}
	case StatusHalted:
		return []string{"a person must resume, retry, roll back or abort it"}
	case StatusReverting:
		return append([]string{fmt.Sprintf("%d devices are not yet seen off the release", t.outstanding())}, t.recallWaits()...)
	case StatusRunning:
		return t.runningWaits()
	case StatusCompleted:
		return t.hindrances()
	case StatusReverted, StatusAborted, StatusReplaced:
	}
	return nil
}

func (t *turn) runningWaits() []string {
	w := t.wave()
	if w == nil || w.State == WavePassed {
		return []string{fmt.Sprintf("wave %d needs a device that can be taken", t.Header.Wave+1)}
	}
	out := t.underWayByState()
	if len(out) == 0 {
		out = slices.Concat(t.devicesHold(), t.evidenceHold(), t.gatesHold())
	}
	return out
}

func (t *turn) underWayByState() []string {
	byState := map[DeviceState][]string{}
	for id, d := range t.Devices {
		if d.Wave == t.Header.Wave && !d.Late && d.State.underWay() && !t.shadowEnds(d, t.facts.Devices[id]) {
			byState[d.State] = append(byState[d.State], id)
		}
	}
	out := t.hindrances()
	for _, state := range []DeviceState{DeviceShadowing, DeviceOffered, DeviceDownloading, DeviceVerifying, DeviceTrialing} {
		if ids := byState[state]; len(ids) > 0 {
			out = append(out, fmt.Sprintf("%d devices are %s: %s", len(ids), state, some(ids)))
		}
	}
	return out
}

// some names a few devices.
func some(ids []string) string {
	const few = 5
	slices.Sort(ids)
	if len(ids) > few {
		return strings.Join(ids[:few], ", ") + ", …"
	}
	return strings.Join(ids, ", ")
}

// ExplainDevice says why a device is where it is in the rollout, and what it
// waits for.
func ExplainDevice(s *State, f *Facts, device string, now time.Time) string {
	return ExplainDevices(s, f, now)(device)
}

// ExplainDevices is ExplainDevice for many devices of one rollout: what it takes
// to count all of them is done once.
func ExplainDevices(s *State, f *Facts, now time.Time) func(device string) string {
	return newTurn(s.clone(), f, now).explainDevice
}

func (t *turn) explainDevice(device string) string {
	s, f := t.State, t.facts
	d, known := s.Device(device)
	facts, seen := f.device(device), f.Devices[device] != nil
	switch {
	case !known && !seen:
		return "not part of the rollout: its labels do not match the selector"
	case !known && facts.Holder != "":
		return "held by rollout " + facts.Holder + ", which has this model on this device"
	case !known && facts.Revoked:
		return "revoked or cloned: it is offered nothing"
	case !known && !facts.Selected:
		return "its labels no longer match the selector"
	case !known:
		return "selected, but in no wave yet: waves take devices in order of a hash of rollout and device"
	}
	return s.explainKnown(device, d) + t.explainWait(device, d)
}

// explainWait says what keeps a member of a wave from being asked.
func (t *turn) explainWait(device string, d Device) string {
	if t.Header.Status != StatusRunning && t.Header.Status != StatusCompleted || !t.askable(device, &d) {
		return ""
	}
	if h := t.hindered(device); h.what != "" {
		return "; it waits for " + h.String()
	}
	return ""
}

func (s *State) explainKnown(device string, d Device) string {
	text := fmt.Sprintf("%s since %s", d.State, d.Since.Format(time.RFC3339))
	switch {
	case d.Already:
		text += ": it ran the release before, and counts for nothing"
	case d.Control && d.Wave == 0:
		text += ": control group, held out until the last wave"
	case d.Wave > 0:
		text += fmt.Sprintf(", in wave %d", d.Wave)
	}
	if d.Message != "" {
		text += fmt.Sprintf(": %s (%s)", d.Message, d.Code)
	}
	if d.Late {
		text += "; " + d.lateness()
	}
	if due := s.DeadlineOf(device); !due.IsZero() {
		text += "; ends by " + due.Format(time.RFC3339)
	}
	return text
}
