package tracking_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// inMemory is a store that is closed when the test ends.
func inMemory(t *testing.T) *world {
	t.Helper()
	w := &world{Store: tracking.NewMemory(), tb: t}
	t.Cleanup(func() {
		if err := w.Close(context.Background()); err != nil {
			w.tb.Error(err)
		}
	})
	return w
}

// filled is a store with a few runs whose every value is known.
func filled(t *testing.T, n int, rng *rand.Rand) (*world, []tracking.Run) {
	t.Helper()
	w := inMemory(t)
	experiment := must[tracking.Experiment](t)(w.CreateExperiment(t.Context(), "other", "", nil)).ID
	var runs []tracking.Run
	for range n {
		r := tracking.Run{Experiment: []string{"0", experiment}[rng.IntN(2)], StartedMS: 1 + rng.Int64N(20), User: []string{"ada", "Bob", ""}[rng.IntN(3)]}
		id := must[tracking.Run](t)(w.CreateRun(t.Context(), r)).ID
		b := tracking.Batch{Params: map[string]string{}, Tags: map[string]string{}}
		for _, key := range []string{"acc", "loss", "a b"} {
			if rng.IntN(4) > 0 {
				v := []float64{0, 0.5, 1, -1, math.NaN(), math.Inf(1), math.Inf(-1), rng.Float64()}[rng.IntN(8)]
				b.Metrics = append(b.Metrics, tracking.Metric{Key: key, Value: v})
			}
		}
		for _, key := range []string{"lr", "a b", "x.y"} {
			if rng.IntN(4) > 0 {
				b.Params[key] = []string{"0.1", "Adam", "adam", "a%b", "a_b", ""}[rng.IntN(6)]
				b.Tags[key] = []string{"x", "XY", "xyz", "ä"}[rng.IntN(4)]
			}
		}
		ok(t, w.Log(t.Context(), id, b))
		if rng.IntN(5) == 0 {
			must[tracking.Run](t)(w.UpdateRun(t.Context(), id, tracking.Finished, rng.Int64N(30), ""))
		}
		if rng.IntN(8) == 0 {
			ok(t, w.DeleteRun(t.Context(), id, true))
		}
		runs = append(runs, must[tracking.Run](t)(w.Run(id)))
	}
	return w, runs
}

// naive is one condition in a form that needs no language.
type naive struct {
	text string
	test func(tracking.Run) bool
}

func metricCondition(rng *rand.Rand) naive {
	key := []string{"acc", "loss", "a b"}[rng.IntN(3)]
	op := []string{"=", "!=", "<", "<=", ">", ">="}[rng.IntN(6)]
	want := []float64{0, 0.5, 1, -1, 1e-3}[rng.IntN(5)]
	return naive{
		fmt.Sprintf("%s.`%s` %s %v", []string{"metrics", "metric", "Metrics"}[rng.IntN(3)], key, op, want),
		func(r tracking.Run) bool {
			m, ok := r.Metrics[key]
			return ok && numbersCompare(m.Value, op, want)
		},
	}
}

func numbersCompare(a float64, op string, b float64) bool {
	switch op {
	case "=":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	default:
		return a >= b
	}
}

func textCondition(rng *rand.Rand) naive {
	type source struct {
		text string
		get  func(tracking.Run) (string, bool)
	}
	inMap := func(kind string, get func(tracking.Run) map[string]string, key string) source {
		return source{kind + `."` + key + `"`, func(r tracking.Run) (string, bool) { v, ok := get(r)[key]; return v, ok }}
	}
	key := []string{"lr", "a b", "x.y"}[rng.IntN(3)]
	from := []source{
		inMap("params", func(r tracking.Run) map[string]string { return r.Params }, key),
		inMap("tag", func(r tracking.Run) map[string]string { return r.Tags }, key),
		{"attributes.user_id", func(r tracking.Run) (string, bool) { return r.User, r.User != "" }},
		{"status", func(r tracking.Run) (string, bool) { return string(r.Status), true }},
	}[rng.IntN(4)]
	want := []string{"0.1", "adam", "a%b", "%a%", "a_b", "x", "%y%", "Bob", "RUNNING", "_", "%", ""}[rng.IntN(12)]
	op := []string{"=", "!=", "LIKE", "ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"}[rng.IntN(8)]
	text := from.text + " " + op
	switch op {
	case "IS NULL", "IS NOT NULL":
	case "IN", "NOT IN":
		text += " ('" + want + "', 'xyz')"
	default:
		text += " '" + want + "'"
	}
	return naive{text, func(r tracking.Run) bool {
		v, ok := from.get(r)
		switch op {
		case "IS NULL":
			return !ok
		case "IS NOT NULL":
			return ok
		case "=":
			return ok && v == want
		case "!=":
			return ok && v != want
		case "IN":
			return ok && (v == want || v == "xyz")
		case "NOT IN":
			return ok && v != want && v != "xyz"
		case "LIKE":
			return ok && naiveLike(want, v)
		default:
			return ok && naiveLike(strings.ToLower(want), strings.ToLower(v))
		}
	}}
}

