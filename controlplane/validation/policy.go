// Package validation decides whether a version may be rolled out: gates that a
// policy declares for its model, judged on evidence that was uploaded or that lab
// devices measured.
//
// Deciding is pure: Judge takes a policy and the evidence and gives a verdict for
// each gate. The Store around it keeps policies, evidence and overrides in a
// bucket, judges again when something changed, tells people of the gate that
// stops a version, and answers Cleared, which rollouts, stages and promotion ask.
//
// Three rules hold throughout. No evidence is no pass: such a gate is missing,
// and says which command brings what it lacks. A comparison with the version in
// production is made row by row and passes on a lower bound, never on a point
// estimate. Metrics are computed here from the raw pairs, not taken from whoever
// uploads them.
package validation

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/document"
	"github.com/vedette-edge/vedette/protocol/release"
)

// ErrPolicy says that a policy cannot be used.
var ErrPolicy = errors.New("the gates cannot be used")

// Kinds of gates.
const (
	Metric   = "metric"   // a number of the evaluation is high, or low, enough
	Champion = "champion" // it beats the version in production by a margin
	Latency  = "latency"  // p95 on each profile in use, measured in the lab
	Memory   = "memory"   // peak on each profile in use, measured in the lab
	Fairness = "fairness" // groups of a protected column are treated alike
	Data     = "data"     // training or evaluation rows keep their constraints
	Smoke    = "smoke"    // the packed graph computes its golden vectors and every evaluation row
)

var kinds = []string{Metric, Champion, Latency, Memory, Fairness, Data, Smoke}

// Defaults of gates.
const (
	// DefaultConfidence is that of a champion gate's lower bound and of intervals.
	DefaultConfidence = 0.95
	// DefaultMinRows is how many rows of a group a rate needs: below, a 95%
	// interval is wider than 0.28 whatever the rate.
	DefaultMinRows = 50
	maxGates       = 50
)

// What data a data gate looks at.
const (
	TrainingRows   = "training"
	EvaluationRows = "evaluation"
)

// How a fairness gate decides.
const (
	ByEstimate = "estimate" // the gap itself must be within its limit
	ByBound    = "bound"    // the upper end of its interval must be
)

// Policy are the gates of one model, in order.
type Policy struct {
	Gates []Gate `json:"gates"`
}

// Gate is one requirement. Which fields it has depends on its kind.
type Gate struct {
	Name string `json:"name,omitempty"` // unique; the kind, with the metric, column or rows, if empty
	Kind string `json:"kind"`

	Metric     string   `json:"metric,omitempty"`     // metric, champion
	AtLeast    *float64 `json:"at_least,omitempty"`   // metric
	AtMost     *float64 `json:"at_most,omitempty"`    // metric
	Margin     float64  `json:"margin,omitempty"`     // champion: by how much it must be better; negative allows a loss
	Confidence float64  `json:"confidence,omitempty"` // metric: the bound must keep the limit; champion, fairness: of the interval

	P95      release.Duration `json:"p95,omitempty"`      // latency: must be below
	Peak     Bytes            `json:"peak,omitempty"`     // memory: must not be above
	Profiles []string         `json:"profiles,omitempty"` // latency, memory: these alone; none means all in use

	Column           string   `json:"column,omitempty"`   // fairness
	Positive         string   `json:"positive,omitempty"` // fairness: class that is selected
	SelectionRateGap *float64 `json:"selection_rate_gap,omitempty"`
	TPRGap           *float64 `json:"tpr_gap,omitempty"`
	FPRGap           *float64 `json:"fpr_gap,omitempty"`
	MinRows          int      `json:"min_rows,omitempty"` // fairness: of a group, for each rate; smoke: evaluation rows
	Decide           string   `json:"decide,omitempty"`   // fairness: estimate or bound

	Rows        string          `json:"rows,omitempty"`        // data: training or evaluation
	Violations  int             `json:"violations,omitempty"`  // data: allowed
	Constraints *release.Digest `json:"constraints,omitempty"` // data: the report must be of these

	Evaluation *release.Digest `json:"evaluation,omitempty"` // metric, champion, fairness, smoke: only evaluations on these rows count
}

