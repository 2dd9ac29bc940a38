package updater_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
)

// challenged is a desired state with a challenger beside v1.
func challenged(generation uint64, primary, challenger *agenttest.Bundle, role string, share uint32) *protocol.Desired {
	d := desire(generation, primary)
	d.Assignments[0].Decision = 1
	d.Assignments = append(d.Assignments, &protocol.Assignment{
		Model: "meter", Release: challenger.Digest.Bytes(), Role: role, Share: share, Decision: generation,
	})
	return d
}

// untilChallenger waits for the challenger to be in a state.
func (r *rig) untilChallenger(what string, ok func(*protocol.Challenger) bool) {
	r.t.Helper()
	r.until("challenger "+what, func(m *protocol.ModelState) bool { return ok(m.GetChallenger()) })
}

func (r *rig) settleChallenger() *protocol.Challenger {
	r.t.Helper()
	synctest.Wait()
	r.untilChallenger("idle", func(c *protocol.Challenger) bool { return c == nil || c.GetState().GetState() == string(update.Idle) })
	r.settle()
	return r.state().GetChallenger()
}

// A challenger is updated beside its model, changes its share, is promoted
// without being fetched again, and leaves nothing behind.
func TestLifeOfAChallenger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		defer r.stop()
		r.updater.Desired(challenged(2, v1, v2, infer.RoleShadow, 0))
		c := r.settleChallenger()
		if got := r.engine.challenger("meter"); got != "shadow 0 v2" || r.engine.now("meter") != v1.Digest {
			t.Fatalf("%s beside %s: %v", got, versionOf(r.engine.now("meter")), r.state())
		}
		if s := c.GetState(); !s.GetServing() || s.GetOutcome().GetResult() != update.ResultActive || string(s.GetPrevious()) != "" || s.GetTrial().GetProvider() != "CPU" {
			t.Errorf("challenger reported as %v", c)
		}
		r.updater.Desired(challenged(3, v1, v2, infer.RoleShare, 300))
		c = r.settleChallenger()
		if got := r.engine.challenger("meter"); got != "share 300 v2" || c.GetRole() != infer.RoleShare || c.GetShare() != 300 {
			t.Errorf("%s, reported as %v", got, c)
		}

		fetched := r.puller.Fetched()
		r.updater.Desired(desire(4, v2))
		r.settle()
		synctest.Wait()
		if got := r.puller.Fetched(); got != fetched {
			t.Errorf("%d files were fetched to promote what was here", got-fetched)
		}
		if got := r.engine.challenger("meter"); got != "none" || r.engine.now("meter") != v2.Digest || r.state().GetChallenger() != nil {
			t.Errorf("%s beside %s: %v", got, versionOf(r.engine.now("meter")), r.state())
		}
		r.onePrimary()
	})
}

// What keeps an assigned challenger from running is said, and it runs when that
// has passed.
func TestChallengerWithNothingToChallenge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		defer r.stop()
		alone := challenged(2, v1, v2, infer.RoleShadow, 0)
		alone.Assignments = alone.Assignments[1:]
		for what, d := range map[string]*protocol.Desired{
			"same release": challenged(2, v1, v1, infer.RoleShadow, 0),
			"no primary":   alone,
		} {
			d.Generation = r.updater.Held().GetGeneration() + 1
			r.updater.Desired(d)
			if c := r.settleChallenger(); !strings.Contains(c.GetState().GetWaiting(), "nothing to compare") || r.engine.challenger("meter") != "none" {
				t.Errorf("%s: %v", what, c)
			}
		}
		r.updater.Desired(challenged(9, v1, v2, infer.RoleShadow, 0))
		if c := r.settleChallenger(); r.engine.challenger("meter") != "shadow 0 v2" || c.GetState().GetWaiting() != "" {
			t.Errorf("afterwards: %v", c)
		}
		// The device goes back to v1 while v2 is to challenge it: v2 has to leave first.
		r.updater.Desired(desire(10, v2))
		r.settle()
		r.updater.Desired(challenged(11, v1, v2, infer.RoleShare, 10))
		r.settleChallenger()
		r.settleChallenger()
		if got := r.engine.challenger("meter"); got != "share 10 v2" || r.engine.now("meter") != v1.Digest {
			t.Errorf("%s beside %s: %v", got, versionOf(r.engine.now("meter")), r.state())
		}
	})
}

