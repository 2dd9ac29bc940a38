package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/vedette-edge/vedette/controlplane/mlflow"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Tracking knows what data scientists tracked.
type Tracking interface {
	Experiments
	Runs
}

// Experiments are groups of runs.
type Experiments interface {
	Experiment(id string) (tracking.Experiment, error)
	ExperimentByName(name string) (tracking.Experiment, error)
	SearchExperiments(s tracking.Search) (found []tracking.Experiment, next string, err error)
}

// Runs are executions of training code and what was registered from them.
type Runs interface {
	Run(id string) (tracking.Run, error)
	SearchRuns(experiments []string, s tracking.Search) (found []tracking.Run, next string, err error)
	CountRuns(experiment string) int
	MetricHistory(ctx context.Context, id, key string, limit int, page string) (found []tracking.Metric, next string, err error)
	SearchVersions(s tracking.Search) (found []tracking.ModelVersion, next string, err error)
}

// Artifacts are what runs logged.
type Artifacts interface {
	List(ctx context.Context, dir string) ([]mlflow.Listed, error)
	Open(ctx context.Context, path string) (io.ReadSeekCloser, mlflow.File, error)
}

// trackingError gives an answer of package tracking its code.
func trackingError(err error) error {
	e, ok := errors.AsType[*tracking.Error](err)
	switch {
	case !ok:
		return err
	case e.Code == tracking.NotFound:
		return operator.Errorf(operator.NotFound, "%s", e.Message)
	case e.Code == tracking.AlreadyExists:
		return operator.Errorf(operator.Conflict, "%s", e.Message)
	}
	return operator.Errorf(operator.Invalid, "%s", e.Message)
}

// maxExperiments bounds how many experiments are listed.
const maxExperiments = 10_000

// Experiments lists experiments, the one that changed last first.
func (s *Service) Experiments(context.Context) ([]operator.Experiment, error) {
	found, _, err := s.d.Tracking.SearchExperiments(tracking.Search{
		View: tracking.ActiveOnly, Max: maxExperiments, OrderBy: []string{"last_update_time DESC"},
	})
	if err != nil {
		return nil, trackingError(err)
	}
	out := make([]operator.Experiment, len(found))
	for i, e := range found {
		out[i] = operator.Experiment{
			ID: e.ID, Name: e.Name, Runs: s.d.Tracking.CountRuns(e.ID), Tags: e.Tags, Created: fromMS(e.CreatedMS), Updated: fromMS(e.UpdatedMS),
		}
	}
	return out, nil
}

// Runs searches runs. The total is that of the experiment: nobody counts what
// else a filter would find.
func (s *Service) Runs(_ context.Context, q operator.RunQuery) (*operator.Page[operator.Run], error) {
	limit, err := pageSize(q.Paging)
	if err != nil {
		return nil, err
	}
	experiments, err := s.experimentsOf(q.Experiment)
	if err != nil {
		return nil, err
	}
	by := tracking.Search{Filter: q.Filter, View: tracking.ActiveOnly, Max: limit, Page: q.Cursor}
	if q.Order != "" {
		by.OrderBy = []string{q.Order}
	}
	page := &operator.Page[operator.Run]{Items: []operator.Run{}}
	ids := make([]string, len(experiments))
	names := map[string]string{}
	for i, e := range experiments {
		ids[i], names[e.ID] = e.ID, e.Name
		page.Total += s.d.Tracking.CountRuns(e.ID)
	}
	found, next, err := s.d.Tracking.SearchRuns(ids, by)
	if err != nil {
		return nil, trackingError(err)
	}
	page.Next = next
	for i := range found {
		page.Items = append(page.Items, runView(&found[i], names[found[i].Experiment]))
	}
	return page, nil
}

// experimentsOf are the experiment of that id or name, or all.
func (s *Service) experimentsOf(idOrName string) ([]tracking.Experiment, error) {
	if idOrName == "" {
		all, _, err := s.d.Tracking.SearchExperiments(tracking.Search{View: tracking.ActiveOnly, Max: maxExperiments})
		return all, trackingError(err)
	}
	e, err := s.d.Tracking.Experiment(idOrName)
	if err != nil {
		e, err = s.d.Tracking.ExperimentByName(idOrName)
	}
	return []tracking.Experiment{e}, trackingError(err)
}

func runView(r *tracking.Run, experiment string) operator.Run {
	out := operator.Run{
		ID: r.ID, Name: r.Name, Experiment: r.Experiment, ExperimentName: experiment,
		User: cmp.Or(r.User, r.Tags["mlflow.user"]), Principal: r.Tags[operator.TagPrincipal], Status: string(r.Status),
		Started: fromMS(r.StartedMS), Ended: fromMS(r.EndedMS),
		Commit: r.Tags["mlflow.source.git.commit"], Source: r.Tags["mlflow.source.name"],
		Params: r.Params, Tags: r.Tags, Metrics: map[string]operator.RunMetric{},
	}
	for key, m := range r.Metrics {
		out.Metrics[key] = operator.RunMetric{Value: finite(m.Value), Step: m.Step, At: fromMS(m.TimestampMS)}
	}
	return out
}

