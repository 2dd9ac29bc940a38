package constraints

import (
	"maps"
	"math"
	"slices"
)

// Suggest makes constraints that the rows keep, and that others like them keep
// too: a share is suggested with the room that chance needs.
func (s *Summary) Suggest() *Constraints {
	c := &Constraints{
		Features: []Feature{},
		Monitoring: Monitoring{
			EvaluateConstraints: Enabled, EmitMetrics: Enabled, DatatypeCheckThreshold: new(1.0), DomainContentThreshold: new(1.0),
			RangeCheckThreshold: new(suggestedRange),
			Distribution:        Distribution{PerformComparison: Enabled, ComparisonThreshold: defaultPSI, ComparisonMethod: "PSI"},
		},
	}
	for i := range s.columns {
		c.Features = append(c.Features, s.columns[i].suggest(s.rows))
	}
	return c
}

func (c *column) suggest(rows uint64) Feature {
	f := Feature{Name: c.name, InferredType: c.inferred(), Completeness: 1}
	if c.missing > 0 {
		lower, _ := wilson(float64(rows-c.missing), float64(rows), chance)
		f.Completeness = math.Floor(lower*1000) / 1000
	}
	switch f.InferredType {
	case Integral, Fractional:
		f.Number = c.limits()
		f.Baseline = c.quantiles()
	case String:
		if len(c.domain) <= suggestedDomain && c.other == 0 {
			f.Text = &Text{Domains: slices.Sorted(maps.Keys(c.domain))}
			f.Baseline = c.categories(f.Text.Domains, rows)
		}
	}
	return f
}

// limits are the range seen. The largest of other rows is above the largest of
// these half of the time, so a few may be outside: see suggestedRange.
func (c *column) limits() *Number {
	lower, upper := c.min, c.max
	return &Number{IsNonNegative: c.negative == 0, Min: &lower, Max: &upper}
}

// suggestedRange is the share of values that must be within the range seen: of
// rows like them one in as many as were seen is not.
const suggestedRange = 0.99

// quantiles is the baseline of numbers: bins between the sample's quantiles, of
// which tied ones collapse.
func (c *column) quantiles() Baseline {
	values := slices.Clone(c.sample)
	values = slices.DeleteFunc(values, math.IsNaN)
	slices.Sort(values)
	b := Baseline{Rows: uint64(len(c.sample))}
	for k := 1; k < baselineBins && len(values) > 0; k++ {
		edge := values[k*len(values)/baselineBins]
		if edge > values[0] && (len(b.Edges) == 0 || edge > b.Edges[len(b.Edges)-1]) {
			b.Edges = append(b.Edges, edge)
		}
	}
	b.Counts = make([]float64, len(b.Edges)+3)
	b.Counts[len(b.Edges)+1] = float64(len(c.sample) - len(values))
	for _, v := range values {
		at, found := slices.BinarySearch(b.Edges, v)
		if found {
			at++
		}
		b.Counts[at]++
	}
	return b
}

func (c *column) categories(domains []string, rows uint64) Baseline {
	b := Baseline{Rows: rows, Counts: make([]float64, len(domains)+2)}
	for i, d := range domains {
		b.Counts[i] = float64(c.domain[d])
	}
	b.Counts[len(domains)] = float64(c.missing)
	return b
}

// chance is the quantile up to which a share is taken for one that chance alone
// made: one column in two thousand is beyond it.
const chance = 3.29

// wilson is the score interval of a proportion (Wilson 1927).
func wilson(part, of, z float64) (lower, upper float64) {
	if of == 0 {
		return 0, 1
	}
	p := part / of
	middle, scale := p+z*z/(2*of), 1+z*z/of
	half := z * math.Sqrt(p*(1-p)/of+z*z/(4*of*of))
	return max(0, (middle-half)/scale), min(1, (middle+half)/scale)
}
