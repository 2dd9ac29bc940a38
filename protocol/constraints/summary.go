package constraints

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Summary is what was seen of a table so far.
type Summary struct {
	rows    uint64
	columns []column
	rng     *rand.Rand
	sampled int
}

// column is what was seen of one column.
type column struct {
	name                           string
	missing, integral, real, texts uint64
	negative                       uint64
	outside                        uint64 // numbers beyond the feature's range
	min, max                       float64
	domain                         map[string]uint64
	other                          uint64    // texts beyond MaxDomain different ones
	sample                         []float64 // by slot; NaN for what is no number
	feature                        *Feature  // nil when nothing is said of it
	bins                           []float64 // counts over the feature's baseline
}

// sampleSeed is fixed, so that the same file gives the same constraints.
const sampleSeed = 20261123

// NewSummary begins a table with columns of those names. With constraints, rows
// are also counted over their baselines.
func NewSummary(names []string, c *Constraints) (*Summary, error) {
	if len(names) == 0 || len(names) > MaxColumns {
		return nil, fmt.Errorf("the table has %d columns, must be 1 to %d", len(names), MaxColumns)
	}
	s := &Summary{rng: rand.New(rand.NewPCG(sampleSeed, 0))} //nolint:gosec // which rows are sampled is no secret
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("column %q is there twice", name)
		}
		col := column{name: name, domain: map[string]uint64{}, min: math.Inf(1), max: math.Inf(-1)}
		if f := c.feature(name); f != nil {
			col.feature, col.bins = f, make([]float64, len(f.Baseline.Counts))
		}
		s.columns = append(s.columns, col)
	}
	return s, nil
}

func (c *Constraints) feature(name string) *Feature {
	if c == nil {
		return nil
	}
	if i := slices.IndexFunc(c.Features, func(f Feature) bool { return f.Name == name }); i >= 0 {
		return &c.Features[i]
	}
	return nil
}

// Rows is how many rows were added.
func (s *Summary) Rows() uint64 { return s.rows }

// Add takes in one row: a text for each column, empty or one of NaN, NA and null
// for a missing value.
func (s *Summary) Add(cells []string) error {
	if len(cells) != len(s.columns) {
		return fmt.Errorf("row %d has %d columns, %d are expected", s.rows+1, len(cells), len(s.columns))
	}
	slot := s.slot()
	for i, text := range cells {
		s.columns[i].add(strings.TrimSpace(text), slot)
	}
	s.rows++
	return nil
}

// slot is where the next row stands in the sample, −1 when it is not in it
// (reservoir sampling, Vitter 1985). All columns sample the same rows.
func (s *Summary) slot() int {
	if s.sampled < MaxSample {
		s.sampled++
		return s.sampled - 1
	}
	if at := s.rng.Uint64N(s.rows + 1); at < MaxSample {
		return int(at)
	}
	return -1
}

func absent(text string) bool {
	switch strings.ToLower(text) {
	case "", "nan", "na", "null":
		return true
	}
	return false
}

func (c *column) add(text string, slot int) {
	value, kind := math.NaN(), 0
	switch {
	case absent(text):
		c.missing++
		kind = -1
	default:
		if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsInf(v, 0) {
			value = v
			c.number(v, text)
		} else {
			c.text(text)
			kind = 1
		}
	}
	if slot == len(c.sample) {
		c.sample = append(c.sample, value)
	} else if slot >= 0 {
		c.sample[slot] = value
	}
	if len(c.bins) > 0 {
		c.bins[c.bin(text, value, kind)]++
	}
}

func (c *column) number(v float64, text string) {
	if v == math.Trunc(v) && !strings.ContainsAny(text, ".eE") {
		c.integral++
	} else {
		c.real++
	}
	if v < 0 {
		c.negative++
	}
	if c.feature != nil && c.feature.Number.outside(v) {
		c.outside++
	}
	c.min, c.max = min(c.min, v), max(c.max, v)
	c.category(text)
}

// outside says that a number is beyond the range.
func (n *Number) outside(v float64) bool {
	return n != nil && (n.Min != nil && v < *n.Min || n.Max != nil && v > *n.Max)
}

func (c *column) text(text string) {
	c.texts++
	c.category(text)
}

// category counts a value among the different ones: a column of codes may hold
// some that look like numbers.
func (c *column) category(text string) {
	if n, known := c.domain[text]; known || len(c.domain) < MaxDomain {
		if !known {
			text = strings.Clone(text)
		}
		c.domain[text] = n + 1
		return
	}
	c.other++
}

// bin is where a value falls in the baseline: its bins, then missing, then other.
func (c *column) bin(text string, value float64, kind int) int {
	missing := len(c.bins) - 2
	switch {
	case kind < 0:
		return missing
	case c.feature.Text != nil:
		if at := slices.Index(c.feature.Text.Domains, text); at >= 0 {
			return at
		}
		return missing + 1
	case kind > 0:
		return missing + 1
	}
	at, found := slices.BinarySearch(c.feature.Baseline.Edges, value)
	if found {
		at++ // a bin begins at its lower edge
	}
	return at
}

// inferred is the type that all values have.
func (c *column) inferred() string {
	switch {
	case c.texts > 0:
		return String
	case c.real > 0:
		return Fractional
	case c.integral > 0:
		return Integral
	}
	return Unknown
}

func (c *column) present() uint64 { return c.integral + c.real + c.texts }

// statistics are what the report tells of the column.
func (c *column) statistics() Column {
	out := Column{Name: c.name, InferredType: c.inferred(), Present: c.present(), Missing: c.missing}
	if c.integral+c.real > 0 {
		out.Min, out.Max = new(c.min), new(c.max)
	}
	if c.texts > 0 {
		out.Distinct = len(c.domain)
	}
	return out
}

// Statistics are those of every column.
func (s *Summary) Statistics() []Column {
	out := make([]Column, len(s.columns))
	for i := range s.columns {
		out[i] = s.columns[i].statistics()
	}
	return out
}
