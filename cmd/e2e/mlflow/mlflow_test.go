package mlflow_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/databricks/databricks-sdk-go"
	"github.com/databricks/databricks-sdk-go/apierr"
	"github.com/databricks/databricks-sdk-go/service/ml"
)

func TestForeignClient(t *testing.T) {
	c := startControl(t)
	s := &session{control: c, client: c.client(c.token("scientist"))}
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"experiments", s.experiments},
		{"one run", s.oneRun},
		{"search with pages", s.search},
		{"metric history", s.history},
		{"logged models", s.loggedModels},
		{"registry", s.registry},
		{"stages", s.stages},
		{"who may what", s.refusals},
	} {
		if !t.Run(step.name, step.do) {
			t.FailNow()
		}
	}
}

// session is one client's work; each step builds on those before it.
type session struct {
	*control

	client          *databricks.WorkspaceClient
	experiment, run string
}

// must fails the test on an error.
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

func (s *session) experiments(t *testing.T) {
	e := s.client.Experiments
	made := must[*ml.CreateExperimentResponse](t)(e.CreateExperiment(t.Context(), ml.CreateExperiment{
		Name: "digits", Tags: []ml.ExperimentTag{{Key: "team", Value: "vision"}},
	}))
	s.experiment = made.ExperimentId
	got := must[*ml.GetExperimentByNameResponse](t)(e.GetByName(t.Context(), ml.GetByNameRequest{ExperimentName: "digits"}))
	if x := got.Experiment; x.ExperimentId != s.experiment || x.LifecycleStage != "active" || x.CreationTime == 0 || !strings.HasPrefix(x.ArtifactLocation, "mlflow-artifacts:/") {
		t.Errorf("got %+v", x)
	}
	if err := e.SetExperimentTag(t.Context(), ml.SetExperimentTag{ExperimentId: s.experiment, Key: "goal", Value: "99 %"}); err != nil {
		t.Fatal(err)
	}
	if err := e.UpdateExperiment(t.Context(), ml.UpdateExperiment{ExperimentId: s.experiment, NewName: "digits again"}); err != nil {
		t.Fatal(err)
	}
	found := must[[]ml.Experiment](t)(e.SearchExperimentsAll(t.Context(), ml.SearchExperiments{Filter: "name LIKE 'digits%' AND tags.goal = '99 %'"}))
	if len(found) != 1 || found[0].Name != "digits again" {
		t.Errorf("got %+v", found)
	}
	if _, err := e.GetByName(t.Context(), ml.GetByNameRequest{ExperimentName: "digits"}); !errors.Is(err, apierr.ErrResourceDoesNotExist) {
		t.Errorf("got %v for the old name, want that it does not exist", err)
	}
}

