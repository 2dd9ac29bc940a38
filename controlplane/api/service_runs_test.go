package api

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/mlflow"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// tracked is a service over a store with one run, an artifact, and a version
// that became the first release.
func tracked(t *testing.T) (s *Service, w *world, run tracking.Run) {
	t.Helper()
	store := tracking.NewMemory()
	blobs, err := artifact.OpenLocal(artifact.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	files, err := mlflow.OpenFiles(t.Context(), blobs, kvstore.NewMemory())
	if err != nil {
		t.Fatal(err)
	}
	e, err := store.CreateExperiment(t.Context(), "night", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if run, err = store.CreateRun(t.Context(), tracking.Run{Experiment: e.ID, Name: "r", StartedMS: 1000, Tags: map[string]string{
		"mlflow.user": "ann", "vedette.principal": "ci", "mlflow.source.git.commit": "c0ffee",
	}}); err != nil {
		t.Fatal(err)
	}
	if err := store.Log(t.Context(), run.ID, tracking.Batch{
		Params:  map[string]string{"depth": "3"},
		Metrics: []tracking.Metric{{Key: "loss", Value: 0.5, Step: 1, TimestampMS: 1000}, {Key: "loss", Value: math.NaN(), Step: 2, TimestampMS: 2000}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Put(t.Context(), strings.TrimPrefix(run.ArtifactURI, "mlflow-artifacts:/")+"/conf/a.json", strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := store.CreateRegisteredModel(t.Context(), "digits", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := store.CreateVersion(t.Context(), tracking.ModelVersion{
		Name: "digits", Source: run.ArtifactURI, ArtifactURI: run.ArtifactURI, Run: run.ID, Tags: map[string]string{operator.TagRelease: first.String()},
	}); err != nil {
		t.Fatal(err)
	}
	w = newWorld()
	s = w.service()
	s.d.Tracking, s.d.Artifacts = store, files
	return s, w, run
}

func TestRuns(t *testing.T) {
	s, _, run := tracked(t)
	list, err := s.Experiments(t.Context())
	night := slices.IndexFunc(list, func(e operator.Experiment) bool { return e.Name == "night" && e.Runs == 1 })
	if err != nil || len(list) != 2 || night < 0 {
		t.Fatalf("got experiments %+v, %v", list, err)
	}
	for _, q := range []operator.RunQuery{{}, {Experiment: "night"}, {Experiment: list[night].ID, Filter: "params.depth = '3'", Order: "metrics.loss DESC"}} {
		page, err := s.Runs(t.Context(), q)
		if err != nil || len(page.Items) != 1 || page.Total != 1 || page.Items[0].ExperimentName != "night" {
			t.Errorf("%+v: got %+v, %v", q, page, err)
		}
	}
	for name, q := range map[string]operator.RunQuery{"filter": {Filter: "params.depth ="}, "order": {Order: "up"}, "limit": {Paging: operator.Paging{Limit: -1}}} {
		if _, err := s.Runs(t.Context(), q); operator.CodeOf(err) != operator.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := s.Runs(t.Context(), operator.RunQuery{Experiment: "none"}); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("an unknown experiment: got %v", err)
	}
	d, err := s.Run(t.Context(), run.ID)
	if err != nil {
		t.Fatal(err)
	}
	if d.User != "ann" || d.Principal != "ci" || d.Commit != "c0ffee" || d.Metrics["loss"].Value != nil || d.Metrics["loss"].Step != 2 {
		t.Errorf("got %+v", d.Run)
	}
	if len(d.Models) != 1 || d.Models[0].Stage != string(operator.StageProduction) || d.Models[0].Release != first.String() {
		t.Errorf("got models %+v, want the release's stage", d.Models)
	}
	points, err := s.RunMetric(t.Context(), run.ID, operator.RunMetricQuery{Key: "loss"})
	if err != nil || len(points) != 2 || *points[0].Value != 0.5 || points[1].Value != nil {
		t.Errorf("got %+v, %v", points, err)
	}
}

func TestRunFiles(t *testing.T) {
	s, _, run := tracked(t)
	root, err := s.RunFiles(t.Context(), run.ID, operator.RunFileQuery{})
	if err != nil || len(root) != 1 || root[0] != (operator.RunFile{Path: "conf", Dir: true}) {
		t.Errorf("got %+v, %v", root, err)
	}
	below, err := s.RunFiles(t.Context(), run.ID, operator.RunFileQuery{Path: "conf"})
	if err != nil || len(below) != 1 || below[0] != (operator.RunFile{Path: "conf/a.json", Size: 2}) {
		t.Errorf("got %+v, %v", below, err)
	}
	for path, want := range map[string]operator.Code{"../x": operator.Invalid, "%2e%2e/x": operator.Invalid, "conf/b.json": operator.NotFound, "conf/a.json": ""} {
		f, _, err := s.RunFile(t.Context(), run.ID, path)
		if operator.CodeOf(err) != want {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
}

// A transition that came through MLflow is a command like any other.
func TestMoveRelease(t *testing.T) {
	s, w, _ := tracked(t)
	if err := s.MoveRelease(as(t, operator.Scientist), first, operator.StageArchived, "x"); operator.CodeOf(err) != operator.Forbidden {
		t.Errorf("a scientist: got %v", err)
	}
	if err := s.MoveRelease(as(t, operator.Publisher), first, operator.StageArchived, ""); operator.CodeOf(err) != operator.ReasonRequired {
		t.Errorf("without a reason: got %v", err)
	}
	if err := s.NoteTracking(as(t, operator.Viewer), "mlflow.deleted", nil); operator.CodeOf(err) != operator.Forbidden {
		t.Errorf("a note by a viewer: got %v", err)
	}
	if err := s.NoteTracking(t.Context(), "mlflow.deleted", nil); operator.CodeOf(err) != operator.Unauthorized {
		t.Errorf("a note by nobody: got %v", err)
	}
	before := len(w.notes)
	if err := s.NoteTracking(as(t, operator.Scientist), "mlflow.deleted", "run"); err != nil || len(w.notes) != before+1 {
		t.Errorf("got %v, %d notes", err, len(w.notes)-before)
	}
}
