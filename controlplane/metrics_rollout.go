package controlplane

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
)

var (
	rolloutsDesc = prometheus.NewDesc("vedette_rollouts", "Rollouts by status.", []string{"status"}, nil)
	waveDesc     = prometheus.NewDesc("vedette_rollout_wave",
		"Newest wave that was opened of a rollout that has not ended, 0 for none.", []string{"rollout"}, nil)
	rolloutDevicesDesc = prometheus.NewDesc("vedette_rollout_devices",
		"Devices of a rollout that has not ended, by state.", []string{"rollout", "state"}, nil)
	revertDesc = prometheus.NewDesc("vedette_rollout_revert_outstanding_devices",
		"Devices of a rollout that goes back which were not yet seen off its release.", []string{"rollout"}, nil)
	gateDesc = prometheus.NewDesc("vedette_rollout_gate_result",
		"1 for what each gate of the newest wave of a rollout that has not ended said last.", []string{"rollout", "gate", "result"}, nil)
	harmDesc = prometheus.NewDesc("vedette_rollout_gate_harm_e_value",
		"Evidence of harm that a comparing gate of the newest wave had when its result last changed.", []string{"rollout", "gate"}, nil)
	ordersDesc = prometheus.NewDesc("vedette_rollout_orders_total",
		"Orders given to devices since the start, by direction.", []string{"direction"}, nil)
	answersDesc = prometheus.NewDesc("vedette_rollout_gate_results_total",
		"Results that gates came to since the start.", []string{"gate", "result"}, nil)
	stopDesc = prometheus.NewDesc("vedette_rollout_stop_seconds",
		"Time from the arrival of the report that made the engine stop a rollout to the commit of that decision.", nil, nil)
)

// What is counted even when there is none of it.
var (
	statuses = []rollout.Status{
		rollout.StatusDraft, rollout.StatusAwaiting, rollout.StatusRunning, rollout.StatusPaused, rollout.StatusHalted,
		rollout.StatusReverting, rollout.StatusReverted, rollout.StatusCompleted, rollout.StatusAborted,
		rollout.StatusQueued, rollout.StatusReplaced,
	}
	directions = []rollout.OrderKind{rollout.Beside, rollout.Forward, rollout.Back}
	results    = []rollout.Result{rollout.GatePass, rollout.GateFail, rollout.GateInconclusive, rollout.GateUnproven, rollout.GateWaived}
)

// rolloutTeller knows the rollouts.
type rolloutTeller interface {
	List() []runner.View
	Stats() runner.Stats
}

var _ rolloutTeller = (*runner.Runner)(nil)

// rolloutCollector reads the state of the rollouts. Rollouts that have ended
// have no series of their own, so there are never more than people follow.
type rolloutCollector struct{ rollouts func() rolloutTeller }

var _ prometheus.Collector = rolloutCollector{}

// Describe implements prometheus.Collector.
func (c rolloutCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		rolloutsDesc, waveDesc, rolloutDevicesDesc, revertDesc, gateDesc, harmDesc, ordersDesc, answersDesc, stopDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c rolloutCollector) Collect(out chan<- prometheus.Metric) {
	rollouts := c.rollouts()
	byStatus := map[rollout.Status]int{}
	for _, v := range rollouts.List() {
		byStatus[v.State.Header.Status]++
		if !v.State.Header.Status.Final() {
			collectRollout(out, v.State)
		}
	}
	for _, status := range statuses {
		gauge(out, rolloutsDesc, float64(byStatus[status]), string(status))
	}
	collectStats(out, rollouts.Stats())
}

func collectRollout(out chan<- prometheus.Metric, s *rollout.State) {
	gauge(out, waveDesc, float64(s.Header.Wave), s.ID)
	byState := map[rollout.DeviceState]int{}
	for _, d := range s.Devices {
		byState[d.State]++
	}
	for state, n := range byState {
		gauge(out, rolloutDevicesDesc, float64(n), s.ID, string(state))
	}
	if s.Header.Status == rollout.StatusReverting {
		gauge(out, revertDesc, float64(len(s.Stuck())), s.ID)
	}
	if s.Header.Wave == 0 {
		return
	}
	for _, g := range s.Waves[s.Header.Wave-1].Gates {
		gauge(out, gateDesc, 1, s.ID, string(g.Gate), string(g.Result))
		if g.Alpha > 0 {
			gauge(out, harmDesc, g.EHarm, s.ID, string(g.Gate))
		}
	}
}

func collectStats(out chan<- prometheus.Metric, s runner.Stats) {
	for _, d := range directions {
		out <- prometheus.MustNewConstMetric(ordersDesc, prometheus.CounterValue, float64(s.Orders[d]), string(d))
	}
	for _, gate := range rollout.Kinds() {
		for _, result := range results {
			n := s.Answers[runner.Answer{Gate: gate, Result: result}]
			out <- prometheus.MustNewConstMetric(answersDesc, prometheus.CounterValue, float64(n), string(gate), string(result))
		}
	}
	buckets, total := map[float64]uint64{}, uint64(0)
	for i, n := range s.Stops {
		total += n
		if i < len(runner.StopBounds) {
			buckets[runner.StopBounds[i]] = total
		}
	}
	out <- prometheus.MustNewConstHistogram(stopDesc, total, s.StopSum.Seconds(), buckets)
}
