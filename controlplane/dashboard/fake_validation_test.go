package dashboard

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Validation tells of version 2 that its metric passes, that it does not beat
// the champion by enough, and that the lab lacks a profile.
func (f *fleet) Validation(_ context.Context, model, version string) (*operator.Validation, error) {
	name := "2"
	if version == digest1.String() || version == "1" {
		return &operator.Validation{Model: model, Version: "1", Release: digest1, Cleared: true, Why: "digits has no gates", Gates: []operator.GateVerdict{}}, nil
	}
	return &operator.Validation{
		Model: model, Version: name, Release: digest2, Why: f.text("gate champion is failed"), First: "champion", Next: f.text("train a better one"), Champion: "1",
		Gates: []operator.GateVerdict{
			{
				Name: "accuracy", Kind: "metric", Status: operator.GatePassed, Value: new(0.974), Threshold: new(0.95), Lower: new(0.957), Upper: new(0.9845),
				Confidence: 0.95, N: 540, Evidence: f.text("accuracy 0.974 on 540 rows of heldout.csv"),
			},
			{
				Name: "champion", Kind: "champion", Status: operator.GateFailed, Value: new(0.004), Threshold: new(0.0), Lower: new(-0.006), N: 540,
				Evidence: f.text("better than 1's by 0.004, at 95% confidence by at least −0.006"),
			},
			{
				Name: "latency", Kind: "latency", Status: operator.GateMissing, Threshold: new(100.0), AtMost: true, Unit: "ms", Evidence: "no lab device has tried it on jetson-orin-nano",
				Parts: []operator.GatePart{
					{Name: "raspberry-pi-5", Status: operator.GatePassed, Value: new(41.2), Text: f.text("bench-1 with CPU 1.30.0")},
					{Name: "jetson-orin-nano", Status: operator.GateMissing, Text: "3 devices; no lab device of this profile has tried it"},
				},
			},
			{
				Name: "memory", Kind: "memory", Status: operator.GateOverridden, Value: new(70.0 * (1 << 20)), Threshold: new(64.0 * (1 << 20)), AtMost: true, Unit: "bytes",
				Evidence: "over the limit on raspberry-pi-5",
				Override: &operator.GateOverride{Actor: f.text("paula"), Reason: f.text("there is room"), At: now.Add(-time.Hour), Was: operator.GateFailed},
			},
		},
		Evidence: []operator.EvidenceHeld{{Kind: operator.EvidenceEvaluation, Digest: digest1, Rows: digest2, RowsName: f.text("heldout.csv"), Count: 540, Actor: f.text("paula"), At: now}},
		Trials:   []operator.LabResult{{Device: "bench-1", Profile: "raspberry-pi-5", P95US: 41_200, PeakBytes: 70 << 20, GoldenRows: 64, Provider: f.text("CPU"), At: now}},
		Lab:      &operator.LabTrial{Version: f.text("2"), Devices: []string{"bench-1"}},
	}, nil
}

// History tells that version 1 was in production and where it went.
func (f *fleet) History(_ context.Context, model string, _ operator.HistoryQuery) (*operator.History, error) {
	return &operator.History{
		Model:  model,
		Stages: []operator.StageSpan{{Version: "1", Release: digest1, Stage: operator.StageProduction, From: now.Add(-48 * time.Hour), Actor: f.text("paula"), Reason: f.text("the first one")}},
		Where: []operator.DeployedSpan{{
			Version: "1", Release: digest1, Rollout: "digits-1-1", State: "completed", Devices: 8, Sites: map[string]int{f.text("a"): 3, "b": 3, "c": 2},
			From: now.Add(-47 * time.Hour), Actor: f.text("olga"), Reason: f.text("everywhere"),
		}},
	}, nil
}

func (f *fleet) OverrideGate(ctx context.Context, model, version, gate string, r operator.Reasoned) (*operator.Validation, error) {
	return nil, f.did(ctx, "let %s %s past %s because %s", model, version, gate, r.Reason)
}

func (f *fleet) SetLabTrial(ctx context.Context, model, version string, c operator.LabTrialChange) (*operator.Validation, error) {
	return nil, f.did(ctx, "lab tries %s %s because %s", model, version, c.Reason)
}