// naiveLike tries all ways to read a pattern.
func naiveLike(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	switch {
	case len(p) == 0:
		return len(t) == 0
	case p[0] == '%':
		return naiveLike(string(p[1:]), text) || len(t) > 0 && naiveLike(pattern, string(t[1:]))
	default:
		return len(t) > 0 && (p[0] == '_' || p[0] == t[0]) && naiveLike(string(p[1:]), string(t[1:]))
	}
}

// naiveOrder is an order in a form that needs no language. It says whether a
// comes before b, 0 when it cannot tell.
type naiveOrder struct {
	text    string
	compare func(a, b tracking.Run) int
}

func orders() []naiveOrder {
	metric := func(desc bool) func(a, b tracking.Run) int {
		rank := func(r tracking.Run) (int, float64) {
			m, ok := r.Metrics["acc"]
			switch {
			case !ok:
				return 2, 0
			case math.IsNaN(m.Value):
				return 1, 0
			}
			return 0, m.Value
		}
		return func(a, b tracking.Run) int {
			ra, va := rank(a)
			rb, vb := rank(b)
			if desc {
				va, vb = vb, va
			}
			return cmp.Or(cmp.Compare(ra, rb), cmp.Compare(va, vb))
		}
	}
	param := func(a, b tracking.Run) int {
		va, ok := a.Params["lr"]
		vb, ok2 := b.Params["lr"]
		if !ok || !ok2 {
			return cmp.Compare(map[bool]int{true: 0, false: 1}[ok], map[bool]int{true: 0, false: 1}[ok2])
		}
		return strings.Compare(vb, va)
	}
	return []naiveOrder{
		{"metrics.acc DESC", metric(true)},
		{"metrics.acc", metric(false)},
		{"params.lr desc", param},
		{"attributes.start_time ASC", func(a, b tracking.Run) int { return cmp.Compare(a.StartedMS, b.StartedMS) }},
		{"start_time DESC", func(a, b tracking.Run) int { return cmp.Compare(b.StartedMS, a.StartedMS) }},
	}
}

// Searches find what a naive reading of their conditions finds, in the order
// that MLflow gives, whatever the size of the pages.
func TestSearchAgreesWithNaiveOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	w, runs := filled(t, 120, rng)
	for range 400 {
		var conditions []naive
		var texts []string
		for range rng.IntN(4) {
			c := []func(*rand.Rand) naive{metricCondition, textCondition}[rng.IntN(2)](rng)
			conditions, texts = append(conditions, c), append(texts, c.text)
		}
		q := tracking.Search{Filter: strings.Join(texts, " AND "), View: []tracking.View{"", tracking.ActiveOnly, tracking.All, tracking.DeletedOnly}[rng.IntN(4)], Max: 1 + rng.IntN(40)}
		sorting := []naiveOrder{}
		for _, o := range orders() {
			if rng.IntN(4) == 0 {
				sorting, q.OrderBy = append(sorting, o), append(q.OrderBy, o.text)
			}
		}
		experiments := [][]string{{"0"}, {"1"}, {"0", "1"}, {"1", "0", "1"}, {"9"}}[rng.IntN(5)]
		want := naiveSearch(runs, experiments, q.View, conditions, sorting)
		if got := allPages(t, w, experiments, q); !slices.Equal(got, want) {
			t.Fatalf("%v %+v:\ngot  %v\nwant %v", experiments, q, got, want)
		}
	}
}

