package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func levelRoutes(b Backend) []route {
	return []route{
		of("driftLevel", "/models/:model/levels", "Drift and quality of one level: devices, cohorts, sites, versions or the fleet.", b.DriftLevel),
		of("driftGroup", "/models/:model/group", "One group of a level, with the histograms of its features.", b.DriftGroup),
	}
}

// levelOf reads the name of a level.
func levelOf(by string) (drift.Level, error) {
	level := drift.Level(cmp.Or(by, operator.LevelCohort))
	if !slices.Contains(drift.Levels(), level) {
		return "", operator.Errorf(operator.Invalid, "there is no level %.40q", by).WithHint("take one of %s", strings.Join(operator.Levels(), ", "))
	}
	return level, nil
}

// DriftLevel lists the groups of one level.
func (s *Service) DriftLevel(_ context.Context, model string, q operator.LevelQuery) (*operator.DriftLevel, error) {
	if _, err := s.sequences(model); err != nil {
		return nil, err
	}
	by, err := levelOf(q.By)
	if err != nil {
		return nil, err
	}
	cfg := s.d.Monitor.Config()
	out := &operator.DriftLevel{
		Model: model, By: string(by), CohortBy: cfg.CohortBy, Threshold: cfg.Threshold, Share: cfg.Share,
		Groups: []operator.DriftGroup{}, AsOf: s.d.Now().UTC(),
	}
	for _, g := range s.d.Monitor.Groups(model, by) {
		if s.named(model, g.Release, q.Version) || by == drift.LevelFleet {
			out.Groups = append(out.Groups, s.driftGroup(model, &g))
		}
	}
	return out, nil
}

// named tells whether a release is the one asked for, by name or digest.
func (s *Service) named(model string, d release.Digest, version string) bool {
	return version == "" || version == d.String() || version == s.ref(model, d).Version
}

// DriftGroup is one group with its histograms.
func (s *Service) DriftGroup(_ context.Context, model string, q operator.GroupQuery) (*operator.DriftGroupDetail, error) {
	order, err := s.sequences(model)
	if err != nil {
		return nil, err
	}
	by, err := levelOf(q.By)
	if err != nil {
		return nil, err
	}
	var of release.Digest
	for d := range order {
		if q.Version != "" && s.named(model, d, q.Version) {
			of = d
		}
	}
	g, ok := s.d.Monitor.Group(model, by, of, q.Name)
	if !ok || q.Version != "" && of.IsZero() {
		return nil, operator.Errorf(operator.NotFound, "no %s %.80q of model %s has been judged", by, q.Name, model).
			WithHint("list the groups of a level; there are none before devices report, or when they have not for long")
	}
	out := &operator.DriftGroupDetail{DriftGroup: s.driftGroup(model, &g.GroupScore), Features: []operator.FeatureDrift{}}
	for i := range g.Features {
		f := &g.Features[i]
		x := operator.FeatureDrift{DriftCell: cell(f.FeatureScore)}
		for _, b := range f.Bins {
			x.Bins = append(x.Bins, operator.FeatureBin(b))
		}
		out.Features = append(out.Features, x)
	}
	return out, nil
}

func (s *Service) driftGroup(model string, g *drift.GroupScore) operator.DriftGroup {
	out := operator.DriftGroup{
		Level: string(g.Level), Name: g.Name, Verdict: operator.Verdict(g.Verdict), Prediction: operator.Verdict(g.Prediction), Text: groupText(g),
		Devices: g.Devices, Drifted: g.Drifted, Rows: g.Rows, From: fromMS(g.FromMS), To: fromMS(g.ToMS), MaxPSI: g.Training.MaxPSI,
		Condition: g.Training.Condition, Cells: cells(&g.Training, nil), Accuracy: accuracy(&g.Accuracy), Calibration: calibration(&g.Calibration),
	}
	out.ReleaseRef = operator.ReleaseRef{Model: model}
	if !g.Release.IsZero() {
		out.ReleaseRef = s.ref(model, g.Release)
	}
	return out
}

func groupText(g *drift.GroupScore) string {
	switch g.Verdict { //nolint:exhaustive // the others are verdicts of accuracy, or need no more words
	case drift.OK:
		if g.Training.Apart > 0 {
			return fmt.Sprintf("as in training but for %d of its %d devices: look at them", g.Drifted, g.Devices)
		}
		return fmt.Sprintf("as in training: largest PSI %.3g", g.Training.MaxPSI)
	case drift.Drift:
		return fmt.Sprintf("left its training data: %d of %d devices, %d of %d features apart", g.Drifted, g.Devices, g.Training.Apart, len(g.Training.Features))
	case drift.Apart:
		if g.Level != drift.LevelDevice {
			return fmt.Sprintf("apart as a whole, for %d of its %d devices are: look at them", g.Drifted, g.Devices)
		}
		return "left its training data, and nobody can tell why"
	case drift.SensorFault:
		return "apart from its cohort, which is fine: look at the sensor"
	default:
		return fmt.Sprintf("%d rows are too few to say", g.Rows)
	}
}

func calibration(c *drift.Calibration) operator.Calibration {
	out := operator.Calibration{
		Labels: c.Labels, Confidence: c.Confidence, Accuracy: c.Accuracy, ECE: c.ECE, Noise: c.Noise, Brier: c.Brier,
		BrierLower: c.BrierLower, BrierUpper: c.BrierUpper, Leaning: string(c.Leaning),
	}
	for _, b := range c.Bins {
		out.Bins = append(out.Bins, operator.CalibrationBin(b))
	}
	return out
}
