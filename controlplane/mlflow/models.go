package mlflow

import (
	"context"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/tracking"
)

const maxModels = 1000

func (s *Server) modelRoutes() []route {
	const base = "/mlflow/registered-models/"
	return []route{
		writes("POST", base+"create", call(s.createModel)),
		reads("GET", base+"get", call(s.model)),
		reads("GET", "/mlflow/databricks/registered-models/get", call(s.databricksModel)),
		reads("GET", base+"search", call(s.searchModels)),
		reads("POST", base+"search", call(s.searchModels)),
		reads("GET", base+"list", call(s.searchModels)),
		writes("POST", base+"rename", call(s.renameModel)),
		writes("PATCH", base+"update", call(s.describeModel)),
		writes("DELETE", base+"delete", call(s.deleteModel)),
		writes("POST", base+"set-tag", call(s.setModelTag)),
		writes("DELETE", base+"delete-tag", call(s.deleteModelTag)),
		reads("POST", base+"get-latest-versions", call(s.latestVersions)),
		reads("GET", base+"get-latest-versions", call(s.latestVersions)),
		writes("POST", base+"alias", call(s.setAlias)),
		writes("DELETE", base+"alias", call(s.deleteAlias)),
		reads("GET", base+"alias", call(s.versionByAlias)),
	}
}

type modelRequest struct {
	Name        string     `json:"name"`
	NewName     string     `json:"new_name"`
	Description string     `json:"description"`
	Tags        []keyValue `json:"tags"`
	Key         string     `json:"key"`
	Value       string     `json:"value"`
	Alias       string     `json:"alias"`
	Version     text       `json:"version"`
	Stages      []string   `json:"stages"`
}

// checkModelName refuses names that could not be read back from a models:/ URI.
func checkModelName(name string) error {
	if err := required("name", strings.TrimSpace(name)); err != nil {
		return err
	}
	if strings.ContainsAny(name, "/:") {
		return refuse(tracking.Invalid, "Invalid name: '%.80s'. Registered model name must be a non-empty UTF-8 string and cannot contain '/' or ':'", name)
	}
	return nil
}

func (s *Server) createModel(ctx context.Context, q modelRequest) (any, error) {
	if err := checkModelName(q.Name); err != nil {
		return nil, err
	}
	tags, err := mapOf(q.Tags)
	if err != nil {
		return nil, err
	}
	m, err := s.cfg.Store.CreateRegisteredModel(ctx, q.Name, q.Description, tags)
	return s.modelReply(m, err)
}

func (s *Server) modelReply(m tracking.RegisteredModel, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return object{"registered_model": s.fromModel(&m)}, nil
}

func (s *Server) fromModel(m *tracking.RegisteredModel) wireModel {
	out := wireModel{Name: m.Name, Created: m.CreatedMS, Updated: m.UpdatedMS, Description: m.Description, Tags: pairs(m.Tags)}
	for _, a := range pairs(m.Aliases) {
		out.Aliases = append(out.Aliases, wireAlias{a.Key, a.Value})
	}
	for _, v := range s.latest(m.Versions, nil) {
		out.Latest = append(out.Latest, fromVersion(&v))
	}
	return out
}

// latest are the newest versions of each of the stages, of all stages without any.
func (s *Server) latest(versions []tracking.ModelVersion, stages []tracking.Stage) []tracking.ModelVersion {
	wanted := map[tracking.Stage]bool{}
	for _, stage := range stages {
		wanted[stage] = true
	}
	seen := map[tracking.Stage]bool{}
	var out []tracking.ModelVersion
	for _, v := range versions { // highest first
		v.Stage = s.stageOf(&v)
		if seen[v.Stage] || len(stages) > 0 && !wanted[v.Stage] {
			continue
		}
		seen[v.Stage] = true
		out = append(out, v)
	}
	return out
}

func (s *Server) model(_ context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name); err != nil {
		return nil, err
	}
	m, err := s.cfg.Store.RegisteredModel(q.Name)
	return s.modelReply(m, err)
}

// databricksModel is model for clients of Databricks, who have another name for
// what comes back.
func (s *Server) databricksModel(_ context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name); err != nil {
		return nil, err
	}
	m, err := s.cfg.Store.RegisteredModel(q.Name)
	if err != nil {
		return nil, err
	}
	return object{"registered_model_databricks": struct {
		wireModel

		ID string `json:"id"`
	}{s.fromModel(&m), m.Name}}, nil
}

