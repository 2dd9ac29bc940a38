package api

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// groups are a site of each version, for every level but the fleet.
func groups(by drift.Level) []drift.GroupScore {
	f := drift.FeatureScore{Name: "pixel 1", Side: "input", PSI: 0.5, Apart: true, Missing: &divergence.Share{After: 0.1, Apart: true}}
	g := drift.GroupScore{
		Level: by, Name: "a", Release: second, Verdict: drift.Drift, Prediction: drift.OK, Devices: 3, Drifted: 2, Rows: 900, FromMS: 1000, ToMS: 2000,
		Training:    drift.Comparison{MaxPSI: 0.5, Apart: 1, Features: []drift.FeatureScore{f}},
		Accuracy:    drift.AccuracyScore{Labels: 50, Verdict: drift.Breach, Cause: drift.CauseConcept},
		Calibration: drift.Calibration{Labels: 50, ECE: 0.2, Leaning: drift.Overconfident, Bins: []drift.ConfidenceBin{{From: 0.9, To: 1, Labels: 50}}},
	}
	if by == drift.LevelFleet {
		g.Name, g.Release = "", release.Digest{}
		return []drift.GroupScore{g}
	}
	old := g
	old.Release = first
	return []drift.GroupScore{g, old}
}

func (w worldMonitor) Floor(model string) float64 {
	for i := range w.policies {
		if p := &w.policies[i]; p.Model == model {
			return p.AccuracyFloor
		}
	}
	return w.floors[model]
}

func (w worldMonitor) Groups(_ string, by drift.Level) []drift.GroupScore { return groups(by) }

func (w worldMonitor) Group(_ string, by drift.Level, d release.Digest, name string) (out drift.GroupDetail, ok bool) {
	for _, g := range groups(by) {
		if g.Name == name && (d.IsZero() || d == g.Release) {
			bins := []drift.BinShare{{Label: "≤ 1", Before: 0.5, After: 0.1}}
			return drift.GroupDetail{GroupScore: g, Features: []drift.FeatureDetail{{FeatureScore: g.Training.Features[0], Bins: bins}}}, true
		}
	}
	return out, false
}

func TestLevels(t *testing.T) {
	s := newWorld().service()
	for by, want := range map[string]int{"": 2, "device": 2, "site": 2, "version": 2, "fleet": 1} {
		got, err := s.DriftLevel(t.Context(), "digits", operator.LevelQuery{By: by})
		if err != nil || len(got.Groups) != want || got.Threshold != 0.2 {
			t.Fatalf("level %q: got %+v, %v; want %d groups", by, got, err, want)
		}
		g := got.Groups[0]
		if g.Verdict != operator.VerdictDrift || g.Drifted != 2 || !g.Cells[0].Missing.Apart || g.Accuracy.Cause != operator.CauseConcept ||
			g.Calibration.Leaning != operator.LeaningOverconfident || len(g.Calibration.Bins) != 1 || !g.To.Equal(time.UnixMilli(2000)) {
			t.Errorf("level %q: got %+v", by, g)
		}
		if by != "fleet" && g.Version != "2" || by == "fleet" && !g.Release.IsZero() {
			t.Errorf("level %q: got version %q", by, g.Version)
		}
	}
	one, err := s.DriftLevel(t.Context(), "digits", operator.LevelQuery{By: "site", Version: "1"})
	if err != nil || len(one.Groups) != 1 || one.Groups[0].Release != first {
		t.Errorf("one version: got %+v, %v", one, err)
	}
	if _, err := s.DriftLevel(t.Context(), "digits", operator.LevelQuery{By: "continent"}); operator.CodeOf(err) != operator.Invalid || !strings.Contains(err.Error(), "continent") {
		t.Errorf("no such level: got %v", err)
	}
	if _, err := s.DriftLevel(t.Context(), "none", operator.LevelQuery{}); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("no such model: got %v", err)
	}
}

func TestGroupHasHistograms(t *testing.T) {
	s := newWorld().service()
	for _, q := range []operator.GroupQuery{{By: "site", Name: "a"}, {By: "site", Name: "a", Version: "1"}, {By: "fleet"}} {
		got, err := s.DriftGroup(t.Context(), "digits", q)
		if err != nil || len(got.Features) != 1 || !slices.Equal(got.Features[0].Bins, []operator.FeatureBin{{Label: "≤ 1", Before: 0.5, After: 0.1}}) {
			t.Errorf("%+v: got %+v, %v", q, got, err)
		} else if q.Version != "" && got.Version != q.Version {
			t.Errorf("%+v: got version %s", q, got.Version)
		}
	}
	for _, q := range []operator.GroupQuery{{By: "site", Name: "z"}, {By: "site", Name: "a", Version: "9"}} {
		if _, err := s.DriftGroup(t.Context(), "digits", q); operator.CodeOf(err) != operator.NotFound {
			t.Errorf("%+v: got %v, want not found", q, err)
		}
	}
}

// A point of a curve has calibration where labels had a confidence.
func TestQualityHasCalibration(t *testing.T) {
	w := newWorld()
	w.series = []drift.Series{{Model: "digits", Release: first, Points: []drift.Point{
		{AtMS: 1000, Labels: 4, Correct: 3, Accuracy: 0.75, MaxPSI: -1, Rated: 4, RatedRight: 3, Confidence: 3.2, Squared: 2.56, Hits: 2.4},
		{AtMS: 2000, MaxPSI: -1, Accuracy: -1},
	}}}
	got, err := w.service().Quality(t.Context(), operator.QualityQuery{Model: "digits"})
	if err != nil {
		t.Fatal(err)
	}
	p := got.Series[0].Points
	// (2.56 − 2·2.4 + 3) / 4: four of 0.8, three of them right
	if p[0].Brier == nil || *p[0].Brier < 0.189 || *p[0].Brier > 0.191 || *p[0].Confidence != 0.8 || p[1].Brier != nil || p[1].Confidence != nil {
		t.Errorf("got %+v", p)
	}
}
