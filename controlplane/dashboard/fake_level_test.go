package dashboard

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// calibrationOf is that of a model which is surer than it is right.
func calibrationOf(off float64) operator.Calibration {
	c := operator.Calibration{
		Labels: 900, Confidence: 0.86, Accuracy: 0.86 - off, ECE: 0.02 + off, Noise: 0.031, Brier: 0.09 + off/2, BrierLower: 0.07 + off/2,
		BrierUpper: 0.11 + off/2, Leaning: operator.LeaningCalibrated,
	}
	if off > 0.02 {
		c.Leaning = operator.LeaningOverconfident
	}
	for i := 3; i < 10; i++ {
		at := float64(i)/10 + 0.05
		share := max(0.05, at-off)
		half := 0.4 / math.Sqrt(float64(20*(i-2)))
		c.Bins = append(c.Bins, operator.CalibrationBin{
			From: float64(i) / 10, To: float64(i+1) / 10, Labels: uint64(20 * (i - 2)), Confidence: at, Accuracy: share, Lower: max(0, share-half), Upper: min(1, share+half),
		})
	}
	return c
}

func (f *fleet) group(by, name string, verdict operator.Verdict) operator.DriftGroup {
	g := operator.DriftGroup{
		ReleaseRef: ref1, Level: by, Name: name, Verdict: verdict, Prediction: operator.VerdictOK, Text: f.text("as in training"), Devices: 3, Rows: 2250,
		From: now.Add(-3600e9), To: now, Cells: cells(func(int) bool { return verdict == operator.VerdictDrift }, false),
		Accuracy:    operator.Accuracy{Labels: 900, Correct: 880, Accuracy: 0.978, Lower: 0.95, Upper: 0.99, Floor: 0.9, Verdict: operator.VerdictOK},
		Calibration: calibrationOf(0),
	}
	if verdict == operator.VerdictDrift {
		g.Drifted, g.MaxPSI, g.Prediction = 3, 6.5, operator.VerdictDrift
		g.Accuracy = operator.Accuracy{Labels: 900, Correct: 576, Accuracy: 0.64, Lower: 0.6, Upper: 0.68, Floor: 0.9, Verdict: operator.VerdictBreach, Cause: operator.CauseInputs}
		g.Calibration = calibrationOf(0.2)
		g.Cells[5].Missing = &operator.ShareChange{Before: 0.001, After: 0.043, P: 1e-9, Apart: true}
		g.Cells[64].New = &operator.ShareChange{After: 0.031, P: 2e-7, Apart: true}
	}
	return g
}

func (f *fleet) groups(by string) []operator.DriftGroup {
	switch by {
	case operator.LevelFleet:
		g := f.group(by, "", operator.VerdictApart)
		g.ReleaseRef = operator.ReleaseRef{Model: "digits"}
		return []operator.DriftGroup{g}
	case operator.LevelVersion:
		return []operator.DriftGroup{f.group(by, "1", operator.VerdictApart)}
	case operator.LevelDevice:
		var out []operator.DriftGroup
		for _, d := range f.all() {
			g := f.group(by, d.ID, f.deviceDrift(d.ID, d.Site).Verdict)
			g.Devices = 1
			out = append(out, g)
		}
		return out
	}
	return []operator.DriftGroup{f.group(by, "a", operator.VerdictOK), f.group(by, "b", operator.VerdictDrift), f.group(by, "c", operator.VerdictOK)}
}

func (f *fleet) DriftLevel(_ context.Context, model string, q operator.LevelQuery) (*operator.DriftLevel, error) {
	if model != "digits" {
		return nil, operator.Errorf(operator.NotFound, "there is no model %s", model)
	}
	return &operator.DriftLevel{Model: model, By: q.By, CohortBy: "site", Threshold: 0.2, Share: 0.02, Groups: f.groups(q.By), AsOf: now}, nil
}

func (f *fleet) DriftGroup(_ context.Context, model string, q operator.GroupQuery) (*operator.DriftGroupDetail, error) {
	for _, g := range f.groups(q.By) {
		if model != "digits" || g.Name != q.Name {
			continue
		}
		out := &operator.DriftGroupDetail{DriftGroup: g}
		for i, c := range g.Cells {
			d := operator.FeatureDrift{DriftCell: c}
			for b := range 8 {
				before := 0.125
				after := before
				if c.Apart {
					after = []float64{0.4, 0.3, 0.12, 0.06, 0.05, 0.04, 0.02, 0.01}[(b+i)%8]
				}
				d.Bins = append(d.Bins, operator.FeatureBin{Label: fmt.Sprintf("%d – %d", 2*b, 2*b+2), Before: before, After: after})
			}
			if c.Missing != nil {
				d.Bins = append(d.Bins, operator.FeatureBin{Label: "missing", Before: c.Missing.Before, After: c.Missing.After})
			}
			out.Features = append(out.Features, d)
		}
		return out, nil
	}
	return nil, operator.Errorf(operator.NotFound, "no %s %s has been judged", q.By, strings.ToLower(f.text(q.Name)))
}
