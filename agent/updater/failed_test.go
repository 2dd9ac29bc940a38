package updater_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// A first version that was taken back leaves its reason on the device, also
// after the assignment was withdrawn and the device was started again.
func TestFailedFirstVersionIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.mustBoot(false)
		r.updater.Desired(desire(1, v1))
		r.untilState(update.Watching)
		for range 3 {
			time.Sleep(time.Minute) // of the bubble
			r.fs.CutNow()
			r.stop()
			r.fs.Reboot(agenttest.Drop, nil)
			r.mustBoot(true)
		}
		r.settle()
		r.updater.Desired(desire(2, nil))
		synctest.Wait()
		r.reverted(t, "withdrawn")
		r.stop()
		r.mustBoot(false)
		defer r.stop()
		r.reverted(t, "started again")

		// Once a version has worked, taking it off leaves nothing.
		r.updater.Desired(desire(3, v2))
		r.settle()
		if o := r.state().GetOutcome(); o.GetResult() != update.ResultActive {
			t.Errorf("v2: %v", r.state())
		}
		r.updater.Desired(desire(4, nil))
		synctest.Wait()
		if left := r.updater.States(); len(left) != 0 {
			t.Errorf("after v2 was taken off: %v", left)
		}
	})
}

// reverted checks that the reason of a crash loop is reported, and nothing else
// of the model.
func (r *rig) reverted(t *testing.T, when string) {
	t.Helper()
	s := r.state()
	if o := s.GetOutcome(); o.GetResult() != update.ResultReverted || o.GetCode() != update.CodeCrashLoop || o.GetAt() == nil {
		t.Errorf("%s: outcome %v", when, o)
	}
	if s.GetActive() != nil || s.GetTarget() != nil || s.GetServing() || s.GetState() != string(update.Idle) {
		t.Errorf("%s: %v", when, s)
	}
}

// A version that was taken back does not make a later one that worked remembered.
func TestModelTakenOffLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		defer r.stop()
		r.updater.Desired(desire(2, v3)) // refused: v1 goes on
		r.settle()
		r.updater.Desired(desire(3, nil))
		synctest.Wait()
		if left := r.updater.States(); len(left) != 0 {
			t.Errorf("reported %v", left)
		}
	})
}

// Models that never worked are remembered up to a bound, the newest ones.
func TestFailedModelsAreBounded(t *testing.T) {
	const failed, kept = 12, 8
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.trier.judge = func(c trial.Candidate) trial.Verdict {
			return trial.Verdict{Code: trial.CodeGolden, Report: &protocol.Trial{Release: c.Digest.Bytes()}}
		}
		var bundles []*agenttest.Bundle
		for i := range failed {
			b, err := agenttest.NewBundle(fmt.Sprintf("model-%02d", failed-i), "1", 1, release.Limits{}, agenttest.Script{Name: "refused"})
			if err != nil {
				t.Fatal(err)
			}
			bundles = append(bundles, b)
		}
		r.puller = agenttest.NewPuller(r.fs, bundles...)
		r.mustBoot(false)
		defer r.stop()
		for i, b := range bundles {
			r.updater.Desired(desire(uint64(i)+1, b))
			synctest.Wait()
		}
		r.updater.Desired(desire(failed+1, nil))
		synctest.Wait()
		states := r.updater.States()
		if len(states) != kept {
			t.Fatalf("%d models are remembered, want %d", len(states), kept)
		}
		if first, last := states[0].GetModel(), states[kept-1].GetModel(); first != "model-01" || last != "model-08" {
			t.Errorf("%s to %s are remembered, want the newest, model-01 to model-08", first, last)
		}
	})
}
