package trial_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/protocol/release"
)

// scripted is the runtime of the children.
var scripted = agenttest.Runtime{Offers: []string{"NPU", "GPU", "DSP"}, Broken: []string{"DSP"}}

// childEnv makes this test program a trial's child.
const childEnv = "VEDETTE_TEST_TRIAL_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	if err := trial.Child(context.Background(), scripted, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func newTrier(c trial.Config) *trial.Trier {
	c.Args = []string{"-test.run=^$"}
	c.Env = []string{childEnv + "=1"}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	return trial.New(c)
}

func candidate(t *testing.T, limits release.Limits, scripts ...agenttest.Script) trial.Candidate {
	t.Helper()
	b, err := agenttest.NewBundle("meter", "v1", 1, limits, scripts...)
	if err != nil {
		t.Fatal(err)
	}
	return written(t, b)
}

func written(t *testing.T, b *agenttest.Bundle) trial.Candidate {
	t.Helper()
	dir := t.TempDir()
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	return trial.Candidate{Digest: b.Digest, Manifest: b.Manifest, Dir: dir}
}

func TestPass(t *testing.T) {
	c := candidate(t, release.Limits{P95: release.Duration(time.Second), MemoryBytes: 256 << 20}, agenttest.Script{Bytes: 24 << 20})
	v, err := newTrier(trial.Config{}).Try(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if !v.OK || v.Code != "" {
		t.Fatalf("verdict %q %q, want ok", v.Code, v.Message)
	}
	if v.Variant != "variant-0" || v.P95 <= 0 {
		t.Errorf("variant %q with p95 %v", v.Variant, v.P95)
	}
	if v.PeakBytes < 24<<20 || v.PeakBytes > 128<<20 {
		t.Errorf("peak %d KiB for a candidate that holds 24 MiB", v.PeakBytes>>10)
	}
	r := v.Report
	if r.GetGoldenRows() != 4 || r.GetGoldenWrong() != 0 || r.GetProvider() != "CPU" || r.GetRuntimeVersion() != "1.0.0" {
		t.Errorf("report %v", r)
	}
	if !bytes.Equal(r.GetRelease(), c.Digest.Bytes()) || r.GetPeakBytes() != v.PeakBytes {
		t.Errorf("report %v does not match the verdict", r)
	}
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name   string
		script agenttest.Script
		limits release.Limits
		config trial.Config
		code   string
		says   string
	}{
		{name: "wrong weights", script: agenttest.Script{Shift: 0.5}, code: trial.CodeGolden, says: "4 of 4 rows disagree"},
		{name: "a hair off", script: agenttest.Script{Shift: 1e-4}, code: trial.CodeGolden, says: "tolerance"},
		{name: "graph refused", script: agenttest.Script{OnLoad: agenttest.Refuse}, code: trial.CodeLoad, says: "scripted to refuse"},
		{name: "first run refused", script: agenttest.Script{OnRun: agenttest.Refuse}, code: trial.CodeLoad, says: "does not run"},
		{name: "later run refused", script: agenttest.Script{OnRun: agenttest.Refuse, AfterRuns: 20}, code: trial.CodeLoad, says: "ran and then did not"},
		{name: "other shape than promised", script: agenttest.Script{WrongShape: true}, code: trial.CodeSchema, says: "the schema says"},
		{name: "slow", script: agenttest.Script{Delay: 3 * time.Millisecond}, limits: release.Limits{P95: release.Duration(time.Millisecond)}, code: trial.CodeSlow, says: "the release allows 1ms"},
		{name: "hangs while loading", script: agenttest.Script{OnLoad: agenttest.Hang}, config: trial.Config{Timeout: 500 * time.Millisecond}, code: trial.CodeHang, says: "loading the graph"},
		{name: "hangs while running", script: agenttest.Script{OnRun: agenttest.Hang, AfterRuns: 20}, config: trial.Config{Timeout: time.Second}, code: trial.CodeHang, says: "measuring latency"},
		{name: "panics while loading", script: agenttest.Script{OnLoad: agenttest.Panic}, code: trial.CodeCrash, says: "scripted to panic on load"},
		{name: "segfault while loading", script: agenttest.Script{OnLoad: agenttest.Segfault}, code: trial.CodeCrash, says: "loading the graph"},
		{name: "segfault while running", script: agenttest.Script{OnRun: agenttest.Segfault}, code: trial.CodeCrash, says: "running the golden vectors"},
		{name: "above the manifest's memory", script: agenttest.Script{Bytes: 96 << 20}, limits: release.Limits{MemoryBytes: 32 << 20}, code: trial.CodeMemory, says: "MiB"},
		{name: "above the device's memory", script: agenttest.Script{Bytes: 96 << 20}, config: trial.Config{MemoryBytes: 32 << 20}, code: trial.CodeMemory, says: "MiB"},
		{name: "needs a newer runtime", limits: release.Limits{MinRuntime: "1.0.1"}, code: trial.CodeLoad, says: "update the agent"},
		{name: "needs a newer agent", limits: release.Limits{MinAgent: "2.1.0"}, config: trial.Config{AgentVersion: "v2.0.9"}, code: trial.CodeLoad, says: "needs agent 2.1.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := newTrier(tt.config).Try(t.Context(), candidate(t, tt.limits, tt.script))
			if err != nil {
				t.Fatal(err)
			}
			if v.OK || v.Code != tt.code {
				t.Fatalf("verdict ok=%v %q %q, want %q", v.OK, v.Code, v.Message, tt.code)
			}
			if !strings.Contains(v.Message, tt.says) {
				t.Errorf("message %q does not say %q", v.Message, tt.says)
			}
			if v.Report == nil {
				t.Error("no report")
			}
		})
	}
}

