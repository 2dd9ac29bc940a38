package rollout

import "time"

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
// Its record stays as it was: it is history.
func (t *turn) lost(d *Device, f *DeviceFacts) bool {
	return t.Header.Status == StatusCompleted && (f.Holder != "" || t.moved(*d, *f))
}

func (t *turn) lostAny() bool {
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
