package update_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol/release"
)

// world is what the machine's actions change: slots, and a worker that may be
// at any point of its action.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	limits  update.Limits
	now     time.Time
	machine update.Machine

	active, previous release.Digest
	work             *update.Action // in progress
	order            uint64
	decision         uint64
	mayBeEmpty       bool // nothing active is a right state now
	outcomes         map[string]int
}

// The machine is walked at random, through every event in every state, with
// restarts from its journal. What must always hold is checked after each step,
// and in the end it must come to rest by its deadlines alone.
func TestRandomWalk(t *testing.T) {
	outcomes := map[string]int{}
	visited := map[update.State]bool{}
	for seed := range uint64(2000) {
		w := &world{
			t: t, rnd: rand.New(rand.NewPCG(seed, 1)), limits: update.DefaultLimits(),
			now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), machine: update.New("meter"),
			mayBeEmpty: true, outcomes: outcomes,
		}
		if seed%2 == 0 {
			w.active, w.mayBeEmpty = digest("v1"), false
		}
		w.step(update.Started{Active: w.active})
		for range 150 {
			w.anything()
			visited[w.machine.State] = true
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		w.comeToRest()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	// A walk that never gets anywhere proves nothing.
	for _, s := range update.States() {
		if !visited[s] {
			t.Errorf("no walk came through %s", s)
		}
	}
	for _, result := range []string{update.ResultActive, update.ResultFailed, update.ResultReverted, update.ResultRefused, update.ResultSuperseded} {
		if outcomes[result] < 100 {
			t.Errorf("only %d walks ended an update as %s", outcomes[result], result)
		}
	}
}

// anything lets one random thing happen.
func (w *world) anything() {
	switch n := w.rnd.IntN(20); {
	case n < 10:
		w.finish(w.rnd.IntN(5) > 0)
	case n < 12:
		w.desire()
	case n < 15:
		w.pass(time.Duration(w.rnd.Int64N(int64(20 * time.Minute))))
	case n < 17:
		w.restart()
	case n < 18:
		w.step(update.Hung{Release: w.anyRelease()})
	case n < 19:
		w.step(update.Broken{Release: w.anyRelease(), Code: []string{"damaged", "load_failed"}[w.rnd.IntN(2)], Message: "walked"})
	default:
		w.step(w.rumour())
	}
}

func (w *world) anyRelease() release.Digest { return release.Digest{byte(1 + w.rnd.IntN(4))} }

func (w *world) desire() {
	if w.rnd.IntN(3) > 0 {
		w.decision++
	}
	want := update.Want{Release: w.anyRelease(), Decision: w.decision, Generation: w.decision}
	if w.rnd.IntN(8) == 0 {
		want.Release = release.Digest{}
	}
	w.step(update.Desired{Want: want})
}

// rumour is news of an action nobody takes; it must change nothing for the
// worse.
func (w *world) rumour() update.Event {
	r := release.Digest{9}
	return []update.Event{
		update.Resolved{Release: r},
		update.Fetched{Release: r},
		update.Verified{Release: r},
		update.Judged{Release: r, OK: true},
		update.Activated{Release: r, Order: 99},
		update.Reverted{Release: r, Active: r},
		update.Failed{Release: r, Code: "rumour"},
		update.Progress{Release: r},
		update.Tick{},
	}[w.rnd.IntN(9)]
}

// pass lets time go by, with the ticks asked for.
func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); ; {
		at, ok := w.machine.Wake(w.limits)
		if !ok || at.After(end) {
			w.now = end
			return
		}
		w.now = at
		w.step(update.Tick{})
	}
}

// restart loses the worker, which may have done its work on disk.
func (w *world) restart() {
	if w.work != nil && w.rnd.IntN(2) == 0 {
		w.effect(*w.work)
	}
	w.work = nil
	w.machine = journaled(w.t, w.machine.At(w.now))
	if !reflect.DeepEqual(w.machine, journaled(w.t, w.machine)) {
		w.t.Error("the journal changes by being read")
	}
	if w.rnd.IntN(4) == 0 { // the clock jumps while nobody looks
		w.now = w.now.AddDate([]int{-10, 10}[w.rnd.IntN(2)], 0, 0)
	}
	unclean := w.rnd.IntN(2) == 0
	w.step(update.Started{Active: w.active, Previous: w.previous, Unclean: unclean, Suspect: unclean && w.rnd.IntN(4) > 0})
}