func naiveSearch(runs []tracking.Run, experiments []string, v tracking.View, conditions []naive, sorting []naiveOrder) (ids []string) {
	var found []tracking.Run
	for _, r := range runs {
		shown := v == tracking.All || r.Deleted == (v == tracking.DeletedOnly)
		if shown && slices.Contains(experiments, r.Experiment) && !slices.ContainsFunc(conditions, func(c naive) bool { return !c.test(r) }) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b tracking.Run) int {
		for _, o := range sorting {
			if c := o.compare(a, b); c != 0 {
				return c
			}
		}
		return cmp.Or(cmp.Compare(b.StartedMS, a.StartedMS), strings.Compare(a.ID, b.ID))
	})
	for _, r := range found {
		ids = append(ids, r.ID)
	}
	return ids
}

func allPages(t *testing.T, w *world, experiments []string, q tracking.Search) (ids []string) {
	t.Helper()
	for {
		found, next, err := w.SearchRuns(experiments, q)
		if err != nil || len(found) > q.Max {
			t.Fatalf("%+v: got %d runs, %v", q, len(found), err)
		}
		for _, r := range found {
			ids = append(ids, r.ID)
		}
		if q.Page = next; next == "" {
			return ids
		}
	}
}

// What is added between two pages moves nothing from one to the other.
func TestPagesStayWhenRunsAreAdded(t *testing.T) {
	w := inMemory(t)
	var want []string
	for n := range 20 {
		want = append(want, must[tracking.Run](t)(w.CreateRun(t.Context(), tracking.Run{StartedMS: int64(100 - n)})).ID)
	}
	q := tracking.Search{Max: 3}
	var got []string
	for {
		found, next, err := w.SearchRuns([]string{"0"}, q)
		ok(t, err)
		for _, r := range found {
			if r.StartedMS <= 100 && slices.Contains(want, r.ID) {
				got = append(got, r.ID)
			}
		}
		if q.Page = next; next == "" {
			break
		}
		must[tracking.Run](t)(w.CreateRun(t.Context(), tracking.Run{StartedMS: 1000}))
		must[tracking.Run](t)(w.CreateRun(t.Context(), tracking.Run{StartedMS: found[0].StartedMS}))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	q.Page = "AAAA"
	_, _, err := w.SearchRuns([]string{"0"}, q)
	wantCode(t, "a foreign token", err, tracking.Invalid)
	_, next, err := w.SearchRuns([]string{"0"}, tracking.Search{Max: 1})
	ok(t, err)
	_, _, err = w.SearchRuns([]string{"0"}, tracking.Search{Max: 1, Page: next, Filter: "status = 'RUNNING'"})
	wantCode(t, "the token of another search", err, tracking.Invalid)
}

func TestSearchErrorsSayWhere(t *testing.T) {
	s := inMemory(t)
	for filter, want := range map[string]string{
		"metrics.acc >":                        "at character 14: got the end, expected a number or a text in quotes",
		"metrics.acc > 'x'":                    `at character 15: got "x", expected a number without quotes`,
		"metrics.acc LIKE 'x'":                 "at character 13: metric \"acc\" is a number",
		"params.lr > '1'":                      `at character 11: param "lr" is text: compare it with =`,
		"params.lr = 1":                        `at character 13: got "1", expected a text in quotes`,
		"params.lr = 'a":                       "at character 13: the quote ' is not closed",
		"nothing.lr = 'a'":                     `"nothing" is none of attributes, metrics, params, tags, datasets`,
		"colour = 'red'":                       `"colour" is none of the attributes artifact_uri, created, end_time, run_id, run_name, start_time, status, user_id`,
		"status = 'A' OR status = 'B'":         "at character 14: OR is not part of the search language",
		"status = 'A' status = 'B'":            `at character 14: got "status", expected AND or the end`,
		"run_id IN 'a'":                        "expected ( and a list",
		"run_id IN ('a' 'b')":                  "expected a comma or )",
		"dataset.colour = 'x'":                 "none of the fields of datasets: name, digest, context",
		"metrics. = 1":                         "a key has to follow",
		"= 1":                                  "expected a field such as",
		"start_time ! 1":                       "begins nothing that is known here",
		"status IS 'x'":                        "expected NULL",
		strings.Repeat("x", 17<<10) + " = 'y'": "at most 16384 are allowed",
	} {
		_, _, err := s.SearchRuns([]string{"0"}, tracking.Search{Filter: filter})
		if code(err) != tracking.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v, want %s", filter, err, want)
		}
	}
	for _, order := range []string{"metrics.acc UP", "metrics.acc DESC x", "dataset.name", "nothing", ""} {
		_, _, err := s.SearchRuns([]string{"0"}, tracking.Search{OrderBy: []string{order}})
		wantCode(t, "order "+order, err, tracking.Invalid)
	}
	long := slices.Repeat([]string{"status"}, 33) // a page token would hold all of them
	for _, q := range []tracking.Search{{Max: 50_001}, {Max: -1}, {View: "SOME"}, {OrderBy: long}} {
		_, _, err := s.SearchRuns([]string{"0"}, q)
		wantCode(t, fmt.Sprintf("%+v", q), err, tracking.Invalid)
	}
}