// Bytes is a size, written as a number or like 64MiB.
type Bytes uint64

// UnmarshalJSON reads a number or a text with a unit.
func (b *Bytes) UnmarshalJSON(raw []byte) error {
	var n uint64
	if json.Unmarshal(raw, &n) == nil {
		*b = Bytes(n)
		return nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf("%s is no size such as 64MiB", raw)
	}
	for unit, factor := range map[string]float64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			if err != nil || !(v > 0 && v*factor < math.MaxInt64) {
				break
			}
			*b = Bytes(v * factor)
			return nil
		}
	}
	return fmt.Errorf("%q is no size such as 64MiB", text)
}

// ParsePolicy reads gates from YAML or JSON, fills in defaults and checks them.
// Fields that are not known, or that the kind of gate does not take, are refused:
// a misspelt limit must not be a missing one.
func ParsePolicy(data []byte) (Policy, error) {
	p, err := document.Parse[Policy](data, "the policy")
	if err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	if len(p.Gates) > maxGates {
		return Policy{}, fmt.Errorf("%w: %d gates, at most %d", ErrPolicy, len(p.Gates), maxGates)
	}
	names := map[string]bool{}
	for i := range p.Gates {
		g := &p.Gates[i]
		if err := g.complete(); err != nil {
			return Policy{}, fmt.Errorf("%w: gate %d: %w", ErrPolicy, i+1, err)
		}
		if names[g.Name] {
			return Policy{}, fmt.Errorf("%w: two gates are called %q: give one another name", ErrPolicy, g.Name)
		}
		names[g.Name] = true
	}
	return p, nil
}

// pins are the rows that gates name for their evaluations, each once; zero, which
// comes first, stands for any.
func (p *Policy) pins() []release.Digest {
	out := []release.Digest{{}}
	for i := range p.Gates {
		if rows := p.Gates[i].pin(); !slices.Contains(out, rows) {
			out = append(out, rows)
		}
	}
	return out
}

func (g *Gate) pin() release.Digest {
	if g.Evaluation == nil {
		return release.Digest{}
	}
	return *g.Evaluation
}

// Names are the names of the gates, in order.
func (p *Policy) Names() []string {
	names := []string{}
	for _, g := range p.Gates {
		names = append(names, g.Name)
	}
	return names
}

