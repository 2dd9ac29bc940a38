package rollout

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// start obeys the command of that name: the rollout begins, or it waits for its
// time or, when its spec says so, for the rollouts that have its devices.
func (t *turn) start(why string) error {
	if due, at := t.startDue(); !due {
		t.queue(nil, fmt.Sprintf("%s; it starts at %s", why, at.Format(time.RFC3339)))
		return nil
	}
	err := Startable(t.facts)
	if errors.Is(err, ErrHeld) && t.Spec.OnConflict == Queue {
		held := conflicts(t.facts)
		t.queue(held, why+"; "+waitsBehind(held))
		return nil
	}
	if err != nil {
		return fmt.Errorf("start rollout %s: %w", t.ID, err)
	}
	t.begin(why)
	return nil
}

// begin lets the first wave open.
func (t *turn) begin(why string) {
	t.Header.Started, t.Header.Behind = t.now, nil
	t.Header.Overall = t.now.Add(time.Duration(t.Spec.Deadline))
	t.setStatus(StatusRunning, why)
}

// queue has a started rollout wait.
func (t *turn) queue(held map[string]int, why string) {
	t.Header.Behind = slices.Sorted(maps.Keys(held))
	t.setStatus(StatusQueued, why)
}

// leaveQueue starts a queued rollout when its time has come and nobody else has
// its devices. Facts name as holder of a device whoever comes before: rollouts
// that have begun, and of those that wait and could begin the one that was
// started first.
func (t *turn) leaveQueue() {
	if t.Header.Status != StatusQueued {
		return
	}
	if due, _ := t.startDue(); !due {
		return
	}
	switch held := conflicts(t.facts); {
	case len(held) > 0 && t.Spec.OnConflict == Refuse:
		t.abort("it may not wait, and its devices are held by " + holders(held))
	case len(held) > 0:
		t.waitBehind(held)
	case t.selectsNobody():
	case len(t.Header.Behind) > 0:
		t.begin("the rollouts before it have ended: " + strings.Join(t.Header.Behind, ", "))
	default:
		t.begin("its time has come")
	}
}

// waitBehind records which rollouts are waited for. How many devices they have
// changes all the time and is told when somebody asks.
func (t *turn) waitBehind(held map[string]int) {
	behind := slices.Sorted(maps.Keys(held))
	if slices.Equal(behind, t.Header.Behind) {
		return
	}
	t.Header.Behind, t.Header.Cause = behind, waitsBehind(held)
	t.note(Change{Subject: SubjectRollout, From: string(StatusQueued), To: string(StatusQueued), Why: t.Header.Cause})
}

// conflicts counts the selected devices that other rollouts have, by rollout.
func conflicts(f *Facts) map[string]int {
	held := map[string]int{}
	for _, d := range f.Devices {
		if d.Selected && d.Holder != "" {
			held[d.Holder]++
		}
	}
	return held
}

func (t *turn) selectsNobody() bool {
	for _, d := range t.facts.Devices {
		if d.Selected {
			return false
		}
	}
	return true
}

func waitsBehind(held map[string]int) string { return "it waits for " + holders(held) }

// holders says which rollouts have how many of the devices.
func holders(held map[string]int) string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(held)) {
		out = append(out, fmt.Sprintf("rollout %s (%d devices)", id, held[id]))
	}
	return strings.Join(out, ", ")
}

// queuedWaits says what a queued rollout waits for.
func (t *turn) queuedWaits() []string {
	if due, at := t.startDue(); !due {
		return []string{"it starts at " + at.Format(time.RFC3339)}
	}
	held := conflicts(t.facts)
	if len(held) == 0 {
		return []string{"a device must match its selector"}
	}
	var out []string
	for _, id := range slices.Sorted(maps.Keys(held)) {
		out = append(out, fmt.Sprintf("rollout %s must be through with %d of the devices, or end", id, held[id]))
	}
	return out
}

// Startable says whether a rollout over these devices may start: two rollouts
// never have the same model on the same device, and one without devices is a
// mistake in the selector.
func Startable(f *Facts) error {
	var held []string
	selected, holder := 0, ""
	for id, d := range f.Devices {
		if !d.Selected {
			continue
		}
		selected++
		if d.Holder != "" {
			held, holder = append(held, id+" is in "+d.Holder), max(holder, d.Holder)
		}
	}
	slices.Sort(held)
	advice := "wait with `--on-conflict queue`, take the devices over with `--supersedes " + holder + "`, end that rollout or narrow the selector"
	switch {
	case len(held) > 3:
		return fmt.Errorf("%w: %s and %d more; %s", ErrHeld, strings.Join(held[:3], ", "), len(held)-3, advice)
	case len(held) > 0:
		return fmt.Errorf("%w: %s; %s", ErrHeld, strings.Join(held, ", "), advice)
	case selected == 0:
		return fmt.Errorf("%w: compare it with `vedette device list`", ErrNobody)
	}
	return nil
}

// Replaceable says that another rollout may take the devices over. One that goes
// back has to have told all of its devices first: they must not stay on a
// release that was found to be bad until the waves of the other one come.
func (s *State) Replaceable() bool {
	if s.Header.Status == StatusReverting {
		return s.count(func(d *Device) bool { return d.ours() && d.Order.Kind.on() }) == 0
	}
	return !s.Header.Status.Final()
}

// takenOver obeys the command Replace: rollout by has the devices from now on.
// What was offered and is not active yet is taken back, so a device is on its
// way to one release at a time; the wave of the other rollout takes it as it is
// then.
func (t *turn) takenOver(by, why string) {
	why = "rollout " + by + " takes over: " + why
	t.Header.By, t.Header.Behind = by, nil
	t.endWave(why)
	t.setStatus(StatusReplaced, why)
	t.withdrawAll("offer withdrawn: rollout " + by + " takes over")
}
