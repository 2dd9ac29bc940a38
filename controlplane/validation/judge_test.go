package validation

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/constraints"
	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

var (
	rowsDigest = release.DigestOf([]byte("heldout.csv"))
	subject    = Subject{Model: "credit", Version: "2", Release: release.DigestOf([]byte("credit 2"))}
)

// cases are so many rows of a group, with what is true and what was said.
type cases struct {
	group       string
	truth, said int32
	n           int
}

// tableOf lays cases out as an evaluation with the protected column "sex".
func tableOf(list ...cases) *evaluation.Table {
	t := &evaluation.Table{
		Header: evaluation.Header{
			Task: evaluation.Classification, Classes: []string{"no", "yes"}, Rows: rowsDigest, RowsName: "heldout.csv", Protect: []string{"sex"},
			Golden: &evaluation.Golden{Rows: 64}, Runtime: "onnxruntime 1.30.0",
		},
		Labels: []string{"no", "yes"}, Groups: []evaluation.Column{{Name: "sex"}},
	}
	g := &t.Groups[0]
	at := map[string]int32{}
	for _, c := range list {
		if _, known := at[c.group]; !known {
			at[c.group] = int32(len(g.Values))
			g.Values = append(g.Values, c.group)
		}
		for range c.n {
			t.Rows = append(t.Rows, int64(len(t.Rows)+1))
			t.Truth, t.Predicted = append(t.Truth, c.truth), append(t.Predicted, c.said)
			g.Of = append(g.Of, at[c.group])
		}
	}
	return t
}

func mustParse(t *testing.T, text string) Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func judgeOne(t *testing.T, gate string, ev Evidence) operator.GateVerdict {
	t.Helper()
	return Judge(mustParse(t, "gates:\n  - "+gate), subject, ev)[0]
}

// What the example says is what the parser takes, so that help and program agree.
func TestExampleIsAPolicy(t *testing.T) {
	b, err := os.ReadFile("../../cmd/vedette/gates_example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePolicy(b)
	if err != nil {
		t.Fatal(err)
	}
	want := "[smoke data-evaluation metric-accuracy metric-recall-8 champion-accuracy latency memory fairness-condition]"
	if got := fmt.Sprint(p.Names()); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if g := p.Gates[6]; g.Peak != 64<<20 {
		t.Errorf("peak is %d bytes", g.Peak)
	}
}

// What is misspelt or makes no sense is refused with what to write instead.
func TestPolicyRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"gates: [{kind: metrik}]":                                              `kind "metrik" is none of`,
		"gates: [{kind: metric, metric: acc, at_least: 1}]":                    `metric "acc" is none of`,
		"gates: [{kind: metric, metric: accuracy, atleast: 1}]":                `has no field "atleast"`,
		"gates: [{kind: metric, metric: accuracy}]":                            "give at_least or at_most",
		"gates: [{kind: metric, metric: accuracy, at_least: 0.9, at_most: 1}]": "give at_least or at_most",
		"gates: [{kind: latency, peak: 3MiB}]":                                 `has no field "peak"; memory gates have`,
		"gates: [{kind: latency}]":                                             "p95 is missing",
		"gates: [{kind: memory, peak: much}]":                                  "peak",
		"gates: [{kind: champion, confidence: 95}]":                            "confidence 95 must be",
		"gates: [{kind: fairness, column: sex}]":                               "positive is missing",
		"gates: [{kind: fairness, column: sex, positive: yes}]":                "give selection_rate_gap",
		"gates: [{kind: fairness, column: sex, positive: yes, tpr_gap: 2}]":    "a gap of 2 is none",
		"gates: [{kind: data, rows: other}]":                                   `rows "other" is neither`,
		"gates: [{kind: smoke}, {kind: smoke}]":                                `two gates are called "smoke"`,
		"gates: [{kind: smoke, name: 'a b'}]":                                  "name",
		"gates: [{kind: metric, metric: 'mae:1', at_most: 1}]":                 "is none of",
		"gates: [{kind: champion, metric: accuracy, violations: 2}]":           `has no field "violations"`,
	} {
		if _, err := ParsePolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s\n got %v\nwant %s", text, err, says)
		}
	}
}

