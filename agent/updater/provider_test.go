package updater_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// withGPU is a device whose trial chose the GPU for v2, and which then restarts
// without one. cpu judges the trial on the CPU alone. asked are the providers
// that the engine was asked for since.
func withGPU(t *testing.T, cpu func() trial.Verdict) (r *rig, asked *[]string) {
	t.Helper()
	r, asked = installed(t), new([]string)
	gone := false
	r.engine.fail = func(_ context.Context, rel infer.Release) error {
		*asked = append(*asked, rel.Provider)
		if gone && rel.Provider == "GPU" {
			return fmt.Errorf("%w: no driver", infer.ErrProvider)
		}
		return nil
	}
	r.refuse = r.engine.fail
	r.trier.judge = func(c trial.Candidate) trial.Verdict {
		if slices.Equal(c.Providers, []string{release.CPUProvider}) {
			return cpu()
		}
		return trial.Verdict{OK: true, Variant: "variant-0", Report: &protocol.Trial{Release: c.Digest.Bytes(), Provider: "GPU"}}
	}
	r.updater.Desired(desire(2, v2))
	r.settle()
	if got := r.state().GetProvider(); got != "GPU" || !slices.Equal(*asked, []string{"GPU"}) {
		t.Fatalf("v2 serves on %q, the engine was asked for %q", got, *asked)
	}
	r.stop()
	gone, *asked = true, nil
	r.mustBoot(false)
	synctest.Wait()
	return r, asked
}

func TestProviderGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, asked := withGPU(t, func() trial.Verdict {
			return trial.Verdict{OK: true, Variant: "variant-0", P95: time.Second, Report: &protocol.Trial{}}
		})
		defer r.stop()
		r.onePrimary()
		if want := []string{"GPU", release.CPUProvider}; !slices.Equal(*asked, want) {
			t.Errorf("the engine was asked for %q, want %q", *asked, want)
		}
		if !r.noted("provider_fallback ") {
			t.Errorf("events %q", r.events)
		}
	})
}

// What the CPU computes wrongly does not serve there.
func TestProviderGoneAndTheCPUIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, asked := withGPU(t, func() trial.Verdict {
			return trial.Verdict{Code: trial.CodeGolden, Message: "4 of 4 rows disagree", Report: &protocol.Trial{}}
		})
		defer r.stop()
		if slices.Contains(*asked, release.CPUProvider) && r.engine.now("meter") == v2.Digest {
			t.Errorf("v2 serves on the CPU, where it is wrong")
		}
		r.until("back", func(s *protocol.ModelState) bool { return string(s.GetActive()) == string(v1.Digest.Bytes()) })
		r.settle()
		r.onePrimary()
		o := r.state().GetOutcome()
		if !strings.Contains(o.GetMessage(), "on the CPU it is not fit") || !strings.Contains(o.GetMessage(), "no driver") {
			t.Errorf("outcome %v does not say why", o)
		}
	})
}
