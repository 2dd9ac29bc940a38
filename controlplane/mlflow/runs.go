package mlflow

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Limits of one batch, as MLflow states them.
const (
	maxBatch        = 1000
	maxBatchMetrics = 1000
	maxBatchParams  = 100
	maxBatchTags    = 100
)

// Tags of runs that are not the client's alone.
const (
	tagRunName = "mlflow.runName"
	tagModels  = "mlflow.log-model.history"
)

func (s *Server) runRoutes() []route {
	return []route{
		writes("POST", "/mlflow/runs/create", call(s.createRun)),
		reads("GET", "/mlflow/runs/get", call(s.run)),
		writes("POST", "/mlflow/runs/update", call(s.updateRun)),
		writes("POST", "/mlflow/runs/delete", call(s.deleteRun)),
		writes("POST", "/mlflow/runs/restore", call(s.restoreRun)),
		reads("POST", "/mlflow/runs/search", call(s.searchRuns)),
		writes("POST", "/mlflow/runs/log-metric", call(s.logMetric)),
		writes("POST", "/mlflow/runs/log-parameter", call(s.logParam)),
		writes("POST", "/mlflow/runs/log-batch", call(s.logBatch)),
		writes("POST", "/mlflow/runs/set-tag", call(s.setTag)),
		writes("POST", "/mlflow/runs/delete-tag", call(s.deleteTag)),
		writes("POST", "/mlflow/runs/log-inputs", call(s.logInputs)),
		writes("POST", "/mlflow/runs/outputs", call(s.logOutputs)),
		writes("POST", "/mlflow/runs/log-model", call(s.logModel)),
		reads("GET", "/mlflow/metrics/get-history", call(s.metricHistory)),
		reads("GET", "/mlflow/metrics/get-history-bulk", call(s.metricHistories)),
		reads("GET", "/mlflow/metrics/get-history-bulk-interval", call(s.metricInterval)),
	}
}

// runID is a run by its id, under either name.
type runID struct {
	ID   string `json:"run_id"`
	UUID string `json:"run_uuid"`
}

func (r runID) id() (string, error) {
	id := cmp.Or(r.ID, r.UUID)
	return id, required("run_id", id)
}

type createRun struct {
	Experiment string     `json:"experiment_id"`
	User       string     `json:"user_id"`
	Name       string     `json:"run_name"`
	Start      integer    `json:"start_time"`
	Tags       []keyValue `json:"tags"`
}

func (s *Server) createRun(ctx context.Context, q createRun) (any, error) {
	tags, err := mapOf(q.Tags)
	if err != nil {
		return nil, err
	}
	name := cmp.Or(q.Name, tags[tagRunName], randomName())
	tags[tagRunName], tags[operator.TagPrincipal] = name, who(ctx)
	r, err := s.cfg.Store.CreateRun(ctx, tracking.Run{
		Experiment: cmp.Or(q.Experiment, "0"), Name: name, User: q.User,
		StartedMS: cmp.Or(int64(q.Start), time.Now().UnixMilli()), Tags: tags,
	})
	return runReply(r, err)
}

func runReply(r tracking.Run, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return object{"run": fromRun(&r)}, nil
}

func (s *Server) run(_ context.Context, q runID) (any, error) {
	id, err := q.id()
	if err != nil {
		return nil, err
	}
	r, err := s.cfg.Store.Run(id)
	return runReply(r, err)
}

type updateRun struct {
	runID

	Status string  `json:"status"`
	End    integer `json:"end_time"`
	Name   string  `json:"run_name"`
}

func (s *Server) updateRun(ctx context.Context, q updateRun) (any, error) {
	id, err := q.id()
	if err != nil {
		return nil, err
	}
	status := tracking.RunStatus(q.Status)
	switch status {
	case "", tracking.Running, tracking.Scheduled, tracking.Finished, tracking.Failed, tracking.Killed:
	default:
		return nil, refuse(tracking.Invalid, "Invalid value %.40q for parameter 'status'", q.Status)
	}
	r, err := s.cfg.Store.UpdateRun(ctx, id, status, int64(q.End), q.Name)
	if err != nil {
		return nil, err
	}
	return object{"run_info": fromRunInfo(&r)}, nil
}