// A challenger that fails harms nobody and is not tried again without a new
// decision.
func TestChallengerFails(t *testing.T) {
	tests := map[string]struct {
		bundle *agenttest.Bundle
		fail   func(*testing.T, *rig)
		code   string
	}{
		"trial":  {v3, func(*testing.T, *rig) {}, trial.CodeGolden},
		"load":   {v4, func(*testing.T, *rig) {}, "activate_failed"},
		"hung":   {v2, hangChallenger, update.CodeCallHung},
		"crash":  {v2, crashThrice, update.CodeCrashLoop},
		"memory": {v2, nil, trial.CodeMemory},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := onDisk(t, diskWithV1().Clone())
				if tt.fail == nil {
					r.budget = 19 << 20 // one release and its successor take 20
				}
				r.mustBoot(false)
				defer func() { r.stop() }()
				r.updater.Desired(desire(1, v1))
				r.settle()
				r.updater.Desired(challenged(2, v1, tt.bundle, infer.RoleShadow, 0))
				r.settleChallenger()
				if tt.fail != nil {
					tt.fail(t, r)
				}
				c := r.settleChallenger()
				if got := c.GetState().GetOutcome(); got.GetCode() != tt.code || r.engine.challenger("meter") != "none" {
					t.Errorf("%s, outcome %v, want %s", r.engine.challenger("meter"), got, tt.code)
				}
				r.onePrimary()
				if got := r.state(); r.engine.now("meter") != v1.Digest || len(got.GetRefused()) != 0 || got.GetOutcome().GetResult() == update.ResultReverted {
					t.Errorf("the primary is blamed: %v", got)
				}
				loads := len(r.engine.loads)
				time.Sleep(time.Hour)
				r.updater.Desired(challenged(2, v1, tt.bundle, infer.RoleShadow, 0))
				r.settleChallenger()
				if len(r.engine.loads) != loads {
					t.Error("it is tried again without a new decision")
				}
			})
		})
	}
}

func hangChallenger(t *testing.T, r *rig) {
	t.Helper()
	if err := r.updater.Hung(t.Context(), "meter", v2.Digest); err != nil {
		t.Fatal(err)
	}
}

// crashThrice starts the device again and again, as after a segmentation fault.
func crashThrice(t *testing.T, r *rig) {
	t.Helper()
	for range 3 {
		r.stop()
		time.Sleep(30 * time.Second)
		r.mustBoot(true)
		synctest.Wait()
	}
}

// Of two new releases the challenger is blamed first, because to lose it costs
// nobody an answer; the primary only if the crashes go on.
func TestCrashBlamesTheChallengerFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		defer func() { r.stop() }()
		r.updater.Desired(challenged(2, v2, v3, infer.RoleShadow, 0))
		r.trier.judge = func(trial.Candidate) trial.Verdict {
			return trial.Verdict{OK: true, Variant: "variant-0", P95: time.Millisecond, PeakBytes: 10 << 20, Report: &protocol.Trial{}}
		}
		r.untilState(update.Watching)
		r.untilChallenger("watching", func(c *protocol.Challenger) bool { return c.GetState().GetState() == string(update.Watching) })
		crashThrice(t, r)
		if got := r.engine.challenger("meter"); got != "none" || r.engine.now("meter") != v2.Digest {
			t.Errorf("after three crashes %s beside %s", got, versionOf(r.engine.now("meter")))
		}
		crashThrice(t, r)
		if got := r.engine.now("meter"); got != v1.Digest {
			t.Errorf("after three more %s serves", versionOf(got))
		}
	})
}

