package trial_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// on is a script that does something else on the NPU.
func on(cpu, npu agenttest.Script) agenttest.Script {
	cpu.On = map[string]agenttest.Script{"NPU": npu}
	return cpu
}

// told is the table of a trial as text, without its figures.
func told(r *protocol.Trial) []string {
	var lines []string
	for _, t := range r.GetTried() {
		words := []string{t.GetVariant(), t.GetProvider(), t.GetCode()}
		if t.GetChosen() {
			words[2] = "chosen"
		}
		lines = append(lines, strings.TrimSpace(strings.Join(words, " ")))
	}
	return lines
}

func TestProviders(t *testing.T) {
	slow := agenttest.Script{Delay: time.Millisecond}
	tests := []struct {
		name   string
		script agenttest.Script
		config trial.Config
		limits release.Limits
		took   string // provider
		tried  []string
		says   string // in the NPU's row
	}{
		{
			name: "the faster one is taken", script: on(slow, agenttest.Script{}), took: "NPU",
			tried: []string{"variant-0 CPU", "variant-0 NPU chosen"},
		},
		{
			name: "a slower one is not", script: on(agenttest.Script{}, slow), took: "CPU",
			tried: []string{"variant-0 CPU chosen", "variant-0 NPU"},
		},
		{
			name: "one that computes something else loses", script: on(slow, agenttest.Script{Shift: 0.1}), took: "CPU",
			tried: []string{"variant-0 CPU chosen", "variant-0 NPU golden_mismatch"}, says: "4 of 4 rows disagree",
		},
		{
			name: "one that crashes loses itself alone", script: on(slow, agenttest.Script{OnLoad: agenttest.Segfault}), took: "CPU",
			tried: []string{"variant-0 CPU chosen", "variant-0 NPU crash"}, says: "loading the graph",
		},
		{
			name: "one that hangs too", script: on(slow, agenttest.Script{OnRun: agenttest.Hang, AfterRuns: 20}), config: trial.Config{Timeout: 5 * time.Second}, took: "CPU",
			tried: []string{"variant-0 CPU chosen", "variant-0 NPU hang"}, says: "measuring latency",
		},
		{
			name: "one that takes too much memory too", script: on(slow, agenttest.Script{Bytes: 96 << 20}), limits: release.Limits{MemoryBytes: 32 << 20}, took: "CPU",
			tried: []string{"variant-0 CPU chosen", "variant-0 NPU memory"}, says: "MiB",
		},
		{
			name: "one that refuses the graph too", script: on(slow, agenttest.Script{OnLoad: agenttest.Refuse}), took: "CPU",
			tried: []string{"variant-0 CPU chosen", "variant-0 NPU load_failed"}, says: "scripted to refuse",
		},
		{
			name: "one that is right where the CPU is wrong is taken", script: on(agenttest.Script{Shift: 1}, slow), took: "NPU",
			tried: []string{"variant-0 CPU golden_mismatch", "variant-0 NPU chosen"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			tt.config.Providers = []string{"CPU", "NPU"}
			v, err := newTrier(tt.config).Try(t.Context(), candidate(t, tt.limits, tt.script))
			if err != nil {
				t.Fatal(err)
			}
			if !v.OK || v.Provider != tt.took || v.Report.GetProvider() != tt.took {
				t.Errorf("verdict ok=%v %q on %q, want %q", v.OK, v.Message, v.Provider, tt.took)
			}
			if got := told(v.Report); !slices.Equal(got, tt.tried) {
				t.Errorf("tried %q, want %q", got, tt.tried)
			}
			if got := v.Report.GetTried()[1].GetMessage(); !strings.Contains(got, tt.says) {
				t.Errorf("message %q does not say %q", got, tt.says)
			}
		})
	}
}

// A provider that is not there is asked for once and no verdict on anything.
func TestProviderThatIsNotThere(t *testing.T) {
	c := candidate(t, release.Limits{}, agenttest.Script{Delay: time.Millisecond}, agenttest.Script{})
	v, err := newTrier(trial.Config{Providers: []string{"CPU", "DSP"}}).Try(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"variant-0 CPU", "variant-1 CPU chosen", "variant-0 DSP no_provider", "variant-1 DSP no_provider"}
	if got := told(v.Report); !v.OK || v.Variant != "variant-1" || !slices.Equal(got, want) {
		t.Errorf("ok=%v %q, tried %q, want %q", v.OK, v.Variant, got, want)
	}
	c.Providers = []string{"DSP"}
	if v, err = newTrier(trial.Config{}).Try(t.Context(), c); err != nil || v.OK || v.Code != trial.CodeLoad || !strings.Contains(v.Message, "DSP") {
		t.Errorf("on it alone: ok=%v %q %q, %v, want load_failed", v.OK, v.Code, v.Message, err)
	}
}

// Variants run where their manifest lets them.
func TestProvidersOfVariants(t *testing.T) {
	b, err := agenttest.NewBundle("meter", "v1", 1, release.Limits{}, agenttest.Script{Delay: time.Millisecond}, agenttest.Script{Name: "engine"})
	if err != nil {
		t.Fatal(err)
	}
	b.Manifest.Variants[1].Providers = []string{"gpuExecutionProvider", "TPU"}
	if b.Digest, err = b.Manifest.Digest(); err != nil {
		t.Fatal(err)
	}
	v, err := newTrier(trial.Config{Providers: []string{"CPU", "NPU", "GPU"}}).Try(t.Context(), written(t, b))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"variant-0 CPU", "variant-0 NPU", "variant-0 GPU", "variant-1 GPU chosen"}
	if got := told(v.Report); v.Variant != "variant-1" || v.Provider != "GPU" || !slices.Equal(got, want) {
		t.Errorf("took %s on %s, tried %q, want %q", v.Variant, v.Provider, got, want)
	}
}

// What passed is not lost to providers that take for ever.
func TestNoTimeForMore(t *testing.T) {
	c := candidate(t, release.Limits{}, agenttest.Script{})
	v, err := newTrier(trial.Config{Providers: []string{"CPU", "NPU"}, Total: time.Nanosecond}).Try(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := told(v.Report), []string{"variant-0 CPU chosen", "variant-0 NPU not_tried"}; !v.OK || !slices.Equal(got, want) {
		t.Errorf("ok=%v, tried %q, want %q", v.OK, got, want)
	}
}

// A report stays small, and never loses the pair that was chosen.
func TestManyPairs(t *testing.T) {
	scripts := make([]agenttest.Script, 9)
	for i := range scripts {
		scripts[i] = agenttest.Script{Name: strconv.Itoa(i), OnLoad: agenttest.Refuse}
	}
	scripts[8] = on(scripts[8], agenttest.Script{})
	v, err := newTrier(trial.Config{Providers: []string{"CPU", "NPU"}}).Try(t.Context(), candidate(t, release.Limits{}, scripts...))
	if err != nil {
		t.Fatal(err)
	}
	tried := told(v.Report)
	if !v.OK || len(tried) != 16 || tried[15] != "variant-8 NPU chosen" {
		t.Errorf("ok=%v, %d pairs told, the last %q", v.OK, len(tried), tried[len(tried)-1])
	}
}