func (s *session) oneRun(t *testing.T) {
	e := s.client.Experiments
	made := must[*ml.CreateRunResponse](t)(e.CreateRun(t.Context(), ml.CreateRun{
		ExperimentId: s.experiment, RunName: "first", StartTime: 1_700_000_000_000, UserId: "ann",
		Tags: []ml.RunTag{{Key: "mlflow.source.git.commit", Value: "c0ffee"}},
	}))
	s.run = made.Run.Info.RunId
	steps := []error{
		e.LogParam(t.Context(), ml.LogParam{RunId: s.run, Key: "seed", Value: "7"}),
		e.LogParam(t.Context(), ml.LogParam{RunId: s.run, Key: "seed", Value: "7"}), // the same again is fine
		e.LogMetric(t.Context(), ml.LogMetric{RunId: s.run, Key: "loss", Value: 0.5, Timestamp: 1_700_000_000_001, Step: 1}),
		e.LogBatch(t.Context(), ml.LogBatch{
			RunId: s.run, Params: []ml.Param{{Key: "depth", Value: "3"}}, Tags: []ml.RunTag{{Key: "kind", Value: "tree"}},
			Metrics: []ml.Metric{{Key: "loss", Value: 0.25, Timestamp: 1_700_000_000_002, Step: 2}, {Key: "accuracy", Value: 0.98, Timestamp: 1_700_000_000_002}},
		}),
		e.SetTag(t.Context(), ml.SetTag{RunId: s.run, Key: "temporary", Value: "yes"}),
		e.DeleteTag(t.Context(), ml.DeleteTag{RunId: s.run, Key: "temporary"}),
		e.LogInputs(t.Context(), ml.LogInputs{RunId: s.run, Datasets: []ml.DatasetInput{{
			Dataset: ml.Dataset{Name: "mnist", Digest: "abc123", SourceType: "local", Source: "{}"},
			Tags:    []ml.InputTag{{Key: "mlflow.data.context", Value: "training"}},
		}}}),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	if err := e.LogParam(t.Context(), ml.LogParam{RunId: s.run, Key: "seed", Value: "8"}); !errors.Is(err, apierr.ErrInvalidParameterValue) {
		t.Errorf("got %v for a changed parameter", err)
	}
	must[*ml.UpdateRunResponse](t)(e.UpdateRun(t.Context(), ml.UpdateRun{RunId: s.run, Status: ml.UpdateRunStatusFinished, EndTime: 1_700_000_060_000}))
	s.checkRun(t)
}

func (s *session) checkRun(t *testing.T) {
	run := must[*ml.GetRunResponse](t)(s.client.Experiments.GetRun(t.Context(), ml.GetRunRequest{RunId: s.run})).Run
	if i := run.Info; i.RunName != "first" || i.Status != ml.RunInfoStatusFinished || i.StartTime != 1_700_000_000_000 || i.EndTime != 1_700_000_060_000 || i.UserId != "ann" {
		t.Errorf("got info %+v", i)
	}
	if len(run.Data.Params) != 2 || len(run.Data.Metrics) != 2 {
		t.Errorf("got data %+v", run.Data)
	}
	loss := slices.IndexFunc(run.Data.Metrics, func(m ml.Metric) bool { return m.Key == "loss" })
	if m := run.Data.Metrics[loss]; m.Value != 0.25 || m.Step != 2 {
		t.Errorf("got %+v as the newest loss", m)
	}
	tags := fmt.Sprint(run.Data.Tags)
	if strings.Contains(tags, "temporary") || !strings.Contains(tags, "vedette.principal scientist") {
		t.Errorf("got tags %s", tags)
	}
	if d := run.Inputs.DatasetInputs; len(d) != 1 || d[0].Dataset.Digest != "abc123" || d[0].Tags[0].Value != "training" {
		t.Errorf("got inputs %+v", d)
	}
}

func (s *session) search(t *testing.T) {
	e := s.client.Experiments
	const more = 25
	for i := range more {
		made := must[*ml.CreateRunResponse](t)(e.CreateRun(t.Context(), ml.CreateRun{ExperimentId: s.experiment, RunName: fmt.Sprint("r", i), StartTime: int64(1000 + i)}))
		if err := e.LogBatch(t.Context(), ml.LogBatch{
			RunId: made.Run.Info.RunId, Params: []ml.Param{{Key: "depth", Value: strconv.Itoa(i % 2)}},
			Metrics: []ml.Metric{{Key: "f1", Value: float64(i+1) / more, Timestamp: 1}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	found := must[[]ml.Run](t)(e.SearchRunsAll(t.Context(), ml.SearchRuns{
		ExperimentIds: []string{s.experiment}, Filter: "metrics.f1 > 0.2 and params.depth = '1' and attributes.status = 'RUNNING'",
		OrderBy: []string{"metrics.f1 DESC"}, MaxResults: 3,
	}))
	var names []string
	for _, r := range found {
		names = append(names, r.Info.RunName)
	}
	want := []string{"r23", "r21", "r19", "r17", "r15", "r13", "r11", "r9", "r7", "r5"}
	if !slices.Equal(names, want) {
		t.Errorf("got %v over pages of three, want %v", names, want)
	}
	_, err := e.SearchRunsAll(t.Context(), ml.SearchRuns{ExperimentIds: []string{s.experiment}, Filter: "metrics.f1 >> 3"})
	if !errors.Is(err, apierr.ErrInvalidParameterValue) {
		t.Errorf("got %v for a malformed filter", err)
	}
}

func (s *session) history(t *testing.T) {
	e := s.client.Experiments
	var batch []ml.Metric
	for i := range 120 {
		batch = append(batch, ml.Metric{Key: "curve", Value: 1 + math.Sqrt(float64(i)), Timestamp: int64(1 + i), Step: int64(i)})
	}
	if err := e.LogBatch(t.Context(), ml.LogBatch{RunId: s.run, Metrics: batch}); err != nil {
		t.Fatal(err)
	}
	got := must[[]ml.Metric](t)(e.GetHistoryAll(t.Context(), ml.GetHistoryRequest{RunId: s.run, MetricKey: "curve", MaxResults: 50}))
	if len(got) != len(batch) {
		t.Fatalf("got %d values over pages of 50, want %d", len(got), len(batch))
	}
	for i, m := range got {
		if m.Value != batch[i].Value || m.Step != batch[i].Step {
			t.Fatalf("value %d is %+v, want %+v", i, m, batch[i])
		}
	}
}

func (s *session) loggedModels(t *testing.T) {
	e := s.client.Experiments
	made := must[*ml.CreateLoggedModelResponse](t)(e.CreateLoggedModel(t.Context(), ml.CreateLoggedModelRequest{
		ExperimentId: s.experiment, Name: "net", SourceRunId: s.run, ModelType: "classifier",
		Params: []ml.LoggedModelParameter{{Key: "depth", Value: "3"}}, Tags: []ml.LoggedModelTag{{Key: "a", Value: "1"}},
	}))
	id := made.Model.Info.ModelId
	if made.Model.Info.Status != ml.LoggedModelStatusLoggedModelPending || !strings.HasPrefix(id, "m-") {
		t.Errorf("got %+v", made.Model.Info)
	}
	steps := []error{
		e.LogOutputs(t.Context(), ml.LogOutputsRequest{RunId: s.run, Models: []ml.ModelOutput{{ModelId: id, Step: 2}}}),
		e.LogBatch(t.Context(), ml.LogBatch{RunId: s.run, Metrics: []ml.Metric{{Key: "auc", Value: 0.9, Timestamp: 5, ModelId: id}}}),
		e.LogLoggedModelParams(t.Context(), ml.LogLoggedModelParamsRequest{ModelId: id, Params: []ml.LoggedModelParameter{{Key: "width", Value: "64"}}}),
		e.SetLoggedModelTags(t.Context(), ml.SetLoggedModelTagsRequest{ModelId: id, Tags: []ml.LoggedModelTag{{Key: "b", Value: "2"}}}),
		e.DeleteLoggedModelTagByModelIdAndTagKey(t.Context(), id, "a"),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	done := must[*ml.FinalizeLoggedModelResponse](t)(e.FinalizeLoggedModel(t.Context(), ml.FinalizeLoggedModelRequest{ModelId: id, Status: ml.LoggedModelStatusLoggedModelReady}))
	if m := done.Model; m.Info.Status != ml.LoggedModelStatusLoggedModelReady || len(m.Data.Params) != 2 || len(m.Data.Metrics) != 1 || !strings.Contains(fmt.Sprint(m.Info.Tags), "{b 2") || strings.Contains(fmt.Sprint(m.Info.Tags), "{a 1") {
		t.Errorf("got %+v", m)
	}
	found := must[*ml.SearchLoggedModelsResponse](t)(e.SearchLoggedModels(t.Context(), ml.SearchLoggedModelsRequest{
		ExperimentIds: []string{s.experiment}, Filter: "metrics.auc > 0.5", OrderBy: []ml.SearchLoggedModelsOrderBy{{FieldName: "creation_timestamp"}},
	}))
	if len(found.Models) != 1 || found.Models[0].Info.ModelId != id {
		t.Errorf("got %+v", found)
	}
}

func (s *session) registry(t *testing.T) {
	r := s.client.ModelRegistry
	must[*ml.CreateModelResponse](t)(r.CreateModel(t.Context(), ml.CreateModelRequest{Name: "net", Description: "digits", Tags: []ml.ModelTag{{Key: "team", Value: "vision"}}}))
	if _, err := r.CreateModel(t.Context(), ml.CreateModelRequest{Name: "net"}); !errors.Is(err, apierr.ErrResourceAlreadyExists) {
		t.Errorf("got %v for a name that is taken", err)
	}
	artifacts := must[*ml.GetRunResponse](t)(s.client.Experiments.GetRun(t.Context(), ml.GetRunRequest{RunId: s.run})).Run.Info.ArtifactUri
	for i := range 3 {
		made := must[*ml.CreateModelVersionResponse](t)(r.CreateModelVersion(t.Context(), ml.CreateModelVersionRequest{
			Name: "net", Source: artifacts + "/model", RunId: s.run, Tags: []ml.ModelVersionTag{{Key: "try", Value: strconv.Itoa(i)}},
		}))
		if v := made.ModelVersion; v.Version != strconv.Itoa(i+1) || v.Status != ml.ModelVersionStatusReady || v.CurrentStage != "None" {
			t.Errorf("got %+v", v)
		}
	}
	got := must[*ml.GetModelResponse](t)(r.GetModel(t.Context(), ml.GetModelRequest{Name: "net"}))
	if m := got.RegisteredModelDatabricks; m == nil || m.Description != "digits" || len(m.LatestVersions) != 1 || m.LatestVersions[0].Version != "3" {
		t.Errorf("got %+v", m)
	}
	found := must[[]ml.ModelVersion](t)(r.SearchModelVersionsAll(t.Context(), ml.SearchModelVersionsRequest{Filter: fmt.Sprintf("run_id='%s'", s.run), MaxResults: 2}))
	if len(found) != 3 {
		t.Errorf("got %d versions of the run over pages of two, want 3", len(found))
	}
	uri := must[*ml.GetModelVersionDownloadUriResponse](t)(r.GetModelVersionDownloadUri(t.Context(), ml.GetModelVersionDownloadUriRequest{Name: "net", Version: "2"}))
	if uri.ArtifactUri != artifacts+"/model" {
		t.Errorf("got %s, want %s/model", uri.ArtifactUri, artifacts)
	}
	local := ml.CreateModelVersionRequest{Name: "net", Source: "file:///etc"}
	if _, err := r.CreateModelVersion(t.Context(), local); !errors.Is(err, apierr.ErrInvalidParameterValue) {
		t.Errorf("got %v for a source on the server's disk", err)
	}
	steps := []error{
		r.SetModelTag(t.Context(), ml.SetModelTagRequest{Name: "net", Key: "k", Value: "v"}),
		r.DeleteModelTag(t.Context(), ml.DeleteModelTagRequest{Name: "net", Key: "k"}),
		r.SetModelVersionTag(t.Context(), ml.SetModelVersionTagRequest{Name: "net", Version: "1", Key: "k", Value: "v"}),
		r.DeleteModelVersionTag(t.Context(), ml.DeleteModelVersionTagRequest{Name: "net", Version: "1", Key: "k"}),
		r.DeleteModelVersion(t.Context(), ml.DeleteModelVersionRequest{Name: "net", Version: "1"}),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	must[*ml.UpdateModelVersionResponse](t)(r.UpdateModelVersion(t.Context(), ml.UpdateModelVersionRequest{Name: "net", Version: "2", Description: "better"}))
}

func (s *session) stages(t *testing.T) {
	r := s.client.ModelRegistry
	move := func(version string, to string, archive bool) {
		t.Helper()
		done := must[*ml.TransitionStageResponse](t)(r.TransitionStage(t.Context(), ml.TransitionModelVersionStageDatabricks{
			Name: "net", Version: version, Stage: to, ArchiveExistingVersions: archive,
		}))
		if got := done.ModelVersionDatabricks.CurrentStage; got != to {
			t.Errorf("version %s came to %s, want %s", version, got, to)
		}
	}
	move("2", "Production", false)
	move("3", "Staging", false)
	move("3", "Production", true)
	latest := must[[]ml.ModelVersion](t)(r.GetLatestVersionsAll(t.Context(), ml.GetLatestVersionsRequest{Name: "net", Stages: []string{"Production", "Archived"}}))
	stages := map[string]string{}
	for _, v := range latest {
		stages[v.CurrentStage] = v.Version
	}
	if stages["Production"] != "3" || stages["Archived"] != "2" {
		t.Errorf("got %v, want 3 in production and 2 archived", stages)
	}
}

func (s *session) refusals(t *testing.T) {
	viewer := s.control.client(s.token("viewer"))
	must[*ml.GetRunResponse](t)(viewer.Experiments.GetRun(t.Context(), ml.GetRunRequest{RunId: s.run}))
	if err := viewer.Experiments.LogParam(t.Context(), ml.LogParam{RunId: s.run, Key: "a", Value: "b"}); !errors.Is(err, apierr.ErrPermissionDenied) {
		t.Errorf("got %v for a viewer who writes", err)
	}
	stranger := s.control.client("vop1_000000000000.nobody")
	if _, err := stranger.Experiments.GetRun(t.Context(), ml.GetRunRequest{RunId: s.run}); !errors.Is(err, apierr.ErrUnauthenticated) {
		t.Errorf("got %v for a wrong token", err)
	}
	status, body := s.call("GET", "/api/v1/ledger?kind=mlflow.stage", s.admin, "")
	if status != 200 || !strings.Contains(body, `"actor":"scientist"`) {
		t.Errorf("the ledger has no transition by the scientist: %d %s", status, body)
	}
}
