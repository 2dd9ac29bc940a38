package api

import (
	"testing"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Thousands of decisions that follow devices do not push those out of the
// timeline that moved the rollout.
func TestTimelineKeepsWhatMovedTheRollout(t *testing.T) {
	devices := []rollout.Change{{Subject: rollout.SubjectDevices, To: "active", Devices: []string{"cam-a1"}}}
	entries := []runner.Entry{{Seq: 1, Kind: runner.KindCreated, Actor: "ann"}}
	for i := range uint64(3000) {
		entries = append(entries, runner.Entry{Seq: i + 2, Actor: runner.Actor, Changes: devices})
	}
	entries[1000].Changes = []rollout.Change{{Subject: rollout.SubjectWave, Wave: 1, To: "open"}}
	got := timeline(entries)
	if len(got) != operator.MaxFollowing+2 || got[0].Seq != 3001 || got[len(got)-2].Seq != 1001 || got[len(got)-1].Seq != 1 {
		t.Errorf("got %d decisions, from %d to %d and %d", len(got), got[0].Seq, got[len(got)-2].Seq, got[len(got)-1].Seq)
	}
}

func TestProgressOfARollout(t *testing.T) {
	w := newWorld()
	v := view("digits-2-1", rollout.StatusRunning)
	v.State.Devices["cam-b1"].Order.Kind, v.State.Devices["cam-b1"].Old = rollout.Forward, first
	v.Timeline[0].Spec, v.State.Waves[0].Opened = &v.State.Spec, now
	w.rollouts = []runner.View{v}
	r, err := w.service().Rollout(t.Context(), "digits-2-1")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Returns) != 1 || r.Returns["1"] != 1 {
		t.Errorf("a rollback would send back %v, want one device to version 1", r.Returns)
	}
	if len(r.Revisions) != 1 || r.Revisions[0].Seq != 10 || r.Revisions[0].Spec.Model != "digits" {
		t.Errorf("revisions are %+v", r.Revisions)
	}
	if p := r.WaveList[0].Progress; p.Healthy != 1 || p.Needed != 1 || p.Counted != 1 {
		t.Errorf("the wave has %+v", p)
	}
}
