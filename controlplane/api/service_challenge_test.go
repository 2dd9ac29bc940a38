package api

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

func latency(d time.Duration) *sketch.Latency {
	l := sketch.NewLatency()
	l.Add(d)
	return l
}

// What cannot be run beside another version is refused with the reason, before
// anything is in the ledger.
func TestChallengesRefused(t *testing.T) {
	schema := func(input, output string) *release.Manifest {
		return &release.Manifest{Schema: release.Schema{
			Inputs: []release.Tensor{{Name: input, Datatype: "FP32"}}, Outputs: []release.Tensor{{Name: output, Datatype: "FP32"}},
		}}
	}
	for name, c := range map[string]struct {
		change func(*world, *operator.ChallengeCreate)
		code   operator.Code
		says   string
	}{
		"unknown version": {func(_ *world, n *operator.ChallengeCreate) { n.Version = "9" }, operator.NotFound, ""},
		"withdrawn":       {func(w *world, _ *operator.ChallengeCreate) { w.versions[1].Withdrawn = true }, operator.Conflict, "signed"},
		"below the floor": {func(w *world, _ *operator.ChallengeCreate) { w.versions[1].BelowFloor = true }, operator.Conflict, "floor"},
		"no such device":  {func(_ *world, n *operator.ChallengeCreate) { n.Device = "cam-9" }, operator.NotFound, "cam-9"},
		"bad selector":    {func(_ *world, n *operator.ChallengeCreate) { n.Selector = "site in" }, operator.Invalid, "selector"},
		"nobody runs it":  {func(_ *world, n *operator.ChallengeCreate) { n.Selector = "site=a" }, operator.Conflict, "no device that matches"},
		"all run it":      {func(_ *world, n *operator.ChallengeCreate) { n.Version = "2" }, operator.Conflict, "already"},
		"other inputs": {func(w *world, _ *operator.ChallengeCreate) {
			w.versions[0].Manifest, w.versions[1].Manifest = schema("X", "y"), schema("Z", "y")
		}, operator.Conflict, "same rows"},
		"other outputs": {func(w *world, n *operator.ChallengeCreate) {
			n.Role, n.Share = operator.Share, 100
			w.versions[0].Manifest, w.versions[1].Manifest = schema("X", "y"), schema("X", "z")
		}, operator.Conflict, "two kinds"},
	} {
		w := newWorld()
		n := operator.ChallengeCreate{Version: "1", Role: operator.Shadow, Reason: "is it better"}
		c.change(w, &n)
		_, err := w.service().SetChallenge(as(t, operator.Operator), "digits", n)
		if operator.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || len(w.done) != 0 {
			t.Errorf("%s: got %v (%s), did %q, want %s with %q", name, err, operator.CodeOf(err), w.done, c.code, c.says)
		}
	}
}

// A version that has not passed its gates may run beside another, and answer nobody.
func TestChallengerThatAnswersPassedTheGates(t *testing.T) {
	w := newWorld()
	w.versions[0].Stage, w.versions[1].Stage = operator.StageProduction, operator.StageNone
	s := w.service()
	if _, err := s.SetGatePolicy(as(t, operator.Publisher), "digits", operator.GatePolicyChange{
		Reason: "from now on", Text: "gates: [{kind: smoke}]",
	}); err != nil {
		t.Fatal(err)
	}
	n := operator.ChallengeCreate{Version: "1", Role: operator.Share, Share: 100, Reason: "is it better"}
	if _, err := s.SetChallenge(as(t, operator.Operator), "digits", n); code(err) != operator.NotCleared || len(w.done) != 0 {
		t.Errorf("it answers calls: got %v, did %q", err, w.done)
	}
	n.Role = operator.Shadow
	if _, err := s.SetChallenge(as(t, operator.Operator), "digits", n); err != nil {
		t.Errorf("a shadow answers nobody: %v", err)
	}
}

