package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// levelFlags choose a level of a model, and one of its groups.
type levelFlags struct {
	by, version, group string
	one                bool // group was given, which may be an empty one
	features           int
}

// show prints a level, or one group of it.
func (f *levelFlags) show(ctx context.Context, a *app, c *client.Client, model string) error {
	if f.one || f.by == operator.LevelFleet {
		g, err := c.DriftGroup(ctx, model, operator.GroupQuery{By: f.by, Version: f.version, Name: f.group})
		if err != nil {
			return err
		}
		return a.print(g, func(w io.Writer) { showGroup(w, g, f.features) })
	}
	l, err := c.DriftLevel(ctx, model, operator.LevelQuery{By: f.by, Version: f.version})
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) { showLevel(w, l) })
}

func showLevel(w io.Writer, l *operator.DriftLevel) {
	if len(l.Groups) == 0 {
		none(w, "evidence yet: no device has reported a window of "+l.Model)
		return
	}
	fmt.Fprintf(w, "%s by %s; a PSI counts above %s and above its noise\n", l.Model, l.By, number(l.Threshold))
	rows := [][]string{}
	for i := range l.Groups {
		g := &l.Groups[i]
		rows = append(rows, []string{
			firstOf(g.Name, "(none)"), versionText(g.ReleaseRef), string(g.Verdict), string(g.Prediction), fmt.Sprintf("%d of %d", g.Drifted, g.Devices),
			count(g.Rows), number(g.MaxPSI), worst(g.Cells), accuracyText(&g.Accuracy), calibrationText(&g.Calibration),
		})
	}
	header := []string{l.By, "version", "verdict", "predictions", "drifted", "rows", "max psi", "furthest apart", "accuracy", "calibration"}
	if l.By == operator.LevelVersion { // the group says it
		header = slices.Delete(header, 1, 2)
		for i := range rows {
			rows[i] = slices.Delete(rows[i], 1, 2)
		}
	}
	grid(w, header, rows)
}

func versionText(r operator.ReleaseRef) string {
	if r.Release.IsZero() {
		return "all"
	}
	return firstOf(r.Version, r.Release.Short())
}

// calibrationText says how far confidence is from being right.
func calibrationText(c *operator.Calibration) string {
	if c.Labels == 0 {
		return ""
	}
	return fmt.Sprintf("%s, ECE %.3f (noise %.3f)", c.Leaning, c.ECE, c.Noise)
}

func showGroup(w io.Writer, g *operator.DriftGroupDetail, features int) {
	facts(w, "level", g.Level, "group", g.Name, "version", versionText(g.ReleaseRef), "verdict", string(g.Verdict), "predictions", string(g.Prediction),
		"what", g.Text, "devices", fmt.Sprintf("%d, %d of them drifted", g.Devices, g.Drifted), "rows", count(g.Rows), "from", timeText(g.From), "to", timeText(g.To),
		"condition", g.Condition, "accuracy", accuracyText(&g.Accuracy), "accuracy is", breachText(&g.Accuracy))
	showCalibration(w, &g.Calibration)
	heading(w, "furthest from training")
	rows := [][]string{}
	for i := range g.Features[:min(max(features, 0), len(g.Features))] {
		f := &g.Features[i]
		rows = append(rows, []string{
			f.Feature, f.Side, found(&f.DriftCell), number(f.PSI), number(f.Noise), number(max(f.P, f.Chi2P)), number(f.JS), distanceText(&f.DriftCell), number(f.LInf),
			shareText(f.Missing), shareText(f.New), barsText(f.Bins),
		})
	}
	grid(w, []string{"feature", "side", "finding", "psi", "noise", "p", "js", "ks", "l-inf", "missing", "new values", "training → now"}, rows)
	if more := len(g.Features) - max(features, 0); more > 0 {
		fmt.Fprintf(w, "and %d more: --features shows them\n", more)
	}
}

// found says in a word what was found of a feature.
func found(c *operator.DriftCell) string {
	switch {
	case c.Apart:
		return "apart"
	case c.Missing != nil && c.Missing.Apart:
		return "missing values"
	case c.New != nil && c.New.Apart:
		return "new values"
	case !c.Enough:
		return "too few rows"
	}
	return "as in training"
}

// distanceText is what bins tell of the Kolmogorov–Smirnov distance.
func distanceText(c *operator.DriftCell) string {
	if c.KSUp == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f–%.2f", c.KS, c.KSUp)
}

func shareText(s *operator.ShareChange) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%.1f%% → %.1f%%", 100*s.Before, 100*s.After)
}

// barsText draws both histograms in the height of a line.
func barsText(bins []operator.FeatureBin) string {
	if len(bins) == 0 {
		return ""
	}
	most := 0.0
	for _, b := range bins {
		most = max(most, b.Before, b.After)
	}
	var before, after strings.Builder
	for _, b := range bins {
		before.WriteRune(barOf(b.Before, most))
		after.WriteRune(barOf(b.After, most))
	}
	return before.String() + " → " + after.String()
}

func barOf(share, most float64) rune {
	const bars = "▁▂▃▄▅▆▇█"
	if most == 0 || share == 0 {
		return '·'
	}
	return []rune(bars)[min(int(share/most*8), 7)]
}

// breachText says what an accuracy below its floor comes from.
func breachText(a *operator.Accuracy) string {
	if a.Floor == 0 || a.Labels == 0 {
		return ""
	}
	said := fmt.Sprintf("%s against the floor of %.1f%%", a.Verdict, 100*a.Floor)
	switch a.Cause {
	case operator.CauseConcept:
		return said + ": the inputs are as in training, so this is concept drift"
	case operator.CauseInputs:
		return said + ": the inputs left the training data"
	}
	return said
}

func showCalibration(w io.Writer, c *operator.Calibration) {
	if c.Labels == 0 {
		return
	}
	heading(w, "calibration")
	facts(w, "leaning", c.Leaning, "expected error", fmt.Sprintf("%.3f; chance alone explains %.3f", c.ECE, c.Noise),
		"brier score", fmt.Sprintf("%.3f (%.3f–%.3f)", c.Brier, c.BrierLower, c.BrierUpper),
		"confidence", fmt.Sprintf("%.1f%% on average, %.1f%% right, %d labels", 100*c.Confidence, 100*c.Accuracy, c.Labels))
	rows := [][]string{}
	for _, b := range c.Bins {
		rows = append(rows, []string{
			fmt.Sprintf("%.1f–%.1f", b.From, b.To), count(b.Labels), fmt.Sprintf("%.1f%%", 100*b.Confidence),
			fmt.Sprintf("%.1f%% (%.1f–%.1f)", 100*b.Accuracy, 100*b.Lower, 100*b.Upper),
		})
	}
	grid(w, []string{"confidence", "labels", "on average", "right"}, rows)
}