// Of 10 rows by hand: labels no/yes; yes is hit 3 of 4 times and said 5 times.
func TestMetricsByHand(t *testing.T) {
	table := tableOf(cases{"", 1, 1, 3}, cases{"", 1, 0, 1}, cases{"", 0, 1, 2}, cases{"", 0, 0, 4})
	for name, want := range map[string]float64{
		accuracy: 0.7, "precision:yes": 0.6, "recall:yes": 0.75, "f1:yes": 2. / 3, "f1:no": 8. / 11,
		macroF1: (2./3 + 8./11) / 2, weightedF1: (4*2./3 + 6*8./11) / 10, macroPrecision: (0.6 + 0.8) / 2, macroRecall: (0.75 + 4./6) / 2,
	} {
		m, err := parseMetric(name)
		if err != nil {
			t.Fatal(err)
		}
		e, err := measure(m, table, 0.025)
		if err != nil {
			t.Fatal(err)
		}
		near(t, name, e.value, want, 1e-12)
		if !(e.lower <= e.value && e.value <= e.upper) {
			t.Errorf("%s: %v is not within %v to %v", name, e.value, e.lower, e.upper)
		}
	}
	numbers := &evaluation.Table{
		Header: evaluation.Header{Task: evaluation.Regression}, Rows: []int64{1, 2, 3, 4}, Want: []float64{1, 2, 3, 4}, Got: []float64{1, 3, 3, 2},
	}
	for name, want := range map[string]float64{mae: 0.75, rmse: 1.118033988749895, r2: 0} {
		e, err := measure(metric{name: name}, numbers, 0.025)
		if err != nil {
			t.Fatal(err)
		}
		near(t, name, e.value, want, 1e-12)
	}
	if v := judgeOne(t, "{kind: metric, metric: mae, at_most: 1}", Evidence{Candidate: &Evaluated{Table: table}}); v.Status != operator.GateMissing ||
		!strings.Contains(v.Evidence, "metric of a regression") {
		t.Errorf("a metric of another task: %+v", v)
	}
}

// Gaps by hand: of 100 men 60 are selected, of 100 women 40; of 50 men who repay
// 45 are, of 50 women 30. Eight others are too few to say anything of.
func TestFairnessByHand(t *testing.T) {
	table := tableOf(
		cases{"men", 1, 1, 45}, cases{"men", 1, 0, 5}, cases{"men", 0, 1, 15}, cases{"men", 0, 0, 35},
		cases{"women", 1, 1, 30}, cases{"women", 1, 0, 20}, cases{"women", 0, 1, 10}, cases{"women", 0, 0, 40},
		cases{"other", 1, 0, 8},
	)
	ev := Evidence{Candidate: &Evaluated{Table: table}}
	gate := "{kind: fairness, column: sex, positive: yes, selection_rate_gap: 0.25, tpr_gap: 0.2, fpr_gap: 0.2, min_rows: 20}"
	v := judgeOne(t, gate, ev)
	if v.Status != operator.GateFailed || len(v.Parts) != 3 {
		t.Fatalf("got %+v", v)
	}
	for i, want := range []struct {
		gap    float64
		status operator.GateStatus
	}{{0.2, operator.GatePassed}, {0.3, operator.GateFailed}, {0.1, operator.GatePassed}} {
		p := v.Parts[i]
		near(t, p.Name, *p.Value, want.gap, 1e-12)
		if p.Status != want.status || !(*p.Lower < want.gap && want.gap < *p.Upper) {
			t.Errorf("%s: got %s, %v to %v", p.Name, p.Status, *p.Lower, *p.Upper)
		}
		if !strings.Contains(p.Text, "inconclusive") || !strings.Contains(p.Text, "other (") {
			t.Errorf("%s does not name the small group: %s", p.Name, p.Text)
		}
	}
	near(t, "the worst gap is shown", *v.Value, 0.3, 1e-12)
	// By the interval's upper end the other two gaps are too large as well.
	v = judgeOne(t, strings.Replace(gate, "min_rows", "decide: bound, min_rows", 1), ev)
	if v.Parts[0].Status != operator.GateFailed || v.Parts[2].Status != operator.GateFailed {
		t.Errorf("by bound: %+v", v.Parts)
	}
	v = judgeOne(t, "{kind: fairness, column: sex, positive: yes, tpr_gap: 0.4, min_rows: 500}", ev)
	if v.Status != operator.GateMissing || !strings.Contains(v.Evidence, "fewer than two groups") {
		t.Errorf("without enough rows: %+v", v)
	}
	v = judgeOne(t, "{kind: fairness, column: age, positive: yes, tpr_gap: 0.4}", ev)
	if v.Status != operator.GateMissing || !strings.Contains(v.Next, "--protect age") {
		t.Errorf("without the column: %+v", v)
	}
}

