package release

import (
	"fmt"
	"math"
	"slices"
)

// Comparison is how a graph's outputs differ from the golden ones.
type Comparison struct {
	Rows  int // compared
	Wrong int // rows with at least one element outside its tolerance
	// WorstAbs is the largest |got − want| of all numbers, also of those within
	// tolerance; +Inf where one of the two is not a number and the other is.
	WorstAbs float64
	// First names the first disagreement for people; empty when there is none.
	First string
}

// OK reports whether every row agreed.
func (c Comparison) OK() bool { return c.Wrong == 0 }

// String is one line for a log or an operator.
func (c Comparison) String() string {
	if c.OK() {
		return fmt.Sprintf("all %d rows agree, largest difference %.3g", c.Rows, c.WorstAbs)
	}
	return fmt.Sprintf("%d of %d rows disagree, first %s", c.Wrong, c.Rows, c.First)
}

// Compare holds the outputs that a graph gave for g.Inputs against the expected
// ones. Outputs that are not expected are ignored. An output that is missing or
// has another shape is an error that wraps ErrInvalid: there is nothing to
// compare.
func (g *Golden) Compare(got []Values) (Comparison, error) {
	c := Comparison{Rows: g.Rows}
	wrong := make([]bool, g.Rows)
	firstRow := g.Rows
	for i := range g.Outputs {
		want := &g.Outputs[i]
		j := slices.IndexFunc(got, func(v Values) bool { return v.Name == want.Name })
		if j < 0 {
			return Comparison{}, fmt.Errorf("compare golden vectors: %w", invalid(fmt.Sprintf("output %q", want.Name), "was not computed"))
		}
		if !slices.Equal(want.Shape, got[j].Shape) || len(want.Data) != len(got[j].Data) || len(want.Strings) != len(got[j].Strings) {
			return Comparison{}, fmt.Errorf("compare golden vectors: %w", invalid(fmt.Sprintf("output %q", want.Name), "has shape %v, expected %v", got[j].Shape, want.Shape))
		}
		if row, first := want.compare(&got[j], &c, wrong); row < firstRow {
			firstRow, c.First = row, first
		}
	}
	for _, w := range wrong {
		if w {
			c.Wrong++
		}
	}
	return c, nil
}

// compare marks the rows of one output that are wrong and returns the first of
// them with its description.
func (e *Expected) compare(got *Values, c *Comparison, wrong []bool) (firstRow int, first string) {
	firstRow = len(wrong)
	width := max(1, e.Len()/len(wrong))
	fail := func(i int, got, want any) {
		row := i / width
		wrong[row] = true
		if row < firstRow {
			firstRow = row
			first = fmt.Sprintf("row %d, output %q, element %d: got %v, want %v (tolerance %g + %g·|want|)", row, e.Name, i%width, got, want, e.Abs, e.Rel)
		}
	}
	for i, want := range e.Data {
		diff := difference(got.Data[i], want)
		c.WorstAbs = max(c.WorstAbs, diff)
		if diff > e.Abs+e.Rel*math.Abs(want) {
			fail(i, got.Data[i], want)
		}
	}
	for i, want := range e.Strings {
		if got.Strings[i] != want {
			fail(i, fmt.Sprintf("%q", got.Strings[i]), fmt.Sprintf("%q", want))
		}
	}
	return firstRow, first
}

// difference is |got − want|, 0 for two NaNs and +Inf for one: NaN compares
// false with everything and would pass as "not larger than the tolerance".
func difference(got, want float64) float64 {
	switch {
	case math.IsNaN(got) && math.IsNaN(want):
		return 0
	case math.IsNaN(got) || math.IsNaN(want):
		return math.Inf(1)
	default:
		return math.Abs(got - want)
	}
}