// What clients of MLflow send, as its documentation and notebooks have it.
func TestFiltersOfClients(t *testing.T) {
	w := inMemory(t)
	ctx := t.Context()
	id := must[tracking.Run](t)(w.CreateRun(ctx, tracking.Run{StartedMS: 1664067852747, User: "ada", Name: "bright-owl", Tags: map[string]string{"mlflow.source.name": "train.py"}})).ID
	ok(t, w.Log(ctx, id, tracking.Batch{
		Metrics: []tracking.Metric{value("cpu utilization", 85.5, 0, 0), value("val/loss-1", 0.1, 0, 0)},
		Params:  map[string]string{"model": "CNN", "layer 1/size": "3"}, Tags: map[string]string{"estimator": "RandomForestRegressor"},
	}))
	ok(t, w.LogInputs(ctx, id, []tracking.Dataset{{Name: "rows", Digest: "abc", Tags: map[string]string{"mlflow.data.context": "train"}}}, nil))
	for _, filter := range []string{
		"", "metrics.`cpu utilization` > 80", `metrics."cpu utilization" >= 8.55e1`, "metrics.val/loss-1 < +0.2", "params.model = \"CNN\" and params.`layer 1/size`!='2'",
		"tags.mlflow.source.name='train.py'", "tags.`mlflow.source.name` LIKE '%rain%'", "tags.estimator ILIKE 'randomforest%'",
		"attributes.start_time >= 1664067852747", "attr.created > 1664067852746", "run.status = 'RUNNING'", "attributes.run_id IN ('" + id + "', 'x')",
		"run_name LIKE 'bright%' AND user_id = 'ada'", "`Run Name` = 'bright-owl'", "datasets.name = 'rows' AND dataset.digest IN ('abc') AND dataset.context LIKE 'tr%'",
		"artifact_uri ILIKE '%/ARTIFACTS'", "end_time IS NULL and params.model is not null",
	} {
		found, _, err := w.SearchRuns([]string{"0"}, tracking.Search{Filter: filter})
		if err != nil || len(found) != 1 {
			t.Errorf("%s: got %d runs, %v; want one", filter, len(found), err)
		}
	}
	for _, filter := range []string{"metrics.`cpu utilization` > 90", "end_time > 0", "params.other != 'x'", "dataset.context = 'test'", "attributes.run_id NOT IN ('" + id + "')"} {
		found, _, err := w.SearchRuns([]string{"0"}, tracking.Search{Filter: filter})
		if err != nil || len(found) != 0 {
			t.Errorf("%s: got %d runs, %v; want none", filter, len(found), err)
		}
	}
}