func (s *Server) deleteRun(ctx context.Context, q runID) (any, error) {
	id, err := q.id()
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Store.DeleteRun(ctx, id, true); err != nil {
		return nil, err
	}
	return object{}, s.deleted(ctx, "run", id)
}

func (s *Server) restoreRun(ctx context.Context, q runID) (any, error) {
	id, err := q.id()
	if err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.DeleteRun(ctx, id, false)
}

type runSearch struct {
	search

	Experiments []string `json:"experiment_ids"`
	View        string   `json:"run_view_type"`
}

func (s *Server) searchRuns(_ context.Context, q runSearch) (any, error) {
	view, err := viewOf(q.View)
	if err != nil {
		return nil, err
	}
	by, err := q.search.search(maxRuns, view)
	if err != nil {
		return nil, err
	}
	found, next, err := s.cfg.Store.SearchRuns(q.Experiments, by)
	if err != nil {
		return nil, err
	}
	out := make([]wireRun, len(found))
	for i := range found {
		out[i] = fromRun(&found[i])
	}
	return listed("runs", out, next), nil
}

type logMetric struct {
	runID
	metricValue
}

func (s *Server) logMetric(ctx context.Context, q logMetric) (any, error) {
	m, err := q.metric()
	if err != nil {
		return nil, err
	}
	return s.log(ctx, q.runID, tracking.Batch{Metrics: []tracking.Metric{m}})
}

func (s *Server) log(ctx context.Context, r runID, b tracking.Batch) (any, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	if err := reserved(b.Tags); err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.Log(ctx, id, b)
}

// given are the tags that the server alone gives.
var given = []string{operator.TagPrincipal, tagDeployable, tagReason}

// reserved refuses tags that the server alone gives.
func reserved(tags map[string]string) error {
	for _, key := range given {
		if _, ok := tags[key]; ok {
			return refuse(tracking.Invalid, "The tag '%s' is given by the server: choose another key", key)
		}
	}
	return nil
}

type keyed struct {
	runID
	keyValue
}

func (s *Server) logParam(ctx context.Context, q keyed) (any, error) {
	if err := required("key", q.Key); err != nil {
		return nil, err
	}
	return s.log(ctx, q.runID, tracking.Batch{Params: map[string]string{q.Key: q.Value}})
}

func (s *Server) setTag(ctx context.Context, q keyed) (any, error) {
	if err := required("key", q.Key); err != nil {
		return nil, err
	}
	return s.log(ctx, q.runID, tracking.Batch{Tags: map[string]string{q.Key: q.Value}})
}

func (s *Server) deleteTag(ctx context.Context, q keyed) (any, error) {
	id, err := q.id()
	if err == nil {
		err = required("key", q.Key)
	}
	if err == nil {
		err = reserved(map[string]string{q.Key: ""})
	}
	if err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.DeleteRunTag(ctx, id, q.Key)
}

type logBatch struct {
	runID

	Metrics []wireMetric `json:"metrics"`
	Params  []keyValue   `json:"params"`
	Tags    []keyValue   `json:"tags"`
}

func (s *Server) logBatch(ctx context.Context, q logBatch) (any, error) {
	b, err := q.batch()
	if err != nil {
		return nil, err
	}
	return s.log(ctx, q.runID, b)
}

func (q *logBatch) batch() (b tracking.Batch, err error) {
	if err := q.bounded(); err != nil {
		return b, err
	}
	for i := range q.Metrics {
		m, err := q.Metrics[i].metric()
		if err != nil {
			return b, err
		}
		b.Metrics = append(b.Metrics, m)
	}
	if b.Params, err = mapOf(q.Params); err != nil {
		return b, err
	}
	if len(b.Params) != len(q.Params) {
		return b, refuse(tracking.Invalid, "Duplicate parameter keys have been submitted. Please ensure the request contains only one param value per param key.")
	}
	b.Tags, err = mapOf(q.Tags)
	return b, err
}

