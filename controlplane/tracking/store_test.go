package tracking_test

import (
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// world is a store that can be closed and opened again, with a clock that moves
// by a millisecond a look.
type world struct {
	*tracking.Store
	tb     testing.TB
	reopen func() *tracking.Store
}

// again closes the store and opens it from what it kept.
func (w *world) again() {
	w.tb.Helper()
	if err := w.Close(w.tb.Context()); err != nil {
		w.tb.Fatal(err)
	}
	w.Store = w.reopen()
}

// Both journals have to pass the same tests.
func TestStores(t *testing.T) {
	tests := map[string]func(*testing.T, *world){
		"experiments":   testExperiments,
		"runs":          testRuns,
		"log":           testLog,
		"limits":        testLimits,
		"history":       testHistory,
		"not_a_number":  testNotANumber,
		"inputs":        testInputs,
		"logged_models": testLoggedModels,
		"registered":    testRegistered,
		"stages":        testStages,
		"deleted":       testDeleted,
		"purge":         testPurge,
		"writers":       testWriters,
	}
	for name, test := range tests {
		t.Run("memory/"+name, func(t *testing.T) {
			s := tracking.NewMemory()
			test(t, &world{Store: s, tb: t})
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	dir, ca := t.TempDir(), brokertest.CA(t)
	for name, test := range tests {
		t.Run("jetstream/"+name, func(t *testing.T) {
			b := brokertest.StartAt(t, filepath.Join(dir, name), ca)
			w := &world{tb: t, reopen: func() *tracking.Store { return open(t, b.Conn()) }}
			w.Store = w.reopen()
			test(t, w)
			before := dump(t, w.Store)
			w.again()
			if d := differ(dump(t, w.Store), before); d != "" {
				t.Errorf("after a restart: %s", d)
			}
			if err := w.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// state is all that a store shows.
type state struct {
	Experiments []tracking.Experiment
	Runs        []tracking.Run
	Logged      []tracking.LoggedModel
	Models      []tracking.RegisteredModel
}

// dump reads all of a store. NaN becomes text, so that states can be compared.
func dump(tb testing.TB, s *tracking.Store) (out state) {
	tb.Helper()
	var errs [4]error
	out.Experiments, _, errs[0] = s.SearchExperiments(tracking.Search{View: tracking.All})
	ids := make([]string, len(out.Experiments))
	for i, e := range out.Experiments {
		ids[i] = e.ID
	}
	out.Runs, _, errs[1] = s.SearchRuns(ids, tracking.Search{View: tracking.All, Max: 50_000})
	out.Logged, _, errs[2] = s.SearchLoggedModels(ids, tracking.Search{Max: 1000})
	out.Models, _, errs[3] = s.SearchRegisteredModels(tracking.Search{Max: 1000})
	if err := errors.Join(errs[:]...); err != nil {
		tb.Fatal(err)
	}
	for i := range out.Runs {
		for k, m := range out.Runs[i].Metrics {
			if math.IsNaN(m.Value) {
				m.Key, m.Value = m.Key+" is not a number", 0
				out.Runs[i].Metrics[k] = m
			}
		}
	}
	return out
}

func code(err error) tracking.Code {
	if e, ok := errors.AsType[*tracking.Error](err); ok {
		return e.Code
	}
	return ""
}

func wantCode(t *testing.T, what string, err error, want tracking.Code) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("%s: got %v, want code %s", what, err, want)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testExperiments(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	byDefault := must[tracking.Experiment](t)(w.Experiment("0"))
	if byDefault.Name != "Default" || byDefault.ArtifactURI != "mlflow-artifacts:/0" {
		t.Errorf("default experiment: got %+v", byDefault)
	}
	e := must[tracking.Experiment](t)(w.CreateExperiment(ctx, "digits", "", map[string]string{"team": "a"}))
	if e.ID != "1" || e.ArtifactURI != "mlflow-artifacts:/1" || e.Tags["team"] != "a" || e.CreatedMS == 0 {
		t.Errorf("got %+v", e)
	}
	_, err := w.CreateExperiment(ctx, "digits", "", nil)
	wantCode(t, "the same name", err, tracking.AlreadyExists)
	_, err = w.CreateExperiment(ctx, " ", "", nil)
	wantCode(t, "no name", err, tracking.Invalid)
	ok(t, w.RenameExperiment(ctx, e.ID, "numbers"))
	ok(t, w.SetExperimentTag(ctx, e.ID, "team", new("b")))
	ok(t, w.SetExperimentTag(ctx, e.ID, "gone", new("soon")))
	ok(t, w.SetExperimentTag(ctx, e.ID, "gone", nil))
	_, err = w.ExperimentByName("digits")
	wantCode(t, "the old name", err, tracking.NotFound)
	again := must[tracking.Experiment](t)(w.CreateExperiment(ctx, "digits", "s3://bucket/x", nil))
	if again.ID != "2" || again.ArtifactURI != "s3://bucket/x" {
		t.Errorf("got %+v, want id 2 at its own place", again)
	}
	wantCode(t, "rename to a name in use", w.RenameExperiment(ctx, again.ID, "numbers"), tracking.AlreadyExists)
	got := must[tracking.Experiment](t)(w.ExperimentByName("numbers"))
	if got.ID != e.ID || got.Tags["team"] != "b" || got.UpdatedMS < got.CreatedMS {
		t.Errorf("got %+v", got)
	}
	wantCode(t, "delete the default", w.DeleteExperiment(ctx, "0", true), tracking.Invalid)
	wantCode(t, "rename nothing", w.RenameExperiment(ctx, "99", "x"), tracking.NotFound)
}

func testRuns(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	r := must[tracking.Run](t)(w.CreateRun(ctx, tracking.Run{
		StartedMS: 1000, Tags: map[string]string{"mlflow.user": "ada", "mlflow.runName": "first", "mlflow.source.git.commit": "abc"},
	}))
	if len(r.ID) != 32 || r.Name != "first" || r.User != "ada" || r.Status != tracking.Running || r.StartedMS != 1000 || r.Experiment != "0" ||
		r.ArtifactURI != "mlflow-artifacts:/0/"+r.ID+"/artifacts" {
		t.Errorf("got %+v", r)
	}
	if got := must[tracking.Run](t)(w.Run(r.ID)); !reflect.DeepEqual(got, r) {
		t.Errorf("read back: got %+v, want %+v", got, r)
	}
	done := must[tracking.Run](t)(w.UpdateRun(ctx, r.ID, tracking.Finished, 2000, "renamed"))
	if done.Status != tracking.Finished || done.EndedMS != 2000 || done.Name != "renamed" || done.Tags["mlflow.runName"] != "renamed" {
		t.Errorf("got %+v", done)
	}
	unnamed := must[tracking.Run](t)(w.CreateRun(ctx, tracking.Run{}))
	if unnamed.Name == "" || unnamed.Tags["mlflow.runName"] != unnamed.Name || unnamed.StartedMS == 0 {
		t.Errorf("got %+v, want a name and a start", unnamed)
	}
	_, err := w.CreateRun(ctx, tracking.Run{Experiment: "77"})
	wantCode(t, "no such experiment", err, tracking.NotFound)
	_, err = w.CreateRun(ctx, tracking.Run{Name: "a", Tags: map[string]string{"mlflow.runName": "b"}})
	wantCode(t, "two names", err, tracking.Invalid)
	_, err = w.Run("../etc")
	wantCode(t, "id of another form", err, tracking.Invalid)
	_, err = w.Run(strings.Repeat("0", 32))
	wantCode(t, "no such run", err, tracking.NotFound)
	_, err = w.UpdateRun(ctx, r.ID, "DONE", 0, "")
	wantCode(t, "no such status", err, tracking.Invalid)
	wantCode(t, "no such tag", w.DeleteRunTag(ctx, r.ID, "none"), tracking.NotFound)
	ok(t, w.DeleteRunTag(ctx, r.ID, "mlflow.source.git.commit"))
	if got := must[tracking.Run](t)(w.Run(r.ID)); got.Tags["mlflow.source.git.commit"] != "" || len(got.Tags) != 2 {
		t.Errorf("tags: got %v, want two", got.Tags)
	}
}

func newRun(t *testing.T, w *world) string {
	t.Helper()
	return must[tracking.Run](t)(w.CreateRun(t.Context(), tracking.Run{StartedMS: 1})).ID
}

func value(key string, v float64, step, at int64) tracking.Metric {
	return tracking.Metric{Key: key, Value: v, Step: step, TimestampMS: at}
}

func testLog(t *testing.T, w *world) {
	t.Helper()
	ctx, id := t.Context(), newRun(t, w)
	ok(t, w.Log(ctx, id, tracking.Batch{
		Metrics: []tracking.Metric{value("acc", 0.5, 1, 10), value("acc", 0.7, 2, 5), value("acc", 0.6, 1, 99)},
		Params:  map[string]string{"lr": "0.1"}, Tags: map[string]string{"a b/c.d-e_f": "x"},
	}))
	ok(t, w.Log(ctx, id, tracking.Batch{Params: map[string]string{"lr": "0.1", "depth": "3"}, Tags: map[string]string{"a b/c.d-e_f": "y"}}))
	got := must[tracking.Run](t)(w.Run(id))
	if got.Metrics["acc"] != value("acc", 0.7, 2, 5) || got.Params["lr"] != "0.1" || got.Params["depth"] != "3" || got.Tags["a b/c.d-e_f"] != "y" {
		t.Errorf("got %+v", got)
	}
	// The newest value: the greatest step, then time, then value.
	for _, m := range []struct{ logged, want tracking.Metric }{
		{value("acc", 0.1, 1, 1000), value("acc", 0.7, 2, 5)},
		{value("acc", 0.2, 2, 6), value("acc", 0.2, 2, 6)},
		{value("acc", 0.1, 2, 6), value("acc", 0.2, 2, 6)},
		{value("acc", 0.3, 2, 6), value("acc", 0.3, 2, 6)},
		{value("acc", -1, 3, 0), value("acc", -1, 3, 0)},
	} {
		ok(t, w.Log(ctx, id, tracking.Batch{Metrics: []tracking.Metric{m.logged}}))
		if got := must[tracking.Run](t)(w.Run(id)).Metrics["acc"]; got != m.want {
			t.Errorf("after %+v: got %+v, want %+v", m.logged, got, m.want)
		}
	}
	// A batch with one wrong part stores nothing.
	err := w.Log(ctx, id, tracking.Batch{Metrics: []tracking.Metric{value("other", 1, 0, 0)}, Params: map[string]string{"lr": "0.2"}})
	wantCode(t, "a changed parameter", err, tracking.Invalid)
	if got := must[tracking.Run](t)(w.Run(id)); len(got.Metrics) != 1 || got.Params["lr"] != "0.1" {
		t.Errorf("after a refused batch: got %+v", got)
	}
	ok(t, w.Log(ctx, id, tracking.Batch{}))
	ok(t, w.Log(ctx, id, tracking.Batch{Tags: map[string]string{"mlflow.runName": "by tag"}}))
	if got := must[tracking.Run](t)(w.Run(id)); got.Name != "by tag" {
		t.Errorf("got name %q, want that of the tag", got.Name)
	}
}

func many(n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		out["k"+strconv.Itoa(i)] = "v"
	}
	return out
}

func testLimits(t *testing.T, w *world) {
	t.Helper()
	ctx, id := t.Context(), newRun(t, w)
	metrics := func(n int) (out []tracking.Metric) {
		for i := range n {
			out = append(out, value("m"+strconv.Itoa(i), 1, 0, 0))
		}
		return out
	}
	for name, b := range map[string]tracking.Batch{
		"1001 metrics":       {Metrics: metrics(1001)},
		"101 params":         {Params: many(101)},
		"101 tags":           {Tags: many(101)},
		"1001 in all":        {Metrics: metrics(901), Params: many(100)},
		"a long param":       {Params: map[string]string{"a": strings.Repeat("x", 6001)}},
		"a long tag":         {Tags: map[string]string{"a": strings.Repeat("x", 8001)}},
		"an empty key":       {Metrics: []tracking.Metric{value("", 1, 0, 0)}},
		"a long key":         {Params: map[string]string{strings.Repeat("k", 251): "x"}},
		"a key with a star":  {Params: map[string]string{"a*": "x"}},
		"a key with a colon": {Metrics: []tracking.Metric{value("a:b", 1, 0, 0)}},
		"a path upwards":     {Params: map[string]string{"../x": "x"}},
		"an absolute path":   {Tags: map[string]string{"/x": "x"}},
		"no text":            {Params: map[string]string{"a": "\xff"}},
	} {
		wantCode(t, name, w.Log(ctx, id, b), tracking.Invalid)
	}
	ok(t, w.Log(ctx, id, tracking.Batch{Params: map[string]string{"umlauts": strings.Repeat("ü", 6000)}, Tags: map[string]string{"umlauts": strings.Repeat("ü", 8000)}}))
	ok(t, w.Log(ctx, id, tracking.Batch{Metrics: metrics(1000)}))
	ok(t, w.Log(ctx, id, tracking.Batch{Params: many(100), Tags: many(100)}))
	long := strings.Repeat("x", 6000)
	var err error
	for n := 0; err == nil && n < 200; n++ {
		err = w.Log(ctx, id, tracking.Batch{Params: map[string]string{"long" + strconv.Itoa(n): long}})
	}
	wantCode(t, "more than a run can keep", err, tracking.Invalid)
	if n := len(must[tracking.Run](t)(w.Run(id)).Params); n < 145 || n > 210 {
		t.Errorf("got %d params, want about 195", n)
	}
	wantCode(t, "no such run", w.Log(ctx, "0123", tracking.Batch{}), tracking.NotFound)
}

func testHistory(t *testing.T, w *world) {
	t.Helper()
	ctx, id, other := t.Context(), newRun(t, w), newRun(t, w)
	var want []tracking.Metric
	for n := range int64(40) {
		ok(t, w.Log(ctx, other, tracking.Batch{Metrics: []tracking.Metric{value("loss", 9, n, n)}}))
		b := tracking.Batch{Metrics: []tracking.Metric{value("loss", 1/float64(n+1), n, 100+n), value("acc", 1, n, n), value("loss", 2, n, 101+n)}}
		ok(t, w.Log(ctx, id, b))
		want = append(want, b.Metrics[0], b.Metrics[2])
	}
	if w.reopen != nil {
		w.again()
	}
	all, next, err := w.MetricHistory(ctx, id, "loss", 0, "")
	if err != nil || next != "" || !slices.Equal(all, want) {
		t.Fatalf("got %d values, %q, %v; want %d", len(all), next, err, len(want))
	}
	for _, limit := range []int{1, 3, 7, 79, 80, 81} {
		var paged []tracking.Metric
		for page, pages := "", 0; ; pages++ {
			some, next, err := w.MetricHistory(ctx, id, "loss", limit, page)
			if err != nil || len(some) > limit || pages > len(want) {
				t.Fatalf("limit %d: got %d values, %v on page %d", limit, len(some), err, pages)
			}
			paged = append(paged, some...)
			if page = next; page == "" {
				break
			}
		}
		if !slices.Equal(paged, want) {
			t.Errorf("limit %d: got %d values, want %d in order", limit, len(paged), len(want))
		}
	}
	if got, _, err := w.MetricHistory(ctx, id, "none", 0, ""); err != nil || len(got) != 0 {
		t.Errorf("a metric never logged: got %v, %v", got, err)
	}
	_, _, err = w.MetricHistory(ctx, id, "loss", 0, "nonsense")
	wantCode(t, "a foreign token", err, tracking.Invalid)
}

func testNotANumber(t *testing.T, w *world) {
	t.Helper()
	ctx, id := t.Context(), newRun(t, w)
	nan, inf := math.NaN(), math.Inf(1)
	ok(t, w.Log(ctx, id, tracking.Batch{Metrics: []tracking.Metric{
		value("loss", 1, 0, 0), value("loss", nan, 1, 0), value("up", inf, 0, 0), value("down", -inf, 0, 0), value("small", 5e-324, 0, 0), value("tie", nan, 0, 0), value("tie", -inf, 0, 0),
	}}))
	if w.reopen != nil {
		w.again()
	}
	got := must[tracking.Run](t)(w.Run(id)).Metrics
	if !math.IsNaN(got["loss"].Value) || got["up"].Value != inf || got["down"].Value != -inf || got["small"].Value != 5e-324 || got["tie"].Value != -inf {
		t.Errorf("got %v", got)
	}
	h, _, err := w.MetricHistory(ctx, id, "loss", 0, "")
	if err != nil || len(h) != 2 || h[0].Value != 1 || !math.IsNaN(h[1].Value) {
		t.Errorf("history: got %v, %v", h, err)
	}
}

func testInputs(t *testing.T, w *world) {
	t.Helper()
	ctx, id := t.Context(), newRun(t, w)
	d := tracking.Dataset{
		Name: "rows", Digest: "d1", SourceType: "local", Source: `{"uri":"rows.csv"}`, Schema: "{}", Profile: `{"num_rows":5}`,
		Tags: map[string]string{"mlflow.data.context": "training"},
	}
	e := d
	e.Digest, e.Tags = "d2", map[string]string{"mlflow.data.context": "evaluation"}
	ok(t, w.LogInputs(ctx, id, []tracking.Dataset{d, e}, []tracking.ModelRef{{ModelID: "m-1"}}))
	ok(t, w.LogInputs(ctx, id, []tracking.Dataset{d}, nil))
	ok(t, w.LogOutputs(ctx, id, []tracking.ModelRef{{ModelID: "m-2", Step: 3}}))
	got := must[tracking.Run](t)(w.Run(id))
	if len(got.Datasets) != 2 || !reflect.DeepEqual(got.Datasets[0], d) || got.ModelInputs[0].ModelID != "m-1" || got.Models[0] != (tracking.ModelRef{ModelID: "m-2", Step: 3}) {
		t.Errorf("got %+v", got)
	}
	wantCode(t, "a dataset without digest", w.LogInputs(ctx, id, []tracking.Dataset{{Name: "x"}}, nil), tracking.Invalid)
	large := d
	large.Profile = strings.Repeat("x", 1<<20)
	wantCode(t, "a dataset too large to keep", w.LogInputs(ctx, id, []tracking.Dataset{large}, nil), tracking.Invalid)
}

func testLoggedModels(t *testing.T, w *world) {
	t.Helper()
	ctx, id := t.Context(), newRun(t, w)
	m := must[tracking.LoggedModel](t)(w.CreateLoggedModel(ctx, tracking.LoggedModel{
		Experiment: "0", Name: "digits", Type: "onnx", SourceRun: id, Params: map[string]string{"lr": "1"}, Tags: map[string]string{"a": "b"},
	}))
	if !strings.HasPrefix(m.ID, "m-") || len(m.ID) != 34 || m.Status != tracking.ModelPending || m.ArtifactURI != "mlflow-artifacts:/0/models/"+m.ID+"/artifacts" {
		t.Errorf("got %+v", m)
	}
	of := value("acc", 0.5, 1, 2)
	of.ModelID, of.DatasetName, of.DatasetDigest = m.ID, "rows", "d1"
	newer := of
	newer.Value, newer.Step = 0.6, 2
	elsewhere := of
	elsewhere.DatasetDigest = "d2"
	ok(t, w.Log(ctx, id, tracking.Batch{Metrics: []tracking.Metric{of, newer, elsewhere, value("acc", 9, 0, 0)}}))
	if got := must[tracking.LoggedModel](t)(w.LoggedModel(m.ID)).Metrics; !slices.Equal(got, []tracking.Metric{newer, elsewhere}) {
		t.Errorf("metrics: got %+v", got)
	}
	if got := must[tracking.Run](t)(w.Run(id)).Metrics["acc"]; got != newer {
		t.Errorf("metric of the run: got %+v, want %+v", got, newer)
	}
	got := must[tracking.LoggedModel](t)(w.FinalizeLoggedModel(ctx, m.ID, tracking.ModelReady))
	if got.Status != tracking.ModelReady || len(got.Metrics) != 2 {
		t.Errorf("finalized: got %+v", got)
	}
	_, err := w.FinalizeLoggedModel(ctx, m.ID, "DONE")
	wantCode(t, "no such status", err, tracking.Invalid)
	got = must[tracking.LoggedModel](t)(w.SetLoggedModelTags(ctx, m.ID, map[string]string{"c": "d"}, []string{"a"}))
	if !reflect.DeepEqual(got.Tags, map[string]string{"c": "d"}) {
		t.Errorf("tags: got %v", got.Tags)
	}
	ok(t, w.LogModelParams(ctx, m.ID, map[string]string{"lr": "1", "depth": "2"}))
	wantCode(t, "a changed parameter", w.LogModelParams(ctx, m.ID, map[string]string{"lr": "2"}), tracking.Invalid)
	found, _, err := w.SearchLoggedModels([]string{"0"}, tracking.Search{Filter: "name = 'digits' AND params.depth = '2' AND metrics.acc > 0.55 AND tags.c = 'd'", OrderBy: []string{"metrics.acc DESC"}})
	if err != nil || len(found) != 1 || found[0].ID != m.ID {
		t.Errorf("search: got %v, %v", found, err)
	}
	gone := must[tracking.LoggedModel](t)(w.CreateLoggedModel(ctx, tracking.LoggedModel{}))
	ok(t, w.DeleteLoggedModel(ctx, gone.ID))
	_, err = w.LoggedModel(gone.ID)
	wantCode(t, "a deleted model", err, tracking.NotFound)
	wantCode(t, "deleted again", w.DeleteLoggedModel(ctx, gone.ID), tracking.NotFound)
}

func register(t *testing.T, w *world, name, source string) tracking.ModelVersion {
	t.Helper()
	return must[tracking.ModelVersion](t)(w.CreateVersion(t.Context(), tracking.ModelVersion{Name: name, Source: source}))
}

func testRegistered(t *testing.T, w *world) {
	t.Helper()
	ctx, id := t.Context(), newRun(t, w)
	m := must[tracking.RegisteredModel](t)(w.CreateRegisteredModel(ctx, "digits", "reads digits", map[string]string{"a": "b"}))
	if m.Name != "digits" || m.Description != "reads digits" || m.Tags["a"] != "b" {
		t.Errorf("got %+v", m)
	}
	_, err := w.CreateRegisteredModel(ctx, "digits", "", nil)
	wantCode(t, "the same name", err, tracking.AlreadyExists)
	_, err = w.CreateRegisteredModel(ctx, "a/b", "", nil)
	wantCode(t, "a name with a slash", err, tracking.Invalid)
	v := register(t, w, "digits", "runs:/"+id+"/model")
	if v.Version != 1 || v.Stage != tracking.StageNone || v.ArtifactURI != "mlflow-artifacts:/0/"+id+"/artifacts/model" {
		t.Errorf("got %+v", v)
	}
	logged := must[tracking.LoggedModel](t)(w.CreateLoggedModel(ctx, tracking.LoggedModel{Name: "x"}))
	if v := register(t, w, "digits", "models:/"+logged.ID); v.Version != 2 || v.ArtifactURI != logged.ArtifactURI {
		t.Errorf("got %+v", v)
	}
	ok(t, w.SetAlias(ctx, "digits", "champion", 2))
	ok(t, w.SetAlias(ctx, "digits", "best", 2))
	for alias, want := range map[string]tracking.Code{"v3": tracking.Invalid, "latest": tracking.Invalid, "a b": tracking.Invalid} {
		wantCode(t, "alias "+alias, w.SetAlias(ctx, "digits", alias, 1), want)
	}
	wantCode(t, "alias of nothing", w.SetAlias(ctx, "digits", "champion", 9), tracking.NotFound)
	if got := must[tracking.ModelVersion](t)(w.Version("digits", 2)); !slices.Equal(got.Aliases, []string{"best", "champion"}) {
		t.Errorf("aliases: got %v", got.Aliases)
	}
	text := "yes"
	ok(t, w.SetVersionTag(ctx, "digits", 2, operator.TagPublish, &text))
	ok(t, w.SetRegisteredModelTag(ctx, "digits", "a", nil))
	must[tracking.ModelVersion](t)(w.DescribeVersion(ctx, "digits", 2, "second"))
	must[tracking.RegisteredModel](t)(w.DescribeRegisteredModel(ctx, "digits", "better"))
	ok(t, w.DeleteVersion(ctx, "digits", 2))
	if v := register(t, w, "digits", "x"); v.Version != 3 || len(v.Aliases) != 0 {
		t.Errorf("got %+v, want version 3: numbers are never given twice", v)
	}
	renamed := must[tracking.RegisteredModel](t)(w.RenameRegisteredModel(ctx, "digits", "numbers"))
	if renamed.Name != "numbers" || len(renamed.Versions) != 2 || renamed.Versions[0].Version != 3 || renamed.Versions[0].Name != "numbers" || len(renamed.Aliases) != 0 || renamed.Description != "better" || len(renamed.Tags) != 0 {
		t.Errorf("got %+v", renamed)
	}
	_, err = w.RegisteredModel("digits")
	wantCode(t, "the old name", err, tracking.NotFound)
	must[tracking.RegisteredModel](t)(w.CreateRegisteredModel(ctx, "digits", "", nil))
	if v := register(t, w, "digits", "x"); v.Version != 1 {
		t.Errorf("a new model of an old name: got version %d", v.Version)
	}
	ok(t, w.DeleteRegisteredModel(ctx, "numbers"))
	_, err = w.Version("numbers", 1)
	wantCode(t, "a version of a deleted model", err, tracking.NotFound)
	found, _, err := w.SearchVersions(tracking.Search{Filter: "name='digits'"})
	if err != nil || len(found) != 1 {
		t.Errorf("versions: got %v, %v", found, err)
	}
}

func testStages(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	must[tracking.RegisteredModel](t)(w.CreateRegisteredModel(ctx, "digits", "", nil))
	for range 3 {
		register(t, w, "digits", "x")
	}
	move := func(version int, to tracking.Stage, archive bool) {
		t.Helper()
		must[tracking.ModelVersion](t)(w.SetVersionStage(ctx, "ada", "digits", version, to, archive))
	}
	move(1, tracking.StageProduction, false)
	move(2, tracking.StageProduction, false)
	move(3, tracking.StageProduction, true)
	var stages []tracking.Stage
	for n := range 3 {
		v := must[tracking.ModelVersion](t)(w.Version("digits", n+1))
		stages = append(stages, v.Stage)
	}
	if want := []tracking.Stage{tracking.StageArchived, tracking.StageArchived, tracking.StageProduction}; !slices.Equal(stages, want) {
		t.Errorf("got %v, want %v", stages, want)
	}
	v := must[tracking.ModelVersion](t)(w.Version("digits", 1))
	if len(v.History) != 2 || v.History[1].From != tracking.StageProduction || v.History[1].To != tracking.StageArchived || v.History[1].By != "ada" || v.History[1].AtMS == 0 {
		t.Errorf("history: got %+v", v.History)
	}
	_, err := w.SetVersionStage(ctx, "ada", "digits", 1, tracking.StageArchived, true)
	wantCode(t, "archive for Archived", err, tracking.Invalid)
	_, err = w.SetVersionStage(ctx, "ada", "digits", 1, "Live", false)
	wantCode(t, "no such stage", err, tracking.Invalid)
}

func testDeleted(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	e := must[tracking.Experiment](t)(w.CreateExperiment(ctx, "digits", "", nil))
	r := must[tracking.Run](t)(w.CreateRun(ctx, tracking.Run{Experiment: e.ID}))
	count := func(v tracking.View) int {
		t.Helper()
		found, _, err := w.SearchRuns([]string{e.ID}, tracking.Search{View: v})
		ok(t, err)
		return len(found)
	}
	ok(t, w.DeleteRun(ctx, r.ID, true))
	wantCode(t, "log to a deleted run", w.Log(ctx, r.ID, tracking.Batch{Tags: many(1)}), tracking.Invalid)
	if got := must[tracking.Run](t)(w.Run(r.ID)); !got.Deleted || got.DeletedMS == 0 || count(tracking.ActiveOnly) != 0 || count(tracking.DeletedOnly) != 1 {
		t.Errorf("deleted: got %+v", got)
	}
	ok(t, w.DeleteRun(ctx, r.ID, false))
	ok(t, w.DeleteRun(ctx, r.ID, false))
	if count(tracking.ActiveOnly) != 1 {
		t.Error("a restored run is not found")
	}
	ok(t, w.DeleteExperiment(ctx, e.ID, true))
	_, err := w.CreateRun(ctx, tracking.Run{Experiment: e.ID})
	wantCode(t, "a run in a deleted experiment", err, tracking.InvalidState)
	_, err = w.CreateExperiment(ctx, "digits", "", nil)
	wantCode(t, "the name of a deleted experiment", err, tracking.AlreadyExists)
	if count(tracking.ActiveOnly) != 0 || count(tracking.All) != 1 {
		t.Error("the runs of a deleted experiment are not deleted with it")
	}
	if found, _, err := w.SearchExperiments(tracking.Search{View: tracking.DeletedOnly}); err != nil || len(found) != 1 || found[0].ID != e.ID {
		t.Errorf("deleted experiments: got %v, %v", found, err)
	}
	ok(t, w.DeleteExperiment(ctx, e.ID, false))
	if count(tracking.ActiveOnly) != 1 {
		t.Error("the runs of a restored experiment are not restored with it")
	}
}

func testPurge(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	var ids []string
	for n := range 4 {
		id := newRun(t, w)
		ok(t, w.Log(ctx, id, tracking.Batch{Metrics: []tracking.Metric{value("acc", float64(n), 0, 0)}}))
		ids = append(ids, id)
	}
	must[tracking.RegisteredModel](t)(w.CreateRegisteredModel(ctx, "digits", "", nil))
	must[tracking.ModelVersion](t)(w.CreateVersion(ctx, tracking.ModelVersion{Name: "digits", Run: ids[1], Source: "x"}))
	ok(t, w.DeleteRun(ctx, ids[0], true))
	ok(t, w.DeleteRun(ctx, ids[1], true))
	if n := must[int](t)(w.Purge(ctx, time.Now().Add(-time.Hour))); n != 0 {
		t.Errorf("purged %d runs that were deleted just now", n)
	}
	if n := must[int](t)(w.Purge(ctx, time.Now().Add(time.Hour))); n != 1 {
		t.Errorf("purged %d runs, want 1: one is the lineage of a version, two are not deleted", n)
	}
	_, err := w.Run(ids[0])
	wantCode(t, "a purged run", err, tracking.NotFound)
	wantCode(t, "restore a purged run", w.DeleteRun(ctx, ids[0], false), tracking.NotFound)
	ok(t, w.DeleteRun(ctx, ids[1], false))
	if h, _, err := w.MetricHistory(ctx, ids[2], "acc", 0, ""); err != nil || len(h) != 1 {
		t.Errorf("history of another run: got %v, %v", h, err)
	}
	found, _, err := w.SearchRuns([]string{"0"}, tracking.Search{})
	if err != nil || len(found) != 3 {
		t.Errorf("got %d runs, %v; want 3", len(found), err)
	}
}

// Many write at once: each name is given once, and no parameter changes.
func testWriters(t *testing.T, w *world) {
	t.Helper()
	ctx, id := t.Context(), newRun(t, w)
	const writers = 8
	type outcome struct{ created, param bool }
	outcomes := make(chan outcome)
	for n := range writers {
		go func() {
			_, err := w.CreateExperiment(ctx, "same", "", nil)
			own := w.Log(ctx, id, tracking.Batch{Metrics: []tracking.Metric{value("acc", float64(n), int64(n), 0)}})
			changed := w.Log(ctx, id, tracking.Batch{Params: map[string]string{"p": strconv.Itoa(n)}})
			if own != nil {
				t.Error(own)
			}
			outcomes <- outcome{err == nil, changed == nil}
		}()
	}
	var created, set int
	for range writers {
		o := <-outcomes
		if o.created {
			created++
		}
		if o.param {
			set++
		}
	}
	if created != 1 || set != 1 {
		t.Errorf("got the name given %d times and the parameter set %d times, want once each", created, set)
	}
	h, _, err := w.MetricHistory(ctx, id, "acc", 0, "")
	if err != nil || len(h) != writers {
		t.Errorf("history: got %d values, %v; want %d", len(h), err, writers)
	}
	if got := must[tracking.Run](t)(w.Run(id)).Metrics["acc"].Value; got != writers-1 {
		t.Errorf("newest: got %v, want %d", got, writers-1)
	}
}

func openBucket(tb testing.TB, nc *nats.Conn) kvstore.Bucket {
	tb.Helper()
	b, err := kvstore.Open(tb.Context(), nc, "tracking")
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func open(tb testing.TB, nc *nats.Conn) *tracking.Store {
	tb.Helper()
	s, err := tracking.Open(tb.Context(), tracking.Config{Conn: nc, Bucket: openBucket(tb, nc)})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}
