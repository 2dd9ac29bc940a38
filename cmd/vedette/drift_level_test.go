package main

import (
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func levelGroup() operator.DriftGroup {
	return operator.DriftGroup{
		ReleaseRef: operator.ReleaseRef{Model: "digits", Version: "1", Release: release.Digest{1}}, Level: "site", Name: "b",
		Verdict: operator.VerdictDrift, Prediction: operator.VerdictOK, Devices: 3, Drifted: 2, Rows: 900, MaxPSI: 0.512,
		Cells:       []operator.DriftCell{{Feature: "p07", Side: "input", PSI: 0.512, Apart: true, Enough: true}},
		Accuracy:    operator.Accuracy{Labels: 200, Correct: 120, Accuracy: 0.6, Lower: 0.5, Upper: 0.7, Floor: 0.9, Verdict: operator.VerdictBreach, Cause: operator.CauseConcept},
		Calibration: operator.Calibration{Labels: 200, ECE: 0.2, Noise: 0.04, Brier: 0.3, Leaning: operator.LeaningOverconfident, Bins: []operator.CalibrationBin{{From: 0.8, To: 0.9, Labels: 200}}},
	}
}

func TestLevelForPeople(t *testing.T) {
	var out strings.Builder
	l := &operator.DriftLevel{Model: "digits", By: "site", Threshold: 0.2, Groups: []operator.DriftGroup{levelGroup()}}
	l.Groups = append(l.Groups, operator.DriftGroup{Level: "site", Verdict: operator.VerdictInsufficient})
	showLevel(&out, l)
	for _, want := range []string{"digits by site", "2 of 3", "p07 0.512", "overconfident, ECE 0.200 (noise 0.040)", "60.0%", "(none)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestGroupForPeople(t *testing.T) {
	var out strings.Builder
	g := &operator.DriftGroupDetail{DriftGroup: levelGroup(), Features: []operator.FeatureDrift{
		{DriftCell: operator.DriftCell{Feature: "p07", Side: "input", PSI: 0.512, Apart: true, KS: 0.25, KSUp: 0.4, Enough: true}, Bins: []operator.FeatureBin{
			{Label: "≤ 1", Before: 0.5, After: 0.125}, {Label: "> 1", Before: 0.5, After: 0.875}, {Label: "missing"},
		}},
		{DriftCell: operator.DriftCell{Feature: "p08", Missing: &operator.ShareChange{After: 0.043, Apart: true}}},
		{DriftCell: operator.DriftCell{Feature: "p09", Side: "input"}},
	}}
	showGroup(&out, g, 2)
	for _, want := range []string{"▅▅· → ▂█·", "0.25–0.40", "0.0% → 4.3%", "missing values", "concept drift", "0.8–0.9", "and 1 more"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "p09") {
		t.Error("more features than asked for")
	}
}
