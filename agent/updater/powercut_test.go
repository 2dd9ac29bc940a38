package updater_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
)

// opsOfUpdate counts the operations on disk of a whole update from v1 to v2.
func opsOfUpdate(t *testing.T) (n int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		before := r.fs.Ops()
		r.updater.Desired(desire(2, v2))
		r.settle()
		r.stop()
		n = r.fs.Ops() - before
	})
	return n
}

// The plug is pulled at every operation on disk of an update from v1 to v2, and
// what was not synced is kept, dropped or torn. After each cut one whole
// release serves, and the update comes to its end.
func TestPowerCutAtEveryOperation(t *testing.T) {
	n := opsOfUpdate(t)
	if n < 40 {
		t.Fatalf("an update has only %d operations", n)
	}
	for k := 1; k <= n; k++ {
		for _, loss := range []agenttest.Loss{agenttest.Keep, agenttest.Drop, agenttest.Tear} {
			seeds := uint64(1)
			if loss == agenttest.Tear && !raced {
				seeds = 6
			}
			for seed := range seeds {
				t.Run(fmt.Sprintf("%d/%s/%d", k, loss, seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { cutUpdate(t, k, loss, seed) })
				})
			}
		}
	}
}

func cutUpdate(t *testing.T, k int, loss agenttest.Loss, seed uint64) {
	t.Helper()
	r := installed(t)
	r.fs.CutAt(k)
	r.updater.Desired(desire(2, v2))
	synctest.Wait()
	r.settle()
	r.stop()
	if !r.fs.Off() {
		r.fs.CutNow() // the last operation is the journal at the stop
	}
	r.fs.Reboot(loss, rand.New(rand.NewPCG(seed, uint64(k))))

	r.mustBoot(true)
	defer r.stop()
	r.onePrimary()
	r.updater.Desired(desire(2, v2)) // as the control plane says at every connect
	r.settle()
	r.onePrimary()
	if got := r.engine.now("meter"); got != v2.Digest {
		t.Errorf("%s serves at the end: %v", versionOf(got), r.state())
	}
}

// untilDone is work that does not come to an end by itself.
func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// The plug is pulled in each state while its work is going on, and the control
// plane stays silent afterwards: the journal alone must carry the update on.
func TestPowerCutInEveryState(t *testing.T) {
	tests := []struct {
		state  update.State
		hold   func(*rig)
		at     update.State // state to go back from, when reverting
		active *agenttest.Bundle
	}{
		{state: update.Resolving, active: v2, hold: func(r *rig) { r.blockPuller("resolve", untilDone) }},
		{state: update.Downloading, active: v2, hold: func(r *rig) { r.blockPuller("fetch", untilDone) }},
		{state: update.Trialing, active: v2, hold: func(r *rig) { r.trier.block = make(chan struct{}) }},
		{state: update.Activating, active: v2, hold: func(r *rig) {
			r.engine.fail = func(ctx context.Context, _ infer.Release) error { return untilDone(ctx) }
		}},
		{state: update.Watching, active: v2, hold: func(*rig) {}},
		{state: update.Reverting, active: v1, at: update.Watching, hold: func(r *rig) {
			r.engine.fail = func(ctx context.Context, rel infer.Release) error {
				if rel.Digest == v1.Digest {
					return untilDone(ctx)
				}
				return nil
			}
		}},
	}
	for _, tt := range tests {
		for _, loss := range []agenttest.Loss{agenttest.Keep, agenttest.Drop, agenttest.Tear} {
			t.Run(fmt.Sprintf("%s/%s", tt.state, loss), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := installed(t)
					tt.hold(r)
					r.updater.Desired(desire(2, v2))
					if tt.at != "" {
						r.untilState(tt.at)
						if err := r.updater.Hung(t.Context(), "meter", v2.Digest); err != nil {
							t.Fatal(err)
						}
					}
					r.untilState(tt.state)
					r.fs.CutNow()
					r.stop()
					r.fs.Reboot(loss, rand.New(rand.NewPCG(7, 7)))
					r.puller.Fault(nil)
					r.trier.block = nil

					r.mustBoot(true)
					defer r.stop()
					r.settle()
					r.onePrimary()
					if got := r.engine.now("meter"); got != tt.active.Digest {
						t.Errorf("%s serves, want %s: %v", versionOf(got), tt.active.Manifest.Version, r.state())
					}
				})
			})
		}
	}
}

func (r *rig) blockPuller(step string, block func(context.Context) error) {
	r.puller.Fault(func(ctx context.Context, at string) error {
		if at == step {
			return block(ctx)
		}
		return nil
	})
}

func reason(s *protocol.ModelState, wish *agenttest.Bundle) *protocol.Outcome {
	for _, o := range append(s.GetRefused(), s.GetOutcome()) {
		if string(o.GetRelease()) == string(wish.Digest.Bytes()) {
			return o
		}
	}
	return nil
}
