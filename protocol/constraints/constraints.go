// Package constraints says what rows of a table have to be like, learns it from
// good rows and finds where others differ. The vocabulary is that of Amazon
// SageMaker Model Monitor's constraints.json and constraint_violations.json, so
// that files of the one are read by the other; the parts that are added here say
// so. It is pure: whoever reads a file feeds it row by row.
//
// Memory is bounded whatever the number of rows: for each column a sample of
// MaxSample values and MaxDomain different texts.
package constraints

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Types of columns.
const (
	Integral   = "Integral"
	Fractional = "Fractional"
	String     = "String"
	Unknown    = "Unknown" // nothing but missing values was seen
)

// Checks, as violations name them.
const (
	DataType    = "data_type_check"
	Complete    = "completeness_check"
	Drift       = "baseline_drift_check"
	MissingName = "missing_column_check"
	ExtraName   = "extra_column_check"
	Categories  = "categorical_values_check"
	Range       = "range_check" // added: below minimum, above maximum, or negative where that was said not to be
)

// Bounds.
const (
	MaxSample  = 8_192
	MaxDomain  = 1_000
	MaxColumns = 2_000
	MaxFile    = 8 << 20 // bytes of a constraints file
	// maxViolations bounds a report; more are counted.
	maxViolations = 200
	// suggestedDomain is up to how many different texts a column is taken for a
	// category rather than for free text.
	suggestedDomain = 100
	// baselineBins are the quantile bins of a numeric column's baseline.
	baselineBins = 10
)

// ErrInvalid says that constraints cannot be used.
var ErrInvalid = errors.New("invalid constraints")

// Constraints are what rows have to be like.
type Constraints struct {
	Version    float64    `json:"version"`
	Features   []Feature  `json:"features"`
	Monitoring Monitoring `json:"monitoring_config"`
}

// Feature are the constraints of one column.
type Feature struct {
	Name         string   `json:"name"`
	InferredType string   `json:"inferred_type"`
	Completeness float64  `json:"completeness"` // least share of rows that have a value
	Number       *Number  `json:"num_constraints,omitempty"`
	Text         *Text    `json:"string_constraints,omitempty"`
	Baseline     Baseline `json:"baseline,omitzero"` // added: for baseline_drift_check
}

// Number constrains numbers. Min and Max are added here.
type Number struct {
	IsNonNegative bool     `json:"is_non_negative"`
	Min           *float64 `json:"min,omitempty"`
	Max           *float64 `json:"max,omitempty"`
}

// Text constrains categories.
type Text struct {
	Domains []string `json:"domains"`
}

// Baseline is how the good rows were distributed: of numbers over bins between
// edges, whose outermost are open; of categories over the domains. Counts go on
// with missing and with other values.
type Baseline struct {
	Rows   uint64    `json:"rows,omitempty"`
	Edges  []float64 `json:"edges,omitempty"`
	Counts []float64 `json:"counts,omitempty"`
}

// Monitoring says how strictly.
type Monitoring struct {
	EvaluateConstraints    string       `json:"evaluate_constraints,omitempty"`
	EmitMetrics            string       `json:"emit_metrics,omitempty"`
	DatatypeCheckThreshold *float64     `json:"datatype_check_threshold,omitempty"` // least share of values of the type, 1 when absent
	DomainContentThreshold *float64     `json:"domain_content_threshold,omitempty"` // least share of values in the domain, 1 when absent
	RangeCheckThreshold    *float64     `json:"range_check_threshold,omitempty"`    // added: least share of values within the range, 1 when absent
	Distribution           Distribution `json:"distribution_constraints,omitzero"`
}

// Distribution says how far distributions may be apart. The comparison here is
// PSI above the threshold and above what the two numbers of rows alone explain.
type Distribution struct {
	PerformComparison              string  `json:"perform_comparison,omitempty"`   // Enabled, Disabled
	ComparisonThreshold            float64 `json:"comparison_threshold,omitempty"` // of PSI; 0: 0.2
	ComparisonMethod               string  `json:"comparison_method,omitempty"`
	CategoricalComparisonThreshold float64 `json:"categorical_comparison_threshold,omitempty"`
	CategoricalDriftMethod         string  `json:"categorical_drift_method,omitempty"`
}