func TestSearchOfOthers(t *testing.T) {
	w := inMemory(t)
	ctx := t.Context()
	for n := range 5 {
		name := "m" + strconv.Itoa(n)
		must[tracking.Experiment](t)(w.CreateExperiment(ctx, name, "", map[string]string{"n": strconv.Itoa(n)}))
		must[tracking.RegisteredModel](t)(w.CreateRegisteredModel(ctx, name, "", map[string]string{"n": strconv.Itoa(n)}))
		for v := range n {
			must[tracking.ModelVersion](t)(w.CreateVersion(ctx, tracking.ModelVersion{Name: name, Source: "s3://x/" + strconv.Itoa(v), Run: "r" + strconv.Itoa(v)}))
		}
	}
	experiments, _, err := w.SearchExperiments(tracking.Search{Filter: "name ILIKE 'M%' and tags.n != '3' and creation_time > 5", OrderBy: []string{"name DESC"}})
	ok(t, err)
	if names := namesOf(experiments, func(e tracking.Experiment) string { return e.Name }); names != "m4 m2 m1 m0" {
		t.Errorf("experiments: got %s", names)
	}
	experiments, next, err := w.SearchExperiments(tracking.Search{Max: 2})
	ok(t, err)
	if len(experiments) != 2 || next == "" {
		t.Errorf("a page of experiments: got %d, %q", len(experiments), next)
	}
	models, _, err := w.SearchRegisteredModels(tracking.Search{Filter: "tags.n = '2' AND name LIKE '%2'"})
	ok(t, err)
	if len(models) != 1 || len(models[0].Versions) != 2 {
		t.Errorf("models: got %+v", models)
	}
	versions, _, err := w.SearchVersions(tracking.Search{Filter: "name = 'm4' AND run_id IN ('r1','r3') AND source_path LIKE 's3://%'", OrderBy: []string{"version_number ASC"}})
	ok(t, err)
	if got := namesOf(versions, func(v tracking.ModelVersion) string { return strconv.Itoa(v.Version) }); got != "2 4" {
		t.Errorf("versions: got %s", got)
	}
	_, _, err = w.SearchVersions(tracking.Search{Filter: "metrics.acc > 1"})
	wantCode(t, "metrics of versions", err, tracking.Invalid)
	_, _, err = w.SearchRegisteredModels(tracking.Search{Max: 1001})
	wantCode(t, "too large a page", err, tracking.Invalid)
}

// Clients of 3.x add what keeps prompts out to every search for models.
func TestSearchTellsModelsFromPrompts(t *testing.T) {
	w := inMemory(t)
	ctx := t.Context()
	must[tracking.RegisteredModel](t)(w.CreateRegisteredModel(ctx, "digits", "", nil))
	must[tracking.RegisteredModel](t)(w.CreateRegisteredModel(ctx, "greeting", "", map[string]string{"mlflow.prompt.is_prompt": "true"}))
	must[tracking.ModelVersion](t)(w.CreateVersion(ctx, tracking.ModelVersion{Name: "digits", Source: "s3://x"}))
	for filter, want := range map[string]string{
		"": "digits greeting",
		"tag.`mlflow.prompt.is_prompt` != 'true'":                   "digits",
		"name LIKE '%' AND tag.`mlflow.prompt.is_prompt` != 'true'": "digits",
		"tags.`mlflow.prompt.is_prompt` = 'false'":                  "digits",
		"tags.`mlflow.prompt.is_prompt` = 'true'":                   "greeting",
		"tags.`other` != 'true'":                                    "",
	} {
		models, _, err := w.SearchRegisteredModels(tracking.Search{Filter: filter})
		ok(t, err)
		if got := namesOf(models, func(m tracking.RegisteredModel) string { return m.Name }); got != want {
			t.Errorf("%s: got %q, want %q", filter, got, want)
		}
	}
	versions, _, err := w.SearchVersions(tracking.Search{Filter: "name = 'digits' AND tag.`mlflow.prompt.is_prompt` != 'true'"})
	ok(t, err)
	if len(versions) != 1 {
		t.Errorf("versions: got %d, want 1", len(versions))
	}
}

func namesOf[T any](things []T, name func(T) string) string {
	var out []string
	for _, v := range things {
		out = append(out, name(v))
	}
	return strings.Join(out, " ")
}

// Whatever a filter or an order says, it is read or refused as the caller's fault.
func FuzzSearch(f *testing.F) {
	for _, seed := range []string{
		"metrics.a > 1 and params.`b c` != 'd'", "tags.\"x\" LIKE '%'", "run_id IN ('a','b') AND status IS NOT NULL", "attributes.start_time>=1e3", "'", "``=1", "a.", "ä = 'ö'", "x IN (", "metrics.x = nan",
	} {
		f.Add(seed)
	}
	s := tracking.NewMemory()
	if _, err := s.CreateRun(f.Context(), tracking.Run{}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, q := range []tracking.Search{{Filter: text}, {OrderBy: []string{text}}, {Page: text}} {
			_, _, err := s.SearchRuns([]string{"0"}, q)
			if err != nil && code(err) != tracking.Invalid {
				t.Errorf("%+v: %v", q, err)
			}
			_, _, err = s.SearchVersions(q)
			if err != nil && code(err) != tracking.Invalid {
				t.Errorf("%+v: %v", q, err)
			}
		}
	})
}
