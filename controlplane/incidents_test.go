package controlplane

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/release"
)

// withBoard is a server that is nothing but a board.
func withBoard(t *testing.T, store kvstore.Bucket) *Server {
	t.Helper()
	s, err := New(Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if s.incidents, err = incident.New(t.Context(), store, incident.Config{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// live lists what stands on the board.
func live(s *Server) []string {
	out := []string{}
	for _, i := range s.incidents.Incidents() {
		if i.Live() {
			out = append(out, i.Cause.Key)
		}
	}
	slices.Sort(out)
	return out
}

func TestAlarmsAreIncidents(t *testing.T) {
	store := kvstore.NewMemory()
	s := withBoard(t, store)
	at := time.Now().UnixMilli()
	drifts := drift.Alarm{ID: "1", Kind: drift.DriftAlarm, Model: "digits", Release: release.Digest{1}, Cohort: "b", RaisedMS: at, Message: "site b has left the training data"}
	elsewhere := drifts // the same cause, seen on another release too
	elsewhere.ID, elsewhere.Release, elsewhere.RaisedMS = "2", release.Digest{2}, at+1
	wrong := drift.Alarm{ID: "3", Kind: drift.AccuracyAlarm, Model: "digits", Cohort: "b", RaisedMS: at, Message: "accuracy is 0.8"}
	judge := func(want []string, all ...drift.Alarm) {
		t.Helper()
		if err := s.judgeAlarms(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		if got := live(s); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	both := []string{"monitor/accuracy/digits/b/", "monitor/drift/digits/b/"}
	judge(both, drifts, wrong)
	judge(both, drifts, elsewhere, wrong)
	if i, _ := s.incidents.Newest(both[0]); i.Cause.Severity != incident.Critical || i.Count != 1 || i.Cause.Link != "/quality/digits" {
		t.Errorf("accuracy: got %+v", i)
	}
	// A restart, at which one alarm is gone: nothing is told anew, and it is cleared.
	s = withBoard(t, store)
	drifts.ClearedMS = at + 10
	judge(both, drifts, elsewhere, wrong)
	elsewhere.ClearedMS = at + 10
	judge(both[:1], drifts, elsewhere, wrong)
	// What a person resolved stays so while the same alarm stands, and opens with the next.
	i, _ := s.incidents.Newest(both[0])
	if _, err := s.incidents.Resolve(t.Context(), time.Now().Add(time.Second), i.ID, "ada", "known"); err != nil {
		t.Fatal(err)
	}
	judge([]string{}, wrong)
	again := wrong
	again.ID, again.RaisedMS = "4", time.Now().Add(time.Minute).UnixMilli()
	judge(both[:1], again)
	judge([]string{})
}

func TestStoppedRolloutsAreIncidents(t *testing.T) {
	s := withBoard(t, kvstore.NewMemory())
	view := func(status rollout.Status, entries ...runner.Entry) *runner.View {
		st := &rollout.State{ID: "digits-2-1", Spec: rollout.Spec{Model: "digits", Version: "2"}}
		st.Header.Status, st.Header.Cause, st.Header.Since = status, "gate errors failed", time.Now()
		if status == rollout.StatusReverting || status == rollout.StatusAborted {
			st.Header.Recalled = time.Now()
		}
		return &runner.View{State: st, Timeline: entries}
	}
	asked := runner.Entry{Action: rollout.Rollback, Actor: "ada"}
	for _, c := range []struct {
		name string
		view *runner.View
		open bool
	}{
		{"running", view(rollout.StatusRunning), false},
		{"halted", view(rollout.StatusHalted), true},
		{"halted still", view(rollout.StatusHalted), true},
		{"goes on", view(rollout.StatusRunning), false},
		{"goes back by itself", view(rollout.StatusReverting), true},
		{"is back", view(rollout.StatusReverted), false},
		{"goes back as asked", view(rollout.StatusReverting, asked), false},
		{"did not get back", view(rollout.StatusAborted), true},
		{"completed", view(rollout.StatusCompleted), false},
	} {
		if err := s.judgeRollout(t.Context(), c.view); err != nil {
			t.Fatal(err)
		}
		if got := len(live(s)) == 1; got != c.open {
			t.Errorf("%s: open is %v, want %v", c.name, got, c.open)
		}
	}
	i, ok := s.incidents.Newest("rollout/digits-2-1")
	if !ok || i.Cause.Link != "/rollouts/digits-2-1" || i.Cause.Detail != "gate errors failed" || i.Cause.Version != "2" {
		t.Errorf("got %+v", i)
	}
}

func TestFullDiskIsAnIncident(t *testing.T) {
	s := withBoard(t, kvstore.NewMemory())
	for _, short := range []bool{false, true, true, false} {
		if err := s.judgeStorage(t.Context(), short, 60*time.Hour); err != nil {
			t.Fatal(err)
		}
		if got := len(live(s)) == 1; got != short {
			t.Errorf("open is %v, want %v", got, short)
		}
	}
	if i, _ := s.incidents.Newest(storageKey); i.Count != 1 || !strings.Contains(i.Cause.Summary, "2.5 more days") {
		t.Errorf("got %+v", i)
	}
}
