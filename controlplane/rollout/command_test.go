package rollout

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// everyAction is in the order of the table below.
var everyAction = []Action{Start, Approve, Deny, Stop, Resume, Next, Retry, Revise, Abort, Rollback, Replace}

// What every action leads to in every status; "-" is not possible there. The
// two names of one status are rollouts that have touched nothing and such that
// have.
var obedience = map[string]string{
	//                   start    approve  deny     pause   resume   next     retry    revise    abort    rollback   replace
	"draft":            "running  -        -        -       -        -        -        draft     aborted  -          replaced",
	"queued":           "-        -        -        -       -        -        -        queued    aborted  -          replaced",
	"awaiting_first":   "-        running  aborted  paused  -        -        -        awaiting_approval aborted  -          replaced",
	"awaiting_later":   "-        running  halted   paused  -        -        -        awaiting_approval aborted  reverting  replaced",
	"running":          "-        -        -        paused  -        running  running  running   aborted  reverting  replaced",
	"paused":           "-        -        -        -       running  -        paused   paused    aborted  reverting  replaced",
	"halted":           "-        -        -        -       running  -        halted   halted    aborted  reverting  replaced",
	"reverting":        "-        -        -        -       -        -        -        reverting aborted  -          replaced",
	"reverted":         "-        -        -        -       -        -        -        -         -        -          -",
	"completed":        "-        -        -        -       -        -        -        -         aborted  reverting  -",
	"aborted":          "-        -        -        -       -        -        -        -         -        reverting  -",
	"aborted_at_once":  "-        -        -        -       -        -        -        -         -        -          -",
	"replaced":         "-        -        -        -       -        -        -        -         -        reverting  -",
	"replaced_at_once": "-        -        -        -       -        -        -        -         -        -          -",
}

func TestActions(t *testing.T) {
	for in, row := range obedience {
		for i, want := range strings.Fields(row) {
			action := everyAction[i]
			t.Run(in+"/"+string(action), func(t *testing.T) {
				w := worldThat(t, in)
				before := w.state
				d, err := w.step(w.order(action, "because of it"))
				switch {
				case want == "-":
					if !errors.Is(err, ErrNotNow) || slices.Contains(before.Actions(), action) {
						t.Fatalf("got %v with %v possible, want %v", err, before.Actions(), ErrNotNow)
					}
					return
				case err != nil:
					t.Fatal(err)
				case string(w.state.Header.Status) != want:
					t.Errorf("it is %s, want %s", w.state.Header.Status, want)
				}
				if action != Replace && !slices.Contains(before.Actions(), action) {
					t.Errorf("obeyed although only %v are possible", before.Actions())
				}
				if !slices.ContainsFunc(d.Changes, func(c Change) bool {
					return strings.Contains(c.Why, " by alice") && strings.Contains(c.Why, ": because of it")
				}) {
					t.Errorf("nothing says why: %+v", d.Changes)
				}
				w.invariants()
				w.restart()
			})
		}
	}
}

// Whoever acts says who they are and why.
func TestActionsNeedAReason(t *testing.T) {
	for in, row := range obedience {
		for i, want := range strings.Fields(row) {
			w := worldThat(t, in)
			for _, reason := range []string{"", " \t"} {
				if _, err := w.step(w.order(everyAction[i], reason)); !errors.Is(err, ErrReason) {
					t.Errorf("%s of a rollout that is %s for reason %q: got %v, want %v", everyAction[i], in, reason, err, ErrReason)
				}
			}
			nobody := w.order(everyAction[i], "because of it")
			nobody.Actor = ""
			if _, err := w.step(nobody); !errors.Is(err, ErrReason) {
				t.Errorf("%s by nobody of a rollout that is %s (%s): got %v, want %v", everyAction[i], in, want, err, ErrReason)
			}
		}
	}
}

// order is a command with what it needs.
func (w *world) order(a Action, reason string) *Command {
	cmd := &Command{Action: a, Actor: "alice", Reason: reason}
	if a == Revise {
		spec := w.state.Spec
		spec.Budget.InFlight++
		cmd.Spec = &spec
	}
	if a == Replace {
		cmd.By = "digits-v3-1"
	}
	return cmd
}

// worldThat is a world whose rollout has got to a row of the table.
func worldThat(t *testing.T, is string) *world {
	t.Helper()
	w := newWorld(t)
	for _, id := range []string{"cam1", "cam2", "cam3"} {
		w.set(id, func(f *DeviceFacts) {
			f.Selected, f.Profile, f.Assigned = true, "pi", v1
			serve(v1)(f)
		})
	}
	spec := Spec{
		Control: new(0.0),
		Gates:   []GateSpec{{Kind: Errors, Inconclusive: Pass}, {Kind: Install, Off: true}},
		Waves:   []WaveSpec{{Count: 2, Soak: new(release.Duration(0))}, {Percent: 100, Soak: new(release.Duration(0)), Approval: is == "awaiting_later"}},
	}
	spec.Approval = is == "awaiting_first"
	if is == "queued" {
		spec.StartAt = w.now.Add(time.Hour)
	}
	w.create(spec, Requirements{})
	for _, do := range ways[is] {
		do(w)
	}
	return w
}

// act has the world's rollout obey.
func act(a Action) func(w *world) {
	return func(w *world) {
		w.t.Helper()
		if _, err := w.step(w.order(a, "on the way")); err != nil {
			w.t.Fatal(err)
		}
	}
}

// getOn lets the devices that were told do what they were told.
func getOn(w *world) {
	w.t.Helper()
	for range 4 {
		w.now = w.now.Add(time.Second)
		w.obedient(w.ids())
		if _, err := w.step(nil); err != nil {
			w.t.Fatal(err)
		}
	}
}

// oneFails lets one device of the first wave arrive and the other one fail.
func oneFails(w *world) {
	w.t.Helper()
	for i, id := range w.state.pick(func(_ string, d *Device) bool { return d.State == DeviceOffered }) {
		if i == 0 {
			w.obedient([]string{id})
			continue
		}
		w.report(id, func(f *DeviceFacts) {
			f.Outcomes = []Outcome{{Result: "failed", Code: "disk_full", Generation: w.seq}}
		})
	}
	if _, err := w.step(nil); err != nil {
		w.t.Fatal(err)
	}
}

var ways = map[string][]func(w *world){
	"draft":            {},
	"queued":           {act(Start)},
	"awaiting_first":   {act(Start)},
	"awaiting_later":   {act(Start), getOn},
	"running":          {act(Start), oneFails},
	"paused":           {act(Start), oneFails, act(Stop)},
	"halted":           {act(Start), oneFails, wrongAnswers},
	"reverting":        {act(Start), oneFails, act(Rollback)},
	"reverted":         {act(Start), oneFails, act(Rollback), getOn},
	"completed":        {act(Start), getOn},
	"aborted":          {act(Start), oneFails, act(Abort)},
	"aborted_at_once":  {act(Abort)},
	"replaced":         {act(Start), oneFails, act(Replace)},
	"replaced_at_once": {act(Replace)},
}

// wrongAnswers has the device that failed say that golden vectors disagree.
func wrongAnswers(w *world) {
	w.t.Helper()
	for _, id := range w.state.pick(func(_ string, d *Device) bool { return d.State == DeviceFailed }) {
		w.report(id, func(f *DeviceFacts) {
			f.Outcomes = []Outcome{{Result: "refused", Code: CodeGolden, Generation: w.seq}}
		})
	}
	if _, err := w.step(nil); err != nil {
		w.t.Fatal(err)
	}
}