// A candidate that takes memory without end is stopped while it does, not
// judged afterwards.
func TestMemoryBombIsStopped(t *testing.T) {
	c := candidate(t, release.Limits{}, agenttest.Script{Bytes: 64 << 30})
	v, err := newTrier(trial.Config{MemoryBytes: 64 << 20}).Try(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if v.Code != trial.CodeMemory {
		t.Errorf("verdict %q %q, want memory", v.Code, v.Message)
	}
	if v.PeakBytes > 1<<30 {
		t.Errorf("it got %d MiB before it was stopped", v.PeakBytes>>20)
	}
}

func TestVariants(t *testing.T) {
	t.Run("the fastest that passes is taken", func(t *testing.T) {
		c := candidate(t, release.Limits{},
			agenttest.Script{Shift: 1}, agenttest.Script{Delay: 4 * time.Millisecond}, agenttest.Script{Name: "quick"}, agenttest.Script{OnLoad: agenttest.Panic})
		v, err := newTrier(trial.Config{}).Try(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if !v.OK || v.Variant != "variant-2" {
			t.Errorf("verdict ok=%v variant %q %q, want variant-2", v.OK, v.Variant, v.Message)
		}
	})
	t.Run("one for another device does not count", func(t *testing.T) {
		v := tryChanged(t, func(m *release.Manifest) { m.Variants[0].Providers = []string{"CUDAExecutionProvider"} })
		if !v.OK || v.Variant != "variant-1" {
			t.Errorf("verdict ok=%v variant %q %q, want variant-1", v.OK, v.Variant, v.Message)
		}
	})
	t.Run("none for this device", func(t *testing.T) {
		v := tryChanged(t, func(m *release.Manifest) {
			m.Variants[0].Providers = []string{"CUDA"}
			m.Variants[1].Arch = []string{"s390x"}
		})
		if v.OK || v.Code != trial.CodeLoad || !strings.Contains(v.Message, "CUDA") {
			t.Errorf("verdict ok=%v %q %q, want load_failed that names CUDA", v.OK, v.Code, v.Message)
		}
	})
}

func tryChanged(t *testing.T, change func(*release.Manifest)) trial.Verdict {
	t.Helper()
	b, err := agenttest.NewBundle("meter", "v1", 1, release.Limits{}, agenttest.Script{}, agenttest.Script{Name: "other"})
	if err != nil {
		t.Fatal(err)
	}
	change(b.Manifest)
	if b.Digest, err = b.Manifest.Digest(); err != nil {
		t.Fatal(err)
	}
	v, err := newTrier(trial.Config{}).Try(t.Context(), written(t, b))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNoTrialIsNoVerdict(t *testing.T) {
	c := candidate(t, release.Limits{}, agenttest.Script{OnLoad: agenttest.Hang})
	t.Run("stopped by the caller", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := newTrier(trial.Config{}).Try(ctx, c); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want canceled", err)
		}
	})
	t.Run("program missing", func(t *testing.T) {
		if v, err := trial.New(trial.Config{Exe: "/nonexistent/agent"}).Try(t.Context(), c); err == nil {
			t.Errorf("verdict %v without a child", v)
		}
	})
}

// A child must not outlive its parent, however the candidate hangs.
func TestChildEndsWithItsParent(t *testing.T) {
	c := candidate(t, release.Limits{}, agenttest.Script{OnLoad: agenttest.Hang})
	request, err := json.Marshal(map[string]any{"digest": c.Digest, "dir": c.Dir, "variant": "variant-0"})
	if err != nil {
		t.Fatal(err)
	}
	in, parentIn := io.Pipe()
	parentOut, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- trial.Child(t.Context(), agenttest.Runtime{}, in, out) }()
	lines := json.NewDecoder(parentOut)
	parentIn.Write(append(request, '\n'))
	var reply struct{ Stage string }
	if err := lines.Decode(&reply); err != nil || reply.Stage != "ready" {
		t.Fatalf("stage %q, %v", reply.Stage, err)
	}
	io.WriteString(parentIn, `{"go":true}`+"\n")
	if err := lines.Decode(&reply); err != nil || reply.Stage != "loading the graph" {
		t.Fatalf("stage %q, %v", reply.Stage, err)
	}
	parentIn.Close()
	if err := <-ended; !errors.Is(err, trial.ErrAbandoned) {
		t.Errorf("child ended with %v, want ErrAbandoned", err)
	}
}
