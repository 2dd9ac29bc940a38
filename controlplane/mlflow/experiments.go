package mlflow

import (
	"context"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// Largest pages, as MLflow has them.
const (
	maxExperiments = 50_000
	maxRuns        = 50_000
)

func (s *Server) experimentRoutes() []route {
	return []route{
		writes("POST", "/mlflow/experiments/create", call(s.createExperiment)),
		reads("GET", "/mlflow/experiments/get", call(s.experiment)),
		reads("GET", "/mlflow/experiments/get-by-name", call(s.experimentByName)),
		reads("GET", "/mlflow/experiments/search", call(s.searchExperiments)),
		reads("POST", "/mlflow/experiments/search", call(s.searchExperiments)),
		reads("GET", "/mlflow/experiments/list", call(s.searchExperiments)),
		writes("POST", "/mlflow/experiments/update", call(s.renameExperiment)),
		writes("POST", "/mlflow/experiments/delete", call(s.deleteExperiment)),
		writes("POST", "/mlflow/experiments/restore", call(s.restoreExperiment)),
		writes("POST", "/mlflow/experiments/set-experiment-tag", call(s.setExperimentTag)),
		writes("POST", "/mlflow/experiments/delete-experiment-tag", call(s.deleteExperimentTag)),
	}
}

type experimentRequest struct {
	ID       string     `json:"experiment_id"`
	Name     string     `json:"experiment_name"` // get-by-name
	NewName  string     `json:"new_name"`        // update
	Given    string     `json:"name"`            // create
	Location string     `json:"artifact_location"`
	Tags     []keyValue `json:"tags"`
	Key      string     `json:"key"` // set-experiment-tag
	Value    string     `json:"value"`
}

func (s *Server) createExperiment(ctx context.Context, q experimentRequest) (any, error) {
	if err := required("name", strings.TrimSpace(q.Given)); err != nil {
		return nil, err
	}
	if err := checkLocation(q.Location); err != nil {
		return nil, err
	}
	tags, err := mapOf(q.Tags)
	if err != nil {
		return nil, err
	}
	e, err := s.cfg.Store.CreateExperiment(ctx, q.Given, q.Location, tags)
	if err != nil {
		return nil, err
	}
	return object{"experiment_id": e.ID}, nil
}

func (s *Server) experiment(_ context.Context, q experimentRequest) (any, error) {
	if err := required("experiment_id", q.ID); err != nil {
		return nil, err
	}
	e, err := s.cfg.Store.Experiment(q.ID)
	return experimentReply(e, err)
}

func (s *Server) experimentByName(_ context.Context, q experimentRequest) (any, error) {
	if err := required("experiment_name", q.Name); err != nil {
		return nil, err
	}
	e, err := s.cfg.Store.ExperimentByName(q.Name)
	return experimentReply(e, err)
}

func experimentReply(e tracking.Experiment, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return object{"experiment": fromExperiment(&e)}, nil
}

type experimentSearch struct {
	search

	View string `json:"view_type"`
}

func (s *Server) searchExperiments(_ context.Context, q experimentSearch) (any, error) {
	view, err := viewOf(q.View)
	if err != nil {
		return nil, err
	}
	by, err := q.search.search(maxExperiments, view)
	if err != nil {
		return nil, err
	}
	found, next, err := s.cfg.Store.SearchExperiments(by)
	if err != nil {
		return nil, err
	}
	out := make([]wireExperiment, len(found))
	for i := range found {
		out[i] = fromExperiment(&found[i])
	}
	return listed("experiments", out, next), nil
}

func (s *Server) renameExperiment(ctx context.Context, q experimentRequest) (any, error) {
	if err := required("experiment_id", q.ID, "new_name", strings.TrimSpace(q.NewName)); err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.RenameExperiment(ctx, q.ID, q.NewName)
}

func (s *Server) deleteExperiment(ctx context.Context, q experimentRequest) (any, error) {
	if err := required("experiment_id", q.ID); err != nil {
		return nil, err
	}
	if err := s.cfg.Store.DeleteExperiment(ctx, q.ID, true); err != nil {
		return nil, err
	}
	return object{}, s.deleted(ctx, "experiment", q.ID)
}

func (s *Server) restoreExperiment(ctx context.Context, q experimentRequest) (any, error) {
	if err := required("experiment_id", q.ID); err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.DeleteExperiment(ctx, q.ID, false)
}

func (s *Server) setExperimentTag(ctx context.Context, q experimentRequest) (any, error) {
	if err := required("experiment_id", q.ID, "key", q.Key); err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.SetExperimentTag(ctx, q.ID, q.Key, &q.Value)
}

func (s *Server) deleteExperimentTag(ctx context.Context, q experimentRequest) (any, error) {
	if err := required("experiment_id", q.ID, "key", q.Key); err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.SetExperimentTag(ctx, q.ID, q.Key, nil)
}

// Kinds of records that the journal gets.
const (
	noteDeleted = "mlflow.deleted"
	noteStage   = "mlflow.stage"
)

// deleted records that something is gone.
func (s *Server) deleted(ctx context.Context, what, id string) error {
	return s.cfg.Journal.NoteTracking(ctx, noteDeleted, map[string]string{"what": what, "id": id})
}
