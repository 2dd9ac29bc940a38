package validation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// group is one value of a protected column.
type group struct {
	name                 string
	n, selected          float64 // rows; predicted positive
	actual, hit          float64 // truly positive; of them predicted so
	negative, mistakenly float64 // truly not; of them predicted positive
}

// rate is a share of a group's rows.
type rate struct{ part, of float64 }

func (r rate) share() float64 { return ratio(r.part, r.of) }

// groupsOf counts a table by a protected column, by name.
func groupsOf(t *evaluation.Table, c *evaluation.Column, positive int32) []group {
	list := make([]group, len(c.Values))
	for i, name := range c.Values {
		list[i].name = name
	}
	for i, at := range c.Of {
		g := &list[at]
		said := 0.0
		if t.Predicted[i] == positive {
			said = 1
		}
		g.n++
		g.selected += said
		if t.Truth[i] == positive {
			g.actual++
			g.hit += said
		} else {
			g.negative++
			g.mistakenly += said
		}
	}
	slices.SortFunc(list, func(a, b group) int { return strings.Compare(a.name, b.name) })
	return list
}

// criterion is one rate that groups are compared by.
type criterion struct {
	name  string
	limit *float64
	of    func(g *group) rate
}

func (g *Gate) criteria() []criterion {
	return []criterion{
		{"selection rate", g.SelectionRateGap, func(g *group) rate { return rate{g.selected, g.n} }},
		{"TPR", g.TPRGap, func(g *group) rate { return rate{g.hit, g.actual} }},
		{"FPR", g.FPRGap, func(g *group) rate { return rate{g.mistakenly, g.negative} }},
	}
}

// fairness compares the groups of a protected column: the largest rate with the
// smallest. The interval is that of the difference of these two groups; it is
// not widened for their having been picked from several.
func (j *judge) fairness() {
	e := j.evaluated(" --protect " + j.gate.Column)
	if e == nil {
		return
	}
	column := e.Table.Group(j.gate.Column)
	positive := slices.Index(e.Table.Labels, j.gate.Positive)
	switch {
	case e.Table.Header.Task != evaluation.Classification:
		j.missing("change the gate: rates are of a classification", "the evaluation is of a %s", e.Table.Header.Task)
		return
	case column == nil:
		j.missing(evaluate(j.subject.Model, j.subject.Version, rowsName(e), " --protect "+j.gate.Column),
			"the evaluation has no protected column %q; it has %q", j.gate.Column, e.Table.Header.Protect)
		return
	case positive < 0:
		j.missing("change the gate: positive must be a class of the model", "there is no class %q; there are %.10q", j.gate.Positive, e.Table.Labels)
		return
	}
	groups := groupsOf(e.Table, column, int32(positive))                                                 //nolint:gosec // at most MaxLabels
	j.verdict.Confidence, j.verdict.N, j.verdict.AtMost = j.gate.Confidence, uint64(e.Table.Len()), true //nolint:gosec // a length
	var words []string
	worst, undecided := operator.GatePassed, false
	for _, c := range j.gate.criteria() {
		if c.limit == nil {
			continue
		}
		part := j.gap(c, groups)
		j.verdict.Parts = append(j.verdict.Parts, part)
		words = append(words, inShort(&part))
		undecided = undecided || part.Status == operator.GateMissing
		if part.Status == operator.GateFailed {
			worst = operator.GateFailed
		}
		j.closest(part)
	}
	text := fmt.Sprintf("%s on %s; %g%% Newcombe intervals, the %s decides", strings.Join(words, "; "), e.rowsText(), 100*j.gate.Confidence, j.gate.Decide)
	if worst == operator.GatePassed && undecided {
		j.missing("evaluate on more rows of the small groups", "%s", text)
		return
	}
	j.decide(worst == operator.GatePassed, "%s", text)
}

// inShort is a part in a few words.
func inShort(p *operator.GatePart) string {
	if p.Value == nil {
		return p.Name + " unknown: fewer than two groups have enough rows"
	}
	return fmt.Sprintf("%s %.4f of at most %g", p.Name, *p.Value, *p.Limit)
}

// closest shows the gap that is closest to its limit, or furthest above it.
func (j *judge) closest(p operator.GatePart) {
	v := &j.verdict
	if p.Value != nil && (v.Value == nil || *p.Value-*p.Limit > *v.Value-*v.Threshold) {
		v.Value, v.Threshold, v.Lower, v.Upper = p.Value, p.Limit, p.Lower, p.Upper
	}
}

// gap is the difference of the largest and the smallest rate of those groups
// that are large enough; the others are named with their rows.
func (j *judge) gap(c criterion, groups []group) operator.GatePart {
	part := operator.GatePart{Name: c.name + " gap", Status: operator.GateMissing, Limit: c.limit}
	var high, low *group
	var small []string
	for i := range groups {
		g := &groups[i]
		r := c.of(g)
		switch {
		case r.of < float64(j.gate.MinRows):
			small = append(small, fmt.Sprintf("%s (%.0f)", nameOf(g), r.of))
			continue
		case high == nil:
			high, low = g, g
			continue
		}
		if r.share() > c.of(high).share() {
			high = g
		}
		if r.share() < c.of(low).share() {
			low = g
		}
	}
	left := smallText(small, j.gate.MinRows)
	if high == nil || len(groups)-len(small) < 2 {
		part.Text = "fewer than two groups have enough rows" + left
		return part
	}
	a, b := c.of(high), c.of(low)
	gap := a.share() - b.share()
	lower, upper := newcombe(a.part, a.of, b.part, b.of, quantile(1-(1-j.gate.Confidence)/2))
	lower = max(lower, 0)
	part.Value, part.Lower, part.Upper, part.N = &gap, &lower, &upper, uint64(a.of+b.of)
	held := gap
	if j.gate.Decide == ByBound {
		held = upper
	}
	part.Status = statusOf(held <= *c.limit)
	part.Text = fmt.Sprintf("%s %.4f of %.0f rows, %s %.4f of %.0f; interval %.4f to %.4f%s",
		nameOf(high), a.share(), a.of, nameOf(low), b.share(), b.of, lower, upper, left)
	return part
}

// nameOf is a group's value, in words where it is empty.
func nameOf(g *group) string {
	if g.name == "" {
		return "no value"
	}
	return g.name
}

// maxSmall bounds the small groups that are named.
const maxSmall = 12

// smallText names the groups with too few rows, and how many they have.
func smallText(small []string, least int) string {
	if len(small) == 0 {
		return ""
	}
	more := ""
	if len(small) > maxSmall {
		more = fmt.Sprintf(" and %d more", len(small)-maxSmall)
	}
	return fmt.Sprintf("; inconclusive, with fewer than %d rows: %s%s", least, strings.Join(small[:min(len(small), maxSmall)], ", "), more)
}
