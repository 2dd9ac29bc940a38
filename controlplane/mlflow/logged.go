package mlflow

import (
	"context"

	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
)

const maxLogged = 5000

func (s *Server) loggedRoutes() []route {
	const one = "/mlflow/logged-models/:model_id"
	return []route{
		writes("POST", "/mlflow/logged-models", call(s.createLogged)),
		reads("POST", "/mlflow/logged-models/search", call(s.searchLogged)),
		reads("GET", one, call(s.logged1)),
		writes("PATCH", one, call(s.finalizeLogged)),
		writes("DELETE", one, call(s.deleteLogged)),
		writes("PATCH", one+"/tags", call(s.tagLogged)),
		writes("DELETE", one+"/tags/:key", call(s.untagLogged)),
		writes("POST", one+"/params", call(s.logModelParams)),
		reads("GET", one+"/artifacts/directories", call(s.loggedFiles)),
	}
}

type loggedRequest struct {
	ID         string     `json:"model_id"`
	Experiment string     `json:"experiment_id"`
	Name       string     `json:"name"`
	Type       string     `json:"model_type"`
	SourceRun  string     `json:"source_run_id"`
	Status     string     `json:"status"`
	Params     []keyValue `json:"params"`
	Tags       []keyValue `json:"tags"`
	Key        string     `json:"key"`
	Dir        string     `json:"artifact_directory_path"`
}

func (s *Server) createLogged(ctx context.Context, q loggedRequest) (any, error) {
	if err := required("experiment_id", q.Experiment); err != nil {
		return nil, err
	}
	params, err := mapOf(q.Params)
	if err != nil {
		return nil, err
	}
	tags, err := mapOf(q.Tags)
	if err != nil {
		return nil, err
	}
	if q.Name == "" {
		q.Name = randomName()
	}
	tags[operator.TagPrincipal] = who(ctx)
	m, err := s.cfg.Store.CreateLoggedModel(ctx, tracking.LoggedModel{
		Experiment: q.Experiment, Name: q.Name, Type: q.Type, SourceRun: q.SourceRun, Params: params, Tags: tags,
	})
	return loggedReply(m, err)
}

func loggedReply(m tracking.LoggedModel, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return object{"model": fromLogged(&m)}, nil
}

func (s *Server) logged1(_ context.Context, q loggedRequest) (any, error) {
	m, err := s.cfg.Store.LoggedModel(q.ID)
	return loggedReply(m, err)
}

func (s *Server) finalizeLogged(ctx context.Context, q loggedRequest) (any, error) {
	status := tracking.ModelStatus(q.Status)
	switch status {
	case tracking.ModelReady, tracking.ModelFailed, tracking.ModelPending:
	default:
		return nil, refuse(tracking.Invalid, "Invalid model status %.40q: expected LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED", q.Status)
	}
	m, err := s.cfg.Store.FinalizeLoggedModel(ctx, q.ID, status)
	return loggedReply(m, err)
}

func (s *Server) deleteLogged(ctx context.Context, q loggedRequest) (any, error) {
	if err := s.cfg.Store.DeleteLoggedModel(ctx, q.ID); err != nil {
		return nil, err
	}
	return object{}, s.deleted(ctx, "logged model", q.ID)
}

func (s *Server) tagLogged(ctx context.Context, q loggedRequest) (any, error) {
	tags, err := mapOf(q.Tags)
	if err == nil {
		err = reserved(tags)
	}
	if err != nil {
		return nil, err
	}
	m, err := s.cfg.Store.SetLoggedModelTags(ctx, q.ID, tags, nil)
	return loggedReply(m, err)
}

func (s *Server) untagLogged(ctx context.Context, q loggedRequest) (any, error) {
	if err := reserved(map[string]string{q.Key: ""}); err != nil {
		return nil, err
	}
	_, err := s.cfg.Store.SetLoggedModelTags(ctx, q.ID, nil, []string{q.Key})
	return object{}, err
}

func (s *Server) logModelParams(ctx context.Context, q loggedRequest) (any, error) {
	params, err := mapOf(q.Params)
	if err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.LogModelParams(ctx, q.ID, params)
}

func (s *Server) loggedFiles(ctx context.Context, q loggedRequest) (any, error) {
	m, err := s.cfg.Store.LoggedModel(q.ID)
	if err != nil {
		return nil, err
	}
	return s.list(ctx, m.ArtifactURI, q.Dir)
}

type loggedSearch struct {
	paging

	Experiments []string      `json:"experiment_ids"`
	Filter      string        `json:"filter"`
	Datasets    []object      `json:"datasets"`
	OrderBy     []loggedOrder `json:"order_by"`
}

type loggedOrder struct {
	Field     string `json:"field_name"`
	Ascending *bool  `json:"ascending"` // nil: true
	Dataset   string `json:"dataset_name"`
	Digest    string `json:"dataset_digest"`
}

func (o *loggedOrder) text() string {
	if o.Ascending != nil && !*o.Ascending {
		return o.Field + " DESC"
	}
	return o.Field + " ASC"
}

func (s *Server) searchLogged(_ context.Context, q loggedSearch) (any, error) {
	n, err := q.limit(maxLogged)
	if err != nil {
		return nil, err
	}
	if len(q.Datasets) > 0 {
		return nil, refuse(tracking.Invalid, "Searching logged models by dataset is not supported: filter by metrics alone")
	}
	by := tracking.Search{Filter: q.Filter, View: tracking.ActiveOnly, Max: n, Page: q.Page}
	for _, o := range q.OrderBy {
		if o.Dataset != "" || o.Digest != "" {
			return nil, refuse(tracking.Invalid, "Ordering logged models by the metric of one dataset is not supported: order by the metric alone")
		}
		by.OrderBy = append(by.OrderBy, o.text())
	}
	found, next, err := s.cfg.Store.SearchLoggedModels(q.Experiments, by)
	if err != nil {
		return nil, err
	}
	out := make([]wireLogged, len(found))
	for i := range found {
		out[i] = fromLogged(&found[i])
	}
	return listed("models", out, next), nil
}
