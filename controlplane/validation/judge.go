package validation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Judge gives a verdict for each gate of a policy, in its order. It is pure:
// the same evidence gives the same verdicts, bootstrap included.
func Judge(p Policy, s Subject, ev Evidence) []operator.GateVerdict {
	out := []operator.GateVerdict{}
	for i := range p.Gates {
		j := judge{gate: &p.Gates[i], subject: s, ev: &ev}
		j.verdict = operator.GateVerdict{Name: j.gate.Name, Kind: j.gate.Kind, Status: operator.GateMissing}
		switch j.gate.Kind {
		case Metric:
			j.metric()
		case Champion:
			j.champion()
		case Latency, Memory:
			j.lab()
		case Fairness:
			j.fairness()
		case Data:
			j.data()
		case Smoke:
			j.smoke()
		}
		out = append(out, j.verdict)
	}
	return out
}

// judge is one gate under judgement.
type judge struct {
	gate    *Gate
	subject Subject
	ev      *Evidence
	verdict operator.GateVerdict
}

// missing says what is lacking, and what brings it.
func (j *judge) missing(next, format string, args ...any) {
	j.verdict.Status, j.verdict.Next, j.verdict.Evidence = operator.GateMissing, next, fmt.Sprintf(format, args...)
}

// decide passes or fails the gate.
func (j *judge) decide(pass bool, format string, args ...any) {
	j.verdict.Status = statusOf(pass)
	j.verdict.Evidence = fmt.Sprintf(format, args...)
	if !pass {
		j.verdict.Next = fmt.Sprintf(`publish a better version, or let this one past with "vedette model override %s %s --gate %s --reason …"`,
			j.subject.Model, j.subject.Version, j.gate.Name)
	}
}

func statusOf(pass bool) operator.GateStatus {
	if pass {
		return operator.GatePassed
	}
	return operator.GateFailed
}

// evaluate is the command that brings an evaluation of a version, with what the
// gate needs of it.
func evaluate(model, version, rows, more string) string {
	return fmt.Sprintf(`run "vedette-agent evaluate FOLDER --rows %s --truth COLUMN%s --to evaluation.csv" on the folder of %s, then "vedette model evaluate %s %s evaluation.csv"`,
		rows, more, version, model, version)
}

// evaluated is the candidate's evaluation, or nil after saying that it lacks.
func (j *judge) evaluated(more string) *Evaluated {
	e, on := j.candidate(), ""
	if e == nil {
		if rows := j.gate.pin(); !rows.IsZero() {
			on = " on the rows that the gate names (SHA-256 " + rows.String() + ")"
		}
		j.missing(evaluate(j.subject.Model, j.subject.Version, "FILE", more), "no evaluation of %s %s%s has been uploaded", j.subject.Model, j.subject.Version, on)
	}
	return e
}

// candidate is the candidate's evaluation, or nil when it is not on the rows that
// the gate names.
func (j *judge) candidate() *Evaluated {
	e, rows := j.ev.Candidate, j.gate.pin()
	if e != nil && !rows.IsZero() && e.Table.Header.Rows != rows {
		return nil
	}
	return e
}

// rowsText names the rows of an evaluation.
func (e *Evaluated) rowsText() string {
	h := &e.Table.Header
	name := h.RowsName
	if name == "" {
		name = "rows"
	}
	return fmt.Sprintf("%d rows of %s (%s)", e.Table.Len(), name, h.Rows.Short())
}

// metric holds a number of the evaluation against a floor or a ceiling.
func (j *judge) metric() {
	m, err := parseMetric(j.gate.Metric)
	limit, atMost := j.gate.AtLeast, false
	if limit == nil {
		limit, atMost = j.gate.AtMost, true
	}
	j.verdict.Threshold, j.verdict.AtMost = limit, atMost
	e := j.evaluated("")
	if e == nil {
		return
	}
	if err == nil {
		err = m.fits(e.Table)
	}
	if err != nil {
		j.missing("change the gate, or evaluate on rows that allow it", "%v", err)
		return
	}
	confidence, alpha := DefaultConfidence, (1-DefaultConfidence)/2
	if j.gate.Confidence != 0 {
		confidence, alpha = j.gate.Confidence, 1-j.gate.Confidence // one-sided: the bound decides
	}
	est, err := measure(m, e.Table, alpha)
	if err != nil {
		j.missing("evaluate on rows that allow it", "%v", err)
		return
	}
	est.show(&j.verdict, confidence)
	held, what := est.value, "the estimate decides"
	if j.gate.Confidence != 0 {
		held, what = est.lower, "its bound decides"
		if atMost {
			held = est.upper
		}
	}
	pass := held >= *limit
	if atMost {
		pass = held <= *limit
	}
	j.decide(pass, "%s %.4f (%g%% interval %.4f to %.4f, %s) on %s; %s", m, est.value, 100*confidence, est.lower, est.upper, est.method, e.rowsText(), what)
}

