package rollout

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrFixed says that a revision changes what the rollout has already acted on.
// The error that wraps it names the field.
var ErrFixed = fmt.Errorf("%w: cannot be changed any more", ErrSpec)

// ErrStale says that a revision was made from a spec that holds no more.
var ErrStale = errors.New("there is a newer revision")

// revise obeys the command of that name. Waves that were opened keep their
// members and their size; everything else goes by the new spec from now on.
func (t *turn) revise(c *Command, why string) error {
	spec := c.Spec
	if spec == nil {
		return fmt.Errorf("revise rollout %s: %w: it is missing", t.ID, ErrSpec)
	}
	if c.Number != nil && *c.Number != t.Header.Revision {
		return fmt.Errorf("revise rollout %s: %w: the new spec was made from revision %d, the newest is %d", t.ID, ErrStale, *c.Number, t.Header.Revision)
	}
	if err := spec.Validate(); err != nil {
		return fmt.Errorf("revise rollout %s: %w", t.ID, err)
	}
	changed, err := Differences(t.Spec, *spec)
	if err != nil {
		return fmt.Errorf("revise rollout %s: %w", t.ID, err)
	}
	if len(changed) == 0 {
		return fmt.Errorf("revise rollout %s: %w: nothing in it differs from the present one", t.ID, ErrSpec)
	}
	for _, d := range changed {
		if fixed := t.fixed(d.Path); fixed != "" {
			return fmt.Errorf("revise rollout %s: %w: %s from %s to %s: %s", t.ID, ErrFixed, d.Path, shown(d.From), shown(d.To), fixed)
		}
	}
	old := t.Spec
	t.Spec = *spec
	t.Header.Revision++
	t.reshape()
	t.noteRevision(changed, why)
	return t.reschedule(&old, why)
}

// fixed says why a field cannot change any more, "" when it can.
func (t *turn) fixed(path string) string {
	switch path {
	case "model", "version", "release":
		return "the rollout is of that release: create one that supersedes it"
	case "supersedes", "start_at":
		if !t.Header.Started.IsZero() {
			return "it has started"
		}
	case "selector", "control":
		if t.Header.Wave > 0 {
			return "devices were chosen by it when the first wave opened: create a rollout that supersedes this one"
		}
	}
	for n := 1; n <= t.Header.Wave; n++ {
		wave := fmt.Sprintf("waves.%d", n)
		if path == wave || path == wave+".count" || path == wave+".percent" {
			return fmt.Sprintf("wave %d was opened with that size", n)
		}
	}
	return ""
}

// reshape makes room for the waves of a new spec beside those that were opened.
func (t *turn) reshape() {
	waves := make([]Wave, len(t.Spec.Waves))
	for i := range waves {
		waves[i].State = WavePending
	}
	copy(waves, t.Waves[:t.Header.Wave])
	t.Waves = waves
}

func (t *turn) noteRevision(changed []Difference, why string) {
	texts := make([]string, len(changed))
	for i, d := range changed {
		texts[i] = fmt.Sprintf("%s %s → %s", d.Path, shown(d.From), shown(d.To))
	}
	t.note(Change{
		Subject: SubjectRollout, From: fmt.Sprintf("revision %d", t.Header.Revision-1), To: fmt.Sprintf("revision %d", t.Header.Revision),
		Why: why + ": " + strings.Join(texts, ", "),
	})
}

// reschedule moves the times that follow from the spec. One that would be over
// already is a mistake: the rollout would stop at once, for a reason that nobody
// meant.
func (t *turn) reschedule(old *Spec, why string) error {
	h, before := &t.Header, t.Header.Deadline
	if !h.Started.IsZero() {
		h.Overall = h.Overall.Add(time.Duration(t.Spec.Deadline - old.Deadline))
	}
	field := "decision_deadline"
	if h.Status == StatusRunning {
		h.Deadline, field = h.Overall, "deadline"
	} else {
		h.Deadline = h.Deadline.Add(time.Duration(t.Spec.DecisionDeadline - old.DecisionDeadline))
	}
	if h.Status == StatusQueued {
		h.Deadline = h.Deadline.Add(later(h.Since, t.Spec.StartAt).Sub(later(h.Since, old.StartAt)))
	}
	if h.Deadline.Before(before) && !t.now.Before(h.Deadline) {
		return fmt.Errorf("revise rollout %s: %w: %s would have passed at %s", t.ID, ErrSpec, field, h.Deadline.Format(time.RFC3339))
	}
	t.rescheduleWave(old)
	if t.Spec.Budget.PerMinute != old.Budget.PerMinute || t.Spec.Revert.PerMinute != old.Revert.PerMinute {
		h.NextOrder = time.Time{}
	}
	if t.Spec.Budget.BytesPerSecond != old.Budget.BytesPerSecond || t.Spec.Revert.BytesPerSecond != old.Revert.BytesPerSecond {
		h.NextBytes = time.Time{}
	}
	if h.Status == StatusAwaiting && !t.needsApproval(h.Wave+1) {
		t.setStatus(StatusRunning, why)
	}
	return nil
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// rescheduleWave moves the times of the wave that is going on.
func (t *turn) rescheduleWave(old *Spec) {
	n, w := t.Header.Wave, t.wave()
	if w == nil || w.State != WaveOpen && w.State != WaveSoaking {
		return
	}
	was, is := old.Waves[n-1], t.waveSpec(n)
	if w.State == WaveSoaking {
		w.SoakEnds = w.Since.Add(is.soak())
	}
	if was.Deadline == is.Deadline {
		return
	}
	w.Deadline = time.Time{}
	if is.Deadline > 0 {
		w.Deadline = w.Opened.Add(time.Duration(is.Deadline))
	}
}