// The lab's gates look at every profile in use and at the slowest device of each.
func TestLabGates(t *testing.T) {
	trial := func(device, profile string, ms uint64) operator.LabResult {
		return operator.LabResult{Device: device, Profile: profile, P95US: ms * 1000, PeakBytes: ms << 20, GoldenRows: 64}
	}
	ev := Evidence{Profiles: map[string]int{"pi-4": 30, "pi-5": 12}, Trials: []operator.LabResult{trial("l1", "pi-4", 80)}}
	latency := "{kind: latency, p95: 100ms}"
	v := judgeOne(t, latency, ev)
	if v.Status != operator.GateMissing || !strings.Contains(v.Evidence, "pi-5") || !strings.Contains(v.Next, "ring=lab") {
		t.Errorf("a profile without a lab device: %+v", v)
	}
	ev.Trials = append(ev.Trials, trial("l2", "pi-5", 20), trial("l3", "jetson", 900))
	if v = judgeOne(t, latency, ev); v.Status != operator.GatePassed || *v.Value != 80 {
		t.Errorf("all within: %+v", v)
	}
	if v = judgeOne(t, "{kind: latency, p95: 100ms, profiles: [jetson]}", ev); v.Status != operator.GateFailed {
		t.Errorf("a profile that the gate names: %+v", v)
	}
	ev.Trials = append(ev.Trials, trial("l4", "pi-4", 100))
	if v = judgeOne(t, latency, ev); v.Status != operator.GateFailed || *v.Value != 100 {
		t.Errorf("p95 must be below: %+v", v)
	}
	if v = judgeOne(t, "{kind: memory, peak: 100MiB}", ev); v.Status != operator.GatePassed {
		t.Errorf("memory may be at its limit: %+v", v)
	}
	ev.Trials = []operator.LabResult{trial("l2", "pi-5", 20), {Device: "l1", Profile: "pi-4", Code: "golden_mismatch", Message: "4 of 64 rows differ"}}
	if v = judgeOne(t, latency, ev); v.Status != operator.GateFailed || !strings.Contains(v.Parts[0].Text, "l1 refused it: golden_mismatch") {
		t.Errorf("a device that refused it: %+v", v)
	}
	if v = judgeOne(t, "{kind: smoke}", ev); v.Status != operator.GateFailed {
		t.Errorf("smoke after a golden mismatch: %+v", v)
	}
}

// The champion is beaten on the same rows or not at all.
func TestChampionEdges(t *testing.T) {
	good := tableOf(cases{"", 1, 1, 95}, cases{"", 1, 0, 5})
	worse := tableOf(cases{"", 1, 1, 60}, cases{"", 1, 0, 40})
	gate := "{kind: champion, margin: 0.1}"
	ev := Evidence{Candidate: &Evaluated{Table: good}}
	if v := judgeOne(t, gate, ev); v.Status != operator.GatePassed || !strings.Contains(v.Evidence, "nothing to beat") {
		t.Errorf("the first version: %+v", v)
	}
	ev.Champion = Rival{Version: "1", Release: release.DigestOf([]byte("credit 1"))}
	if v := judgeOne(t, gate, ev); v.Status != operator.GateMissing || !strings.Contains(v.Next, "vedette model evaluate credit 1 ") {
		t.Errorf("no evaluation of the champion: %+v", v)
	}
	ev.Champion.Evaluated = &Evaluated{Table: worse}
	if v := judgeOne(t, gate, ev); v.Status != operator.GatePassed || *v.Value != 0.35 || *v.Lower < 0.1 || v.N != 100 {
		t.Errorf("clearly better: %+v", v)
	}
	other := *worse
	other.Truth = append([]int32{0}, worse.Truth[1:]...)
	ev.Champion.Evaluated = &Evaluated{Table: &other}
	if v := judgeOne(t, gate, ev); v.Status != operator.GateMissing || !strings.Contains(v.Evidence, "the truth differs") {
		t.Errorf("another truth: %+v", v)
	}
	few := tableOf(cases{"", 1, 1, 10})
	ev.Candidate, ev.Champion.Evaluated = &Evaluated{Table: few}, &Evaluated{Table: few}
	if v := judgeOne(t, gate, ev); v.Status != operator.GateMissing {
		t.Errorf("ten rows: %+v", v)
	}
	ev.Champion.Release = subject.Release
	if v := judgeOne(t, gate, ev); v.Status != operator.GatePassed {
		t.Errorf("it is in production itself: %+v", v)
	}
}

