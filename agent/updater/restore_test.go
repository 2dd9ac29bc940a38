package updater_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/agent/updater"
	"github.com/vedette-edge/vedette/protocol"
)

// hangsOn is an engine whose library does not return from loading one release.
func hangsOn(b *agenttest.Bundle) func(context.Context, infer.Release) error {
	return func(ctx context.Context, r infer.Release) error {
		if r.Digest != b.Digest {
			return nil
		}
		<-ctx.Done()
		return errors.Join(infer.ErrLoading, ctx.Err())
	}
}

// withOther is a device that serves v1 of meter and another model.
func withOther(t *testing.T) (*rig, *protocol.Desired) {
	t.Helper()
	r := installed(t)
	both := desire(2, v1)
	both.Assignments = append(both.Assignments, desire(2, other).GetAssignments()...)
	r.updater.Desired(both)
	time.Sleep(time.Hour) // of the bubble: both are trusted now
	return r, both
}

// withV2 is the next wish, for v2 of meter.
func withV2(d *protocol.Desired) *protocol.Desired {
	d = proto.CloneOf(d)
	d.Generation++
	d.Assignments[0] = desire(d.GetGeneration(), v2).GetAssignments()[0]
	return d
}

// reboot ends the process as the supervisor's SIGKILL does, and starts another.
func (r *rig) reboot() {
	r.t.Helper()
	r.fs.CutNow()
	r.stop()
	r.fs.Reboot(agenttest.Drop, nil)
	r.mustBoot(true)
}

// stuck waits for the process to ask for its replacement.
func (r *rig) stuck() {
	r.t.Helper()
	select {
	case err := <-r.done:
		if !errors.Is(err, updater.ErrStuck) {
			r.t.Fatalf("the process ended with %v, want %v", err, updater.ErrStuck)
		}
	case <-time.After(2 * time.Hour):
		r.t.Fatalf("no process asks for its replacement: %v", r.state())
	}
	r.cancel()
	r.cancel = nil
}

// A release that passed its trial may hang when the agent loads it beside the
// old one. The old one goes on, the process is replaced, the release is left.
func TestHangAtActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		r.engine.fail = hangsOn(v2)
		r.updater.Desired(desire(2, v2))
		r.untilState(update.Activating)
		began := time.Now()
		r.untilState(update.Reverting)
		if got, want := time.Since(began), update.DefaultLimits().Activate; got != want {
			t.Errorf("noticed after %v, want %v", got, want)
		}
		if got := r.engine.now("meter"); got != v1.Digest {
			t.Errorf("%s serves beside the hanging load, want v1", versionOf(got))
		}
		r.stuck()
		r.refuse = hangsOn(v2)
		r.mustBoot(true)
		defer r.stop()
		r.settle()
		r.onePrimary()
		if r.engine.loaded() != 1 || r.engine.now("meter") != v1.Digest {
			t.Errorf("the next process loaded %d releases, want v1 alone", r.engine.loaded())
		}
		r.updater.Desired(desire(2, v2))
		r.settle()
		if r.engine.loaded() != 1 || len(r.state().GetRefused()) != 1 {
			t.Errorf("tried again without a new decision: %v", r.state())
		}
	})
}

// A release may load when it is activated and hang at the next start. Other
// models are served meanwhile, then the one before it.
func TestHangAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, both := withOther(t)
		r.updater.Desired(withV2(both))
		time.Sleep(time.Hour)
		r.refuse = hangsOn(v2)
		began := time.Now()
		r.reboot()
		if got := time.Since(began); got != updater.Patience {
			t.Errorf("others are served after %v, want %v", got, updater.Patience)
		}
		if got := r.engine.now("other"); got != other.Digest {
			t.Errorf("%s of other serves beside the hanging load", versionOf(got))
		}
		r.stuck()
		r.mustBoot(true)
		defer r.stop()
		r.settle()
		r.onePrimary()
		if got := r.engine.now("meter"); got != v1.Digest {
			t.Errorf("%s serves, want v1 again", versionOf(got))
		}
		o := r.state().GetOutcome()
		if o.GetResult() != update.ResultReverted || o.GetCode() != update.CodeLoadHung {
			t.Errorf("outcome %v", o)
		}
	})
}

// Where there is nothing to go back to, the other models go on, the reason is
// told, and another release can be installed although the load still hangs.
func TestHangAtStartWithNothingToGoBackTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, both := withOther(t)
		r.refuse = hangsOn(v1)
		r.reboot()
		defer r.stop()
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if got := r.engine.loaded(); got != 2 {
			t.Errorf("%d loads, want one of each model: a load that hangs leaves a thread behind", got)
		}
		if s := r.state(); s.GetServing() || !strings.Contains(s.GetWaiting(), infer.ErrLoading.Error()) {
			t.Errorf("serving %v, waiting for %q", s.GetServing(), s.GetWaiting())
		}
		r.updater.Desired(withV2(both))
		r.settle()
		r.onePrimary()
		if s := r.state(); r.engine.now("meter") != v2.Digest || s.GetWaiting() != "" {
			t.Errorf("%s serves, want v2; waiting for %q", versionOf(r.engine.now("meter")), s.GetWaiting())
		}
		time.Sleep(24 * time.Hour) // nobody has to be replaced now
	})
}

// Where the only release hangs, a new process tries it again now and then.
func TestHangAtStartIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := withOther(t)
		r.refuse = hangsOn(v1)
		r.reboot()
		began := time.Now()
		r.stuck()
		if got := time.Since(began); got < time.Hour {
			t.Errorf("replaced after %v: the other model is in use", got)
		}
		r.refuse = nil
		r.mustBoot(true)
		defer r.stop()
		r.onePrimary()
	})
}

// When the release before hangs too, what is left is told and the rest goes on.
func TestHangAtRevert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, both := withOther(t)
		r.updater.Desired(withV2(both))
		r.untilState(update.Watching)
		r.refuse = hangsOn(v1)
		r.engine.fail = r.refuse
		if err := r.updater.Hung(t.Context(), "meter", v2.Digest); err != nil {
			t.Fatal(err)
		}
		r.stuck()
		r.mustBoot(true)
		defer r.stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		o := r.state().GetOutcome()
		if o.GetCode() != update.CodeRevertFailed || !strings.Contains(o.GetMessage(), "did not return") {
			t.Errorf("outcome %v", o)
		}
		if got := r.engine.now("other"); got != other.Digest {
			t.Errorf("%s of other serves", versionOf(got))
		}
	})
}

// A release that cannot be loaded for a passing reason serves when that has
// passed, without a restart and without the control plane.
func TestActiveReleaseIsServedWhenItCanBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		short := errors.New("cannot allocate memory")
		var memory atomic.Bool
		r.refuse = func(context.Context, infer.Release) error {
			if memory.Load() {
				return nil
			}
			return short
		}
		r.reboot()
		defer r.stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := r.state(); s.GetServing() || !strings.Contains(s.GetWaiting(), short.Error()) {
			t.Errorf("serving %v, waiting for %q", s.GetServing(), s.GetWaiting())
		}
		if n := r.engine.loaded(); n < 5 || n > 40 {
			t.Errorf("%d tries in an hour, want a few", n)
		}
		memory.Store(true)
		time.Sleep(update.DefaultLimits().RetryMax + time.Second)
		synctest.Wait()
		r.onePrimary()
		if s := r.state(); !s.GetServing() || s.GetWaiting() != "" {
			t.Errorf("serving %v, waiting for %q", s.GetServing(), s.GetWaiting())
		}
	})
}