func (q *logBatch) bounded() error {
	for _, l := range []struct {
		what    string
		n, most int
	}{
		{"metrics", len(q.Metrics), maxBatchMetrics},
		{"params", len(q.Params), maxBatchParams},
		{"tags", len(q.Tags), maxBatchTags},
		{"metrics, params and tags", len(q.Metrics) + len(q.Params) + len(q.Tags), maxBatch},
	} {
		if l.n > l.most {
			return refuse(tracking.Invalid, "A batch logging request can contain at most %d %s. Got %d. Please split up %s across multiple requests and try again.", l.most, l.what, l.n, l.what)
		}
	}
	return nil
}

type logInputs struct {
	runID

	Datasets []wireDatasetInput `json:"datasets"`
	Models   []wireModelRef     `json:"models"`
}

func (s *Server) logInputs(ctx context.Context, q logInputs) (any, error) {
	id, err := q.id()
	if err != nil {
		return nil, err
	}
	if len(q.Datasets) > maxBatch {
		return nil, refuse(tracking.Invalid, "At most %d datasets fit in one request, and these are %d", maxBatch, len(q.Datasets))
	}
	var data []tracking.Dataset
	for i := range q.Datasets {
		d, err := q.Datasets[i].dataset()
		if err != nil {
			return nil, err
		}
		data = append(data, d)
	}
	models, err := toRefs(q.Models)
	if err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.LogInputs(ctx, id, data, models)
}

func (s *Server) logOutputs(ctx context.Context, q logInputs) (any, error) {
	id, err := q.id()
	if err != nil {
		return nil, err
	}
	models, err := toRefs(q.Models)
	if err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.LogOutputs(ctx, id, models)
}

type logModel struct {
	runID

	Model string `json:"model_json"`
}

// loggedModel is what of a model's description is kept with its run; the whole
// of it is the MLmodel file among the artifacts.
type loggedModel struct {
	Run     string         `json:"run_id"`
	Path    string         `json:"artifact_path"`
	Created string         `json:"utc_time_created,omitempty"`
	Flavors map[string]any `json:"flavors"`
	UUID    string         `json:"model_uuid,omitempty"`
}

// logModel adds a model to the list that a 2.x run keeps as a tag.
func (s *Server) logModel(ctx context.Context, q logModel) (any, error) {
	id, err := q.id()
	if err != nil {
		return nil, err
	}
	var m loggedModel
	if err := json.Unmarshal([]byte(q.Model), &m); err != nil {
		return nil, refuse(tracking.Invalid, "Malformed model info. \n %.200s \n is not JSON: %v", q.Model, err)
	}
	if m.Path == "" || m.Flavors == nil || m.Run == "" {
		return nil, refuse(tracking.Invalid, "Model json is missing mandatory fields: artifact_path, flavors and run_id are needed")
	}
	s.history.Lock()
	defer s.history.Unlock()
	list, err := s.modelsOf(id)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(append(list, m))
	if err != nil {
		return nil, fmt.Errorf("encode models of run: %w", err)
	}
	return object{}, s.cfg.Store.Log(ctx, id, tracking.Batch{Tags: map[string]string{tagModels: string(text)}})
}

func (s *Server) modelsOf(run string) ([]loggedModel, error) {
	r, err := s.cfg.Store.Run(run)
	if err != nil || r.Tags[tagModels] == "" {
		return nil, err
	}
	var list []loggedModel
	if err := json.Unmarshal([]byte(r.Tags[tagModels]), &list); err != nil {
		return nil, refuse(tracking.Invalid, "The tag '%s' of run %s is no list of models", tagModels, run)
	}
	return list, nil
}
