package controlplane

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
)

// told are rollouts as a test says them.
type told struct {
	views []runner.View
	stats runner.Stats
}

func (t told) List() []runner.View { return t.views }
func (t told) Stats() runner.Stats { return t.stats }

// rolloutWith is a rollout with a device in each state.
func rolloutWith(id string, status rollout.Status, devices ...rollout.DeviceState) runner.View {
	s := &rollout.State{
		ID: id, Header: rollout.Header{Status: status, Wave: 1}, Devices: map[string]*rollout.Device{},
		Spec:  rollout.Spec{Waves: []rollout.WaveSpec{{Percent: 100}}},
		Waves: []rollout.Wave{{State: rollout.WaveOpen, Gates: []rollout.GateResult{{Gate: rollout.Errors, Result: rollout.GateFail, EHarm: 123, Alpha: 0.01}}}},
	}
	for i, state := range devices {
		s.Devices[string(rune('a'+i))] = &rollout.Device{State: state, Wave: 1, Order: rollout.Order{Kind: rollout.Forward, Seq: 1}}
	}
	return runner.View{State: s}
}

func TestRolloutMetrics(t *testing.T) {
	stops := make([]uint64, len(runner.StopBounds)+1)
	stops[1], stops[len(stops)-1] = 2, 1
	source := told{
		views: []runner.View{
			rolloutWith("one", rollout.StatusRunning, rollout.DeviceHealthy, rollout.DeviceHealthy, rollout.DeviceFailed),
			rolloutWith("two", rollout.StatusReverting, rollout.DeviceActive),
			rolloutWith("old", rollout.StatusCompleted, rollout.DeviceHealthy),
		},
		stats: runner.Stats{
			Orders:  map[rollout.OrderKind]uint64{rollout.Forward: 5},
			Answers: map[runner.Answer]uint64{{Gate: rollout.Errors, Result: rollout.GateFail}: 1},
			Stops:   stops, StopSum: 40 * time.Second,
		},
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(rolloutCollector{func() rolloutTeller { return source }})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	var text strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(text.String(), "\n")
	for _, want := range []string{
		`vedette_rollouts{status="running"} 1`, `vedette_rollouts{status="queued"} 0`,
		`vedette_rollout_wave{rollout="one"} 1`, `vedette_rollout_devices{rollout="one",state="healthy"} 2`,
		`vedette_rollout_revert_outstanding_devices{rollout="two"} 1`,
		`vedette_rollout_gate_result{gate="errors",result="fail",rollout="one"} 1`, `vedette_rollout_gate_harm_e_value{gate="errors",rollout="one"} 123`,
		`vedette_rollout_orders_total{direction="forward"} 5`, `vedette_rollout_orders_total{direction="back"} 0`,
		`vedette_rollout_gate_results_total{gate="errors",result="fail"} 1`, `vedette_rollout_gate_results_total{gate="drift",result="pass"} 0`,
		`vedette_rollout_stop_seconds_bucket{le="0.05"} 0`, `vedette_rollout_stop_seconds_bucket{le="0.1"} 2`,
		`vedette_rollout_stop_seconds_bucket{le="+Inf"} 3`, `vedette_rollout_stop_seconds_sum 40`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(text.String(), `rollout="old"`) {
		t.Error("a rollout that has ended has series of its own")
	}
}
