package constraints

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/release"
)

var names = []string{"age", "income", "job", "id"}

// people makes rows: whole ages, incomes with fractions of which some are
// missing, three jobs, and an id that is free text.
func people(rng *rand.Rand, n int, change func(row []string)) [][]string {
	rows := make([][]string, n)
	for i := range rows {
		income := fmt.Sprintf("%.2f", 1000+500*rng.NormFloat64())
		if rng.IntN(50) == 0 {
			income = ""
		}
		rows[i] = []string{strconv.Itoa(18 + rng.IntN(60)), income, []string{"clerk", "cook", "pilot"}[rng.IntN(3)], fmt.Sprintf("p-%d", rng.Uint32())}
		if change != nil {
			change(rows[i])
		}
	}
	return rows
}

func summary(t *testing.T, rows [][]string, c *Constraints) *Summary {
	t.Helper()
	s, err := NewSummary(names, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if err := s.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// suggested are the constraints learnt from 3000 good rows, as a file has them.
func suggested(t *testing.T) *Constraints {
	t.Helper()
	b, err := json.Marshal(summary(t, people(rand.New(rand.NewPCG(1, 1)), 3000, nil), nil).Suggest())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// checks are the violations by column and check.
func checks(list []Violation) []string {
	out := []string{}
	for _, v := range list {
		out = append(out, v.Feature+" "+v.Check)
	}
	return out
}

func TestSuggest(t *testing.T) {
	c := suggested(t)
	var got []string
	for _, f := range c.Features {
		got = append(got, f.Name+" "+f.InferredType)
	}
	if want := "[age Integral income Fractional job String id String]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	income := c.Features[1]
	if !(income.Completeness > 0.95 && income.Completeness < 0.98) {
		t.Errorf("2%% of the incomes are missing; completeness is %g, which chance alone may violate", income.Completeness)
	}
	if c.Features[0].Completeness != 1 || !c.Features[0].Number.IsNonNegative || *c.Features[0].Number.Max != 77 {
		t.Errorf("age: %+v", c.Features[0].Number)
	}
	if job := c.Features[2].Text; job == nil || !slices.Equal(job.Domains, []string{"clerk", "cook", "pilot"}) {
		t.Errorf("job: %+v", c.Features[2])
	}
	if c.Features[3].Text != nil {
		t.Errorf("an id is no category: %+v", c.Features[3].Text)
	}
}

// Rows like the good ones violate nothing, whatever the seed.
func TestGoodRowsPass(t *testing.T) {
	c := suggested(t)
	failed := 0
	for seed := range uint64(30) {
		rows := people(rand.New(rand.NewPCG(2, seed)), 600, nil)
		if v := summary(t, rows, c).Check(c); len(v) > 0 {
			failed++
			t.Logf("seed %d: %v", seed, v)
		}
	}
	if failed > 1 {
		t.Errorf("good rows were found wrong in %d of 30 files", failed)
	}
}

// Each fault is found by its own check.
func TestFaultsAreFound(t *testing.T) {
	c := suggested(t)
	var rng *rand.Rand
	for name, x := range map[string]struct {
		change func(row []string)
		want   string
	}{
		"letters among numbers": {func(r []string) { r[0] = map[bool]string{true: "old", false: r[0]}[rng.IntN(20) == 0] }, "[age data_type_check age baseline_drift_check]"},
		"fractions among ages":  {func(r []string) { r[0] += ".5" }, "[age data_type_check]"},
		"a third missing":       {func(r []string) { r[1] = map[bool]string{true: "NA", false: r[1]}[rng.IntN(3) == 0] }, "[income completeness_check income baseline_drift_check]"},
		"one age missing":       {func(r []string) { r[0] = map[bool]string{true: "", false: r[0]}[rng.IntN(100) == 0] }, "[age completeness_check]"},
		"negative ages":         {func(r []string) { r[0] = map[bool]string{true: "-1", false: r[0]}[rng.IntN(30) == 0] }, "[age range_check age range_check]"},
		"ages in months":        {func(r []string) { r[0] += "0" }, "[age range_check age baseline_drift_check]"},
		"a new job":             {func(r []string) { r[2] = map[bool]string{true: "smith", false: r[2]}[rng.IntN(40) == 0] }, "[job categorical_values_check]"},
		"cooks alone":           {func(r []string) { r[2] = "cook" }, "[job baseline_drift_check]"},
	} {
		rng = rand.New(rand.NewPCG(9, 9))
		got := checks(summary(t, people(rng, 600, x.change), c).Check(c))
		if fmt.Sprint(got) != x.want {
			t.Errorf("%s: got %v, want %s", name, got, x.want)
		}
	}
}

func TestColumnsMustBeThose(t *testing.T) {
	c := suggested(t)
	s, err := NewSummary([]string{"age", "income", "work", "id"}, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range people(rand.New(rand.NewPCG(1, 5)), 100, nil) {
		if err := s.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(checks(s.Check(c))); got != "[job missing_column_check work extra_column_check]" {
		t.Errorf("got %s", got)
	}
	if err := s.Add([]string{"1"}); err == nil || !strings.Contains(err.Error(), "row 101 has 1 columns") {
		t.Errorf("a short row: %v", err)
	}
	if _, err := NewSummary([]string{"a", "a"}, nil); err == nil {
		t.Error("a column twice is taken")
	}
}

// A file of SageMaker's is read as it is; what it does not say is not asked.
func TestReadSageMaker(t *testing.T) {
	c, err := Decode([]byte(`{"version": 0.0, "features": [
		{"name": "age", "inferred_type": "Integral", "completeness": 1.0, "num_constraints": {"is_non_negative": true}},
		{"name": "income", "inferred_type": "Fractional", "completeness": 0.5},
		{"name": "job", "inferred_type": "String", "completeness": 1.0, "string_constraints": {"domains": ["clerk", "cook"]}},
		{"name": "id", "inferred_type": "String", "completeness": 1.0}],
		"monitoring_config": {"evaluate_constraints": "Enabled", "emit_metrics": "Enabled", "datatype_check_threshold": 1.0, "domain_content_threshold": 0.5,
		"distribution_constraints": {"perform_comparison": "Enabled", "comparison_threshold": 0.1, "comparison_method": "Robust",
		"categorical_comparison_threshold": 0.1, "categorical_drift_method": "LInfinity"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	rows := people(rand.New(rand.NewPCG(4, 4)), 300, nil)
	if v := summary(t, rows, c).Check(c); len(v) > 0 { // two jobs of three are known, half must be
		t.Errorf("got %v", v)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "no features": `{"features": []}`, "a field that is not known": `{"features": [{"name": "a", "inferred_type": "String", "completness": 1}]}`,
		"a type that is none":       `{"features": [{"name": "a", "inferred_type": "Text"}]}`,
		"a feature twice":           `{"features": [{"name": "a", "inferred_type": "String"}, {"name": "a", "inferred_type": "String"}]}`,
		"a share above 1":           `{"features": [{"name": "a", "inferred_type": "String", "completeness": 2}]}`,
		"a baseline of other bins":  `{"features": [{"name": "a", "inferred_type": "Integral", "baseline": {"rows": 5, "edges": [1, 2], "counts": [1, 2, 3]}}]}`,
		"edges that do not rise":    `{"features": [{"name": "a", "inferred_type": "Integral", "baseline": {"rows": 5, "edges": [2, 1], "counts": [1, 2, 3, 0, 0]}}]}`,
		"something after the value": `{"features": [{"name": "a", "inferred_type": "String"}]} {}`,
	} {
		if _, err := Decode([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A report comes back as it was written, bounded however much is wrong.
func TestReport(t *testing.T) {
	c := &Constraints{}
	for i := range maxViolations + 30 {
		c.Features = append(c.Features, Feature{Name: fmt.Sprint("f", i), InferredType: String})
	}
	s, err := NewSummary([]string{"a"}, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add([]string{"1"}); err != nil {
		t.Fatal(err)
	}
	r := s.MakeReport(c)
	if len(r.Violations) != maxViolations || r.Total() != maxViolations+31 {
		t.Errorf("%d listed, %d in all", len(r.Violations), r.Total())
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeReport(b); !errors.Is(err, ErrInvalid) {
		t.Errorf("a report that does not say of what: %v", err)
	}
	r.Rows, r.Constraints = release.DigestOf([]byte("rows")), release.DigestOf([]byte("constraints"))
	if b, err = json.Marshal(r); err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeReport(b); err != nil || got.Total() != r.Total() {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Memory does not grow with the rows.
func TestSummaryIsBounded(t *testing.T) {
	s, err := NewSummary([]string{"id"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30_000 {
		if err := s.Add([]string{fmt.Sprint("p-", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if c := &s.columns[0]; len(c.domain) != MaxDomain || len(c.sample) != MaxSample || c.other != 30_000-MaxDomain {
		t.Errorf("%d texts, %d sampled, %d others", len(c.domain), len(c.sample), c.other)
	}
}