// finish ends the action in progress.
func (w *world) finish(good bool) {
	if w.work == nil {
		return
	}
	a := *w.work
	w.work = nil
	if !good {
		codes := []string{"link", "damaged", "digest_mismatch"}
		w.step(update.Failed{Release: a.Release, Code: codes[w.rnd.IntN(3)], Message: "walked", Retryable: w.rnd.IntN(3) > 0})
		return
	}
	w.step(w.effect(a))
}

// effect does an action and returns the news of it.
func (w *world) effect(a update.Action) update.Event {
	switch a.Do {
	case update.Resolve:
		return update.Resolved{Release: a.Release}
	case update.Fetch:
		return update.Fetched{Release: a.Release}
	case update.Verify:
		return update.Verified{Release: a.Release}
	case update.Trial:
		if w.rnd.IntN(4) == 0 {
			return update.Judged{Release: a.Release, Code: "golden_mismatch", Message: "walked"}
		}
		return update.Judged{Release: a.Release, OK: true}
	case update.Activate:
		if w.active != a.Release {
			w.previous, w.active = w.active, a.Release
		}
		w.order++
		w.mayBeEmpty = false
		return update.Activated{Release: a.Release, Order: w.order}
	case update.Remove:
		w.active, w.previous, w.mayBeEmpty = release.Digest{}, release.Digest{}, true
		return update.Activated{}
	case update.Revert:
		if w.active == a.Release {
			w.mayBeEmpty = w.previous.IsZero()
			w.active, w.previous = w.previous, release.Digest{}
		}
		return update.Reverted{Release: a.Release, Active: w.active, Previous: w.previous}
	case update.Stop, update.Discard:
	}
	w.t.Errorf("action %q has no end", a.Do)
	return update.Tick{}
}

func (w *world) step(e update.Event) {
	old := w.machine
	next, actions := old.Step(w.now, e, w.limits, w.rnd.Float64())
	w.machine = next
	for _, a := range actions {
		w.work = nil
		if a.Do != update.Stop && a.Do != update.Discard {
			w.work = &a
		}
		if a.Do == update.Revert { // the disk comes first; what can fail is loading
			w.effect(a)
		}
	}
	if next.Last != nil && next.Last != old.Last {
		w.outcomes[next.Last.Result]++
	}
	w.check(old, e, actions)
}

// check is what must hold after every step.
func (w *world) check(old update.Machine, e update.Event, actions []update.Action) {
	t, m := w.t, w.machine
	t.Helper()
	at, waits := m.Wake(w.limits)
	switch {
	case m.State != update.Idle && (!waits || at.After(w.now.Add(24*time.Hour))):
		t.Errorf("%s has no deadline", m.State)
	case m.State == update.Idle && (waits || m.Target != (update.Want{}) || m.Cause != nil):
		t.Errorf("idle is not at rest: %+v", m)
	}
	if m.Active.IsZero() && !w.mayBeEmpty {
		t.Errorf("nothing is active after %T in %s", e, old.State)
	}
	if !m.Active.IsZero() && m.Active == m.Previous {
		t.Errorf("%s is active and previous", name(m.Active))
	}
	for _, a := range actions {
		if a.Do == update.Resolve && barredBy(old, m.Target) && e != (update.Tick{}) {
			t.Errorf("%s was refused under decision %d and is tried again under it", name(a.Release), m.Target.Decision)
		}
	}
	if len(m.Refused) > update.MaxRefused || len(m.Starts) > 16 {
		t.Errorf("the machine grows: %d refused, %d starts", len(m.Refused), len(m.Starts))
	}
}

func barredBy(m update.Machine, w update.Want) bool {
	return slices.ContainsFunc(m.Refused, func(o update.Outcome) bool { return o.Release == w.Release && o.Decision == w.Decision })
}

// comeToRest answers no action any more: deadlines alone must bring the machine
// to idle.
func (w *world) comeToRest() {
	w.work = nil
	for range 20 {
		if w.machine.State == update.Idle {
			return
		}
		w.work = nil
		w.pass(25 * time.Hour)
	}
	w.t.Errorf("still %s after 20 days of silence", w.machine.State)
}