func TestDesiredStateWithBadChallengers(t *testing.T) {
	twice := challenged(2, v1, v2, infer.RoleShadow, 0)
	twice.Assignments = append(twice.Assignments, twice.GetAssignments()[1])
	for name, d := range map[string]*protocol.Desired{
		"two challengers":     twice,
		"a share of nothing":  challenged(2, v1, v2, infer.RoleShare, 0),
		"a share of too much": challenged(2, v1, v2, infer.RoleShadow, 1001),
	} {
		synctest.Test(t, func(t *testing.T) {
			r := installed(t)
			defer r.stop()
			r.updater.Desired(d)
			r.settle()
			if got := r.updater.Held().GetGeneration(); got != 1 || !r.noted("desired_refused ") {
				t.Errorf("%s: generation %d is held, events %q", name, got, r.events)
			}
		})
	}
}

// Random power cuts while releases and challengers come, go and change places:
// one verified primary serves after every start, a release never runs as both,
// and in the end wishes are met or explained.
func TestRandomPowerCutsWithChallengers(t *testing.T) {
	schedules := uint64(300)
	if raced {
		schedules = 40
	}
	met := 0
	for seed := range schedules {
		synctest.Test(t, func(t *testing.T) { met += cutChallengers(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if met < int(schedules)/6 { // one in four can: the others fail or are the primary release
		t.Errorf("only %d of %d challengers ran in the end", met, schedules)
	}
}

func cutChallengers(t *testing.T, seed uint64) (met int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 3))
	r := installed(t)
	bundles := []*agenttest.Bundle{v1, v2, v3, v4}
	var wish *protocol.Desired
	challenger := v2
	for generation := uint64(2); generation < 3+uint64(rnd.IntN(4)); generation++ {
		primary := bundles[rnd.IntN(2)]
		challenger = bundles[rnd.IntN(len(bundles))]
		wish = challenged(generation, primary, challenger, []string{infer.RoleShadow, infer.RoleShare}[rnd.IntN(2)], 100)
		r.fs.CutAt(1 + rnd.IntN(150))
		r.updater.Desired(wish)
		select {
		case <-r.fs.Cut():
		case <-time.After(time.Duration(rnd.Int64N(int64(30 * time.Minute)))):
			r.fs.CutNow()
		}
		r.stop()
		r.restart(rnd)
		r.onePrimary()
		r.notBoth()
	}
	for range 2 { // whatever rested has
		r.updater.Desired(wish)
		r.settleChallenger()
		time.Sleep(20 * time.Minute)
	}
	c := r.settleChallenger()
	r.onePrimary()
	r.notBoth()
	r.stop()
	running := fmt.Sprintf("%s 100 %s", c.GetRole(), challenger.Manifest.Version)
	if got := r.engine.challenger("meter"); got == running {
		return 1
	} else if c.GetState().GetWaiting() == "" && reason(c.GetState(), challenger) == nil {
		t.Errorf("%s runs instead of %s, and no reason is given: %v", got, running, r.state())
	}
	return 0
}

// restart boots after a power cut, which may come again while starting.
func (r *rig) restart(rnd *rand.Rand) {
	for {
		r.fs.Reboot(agenttest.Loss(rnd.IntN(3)), rnd)
		if rnd.IntN(3) == 0 {
			r.fs.CutAt(1 + rnd.IntN(30))
		}
		err := r.boot(true)
		synctest.Wait()
		if err == nil && !r.fs.Off() {
			break
		}
		r.fs.CutNow()
		r.stop()
	}
	r.fs.CutAt(1 << 30)
}

func (r *rig) notBoth() {
	r.t.Helper()
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	if b, ok := r.engine.beside["meter"]; ok && b.Digest == r.engine.serving["meter"] {
		r.t.Errorf("%s runs beside itself", versionOf(b.Digest))
	}
}