// show puts an estimate into a verdict.
func (e *estimate) show(v *operator.GateVerdict, confidence float64) {
	v.Value, v.Lower, v.Upper, v.Confidence, v.N = new(e.value), new(e.lower), new(e.upper), confidence, e.n
}

// champion holds the candidate against the version in production, row by row.
func (j *judge) champion() {
	j.verdict.Threshold = new(j.gate.Margin)
	c := &j.ev.Champion
	switch {
	case c.Version == "":
		j.decide(true, "no version of %s is in production: there is nothing to beat", j.subject.Model)
		return
	case c.Release == j.subject.Release:
		j.decide(true, "it is the version in production")
		return
	}
	e := j.evaluated("")
	if e == nil {
		return
	}
	if c.Evaluated == nil {
		j.missing(evaluate(j.subject.Model, c.Version, rowsName(e), ""), "%s, which is in production, has not been evaluated on the same rows (%s)", c.Version, e.Table.Header.Rows.Short())
		return
	}
	m, err := parseMetric(j.gate.Metric)
	if err == nil {
		err = m.fits(e.Table)
	}
	if err != nil {
		j.missing("change the gate, or evaluate on rows that allow it", "%v", err)
		return
	}
	est, err := contrast(m, e.Table, c.Evaluated.Table, 1-j.gate.Confidence)
	if err != nil {
		j.missing("evaluate both versions on the same file again", "%v", err)
		return
	}
	est.show(&j.verdict, j.gate.Confidence)
	j.verdict.Upper = nil // one-sided
	what := m.String()
	if m.lessIsBetter() {
		what = "less " + what
	}
	j.decide(est.lower >= j.gate.Margin, "ahead of %s in %s by %+.4f, at %g%% confidence by at least %+.4f (%s, paired) on %s; the bound decides%s",
		c.Version, what, est.value, 100*j.gate.Confidence, est.lower, est.method, e.rowsText(), est.note)
}

func rowsName(e *Evaluated) string {
	if n := e.Table.Header.RowsName; n != "" && !strings.ContainsAny(n, " \"'") {
		return n
	}
	return "FILE"
}

// lab holds what lab devices measured against a limit, for each profile in use.
func (j *judge) lab() {
	limit, unit := float64(j.gate.P95)/1e6, "ms"
	if j.gate.Kind == Memory {
		limit, unit = float64(j.gate.Peak), "bytes"
	}
	j.verdict.Threshold, j.verdict.AtMost, j.verdict.Unit = &limit, true, unit
	wanted := slices.Sorted(maps.Keys(j.ev.Profiles))
	if len(j.gate.Profiles) > 0 {
		wanted = j.gate.Profiles
	}
	if len(wanted) == 0 {
		j.missing("enrol devices, or name profiles in the gate", "no device is known, so no profile is in use")
		return
	}
	var lacking, over []string
	for _, profile := range wanted {
		part := j.profile(profile, limit)
		j.verdict.Parts = append(j.verdict.Parts, part)
		switch part.Status { //nolint:exhaustive // the others stop nothing
		case operator.GateMissing:
			lacking = append(lacking, profile)
		case operator.GateFailed:
			over = append(over, profile)
		}
		if part.Value != nil && (j.verdict.Value == nil || *part.Value > *j.verdict.Value) {
			j.verdict.Value = part.Value
		}
	}
	switch {
	case len(over) > 0:
		j.decide(false, "over the limit, or refused, on %s", strings.Join(over, ", "))
	case len(lacking) > 0:
		j.missing(fmt.Sprintf(`give a device of each profile the label ring=lab ("vedette device label DEVICE ring=lab"), then run "vedette model validate %s %s --lab"`,
			j.subject.Model, j.subject.Version), "no lab device has tried it on %s", strings.Join(lacking, ", "))
	default:
		j.decide(true, "within the limit on %s", strings.Join(wanted, ", "))
	}
}

// profile is the worst that lab devices of a profile measured.
func (j *judge) profile(profile string, limit float64) operator.GatePart {
	part := operator.GatePart{Name: profile, Status: operator.GateMissing, Limit: &limit, Text: "no lab device of this profile has tried it"}
	if n := j.ev.Profiles[profile]; n > 0 {
		part.Text = fmt.Sprintf("%d devices; %s", n, part.Text)
	}
	for i := range j.ev.Trials {
		t := &j.ev.Trials[i]
		if t.Profile != profile || part.Status == operator.GateFailed && part.Value == nil {
			continue
		}
		if t.Code != "" {
			part.Status, part.Value, part.Text = operator.GateFailed, nil, fmt.Sprintf("%s refused it: %s %s", t.Device, t.Code, t.Message)
			continue
		}
		v := float64(t.P95US) / 1e3
		if j.gate.Kind == Memory {
			v = float64(t.PeakBytes)
		}
		if v == 0 || part.Value != nil && v <= *part.Value {
			continue
		}
		part.Value = &v
		// p95 must be below its limit, memory at most there.
		part.Status = statusOf(v < limit || j.gate.Kind == Memory && v == limit)
		part.Text = fmt.Sprintf("%s with %s", t.Device, strings.TrimSpace(t.Provider+" "+t.Runtime))
	}
	return part
}