func (s *Server) searchModels(_ context.Context, q search) (any, error) {
	by, err := q.search(maxModels, tracking.ActiveOnly)
	if err != nil {
		return nil, err
	}
	found, next, err := s.cfg.Store.SearchRegisteredModels(by)
	if err != nil {
		return nil, err
	}
	out := make([]wireModel, len(found))
	for i := range found {
		out[i] = s.fromModel(&found[i])
	}
	return listed("registered_models", out, next), nil
}

func (s *Server) renameModel(ctx context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name); err != nil {
		return nil, err
	}
	if err := checkModelName(q.NewName); err != nil {
		return nil, err
	}
	if err := s.unreleased(q.Name, "renamed"); err != nil {
		return nil, err
	}
	m, err := s.cfg.Store.RenameRegisteredModel(ctx, q.Name, q.NewName)
	return s.modelReply(m, err)
}

func (s *Server) describeModel(ctx context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name); err != nil {
		return nil, err
	}
	m, err := s.cfg.Store.DescribeRegisteredModel(ctx, q.Name, q.Description)
	return s.modelReply(m, err)
}

func (s *Server) deleteModel(ctx context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name); err != nil {
		return nil, err
	}
	if err := s.unreleased(q.Name, "deleted"); err != nil {
		return nil, err
	}
	if err := s.cfg.Store.DeleteRegisteredModel(ctx, q.Name); err != nil {
		return nil, err
	}
	return object{}, s.deleted(ctx, "registered model", q.Name)
}

// unreleased refuses to take away what the signed lineage of a release names.
func (s *Server) unreleased(name, verb string) error {
	m, err := s.cfg.Store.RegisteredModel(name)
	if err != nil {
		return err
	}
	for i := range m.Versions {
		if d, ok := releaseOf(&m.Versions[i]); ok {
			return refuse(tracking.Invalid, "The model %s cannot be %s: its version %d is release %s, whose signed lineage names it. Archive its versions instead",
				name, verb, m.Versions[i].Version, d.Short())
		}
	}
	return nil
}

func (s *Server) setModelTag(ctx context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name, "key", q.Key); err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.SetRegisteredModelTag(ctx, q.Name, q.Key, &q.Value)
}

func (s *Server) deleteModelTag(ctx context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name, "key", q.Key); err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.SetRegisteredModelTag(ctx, q.Name, q.Key, nil)
}

func (s *Server) latestVersions(_ context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name); err != nil {
		return nil, err
	}
	var stages []tracking.Stage
	for _, given := range q.Stages {
		stage, err := parseStage(given)
		if err != nil {
			return nil, err
		}
		stages = append(stages, stage)
	}
	m, err := s.cfg.Store.RegisteredModel(q.Name)
	if err != nil {
		return nil, err
	}
	found := s.latest(m.Versions, stages)
	out := make([]wireVersion, len(found))
	for i := range found {
		out[i] = fromVersion(&found[i])
	}
	return listed("model_versions", out, ""), nil
}

func (s *Server) setAlias(ctx context.Context, q modelRequest) (any, error) {
	version, err := q.versionOf()
	if err != nil {
		return nil, err
	}
	if err := required("alias", q.Alias); err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.SetAlias(ctx, q.Name, q.Alias, version)
}

func (s *Server) deleteAlias(ctx context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name, "alias", q.Alias); err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.SetAlias(ctx, q.Name, q.Alias, 0)
}

func (s *Server) versionByAlias(ctx context.Context, q modelRequest) (any, error) {
	if err := required("name", q.Name, "alias", q.Alias); err != nil {
		return nil, err
	}
	version, err := s.aliased(q.Name, q.Alias)
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Store.Version(q.Name, version)
	return s.versionReply(ctx, v, err)
}

func (s *Server) aliased(name, alias string) (int, error) {
	m, err := s.cfg.Store.RegisteredModel(name)
	if err != nil {
		return 0, err
	}
	version, ok := m.Aliases[alias]
	if !ok {
		return 0, refuse(tracking.Invalid, "Registered model alias %.80s not found.", alias) // MLflow's own answer
	}
	return strconv.Atoi(version)
}

// text is a string that some clients send as a number.
type text string

// UnmarshalJSON reads both forms.
func (t *text) UnmarshalJSON(b []byte) error {
	*t = text(strings.Trim(string(b), `"`))
	return nil
}

func (q *modelRequest) versionOf() (int, error) { return versionNumber(q.Name, q.Version) }

// versionNumber checks a version's name and number.
func versionNumber(name string, version text) (int, error) {
	if err := required("name", name, "version", string(version)); err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(string(version))
	if err != nil || n < 1 {
		return 0, refuse(tracking.Invalid, "Parameter 'version' must be an integer from 1 on, got '%.40s'", string(version))
	}
	return n, nil
}
