package rollout

import (
	"fmt"
	"strings"
	"time"
)

// LeastWatch is how long a completed rollout is judged at the least: what a
// device counted while it was away for a day is still heard. Otherwise it is
// judged until the deadline that the whole rollout had.
const LeastWatch = 24 * time.Hour

// A completed rollout goes on in two ways, and stays completed.
//
// It admits: devices that match its selector later are offered the release as
// members of the last wave, within budget and windows, and the gates are
// recorded as they stand. A device that a newer rollout of the model has, or
// would take, comes to this one as held by that.
//
// It is watched: until watchEnds a gate that fails stops it as if the last wave
// were still open. Once another rollout has one of its devices it is not
// watched any more, because what it could stop is no longer there.

// GoesOn says that Step may still decide something by itself.
func (s *State) GoesOn() bool { return !s.Header.Status.Final() || s.Header.Status == StatusCompleted }

// watchEnds is when a completed rollout is judged no more.
func (s *State) watchEnds() time.Time {
	return later(s.Header.Overall, s.Header.Since.Add(LeastWatch))
}

// watched says that the gates may still stop the rollout.
func (t *turn) watched() bool {
	switch t.Header.Status {
	case StatusRunning, StatusPaused, StatusAwaiting:
		return true
	case StatusCompleted:
		return t.now.Before(t.watchEnds()) && !t.lostAny()
	case StatusDraft, StatusQueued, StatusHalted, StatusReverting, StatusReverted, StatusAborted, StatusReplaced:
	}
	return false
}

// lost says that a device of a completed rollout has gone on to another one.
// It is superseded then; how it failed before stays, as history.
func (t *turn) lost(d *Device, f *DeviceFacts) bool {
	return t.Header.Status == StatusCompleted && (f.Holder != "" || t.moved(*d, *f))
}

// givenBack says that a device of a completed rollout, which another one had
// taken over, was brought back to the release by that one.
func (t *turn) givenBack(d *Device, f *DeviceFacts) bool {
	return t.Header.Status == StatusCompleted && d.State == DeviceSuperseded && d.Code == CodeHeld && d.Order.Kind == Forward &&
		f.Holder == "" && f.Assigned == t.Spec.Release && f.Active == t.Spec.Release
}

func (t *turn) lostAny() bool {
	if t.count(func(d *Device) bool { return d.Order.Kind != "" && d.State == DeviceSuperseded && d.Code == CodeHeld }) > 0 {
		return true
	}
	for id, d := range t.Devices {
		if f := t.facts.Devices[id]; f != nil && d.ours() && t.lost(d, f) {
			return true
		}
	}
	return false
}

// admit takes devices into a completed rollout.
func (t *turn) admit() {
	t.join()
	t.offer()
}

// Keeps says that a completed rollout still has a device under way, so no other
// may take it: it is to be offered the release, or was and is not through. That
// ends at the deadline of the device.
func (s *State) Keeps(device string) bool {
	d := s.Devices[device]
	return s.Header.Status == StatusCompleted && d != nil && d.unfinished()
}

// KeepsAny says that it keeps some device.
func (s *State) KeepsAny() bool {
	return s.Header.Status == StatusCompleted && s.count((*Device).unfinished) > 0
}

// Rests says that a completed rollout has no device any more that runs or is to
// run the release through it.
func (s *State) Rests() bool {
	return s.count(func(d *Device) bool { return d.ours() && d.Order.Kind.on() && !d.State.out() || d.unfinished() }) == 0
}

// unfinished says that a member of a wave is waiting or under way.
func (d *Device) unfinished() bool {
	return d.Wave > 0 && !d.Late && (d.State == DeviceWaiting || d.State.underWay())
}

// complete ends the rollout. Members that wait hold their place for as long as a
// device that comes later would.
func (t *turn) complete() {
	why := []string{"all waves have passed"}
	for i := range t.Waves {
		if w := &t.Waves[i]; w.Forced {
			why = append(why, fmt.Sprintf("wave %d %s", i+1, w.Cause))
		}
	}
	t.setStatus(StatusCompleted, strings.Join(why, "; "))
	for _, id := range t.pick(func(_ string, d *Device) bool { return d.unfinished() && d.Deadline.IsZero() }) {
		d := t.device(id)
		d.Deadline = t.due(&d, d.State)
		t.put(id, d)
	}
}
