package runner

import (
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// A bad canary is counted: the order it was given, what the gate said, and how
// long the stop took.
func TestStatsOfAStop(t *testing.T) {
	h := newHouse(t, "a1", "a2", "b1", "b2")
	h.bad[versions["v3"]] = true
	id := h.create(spec("v3"))
	h.act(id, rollout.Start)
	h.until(id, is(rollout.StatusHalted))
	s := h.runner.Stats()
	stops := uint64(0)
	for _, n := range s.Stops {
		stops += n
	}
	if s.Orders[rollout.Forward] != 1 || s.Answers[Answer{rollout.Golden, rollout.GateFail}] != 1 || stops != 1 {
		t.Errorf("got %+v, want an order forward, a failed golden gate and a stop", s)
	}
	if s.StopSum <= 0 || s.StopSum > time.Minute {
		t.Errorf("the stop took %s", s.StopSum)
	}
}

func TestWhatStoppedARollout(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	halted := []rollout.Change{{Subject: rollout.SubjectRollout, To: string(rollout.StatusHalted)}}
	facts := rollout.FactsPatch{Devices: map[string]*rollout.DeviceFacts{
		"bad": {Reported: at}, "well": {Reported: at.Add(time.Second)}, "old": {Reported: at.Add(-time.Hour)},
	}}
	failed := rollout.Patch{Devices: map[string]*rollout.Device{"bad": {State: rollout.DeviceFailed}, "well": {State: rollout.DeviceActive}}}
	for name, c := range map[string]struct {
		record Record
		want   time.Time
	}{
		"a device failed":    {Record{Facts: facts, Decision: rollout.Decision{Changes: halted, Patch: failed}}, at},
		"gates compared":     {Record{Facts: facts, Decision: rollout.Decision{Changes: halted}}, at.Add(time.Second)},
		"a deadline passed":  {Record{Decision: rollout.Decision{Changes: halted}}, time.Time{}},
		"a person stopped":   {Record{Facts: facts, Decision: rollout.Decision{Changes: halted, Command: &rollout.Command{}}}, time.Time{}},
		"nothing is stopped": {Record{Facts: facts, Decision: rollout.Decision{Patch: failed}}, time.Time{}},
	} {
		if got := stoppedBy(&c.record); !got.Equal(c.want) {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