// finite is a number that JSON has, or nil.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// Run is everything about one run.
func (s *Service) Run(_ context.Context, id string) (*operator.RunDetail, error) {
	r, err := s.d.Tracking.Run(id)
	if err != nil {
		return nil, trackingError(err)
	}
	e, err := s.d.Tracking.Experiment(r.Experiment)
	if err != nil {
		return nil, trackingError(err)
	}
	out := &operator.RunDetail{Run: runView(&r, e.Name)}
	for _, d := range r.Datasets {
		out.Datasets = append(out.Datasets, operator.RunDataset{
			Name: d.Name, Digest: d.Digest, Source: d.Source, Context: d.Tags["mlflow.data.context"],
		})
	}
	for _, m := range r.Models {
		out.Logged = append(out.Logged, m.ModelID)
	}
	versions, _, err := s.d.Tracking.SearchVersions(tracking.Search{Filter: fmt.Sprintf("run_id = '%s'", r.ID)})
	if err != nil {
		return nil, trackingError(err)
	}
	for i := range versions {
		out.Models = append(out.Models, s.runModel(&versions[i]))
	}
	return out, nil
}

func (s *Service) runModel(v *tracking.ModelVersion) operator.RunModel {
	out := operator.RunModel{
		Name: v.Name, Version: v.Version, Stage: string(v.Stage), Release: v.Tags[operator.TagRelease],
		Deployable: v.Tags[operator.TagDeployable], Reason: v.Tags[operator.TagNotDeployable],
	}
	if d, err := release.ParseDigest(out.Release); err == nil {
		if stage, err := s.ReleaseStage(d); err == nil {
			out.Stage = string(stage)
		}
	}
	return out
}

// historyShown bounds how many values of a metric are read for people.
const historyShown = 10_000

// RunMetric is the history of one metric.
func (s *Service) RunMetric(ctx context.Context, id string, q operator.RunMetricQuery) ([]operator.MetricPoint, error) {
	if q.Key == "" {
		return nil, operator.Errorf(operator.Invalid, "which metric is wanted?").WithHint("name it with key")
	}
	found, _, err := s.d.Tracking.MetricHistory(ctx, id, q.Key, historyShown, "")
	if err != nil {
		return nil, trackingError(err)
	}
	out := make([]operator.MetricPoint, len(found))
	for i, m := range found {
		out[i] = operator.MetricPoint{Step: m.Step, At: fromMS(m.TimestampMS), Value: finite(m.Value)}
	}
	return out, nil
}

// RunFiles lists one directory of a run's artifacts.
func (s *Service) RunFiles(ctx context.Context, id string, q operator.RunFileQuery) ([]operator.RunFile, error) {
	at, err := s.artifactPath(id, q.Path)
	if err != nil {
		return nil, err
	}
	files, err := s.d.Artifacts.List(ctx, at)
	if err != nil {
		return nil, trackingError(err)
	}
	out := make([]operator.RunFile, len(files))
	for i, f := range files {
		out[i] = operator.RunFile{Path: f.Name, Dir: f.Dir, Size: f.Size}
		if q.Path != "" {
			out[i].Path = q.Path + "/" + f.Name
		}
	}
	return out, nil
}

// artifactPath is where an artifact of a run lies.
func (s *Service) artifactPath(run, path string) (string, error) {
	r, err := s.d.Tracking.Run(run)
	if err != nil {
		return "", trackingError(err)
	}
	at, err := mlflow.Below(r.ArtifactURI, path)
	return at, trackingError(err)
}

// RunFile opens one artifact of a run; the caller closes it.
func (s *Service) RunFile(ctx context.Context, run, path string) (io.ReadSeekCloser, time.Time, error) {
	at, err := s.artifactPath(run, path)
	if err != nil {
		return nil, time.Time{}, err
	}
	f, file, err := s.d.Artifacts.Open(ctx, at)
	return f, fromMS(file.AddedMS), trackingError(err)
}

// ReleaseStage is the stage of a release, for registered versions that became one.
func (s *Service) ReleaseStage(d release.Digest) (operator.Stage, error) {
	v, err := s.d.Registry.Release(d)
	return v.Stage, registryError(err)
}

// MoveRelease sets the stage of a release by its digest.
func (s *Service) MoveRelease(ctx context.Context, d release.Digest, to operator.Stage, reason string) error {
	v, err := s.d.Registry.Release(d)
	if err != nil {
		return registryError(err)
	}
	_, err = s.SetStage(ctx, v.Model, v.Version, operator.StageChange{Stage: to, Reason: reason})
	return err
}

// NoteTracking records what a data scientist did that leaves no other trace.
func (s *Service) NoteTracking(ctx context.Context, kind string, body any) error {
	p, err := caller(ctx, operator.Scientist)
	if err != nil {
		return err
	}
	return s.note(ctx, p.Name, kind, body)
}

var (
	_ mlflow.Releases = (*Service)(nil)
	_ mlflow.Journal  = (*Service)(nil)
)