// data holds a data report against the violations that are allowed.
func (j *judge) data() {
	allowed := float64(j.gate.Violations)
	j.verdict.Threshold, j.verdict.AtMost = &allowed, true
	r, flag := j.ev.Checked, "--evaluation-data"
	if j.gate.Rows == TrainingRows {
		r, flag = j.ev.Training, "--training-data"
	}
	next := fmt.Sprintf(`run "vedette data check ROWS --constraints constraints.json -o json > report.json", then "vedette model evaluate %s %s %s report.json"`,
		j.subject.Model, j.subject.Version, flag)
	switch {
	case r == nil && j.gate.Rows == EvaluationRows && j.ev.Candidate != nil:
		j.missing(next, "no data report of the rows that were evaluated (%s) has been uploaded", j.ev.Candidate.Table.Header.Rows.Short())
		return
	case r == nil:
		j.missing(next, "no data report of the %s rows has been uploaded", j.gate.Rows)
		return
	case j.gate.Constraints != nil && *j.gate.Constraints != r.Report.Constraints:
		j.missing(next, "the report is of other constraints (%s) than the gate's (%s)", r.Report.Constraints.Short(), j.gate.Constraints.Short())
		return
	}
	total := r.Report.Total()
	j.verdict.Value, j.verdict.N = new(float64(total)), uint64(r.Report.Count) //nolint:gosec // checked when it was read
	for i, v := range r.Report.Violations[:min(len(r.Report.Violations), maxParts)] {
		j.verdict.Parts = append(j.verdict.Parts, operator.GatePart{
			Name: v.Feature, Status: statusOf(i < j.gate.Violations), Text: v.Check + ": " + v.Description,
		})
	}
	j.decide(total <= j.gate.Violations, "%d violations in %d %s rows (%s), held against constraints %s", total, r.Report.Count, j.gate.Rows,
		r.Report.Rows.Short(), r.Report.Constraints.Short())
}

// maxParts bounds the violations that a verdict lists.
const maxParts = 20

// smoke asks for golden vectors that the packed graph computes, and enough
// evaluation rows that it got through.
func (j *judge) smoke() {
	wrong, rows, from := j.golden()
	if wrong == 0 && j.gate.Evaluation != nil && j.evaluated("") == nil {
		return
	}
	if rows == 0 {
		j.missing(evaluate(j.subject.Model, j.subject.Version, "FILE", ""), "nobody has computed the golden vectors: no evaluation of the packed folder, no trial in the lab")
		return
	}
	computed := 0
	if e := j.candidate(); e != nil {
		computed = e.Table.Len()
	}
	j.verdict.Value, j.verdict.Threshold, j.verdict.AtMost, j.verdict.N = new(float64(wrong)), new(0.0), true, uint64(rows) //nolint:gosec // of golden vectors
	if wrong == 0 && computed < j.gate.MinRows {
		j.missing(evaluate(j.subject.Model, j.subject.Version, "FILE", ""), "the golden vectors agree; %d evaluation rows were computed, %d are asked for", computed, j.gate.MinRows)
		return
	}
	j.decide(wrong == 0, "%d of %d golden rows disagree (%s); the packed graph computed %d evaluation rows", wrong, rows, from, computed)
}

// golden is the worst golden result, and where it is from.
func (j *judge) golden() (wrong, rows int, from string) {
	if e := j.candidate(); e != nil && e.Table.Header.Golden != nil {
		g := e.Table.Header.Golden
		wrong, rows, from = g.Wrong, g.Rows, "evaluation, "+e.Table.Header.Runtime
	}
	for i := range j.ev.Trials {
		t := &j.ev.Trials[i]
		if t.Code == "golden_mismatch" { // refused: its trial may not have been kept
			return max(wrong, int(t.GoldenWrong), 1), max(rows, int(t.GoldenRows), 1), t.Device + ": " + t.Message
		}
		if t.GoldenRows > 0 && (rows == 0 || int(t.GoldenWrong) > wrong) {
			wrong, rows, from = int(t.GoldenWrong), int(t.GoldenRows), t.Device
		}
	}
	return wrong, rows, from
}