// A challenge shows who is to run it, who does, and the sum of what they showed
// beside what the primary versions did.
func TestChallengeIsShown(t *testing.T) {
	w := newWorld()
	s := w.service()
	ctx := as(t, operator.Operator)
	if _, err := s.Challenge(ctx, "digits"); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("before there is one: %v", err)
	}
	c := desired.Challenge{ChallengeChange: desired.ChallengeChange{Model: "digits", Version: "2", Release: second, Role: operator.Shadow, Reason: "why"}, Seq: 4, Since: now, Actor: "ann"}
	w.challenges["digits"] = c
	for _, id := range []string{"cam-a1", "cam-b2"} {
		w.desired[id] = desired.State{
			Assignments: []desired.Assignment{{Model: "digits", Release: first}},
			Challengers: []desired.Challenger{{Model: "digits", Release: second, Role: operator.Shadow, Seq: 4}},
		}
	}
	d := w.fleet["cam-a1"]
	d.Models[0].Challenger = &fleet.Challenger{Model: fleet.Model{Name: "digits", Active: second, State: "idle", Serving: true}, Role: operator.Shadow}
	w.beside = []drift.Beside{
		{
			Device: "cam-a1", Role: operator.Shadow, Primary: first, Labels: 10, Correct: 9,
			BesideCounts: drift.BesideCounts{Rows: 90, Compared: 90, Agreed: 81, Skipped: 3, Worst: 0.5},
			Latency:      latency(2 * time.Millisecond), PrimaryLatency: latency(time.Millisecond),
		},
		{
			Device: "cam-b1", Role: operator.Shadow, Primary: first,
			BesideCounts: drift.BesideCounts{Rows: 10, Compared: 10, Agreed: 9, Worst: 0.7},
			Latency:      latency(2 * time.Millisecond), PrimaryLatency: latency(time.Millisecond),
		},
		{Device: "cam-b1", Role: operator.Share, BesideCounts: drift.BesideCounts{Rows: 1000}, Latency: latency(time.Second), PrimaryLatency: sketch.NewLatency()},
	}
	w.evidence = map[string]drift.Evidence{"cam-a1": {Rows: 90, Labels: 10, Correct: 8}, "cam-b2": {Labels: 1000}}
	got, err := s.Challenge(ctx, "digits")
	if err != nil {
		t.Fatal(err)
	}
	if got.Devices != 2 || got.Running != 1 || len(got.List) != 3 {
		t.Errorf("%d devices, %d running, %d listed, want 2, 1 and, for what it has shown, 3", got.Devices, got.Running, len(got.List))
	}
	e := got.Evidence
	if e.Rows != 100 || e.Compared != 100 || e.Agreed != 90 || e.Skipped != 3 || e.Worst != 0.7 || e.Labels != 10 || e.PrimaryLabels != 10 {
		t.Errorf("evidence %+v", e)
	}
	if p := e.Agreement; p == nil || p.Share != 0.9 || math.Abs(p.Lower-0.8256) > 1e-3 || math.Abs(p.Upper-0.9448) > 1e-3 {
		t.Errorf("agreement %+v, want 0.9 in Wilson's 0.826 to 0.945", p)
	}
	if e.P50US < 1900 || e.P50US > 2100 || e.PrimaryP95US < 950 || e.PrimaryP95US > 1050 {
		t.Errorf("latency %d µs beside %d µs", e.P50US, e.PrimaryP95US)
	}
	if got.List[0].Device != "cam-a1" || !got.List[0].Running || got.List[0].Primary.Release != first {
		t.Errorf("first device %+v", got.List[0])
	}
	ended, err := s.EndChallenge(ctx, "digits", operator.Reasoned{Reason: "seen enough"})
	if err != nil || ended.Ended == nil || ended.Ended.Reason != "seen enough" {
		t.Errorf("ended %+v: %v", ended, err)
	}
	if list, err := s.Challenges(ctx); err != nil || len(list) != 0 {
		t.Errorf("still going on: %v %v", list, err)
	}
	if _, err := s.EndChallenge(ctx, "digits", operator.Reasoned{Reason: "again"}); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("ended twice: %v", err)
	}
}

// A device that gave the challenger up is listed with the reason: one that still
// is to run it, and one that failed with it as the primary release before.
func TestChallengeNamesThoseThatGaveItUp(t *testing.T) {
	w := newWorld()
	s := w.service()
	ctx := as(t, operator.Operator)
	c := desired.Challenge{ChallengeChange: desired.ChallengeChange{Model: "digits", Version: "2", Release: second, Role: operator.Shadow}, Seq: 4, Since: now}
	crashed := fleet.Outcome{Release: second, Result: "reverted", Code: "crash_loop", Message: "the agent crashed 3 times"}
	w.desired["cam-a1"] = desired.State{
		Assignments: []desired.Assignment{{Model: "digits", Release: first}},
		Challengers: []desired.Challenger{{Model: "digits", Release: second, Role: operator.Shadow, Seq: 4}},
	}
	w.fleet["cam-a1"].Models[0].Challenger = &fleet.Challenger{Model: fleet.Model{Name: "digits", State: "idle", Refused: []fleet.Outcome{crashed}}}
	for match, want := range map[string][]string{
		"":       {"cam-a1 crash_loop", "cam-b2 golden_mismatch"},
		"site=a": {"cam-a1 crash_loop"}, // cam-b2 has no part in it
	} {
		c.Match = match
		w.challenges["digits"] = c
		d, err := s.Challenge(ctx, "digits")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range d.List {
			if x.Running || x.Outcome == nil || x.Outcome.Message == "" {
				t.Errorf("%+v: want it not to run, with the reason", x)
				continue
			}
			got = append(got, x.Device+" "+x.Outcome.Code)
		}
		if !slices.Equal(got, want) || d.Devices != 1 || d.Running != 0 {
			t.Errorf("%q: %d of %d run it, listed %q, want 0 of 1 and %q", match, d.Running, d.Devices, got, want)
		}
	}
}