// Disabled switches a check off.
const (
	Enabled  = "Enabled"
	Disabled = "Disabled"
)

// Violation is one way in which rows are not as they have to be.
type Violation struct {
	Feature     string `json:"feature_name"`
	Check       string `json:"constraint_check_type"`
	Description string `json:"description"`
}

// ReportFormat is the version of a report's layout. History:
//
//	1  2026-11-23  first
const ReportFormat = 1

// MaxReport bounds an encoded report, bytes.
const MaxReport = 512 << 10

// Report is what checking a file found.
type Report struct {
	Format      int            `json:"format"`
	Rows        release.Digest `json:"rows"` // of the file, byte by byte
	RowsName    string         `json:"rows_name,omitempty"`
	Count       int64          `json:"count"`       // rows
	Constraints release.Digest `json:"constraints"` // of the constraints file
	Columns     []Column       `json:"features"`
	Violations  []Violation    `json:"violations"`
	More        int            `json:"more_violations,omitempty"` // beyond those listed
}

// Total is the number of violations.
func (r *Report) Total() int { return len(r.Violations) + r.More }

// Column are statistics of one column, named as in statistics.json.
type Column struct {
	Name         string   `json:"name"`
	InferredType string   `json:"inferred_type"`
	Present      uint64   `json:"num_present"`
	Missing      uint64   `json:"num_missing"`
	Min          *float64 `json:"min,omitempty"`
	Max          *float64 `json:"max,omitempty"`
	Distinct     int      `json:"distinct,omitempty"` // of texts, at most MaxDomain
}

// Decode reads constraints. Fields that are not known are refused, but for those
// that SageMaker writes and that mean nothing here.
func Decode(raw []byte) (*Constraints, error) {
	c := &Constraints{}
	if err := strict(raw, MaxFile, c); err != nil {
		return nil, err
	}
	if len(c.Features) == 0 || len(c.Features) > MaxColumns {
		return nil, fmt.Errorf("%w: %d features, must be 1 to %d", ErrInvalid, len(c.Features), MaxColumns)
	}
	seen := map[string]bool{}
	for i := range c.Features {
		f := &c.Features[i]
		if f.Name == "" || seen[f.Name] {
			return nil, fmt.Errorf("%w: feature %d has no name of its own: %q", ErrInvalid, i+1, f.Name)
		}
		seen[f.Name] = true
		if err := f.check(); err != nil {
			return nil, fmt.Errorf("%w: feature %q: %w", ErrInvalid, f.Name, err)
		}
	}
	return c, nil
}

func strict(raw []byte, limit int, to any) error {
	if len(raw) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(raw), limit)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows the JSON value", ErrInvalid)
	}
	return nil
}

func (f *Feature) check() error {
	switch f.InferredType {
	case Integral, Fractional, String, Unknown:
	default:
		return fmt.Errorf("type %q is none of Integral, Fractional, String, Unknown", f.InferredType)
	}
	if !(f.Completeness >= 0 && f.Completeness <= 1) {
		return fmt.Errorf("completeness %g is no share", f.Completeness)
	}
	b := &f.Baseline
	if b.Rows == 0 {
		return nil
	}
	bins := len(b.Edges) + 1
	if f.Text != nil {
		bins = len(f.Text.Domains)
	}
	if len(b.Counts) != bins+2 {
		return fmt.Errorf("its baseline has %d counts, must be %d: bins, missing and other", len(b.Counts), bins+2)
	}
	for i, e := range b.Edges {
		if math.IsNaN(e) || i > 0 && e <= b.Edges[i-1] {
			return errors.New("the edges of its baseline must rise")
		}
	}
	return nil
}

// DecodeReport reads a report as evidence.
func DecodeReport(raw []byte) (*Report, error) {
	r := &Report{}
	if err := strict(raw, MaxReport, r); err != nil {
		return nil, fmt.Errorf("data report: %w", err)
	}
	switch {
	case r.Format != ReportFormat:
		return nil, fmt.Errorf("data report: %w: format %d; this program reads %d", ErrInvalid, r.Format, ReportFormat)
	case r.Rows.IsZero() || r.Constraints.IsZero() || r.Count < 1 || r.More < 0:
		return nil, fmt.Errorf("data report: %w: it does not say which rows were held against which constraints", ErrInvalid)
	}
	return r, nil
}