// complete fills in what is left open and checks one gate.
func (g *Gate) complete() error {
	if !slices.Contains(kinds, g.Kind) {
		return fmt.Errorf("kind %q is none of %s", g.Kind, strings.Join(kinds, ", "))
	}
	if g.Name == "" {
		g.Name = defaultName(g)
	}
	if err := protocol.CheckName(g.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := g.foreign(); err != nil {
		return err
	}
	if err := map[string]func(*Gate) error{
		Metric: (*Gate).checkMetric, Champion: (*Gate).checkChampion, Latency: (*Gate).checkLab, Memory: (*Gate).checkLab,
		Fairness: (*Gate).checkFairness, Data: (*Gate).checkData, Smoke: func(*Gate) error { return nil },
	}[g.Kind](g); err != nil {
		return fmt.Errorf("%s: %w", g.Name, err)
	}
	return nil
}

// defaultName is the kind with what tells two gates of the kind apart.
func defaultName(g *Gate) string {
	parts := slices.DeleteFunc([]string{g.Kind, g.Metric, g.Column, g.Rows}, func(p string) bool { return p == "" })
	return strings.NewReplacer(":", "-", " ", "-").Replace(strings.ToLower(strings.Join(parts, "-")))
}

// foreign refuses fields that another kind of gate takes.
func (g *Gate) foreign() error {
	for _, f := range []struct {
		name string
		set  bool
		of   []string
	}{
		{"metric", g.Metric != "", []string{Metric, Champion}},
		{"at_least", g.AtLeast != nil, []string{Metric}},
		{"at_most", g.AtMost != nil, []string{Metric}},
		{"margin", g.Margin != 0, []string{Champion}},
		{"confidence", g.Confidence != 0, []string{Metric, Champion, Fairness}},
		{"p95", g.P95 != 0, []string{Latency}},
		{"peak", g.Peak != 0, []string{Memory}},
		{"profiles", g.Profiles != nil, []string{Latency, Memory}},
		{"column", g.Column != "", []string{Fairness}},
		{"positive", g.Positive != "", []string{Fairness}},
		{"selection_rate_gap", g.SelectionRateGap != nil, []string{Fairness}},
		{"tpr_gap", g.TPRGap != nil, []string{Fairness}},
		{"fpr_gap", g.FPRGap != nil, []string{Fairness}},
		{"decide", g.Decide != "", []string{Fairness}},
		{"min_rows", g.MinRows != 0, []string{Fairness, Smoke}},
		{"rows", g.Rows != "", []string{Data}},
		{"violations", g.Violations != 0, []string{Data}},
		{"constraints", g.Constraints != nil, []string{Data}},
		{"evaluation", g.Evaluation != nil, []string{Metric, Champion, Fairness, Smoke}},
	} {
		if f.set && !slices.Contains(f.of, g.Kind) {
			return fmt.Errorf("%s: a gate of kind %s has no field %q; %s gates have", g.Name, g.Kind, f.name, strings.Join(f.of, " and "))
		}
	}
	if g.Confidence != 0 && !(g.Confidence >= 0.5 && g.Confidence < 1) {
		return fmt.Errorf("%s: confidence %g must be 0.5 or more and below 1, such as 0.95", g.Name, g.Confidence)
	}
	if g.Evaluation != nil && g.Evaluation.IsZero() {
		return fmt.Errorf("%s: evaluation must be the SHA-256 of a file of rows", g.Name)
	}
	if g.MinRows < 0 || g.Violations < 0 {
		return fmt.Errorf("%s: counts must not be negative", g.Name)
	}
	return nil
}

func (g *Gate) checkMetric() error {
	if _, err := parseMetric(g.Metric); err != nil {
		return err
	}
	if (g.AtLeast == nil) == (g.AtMost == nil) {
		return errors.New("give at_least or at_most")
	}
	return nil
}

func (g *Gate) checkChampion() error {
	if g.Metric == "" {
		g.Metric = accuracy
	}
	if g.Confidence == 0 {
		g.Confidence = DefaultConfidence
	}
	_, err := parseMetric(g.Metric)
	return err
}

func (g *Gate) checkLab() error {
	switch {
	case g.Kind == Latency && g.P95 <= 0:
		return errors.New("p95 is missing: a duration such as 100ms")
	case g.Kind == Memory && g.Peak == 0:
		return errors.New("peak is missing: a size such as 64MiB")
	}
	return nil
}

func (g *Gate) checkFairness() error {
	if g.MinRows == 0 {
		g.MinRows = DefaultMinRows
	}
	if g.Confidence == 0 {
		g.Confidence = DefaultConfidence
	}
	if g.Decide == "" {
		g.Decide = ByEstimate
	}
	switch {
	case g.Column == "":
		return errors.New("column is missing: a protected column of the evaluation")
	case g.Positive == "":
		return errors.New("positive is missing: the class that counts as selected")
	case g.Decide != ByEstimate && g.Decide != ByBound:
		return fmt.Errorf("decide %q is neither %s nor %s", g.Decide, ByEstimate, ByBound)
	case g.SelectionRateGap == nil && g.TPRGap == nil && g.FPRGap == nil:
		return errors.New("give selection_rate_gap, tpr_gap or fpr_gap")
	}
	for _, gap := range []*float64{g.SelectionRateGap, g.TPRGap, g.FPRGap} {
		if gap != nil && !(*gap >= 0 && *gap <= 1) {
			return fmt.Errorf("a gap of %g is none: it is a difference of two shares, 0 to 1", *gap)
		}
	}
	return nil
}

func (g *Gate) checkData() error {
	if g.Rows != TrainingRows && g.Rows != EvaluationRows {
		return fmt.Errorf("rows %q is neither %s nor %s", g.Rows, TrainingRows, EvaluationRows)
	}
	return nil
}
