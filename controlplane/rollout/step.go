package rollout

import (
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// New is a rollout that nobody has started. The spec has its defaults, its
// release and is valid.
func New(id, creator string, spec Spec, requires Requirements, now time.Time) *State {
	now = Moment(now)
	s := &State{
		Format: Format, ID: id, Spec: spec, Requires: requires,
		Header: Header{
			Status: StatusDraft, Since: now, Creator: creator, Created: now,
			Deadline: now.Add(time.Duration(spec.DecisionDeadline)),
		},
		Waves:   make([]Wave, len(spec.Waves)),
		Devices: map[string]*Device{}, counted: census{}, summed: &sum{},
	}
	for i := range s.Waves {
		s.Waves[i].State = WavePending
	}
	return s
}

// Moment is a time as states keep it: UTC, whole milliseconds.
func Moment(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// Step takes one step: it takes in what the facts say of the devices, obeys the
// command if there is one, judges the gates, opens and closes waves, and keeps
// the deadlines. It changes neither s nor f. Without a command an empty
// Decision means that there is nothing to commit and the state is s. An error
// is the answer to the command; nothing has happened then.
//
// Orders in the returned state carry no ledger sequence yet: Apply gives them
// theirs when the decision has been committed.
func Step(s *State, f *Facts, now time.Time, cmd *Command) (*State, *Decision, error) {
	t := newTurn(s.clone(), f, now)
	t.observe()
	t.expire()
	t.takeSigns()
	if cmd != nil {
		if err := t.obey(*cmd); err != nil {
			return nil, nil, err
		}
	}
	t.leaveQueue()
	t.judge()
	t.takeBack()
	t.advance()
	t.goBack()
	t.closeWave()
	t.close()
	return t.State, t.decision(s, cmd), nil
}

// clone copies what a step may change, but for the devices: put does, when the
// first of them changes.
func (s *State) clone() *State {
	c := *s
	c.Header.Waived = slices.Clone(s.Header.Waived)
	c.Waves = slices.Clone(s.Waves)
	c.counted = s.census()
	if s.replaced != nil { // a step upon a step that was not committed
		c.summed, _ = s.deviceSum()
		c.replaced = nil
	}
	return &c
}

// turn is a state on its way to the next one.
type turn struct {
	*State
	facts   *Facts
	now     time.Time
	changes []Change
	assign  map[asked]release.Digest
	metered *meter          // what the budget allows, nil for not asked yet
	windows *calendar       // when offers may be made, nil for not asked yet
	called  []pair          // what roll returned last
	changed map[string]bool // devices put since then
}

func newTurn(s *State, f *Facts, now time.Time) *turn {
	return &turn{State: s, facts: f, now: Moment(now), assign: map[asked]release.Digest{}, changed: map[string]bool{}}
}

// wave is the newest wave that was opened, nil before the first.
func (s *State) wave() *Wave {
	if s.Header.Wave == 0 {
		return nil
	}
	return &s.Waves[s.Header.Wave-1]
}

// waveSpec is what the spec says of a wave by number; of devices in none it is
// the first.
func (s *State) waveSpec(number int) WaveSpec { return s.Spec.Waves[max(number, 1)-1] }

func (s *State) last() bool { return s.Header.Wave == len(s.Waves) }

// maxGroup bounds the search for a change that another device can join.
const maxGroup = 64

// note adds a change for people. Devices to which the same happened share one.
func (t *turn) note(c Change) {
	recent := t.changes[max(0, len(t.changes)-maxGroup):]
	for i := range recent {
		r := &recent[i]
		if len(c.Devices) > 0 && r.Subject == c.Subject && r.Wave == c.Wave && r.From == c.From && r.To == c.To && r.Why == c.Why {
			r.Devices = append(r.Devices, c.Devices...)
			return
		}
	}
	t.changes = append(t.changes, c)
}

// setStatus moves the rollout.
func (t *turn) setStatus(to Status, why string) {
	h := &t.Header
	t.note(Change{Subject: SubjectRollout, From: string(h.Status), To: string(to), Why: why})
	if to == StatusRunning && h.Status != StatusDraft && h.Status != StatusQueued {
		h.Overall = t.extended()
		t.extendWave()
	}
	h.Status, h.Since, h.Cause = to, t.now, why
	switch {
	case to.Final():
		h.Deadline = time.Time{}
	case to == StatusRunning:
		h.Deadline = h.Overall
	case to == StatusQueued:
		h.Deadline = later(t.now, t.Spec.StartAt).Add(time.Duration(t.Spec.DecisionDeadline))
	default:
		h.Deadline = t.now.Add(time.Duration(t.Spec.DecisionDeadline))
	}
}

// extended is the overall deadline after a wait for a person: the wait does
// not count, and a rollout that had no time left gets all of it again.
func (t *turn) extended() time.Time {
	left := t.Header.Overall.Sub(t.Header.Since)
	if left <= 0 {
		left = time.Duration(t.Spec.Deadline)
	}
	return t.now.Add(left)
}

// extendWave gives the open wave the time back that a person has taken.
func (t *turn) extendWave() {
	if w := t.wave(); w != nil && !w.Deadline.IsZero() {
		w.Deadline = w.Deadline.Add(t.now.Sub(t.Header.Since))
	}
}

// setWave moves a wave by number.
func (t *turn) setWave(number int, to WaveState, why string) {
	w, was := &t.Waves[number-1], t.Waves[number-1].State
	t.note(Change{Subject: SubjectWave, Wave: number, From: string(was), To: string(to), Why: why})
	w.State, w.Since, w.Cause, w.SoakEnds, w.Closed = to, t.now, why, time.Time{}, time.Time{}
	switch to {
	case WaveSoaking:
		w.SoakEnds = t.now.Add(t.waveSpec(number).soak())
	case WavePassed, WaveFailed:
		w.Closed, w.Deadline = t.now, time.Time{}
	case WaveOpen:
		if d := t.waveSpec(number).Deadline; d > 0 && was != WaveSoaking {
			w.Deadline = t.now.Add(time.Duration(d))
		}
	case WavePending:
	}
}

// move moves a device.
func (t *turn) move(id string, to DeviceState, code, why string) {
	d := t.device(id)
	t.note(Change{Subject: SubjectDevices, Wave: d.Wave, From: string(d.State), To: string(to), Why: why, Devices: []string{id}})
	d.Deadline = t.due(&d, to)
	d.State, d.Since, d.Late, d.Code, d.Message = to, t.now, false, code, ""
	if code != "" {
		d.Message = why
	}
	t.put(id, d)
}

// due is the deadline of a device that enters a state. Zero leaves it to the
// deadline of the rollout.
func (t *turn) due(d *Device, to DeviceState) time.Time {
	spec := t.waveSpec(d.Wave)
	switch to {
	case DeviceShadowing:
		if t.Spec.Shadow != nil {
			return t.now.Add(time.Duration(t.Spec.Shadow.Deadline))
		}
	case DeviceOffered:
		return t.now.Add(time.Duration(spec.Lateness))
	case DeviceDownloading, DeviceVerifying, DeviceTrialing:
		if d.State.working() && !d.Deadline.IsZero() {
			return d.Deadline
		}
		return t.now.Add(time.Duration(t.Spec.DeviceDeadline))
	case DeviceActive:
		if d.State == DeviceActive && !d.Deadline.IsZero() { // one that serves now and then gains no time by it
			return d.Deadline
		}
		return t.now.Add(spec.soak() + time.Duration(spec.Lateness))
	case DeviceWaiting:
		if t.Header.Status == StatusCompleted { // whose status has no deadline of its own
			return t.now.Add(time.Duration(t.Spec.Deadline))
		}
	case DeviceHealthy, DeviceFailed, DeviceReverted, DeviceRefused, DeviceSuperseded:
	}
	return time.Time{}
}

// working says that the device is known to be at it.
func (s DeviceState) working() bool {
	return s == DeviceDownloading || s == DeviceVerifying || s == DeviceTrialing
}

// order tells a device which way to go. The change of desired state it makes is
// part of the decision.
func (t *turn) order(id string, kind OrderKind) {
	d := t.device(id)
	d.Order, d.Home = Order{Kind: kind}, false
	delete(t.assign, asked{id, shadowRole}) // of this turn, and over before it was told
	switch kind {
	case Forward:
		t.assign[asked{device: id}] = t.Spec.Release
	case Beside:
		t.assign[asked{id, shadowRole}] = t.Spec.Release
	case Back:
		if f := t.facts.device(id); f.Back != nil {
			d.Old = *f.Back
		}
		t.assign[asked{device: id}] = d.Old
	}
	t.put(id, d)
}

// DeadlineOf is when a device's state ends at the latest, or zero when it does
// not end by itself: states without a deadline of their own end with the
// rollout's.
func (s *State) DeadlineOf(device string) time.Time {
	if d := s.device(device); !d.Deadline.IsZero() {
		return d.Deadline
	}
	return s.Header.Deadline
}
