package constraints

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// defaultPSI is the threshold of baseline_drift_check where none is set.
const defaultPSI = 0.2

// Check finds where the rows differ from the constraints that the summary was
// begun with.
func (s *Summary) Check(c *Constraints) []Violation {
	out := []Violation{}
	say := func(feature, check, format string, args ...any) {
		out = append(out, Violation{Feature: feature, Check: check, Description: fmt.Sprintf(format, args...)})
	}
	for i := range c.Features {
		f := &c.Features[i]
		at := slices.IndexFunc(s.columns, func(col column) bool { return col.name == f.Name })
		if at < 0 {
			say(f.Name, MissingName, "the rows have no column %q", f.Name)
			continue
		}
		s.columns[at].check(f, &c.Monitoring, s.rows, func(check, format string, args ...any) { say(f.Name, check, format, args...) })
	}
	for i := range s.columns {
		if s.columns[i].feature == nil {
			say(s.columns[i].name, ExtraName, "the constraints know no column %q", s.columns[i].name)
		}
	}
	for _, f := range s.drifted(c) {
		say(f.Name, Drift, "PSI %.3f, of which the numbers of rows explain %.3f, against %d rows of the baseline", f.PSI, f.Noise, f.N)
	}
	return out
}

type sayer func(check, format string, args ...any)

func (c *column) check(f *Feature, m *Monitoring, rows uint64, say sayer) {
	if have, of := c.ofType(f.InferredType), c.present(); of > 0 && share(have, of) < threshold(m.DatatypeCheckThreshold) {
		say(DataType, "%d of %d values are no %s", of-have, of, f.InferredType)
	}
	// A share below the limit by chance alone is none; where all must be there
	// one that lacks is enough.
	if _, upper := wilson(float64(rows-c.missing), float64(rows), chance); c.missing > 0 && upper < f.Completeness {
		say(Complete, "%.4g of the rows have a value, at least %.4g must", share(rows-c.missing, rows), f.Completeness)
	}
	if n := f.Number; n != nil && c.integral+c.real > 0 {
		c.checkRange(n, threshold(m.RangeCheckThreshold), say)
	}
	if t := f.Text; t != nil && len(t.Domains) > 0 {
		c.checkDomain(t.Domains, threshold(m.DomainContentThreshold), say)
	}
}

func threshold(p *float64) float64 {
	if p == nil {
		return 1
	}
	return *p
}

func share(part, of uint64) float64 { return float64(part) / float64(max(of, 1)) }

// ofType counts the values that a type takes.
func (c *column) ofType(kind string) uint64 {
	switch kind {
	case Integral:
		return c.integral
	case Fractional:
		return c.integral + c.real
	}
	return c.present()
}

func (c *column) checkRange(n *Number, within float64, say sayer) {
	if n.IsNonNegative && c.negative > 0 {
		say(Range, "%d values are negative, the least is %.6g", c.negative, c.min)
	}
	of := c.integral + c.real
	if _, upper := wilson(float64(of-c.outside), float64(of), chance); c.outside > 0 && upper < within {
		say(Range, "%d of %d values are outside %s; they are %.6g to %.6g", c.outside, of, n.rangeText(), c.min, c.max)
	}
}

func (n *Number) rangeText() string {
	lower, upper := "−∞", "∞"
	if n.Min != nil {
		lower = fmt.Sprintf("%.6g", *n.Min)
	}
	if n.Max != nil {
		upper = fmt.Sprintf("%.6g", *n.Max)
	}
	return lower + " to " + upper
}

func (c *column) checkDomain(domains []string, least float64, say sayer) {
	inside := uint64(0)
	for _, d := range domains {
		inside += c.domain[d]
	}
	of := c.present()
	if of == 0 || share(inside, of) >= least {
		return
	}
	var foreign []string
	for text := range c.domain {
		if !slices.Contains(domains, text) {
			foreign = append(foreign, text)
		}
	}
	slices.Sort(foreign)
	say(Categories, "%d of %d values are none of the %d known, such as %.40q", of-inside, of, len(domains),
		strings.Join(foreign[:min(len(foreign), 3)], ", "))
}

// drifted are the columns whose distribution is apart from the baseline's. A
// column that is not the constraints' has none.
func (s *Summary) drifted(c *Constraints) []divergence.FeatureScore {
	d := c.Monitoring.Distribution
	if d.PerformComparison == Disabled {
		return nil
	}
	limits := divergence.DefaultLimits()
	limits.Threshold = defaultPSI
	if d.ComparisonThreshold > 0 {
		limits.Threshold = d.ComparisonThreshold
	}
	n := uint64(0)
	for i := range s.columns {
		if f := s.columns[i].feature; f != nil && f.Baseline.Rows > 0 && (n == 0 || f.Baseline.Rows < n) {
			n = f.Baseline.Rows
		}
	}
	if n == 0 {
		return nil
	}
	scores := divergence.Compare(n, s.rows, limits, func(yield func(divergence.Stream) bool) {
		for i := range s.columns {
			col := &s.columns[i]
			if col.feature == nil || col.feature.Baseline.Rows == 0 {
				continue
			}
			b := &col.feature.Baseline
			p := make([]float64, len(b.Counts))
			for k, v := range b.Counts {
				p[k] = v * float64(n) / float64(b.Rows)
			}
			if !yield(divergence.Stream{Name: col.name, Side: sketch.Input, Ordered: col.feature.Text == nil, P: p, Q: col.bins}) {
				return
			}
		}
	})
	return scores.Furthest(len(scores.Features))
}

// MakeReport holds a summary against the constraints that it was begun with. The
// caller says which files they are of.
func (s *Summary) MakeReport(c *Constraints) *Report {
	r := &Report{Format: ReportFormat, Count: int64(s.rows), Columns: s.Statistics(), Violations: s.Check(c)} //nolint:gosec // rows of one file
	if len(r.Violations) > maxViolations {
		r.More = len(r.Violations) - maxViolations
		r.Violations = r.Violations[:maxViolations]
	}
	return r
}
