package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/vedette-edge/vedette/agent/score"
	"github.com/vedette-edge/vedette/protocol/divergence"
)

// reportRows is how many quantities the table shows: those furthest apart.
const reportRows = 10

// writeReport writes what --report asks for.
func (f *scoreFlags) writeReport(r *score.Report) error {
	if r == nil {
		return nil
	}
	return r.Save(f.report)
}

func (a *app) summary(f *scoreFlags, s score.Summary) error {
	if a.output == "json" {
		return a.print(s, nil)
	}
	if f.quiet {
		return nil
	}
	fmt.Fprintf(a.err, "%d rows: %d scored, %d skipped, %d without outputs; %.0f rows/s\n", s.Rows, s.Scored, s.Skipped, s.Nulls, s.Rate)
	for _, e := range s.Errors {
		fmt.Fprintf(a.err, "  %v\n", e)
	}
	if more := s.Skipped + s.Nulls - int64(len(s.Errors)); more > 0 {
		fmt.Fprintf(a.err, "  and %d more\n", more)
	}
	if s.Report != nil {
		printReport(a.err, s.Report)
	}
	return nil
}

// printReport says for people how the rows differ from training.
func printReport(w io.Writer, r *score.Report) {
	fmt.Fprintln(w, verdict(r))
	list := slices.Clone(r.Features)
	slices.SortStableFunc(list, func(a, b divergence.FeatureScore) int { return cmp.Compare(b.PSI, a.PSI) })
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"quantity", "side", "PSI", "noise", "KS", "JS", "finding"})
	for _, f := range list[:min(len(list), reportRows)] {
		t.AppendRow(table.Row{f.Name, f.Side, number3(f.PSI), number3(f.Noise), number3(f.KS), number3(f.JS), finding(f)})
	}
	t.Render()
	if more := len(list) - reportRows; more > 0 {
		fmt.Fprintf(w, "and %d more with a smaller PSI\n", more)
	}
}

func number3(v float64) string { return fmt.Sprintf("%.3f", v) }

// verdict is the report in a sentence.
func verdict(r *score.Report) string {
	from := fmt.Sprintf("%d rows, about %d of them distinct", r.Rows, r.Distinct)
	switch {
	case r.Apart > 0:
		return fmt.Sprintf("drift: %d of %d quantities are apart from the training data (%s)", r.Apart, len(r.Features), from)
	case !r.Enough:
		return fmt.Sprintf("too few rows to tell drift from chance (%s)", from)
	}
	return fmt.Sprintf("no drift from the training data (%s)", from)
}

func finding(f divergence.FeatureScore) string {
	switch {
	case f.Apart:
		return "apart"
	case f.Missing != nil && f.Missing.Apart:
		return "missing values: " + share(f.Missing)
	case f.New != nil && f.New.Apart:
		return "values not seen in training: " + share(f.New)
	case !f.Enough:
		return "too few rows"
	}
	return "as in training"
}

func share(s *divergence.Share) string {
	return fmt.Sprintf("%.1f%%, in training %.1f%%", 100*s.After, 100*s.Before)
}