// Gates that name their rows go by no evaluation on others.
func TestGatesNameTheirRows(t *testing.T) {
	ev := Evidence{Candidate: &Evaluated{Table: tableOf(cases{"f", 1, 1, 100})}, Champion: Rival{Version: "1"}}
	other := release.DigestOf([]byte("easy.csv")).String()
	for _, gate := range []string{
		"kind: metric, metric: accuracy, at_least: 0.9", "kind: champion", "kind: smoke",
		`kind: fairness, column: sex, positive: "yes", selection_rate_gap: 0.2`,
	} {
		v := judgeOne(t, "{"+gate+", evaluation: "+other+"}", ev)
		if v.Status != operator.GateMissing || !strings.Contains(v.Evidence, other) || !strings.Contains(v.Next, "vedette-agent evaluate") {
			t.Errorf("%s on other rows: %+v", gate, v)
		}
		if v = judgeOne(t, "{"+gate+", evaluation: "+rowsDigest.String()+"}", ev); strings.Contains(v.Evidence, "the gate names") {
			t.Errorf("%s on its rows: %+v", gate, v)
		}
	}
	ev.Trials = []operator.LabResult{{Device: "bench", GoldenRows: 4}}
	if v := judgeOne(t, "{kind: smoke, evaluation: "+other+"}", ev); v.Status != operator.GateMissing {
		t.Errorf("golden vectors in the lab alone: %+v", v)
	}
	for _, wrong := range []string{"heldout.csv", strings.Repeat("0", 64), "[]"} {
		if _, err := ParsePolicy([]byte("gates: [{kind: smoke, evaluation: " + wrong + "}]")); err == nil {
			t.Errorf("evaluation: %s is taken", wrong)
		}
	}
	if _, err := ParsePolicy([]byte("gates: [{kind: data, rows: training, evaluation: " + other + "}]")); err == nil {
		t.Error("a data gate takes it")
	}
}

// A data gate believes reports of the right rows and constraints only.
func TestDataGate(t *testing.T) {
	report := &constraints.Report{Rows: rowsDigest, Constraints: release.DigestOf([]byte("c")), Count: 100, Violations: []constraints.Violation{
		{Feature: "age", Check: constraints.Range, Description: "3 values are negative"},
	}}
	ev := Evidence{Training: &Reported{Report: report}}
	if v := judgeOne(t, "{kind: data, rows: training}", ev); v.Status != operator.GateFailed || *v.Value != 1 || v.Parts[0].Name != "age" {
		t.Errorf("got %+v", v)
	}
	if v := judgeOne(t, "{kind: data, rows: training, violations: 1}", ev); v.Status != operator.GatePassed {
		t.Errorf("got %+v", v)
	}
	if v := judgeOne(t, "{kind: data, rows: evaluation}", ev); v.Status != operator.GateMissing || !strings.Contains(v.Next, "--evaluation-data") {
		t.Errorf("got %+v", v)
	}
	pinned := "{kind: data, rows: training, violations: 9, constraints: " + release.DigestOf([]byte("other")).String() + "}"
	if v := judgeOne(t, pinned, ev); v.Status != operator.GateMissing || !strings.Contains(v.Evidence, "other constraints") {
		t.Errorf("got %+v", v)
	}
}
