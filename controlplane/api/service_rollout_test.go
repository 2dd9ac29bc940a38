package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// view is a rollout with one open wave and a pending one.
func view(id string, status rollout.Status) runner.View {
	soak := release.Duration(time.Minute)
	return runner.View{
		State: &rollout.State{
			ID: id, Spec: rollout.Spec{Model: "digits", Version: "2", Release: second, Waves: []rollout.WaveSpec{{Name: "canary", Count: 1, Soak: &soak}, {Percent: 100}}},
			Header: rollout.Header{Status: status, Created: now, Wave: 1, Cause: "because", Creator: "ann"},
			Waves:  []rollout.Wave{{State: rollout.WaveOpen, Planned: 1, Gates: []rollout.GateResult{{Gate: rollout.Install, Result: rollout.GatePass}}}, {State: rollout.WavePending}},
			Devices: map[string]*rollout.Device{
				"cam-b1": {State: rollout.DeviceHealthy, Wave: 1, Site: "b"}, "cam-b2": {State: rollout.DeviceRefused, Wave: 1, Code: "golden_mismatch"},
				"cam-a1": {State: rollout.DeviceWaiting, Control: true},
			},
		},
		Facts: &rollout.Facts{Devices: map[string]*rollout.DeviceFacts{
			"cam-a1": {Selected: true}, "cam-b1": {Selected: true}, "cam-c1": {Selected: true}, "cam-c2": {},
		}},
		Revision: 12, Actions: []rollout.Action{rollout.Stop}, Gates: []rollout.GateResult{{Gate: rollout.Errors, Text: "0 of 5"}},
		Timeline: []runner.Entry{
			{Seq: 10, Kind: runner.KindCreated, Actor: "ann"},
			{Seq: 11, Kind: runner.KindStep, Actor: runner.Actor, Changes: []rollout.Change{
				{Subject: rollout.SubjectWave, Wave: 1, To: "open", Why: "first"}, {Subject: rollout.SubjectDevices, To: "offered", Why: "wave 1", Devices: []string{"cam-b1"}},
			}},
		},
	}
}

// How many devices a rollout was for does not become less because it ended
// before all of them were in a wave.
func TestAbortedRolloutKeepsItsDevices(t *testing.T) {
	w := newWorld()
	w.rollouts = []runner.View{view("digits-1-1", rollout.StatusRunning), view("digits-2-1", rollout.StatusAborted)}
	for _, r := range w.rollouts {
		got, err := w.service().Rollout(t.Context(), r.State.ID)
		if err != nil || got.Devices != 4 || got.WaitingTotal != 2 {
			t.Errorf("%s is for %d devices, of which %d wait, %v, want 4 and 2", r.State.ID, got.Devices, got.WaitingTotal, err)
		}
	}
}

func TestRollouts(t *testing.T) {
	w := newWorld()
	older := view("digits-1-1", rollout.StatusCompleted)
	older.State.Header.Created = now.Add(-time.Hour)
	w.rollouts = []runner.View{older, view("digits-2-1", rollout.StatusRunning)}
	s := w.service()
	page, err := s.Rollouts(t.Context(), operator.RolloutQuery{})
	if err != nil || page.Total != 2 || page.Items[0].ID != "digits-2-1" || page.Items[0].Counts["healthy"] != 1 || page.Items[1].Ended != older.State.Header.Since {
		t.Errorf("got %+v, %v", page, err)
	}
	if page, err := s.Rollouts(t.Context(), operator.RolloutQuery{Active: true}); err != nil || page.Total != 1 {
		t.Errorf("active: got %+v, %v", page, err)
	}
	for i, want := range []int{4, 3} { // cam-c1 is selected by the running one, and in no wave yet
		if got := page.Items; len(got) > i && got[i].Devices != want {
			t.Errorf("%s: got %d devices, want %d", got[i].ID, got[i].Devices, want)
		}
	}
	r, err := s.Rollout(t.Context(), "digits-2-1")
	if err != nil || len(r.WaveList) != 2 || !slices.Equal(r.Control, []string{"cam-a1"}) || !slices.Equal(r.Waiting, []string{"cam-a1", "cam-c1"}) || !slices.Equal(r.Actions, []string{"pause"}) {
		t.Fatalf("got %+v, %v", r, err)
	}
	wave := r.WaveList[0]
	if wave.Name != "canary" || wave.Number != 1 || len(wave.Devices) != 2 || wave.Devices[0].Code != "golden_mismatch" || wave.Devices[0].Presence != operator.Offline || len(wave.Gates) != 1 {
		t.Errorf("got %+v", wave)
	}
	if r.Timeline[0].Seq != 11 || r.Timeline[0].Text != "wave 1 open: first; cam-b1 offered: wave 1" || r.Timeline[1].Text != "created" {
		t.Errorf("got %+v", r.Timeline)
	}
	e, err := s.ExplainRollout(t.Context(), "digits-2-1")
	if err != nil || !strings.HasPrefix(e.Summary, "running") || e.Waiting == nil || e.Total != 2 || e.Decisions[0].Seq != 10 || len(e.Gates) != 1 {
		t.Errorf("got %+v, %v", e, err)
	}
	p, err := s.PlanRollout(t.Context(), operator.RolloutSpec{Model: "digits"})
	if err != nil || p.Spec.Model != "digits" || p.Waves[0].Devices[0] != "cam-a1" || p.Waves[0].Detectable[0].Kind != "errors" {
		t.Errorf("got %+v, %v", p, err)
	}
}

// A rollout that was to start at once and may not leaves no draft; after a fault
// the error names the draft and what to do with it.
func TestCreateThatCannotStart(t *testing.T) {
	held := fmt.Errorf("start: %w", rollout.ErrHeld)
	for name, c := range map[string]struct {
		refusals map[rollout.Action]error
		code     operator.Code
		does     string // the last thing done
		hint     string
	}{
		"held":                {map[rollout.Action]error{rollout.Start: held}, operator.Held, "abort digits-2-1 by ann", "aborted"},
		"held, not aborted":   {map[rollout.Action]error{rollout.Start: held, rollout.Abort: errors.New("away")}, operator.Held, "create digits by ann: why", "vedette rollout abort digits-2-1"},
		"fault of the server": {map[rollout.Action]error{rollout.Start: errors.New("away")}, operator.Internal, "create digits by ann: why", "vedette rollout start digits-2-1"},
	} {
		w := newWorld()
		w.rollouts, w.refusals = []runner.View{view("digits-2-1", rollout.StatusDraft)}, c.refusals
		_, err := w.service().CreateRollout(as(t, operator.Operator), operator.RolloutCreate{Spec: operator.RolloutSpec{Model: "digits"}, Reason: "why", Start: true})
		e, ok := errors.AsType[*operator.Error](err)
		if !ok || e.Code != c.code || !strings.Contains(e.Hint, c.hint) || strings.Contains(e.Message, "away") {
			t.Errorf("%s: got %+v, want %s and %q", name, err, c.code, c.hint)
		}
		if got := w.done[len(w.done)-1]; got != c.does {
			t.Errorf("%s: did %q last, want %q", name, got, c.does)
		}
	}
}

func TestUnknownRolloutIsExplainedOnce(t *testing.T) {
	_, err := newWorld().service().Rollout(t.Context(), "none")
	e, ok := errors.AsType[*operator.Error](err)
	if !ok || e.Code != operator.NotFound || strings.Count(e.Message+e.Hint, "vedette rollout list") != 1 {
		t.Errorf("got %+v, want not_found with one word on how to list rollouts", err)
	}
}
