package runner

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// runs says what a device runs.
func (h *house) runs(device, want string) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if got := h.told[device].running; got != versions[want] {
		h.t.Errorf("%s runs %s, want %s", device, got.Short(), want)
	}
}

func (h *house) completed(s rollout.Spec) string {
	h.t.Helper()
	id := h.create(s)
	h.act(id, rollout.Start)
	h.until(id, is(rollout.StatusCompleted))
	return id
}

// refuses checks that a command is refused and that the answer names all of want.
func (h *house) refuses(id string, action rollout.Action, is error, want ...string) {
	h.t.Helper()
	_, err := h.runner.Act(h.t.Context(), id, rollout.Command{Action: action, Actor: "ada", Reason: "test"})
	if !errors.Is(err, is) {
		h.t.Fatalf("%s of %s: got %v, want %v", action, id, err, is)
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			h.t.Errorf("%s of %s is answered %q, which does not say %q", action, id, err, text)
		}
	}
}

// Who has the devices is rolled back first; what it brings back can be rolled
// back in turn.
func TestRollbacksGoBackInOrder(t *testing.T) {
	h := newHouse(t, "a1", "b1")
	first := h.completed(spec("v2"))
	second := h.completed(spec("v3"))
	h.refuses(first, rollout.Rollback, rollout.ErrNotNow, "rollout "+second+" now")
	h.runs("a1", "v3")
	h.act(second, rollout.Rollback)
	h.until(second, is(rollout.StatusReverted))
	h.runs("a1", "v2")
	h.until(first, healthy("a1"))
	h.until(first, healthy("b1"))
	h.act(first, rollout.Rollback)
	h.until(first, is(rollout.StatusReverted))
	h.runs("a1", "v1")
	h.runs("b1", "v1")
	h.verify(first)
	h.verify(second)
}

// A device does not go back to a release that was taken back meanwhile.
func TestRollbackGoesPastWhatWasRolledBack(t *testing.T) {
	h := newHouse(t, "a1", "b1")
	first := h.completed(spec("v2"))
	narrow := spec("v3")
	narrow.Selector = "site=a"
	second := h.completed(narrow)
	h.act(first, rollout.Rollback)
	h.until(first, is(rollout.StatusReverted))
	h.runs("a1", "v3")
	h.runs("b1", "v1")
	h.act(second, rollout.Rollback)
	v := h.until(second, is(rollout.StatusReverted))
	h.runs("a1", "v1")
	if d, _ := v.State.Device("a1"); d.Old != versions["v1"] {
		t.Errorf("a1 is recorded to go back to %s, want v1", d.Old.Short())
	}
	h.verify(second)
}

// A rollout that a person closed keeps the devices that are under way; who wants
// them waits until they are through.
func TestCompletedRolloutsKeepWhatIsUnderWay(t *testing.T) {
	h := newHouse(t, "a1", "b1")
	h.mu.Lock()
	h.deaf["b1"] = true
	h.mu.Unlock()
	whole := spec("v2")
	whole.Waves = whole.Waves[1:]
	first := h.create(whole)
	h.act(first, rollout.Start)
	h.until(first, healthy("a1"))
	h.act(first, rollout.Next)
	v := h.until(first, is(rollout.StatusCompleted))
	if want := "closed by ada with 1 of 2 devices not healthy"; !strings.Contains(v.State.Header.Cause, want) {
		t.Errorf("completed because %q, want %q", v.State.Header.Cause, want)
	}
	h.refuses(h.create(spec("v3")), rollout.Start, rollout.ErrHeld, "b1 is in "+first, "completed", "--on-conflict queue", "--supersedes "+first)
	second := h.create(queueing("v3", ""))
	h.act(second, rollout.Start)
	if v, err := h.runner.Get(second); err != nil || !slices.Equal(v.State.Header.Behind, []string{first}) {
		t.Fatalf("it is %+v, %v, want it queued behind %s", v.State.Header, err, first)
	}
	h.mu.Lock()
	h.deaf["b1"] = false
	h.told["b1"].running = versions["v2"]
	h.mu.Unlock()
	h.until(second, is(rollout.StatusCompleted))
	h.until(first, func(s *rollout.State) bool { return s.Rests() })
	h.runs("a1", "v3")
	h.runs("b1", "v3")
	h.verify(first)
	h.verify(second)
}

// A child goes before those that wait behind its parent.
func TestSupersedeGoesBeforeTheQueue(t *testing.T) {
	h := newHouse(t, "a1", "b1")
	parent := h.create(gated("v2"))
	h.act(parent, rollout.Start)
	h.until(parent, is(rollout.StatusAwaiting))
	queued := h.create(queueing("v3", ""))
	h.act(queued, rollout.Start)
	s := gated("v2")
	h.refuses(h.create(s), rollout.Start, rollout.ErrHeld, parent)
	s.Supersedes = parent
	child := h.create(s)
	h.act(child, rollout.Start)
	h.until(child, is(rollout.StatusAwaiting))
	h.until(parent, is(rollout.StatusReplaced))
	h.until(queued, func(s *rollout.State) bool {
		return s.Header.Status == rollout.StatusQueued && slices.Equal(s.Header.Behind, []string{child})
	})
	h.act(child, rollout.Approve)
	h.until(queued, is(rollout.StatusCompleted))
	h.verify(child)
	h.verify(queued)
}
