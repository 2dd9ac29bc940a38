package mlflow

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

const maxVersions = 200_000

func (s *Server) versionRoutes() []route {
	const base = "/mlflow/model-versions/"
	return []route{
		writes("POST", base+"create", call(s.createVersion)),
		reads("GET", base+"get", call(s.version)),
		reads("GET", base+"get-download-uri", call(s.downloadURI)),
		reads("GET", base+"search", call(s.searchVersions)),
		reads("POST", base+"search", call(s.searchVersions)),
		writes("PATCH", base+"update", call(s.describeVersion)),
		writes("DELETE", base+"delete", call(s.deleteVersion)),
		writes("POST", base+"set-tag", call(s.setVersionTag)),
		writes("DELETE", base+"delete-tag", call(s.deleteVersionTag)),
		writes("POST", base+"transition-stage", call(s.transition)),
		writes("POST", "/mlflow/databricks/model-versions/transition-stage", call(s.databricksTransition)),
	}
}

type versionRequest struct {
	Name        string     `json:"name"`
	Version     text       `json:"version"`
	Source      string     `json:"source"`
	Run         string     `json:"run_id"`
	RunLink     string     `json:"run_link"`
	ModelID     string     `json:"model_id"`
	Description string     `json:"description"`
	Tags        []keyValue `json:"tags"`
	Key         string     `json:"key"`
	Value       string     `json:"value"`
	Stage       string     `json:"stage"`
	Archive     bool       `json:"archive_existing_versions"`
	Comment     string     `json:"comment"` // of clients of Databricks
}

func (q *versionRequest) number() (int, error) { return versionNumber(q.Name, q.Version) }

// createVersion registers a version. Whether devices can run it is decided now,
// from what was logged; if nothing was yet, when it is next asked for.
func (s *Server) createVersion(ctx context.Context, q versionRequest) (any, error) {
	if err := required("name", q.Name, "source", q.Source); err != nil {
		return nil, err
	}
	tags, err := mapOf(q.Tags)
	if err != nil {
		return nil, err
	}
	if q.copies() {
		dropGiven(tags)
	}
	if err := s.mayTag(ctx, tags); err != nil {
		return nil, err
	}
	uri, err := s.resolve(q.Source)
	if err != nil {
		return nil, err
	}
	run, err := s.madeBy(&q)
	if err != nil {
		return nil, err
	}
	tags[operator.TagPrincipal] = who(ctx)
	verdict, err := s.examine(ctx, uri)
	if err != nil {
		return nil, err
	}
	verdict.into(tags)
	v, err := s.cfg.Store.CreateVersion(ctx, tracking.ModelVersion{
		Name: q.Name, Source: q.Source, ArtifactURI: uri, Run: run, ModelID: q.modelID(), RunLink: q.RunLink,
		User: who(ctx), Description: q.Description, Tags: tags,
	})
	return s.versionReply(ctx, v, err)
}

// copies says whether the version is one of another registered model, which
// copy_model_version sends with all its tags.
func (q *versionRequest) copies() bool {
	return strings.HasPrefix(q.Source, "models:/") && q.modelID() == ""
}

// dropGiven drops what a copy is told anew by the server, or by its own publisher.
func dropGiven(tags map[string]string) {
	for _, key := range given {
		delete(tags, key)
	}
	maps.DeleteFunc(tags, func(key, _ string) bool {
		return slices.Contains(ofPublishing, key) || strings.HasPrefix(key, tagEvidence) || strings.HasPrefix(key, operator.TagProblem)
	})
}

// Tags of the version that was copied: what it answers, that it is to be
// published, what became of that. With what begins with the last two.
var ofPublishing = []string{operator.TagRelease, operator.TagPublish, operator.TagRetrain}

const tagEvidence = "vedette.evidence"

// modelID is the logged model that is registered: 2.x clients name it in the source alone.
func (q *versionRequest) modelID() string {
	if id, ok := strings.CutPrefix(q.Source, "models:/m-"); q.ModelID == "" && ok && !strings.Contains(id, "/") {
		return "m-" + id
	}
	return q.ModelID
}

// madeBy is the run that a version comes from. Clients of 3.x name only the
// logged model, which knows its run.
func (s *Server) madeBy(q *versionRequest) (string, error) {
	id := q.modelID()
	if q.Run == "" && id != "" {
		m, err := s.cfg.Store.LoggedModel(id)
		return m.SourceRun, err
	}
	if q.Run == "" {
		return "", nil
	}
	r, err := s.cfg.Store.Run(q.Run)
	return r.ID, err
}

func (s *Server) versionReply(ctx context.Context, v tracking.ModelVersion, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	s.decide(ctx, &v)
	v.Stage = s.stageOf(&v)
	return object{"model_version": fromVersion(&v)}, nil
}

func (s *Server) find(q *versionRequest) (tracking.ModelVersion, error) {
	n, err := q.number()
	if err != nil {
		return tracking.ModelVersion{}, err
	}
	return s.cfg.Store.Version(q.Name, n)
}

func (s *Server) version(ctx context.Context, q versionRequest) (any, error) {
	v, err := s.find(&q)
	return s.versionReply(ctx, v, err)
}

func (s *Server) downloadURI(_ context.Context, q versionRequest) (any, error) {
	v, err := s.find(&q)
	if err != nil {
		return nil, err
	}
	return object{"artifact_uri": v.ArtifactURI}, nil
}

func (s *Server) searchVersions(_ context.Context, q search) (any, error) {
	by, err := q.search(maxVersions, tracking.ActiveOnly)
	if err != nil {
		return nil, err
	}
	found, next, err := s.cfg.Store.SearchVersions(by)
	if err != nil {
		return nil, err
	}
	out := make([]wireVersion, len(found))
	for i := range found {
		found[i].Stage = s.stageOf(&found[i])
		out[i] = fromVersion(&found[i])
	}
	return listed("model_versions", out, next), nil
}

func (s *Server) describeVersion(ctx context.Context, q versionRequest) (any, error) {
	n, err := q.number()
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Store.DescribeVersion(ctx, q.Name, n, q.Description)
	return s.versionReply(ctx, v, err)
}

func (s *Server) deleteVersion(ctx context.Context, q versionRequest) (any, error) {
	v, err := s.find(&q)
	if err != nil {
		return nil, err
	}
	if d, ok := releaseOf(&v); ok {
		return nil, refuse(tracking.Invalid, "Version %d of %s is release %s, whose signed lineage names it: archive it instead", v.Version, v.Name, d.Short())
	}
	if err := s.cfg.Store.DeleteVersion(ctx, v.Name, v.Version); err != nil {
		return nil, err
	}
	return object{}, s.deleted(ctx, "version", fmt.Sprintf("models:/%s/%d", v.Name, v.Version))
}

func (s *Server) setVersionTag(ctx context.Context, q versionRequest) (any, error) {
	n, err := q.number()
	if err == nil {
		err = required("key", q.Key)
	}
	if err == nil {
		err = s.mayTag(ctx, map[string]string{q.Key: q.Value})
	}
	if err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.SetVersionTag(ctx, q.Name, n, q.Key, &q.Value)
}

func (s *Server) deleteVersionTag(ctx context.Context, q versionRequest) (any, error) {
	n, err := q.number()
	if err == nil {
		err = required("key", q.Key)
	}
	if err == nil && q.Key == operator.TagRelease {
		err = s.mayAttach(ctx)
	}
	if err == nil {
		err = reserved(map[string]string{q.Key: ""})
	}
	if err != nil {
		return nil, err
	}
	return object{}, s.cfg.Store.SetVersionTag(ctx, q.Name, n, q.Key, nil)
}

// mayTag refuses tags that are not for the caller to set.
func (s *Server) mayTag(ctx context.Context, tags map[string]string) error {
	if err := reserved(tags); err != nil {
		return err
	}
	text, ok := tags[operator.TagRelease]
	if !ok {
		return nil
	}
	if _, err := release.ParseDigest(text); err != nil {
		return refuse(tracking.Invalid, "The tag '%s' must be the digest of a release, got '%.80s'", operator.TagRelease, text)
	}
	return s.mayAttach(ctx)
}

// mayAttach: which release a version became is for publishers to say, since it
// moves the release's stage with the version's.
func (s *Server) mayAttach(ctx context.Context) error {
	p, _ := operator.PrincipalOf(ctx)
	if p.Role.Allows(operator.Publisher) {
		return nil
	}
	return operator.Errorf(operator.Forbidden, "the tag %s needs role %s, and %s is %s", operator.TagRelease, operator.Publisher, p.Name, p.Role)
}

// releaseOf is the release that a version became, if it has.
func releaseOf(v *tracking.ModelVersion) (release.Digest, bool) {
	d, err := release.ParseDigest(v.Tags[operator.TagRelease])
	return d, err == nil
}

// Stages have the same names in the registry, in lower case.
var stages = []tracking.Stage{tracking.StageNone, tracking.StageStaging, tracking.StageProduction, tracking.StageArchived}

func parseStage(text string) (tracking.Stage, error) {
	for _, stage := range stages {
		if strings.EqualFold(string(stage), text) {
			return stage, nil
		}
	}
	return "", refuse(tracking.Invalid, "Invalid Model Version stage: %.40s. Value must be one of None, Staging, Production, Archived.", text)
}

func released(stage tracking.Stage) operator.Stage {
	return operator.Stage(strings.ToLower(string(stage)))
}

// stageOf is a version's stage: its release's, once it has one.
func (s *Server) stageOf(v *tracking.ModelVersion) tracking.Stage {
	d, ok := releaseOf(v)
	if !ok {
		return v.Stage
	}
	at, err := s.cfg.Releases.ReleaseStage(d)
	if err != nil {
		return v.Stage // withdrawn, or attached before it was published
	}
	stage, err := parseStage(string(at))
	if err != nil {
		return v.Stage
	}
	return stage
}

func (s *Server) transition(ctx context.Context, q versionRequest) (any, error) {
	v, err := s.moved(ctx, &q)
	return s.versionReply(ctx, v, err)
}

func (s *Server) databricksTransition(ctx context.Context, q versionRequest) (any, error) {
	v, err := s.moved(ctx, &q)
	if err != nil {
		return nil, err
	}
	v.Stage = s.stageOf(&v)
	return object{"model_version_databricks": fromVersion(&v), "model_version": fromVersion(&v)}, nil
}

// moved carries a transition out and returns the version after it.
func (s *Server) moved(ctx context.Context, q *versionRequest) (tracking.ModelVersion, error) {
	v, err := s.find(q)
	if err != nil {
		return v, err
	}
	to, err := parseStage(q.Stage)
	if err != nil {
		return v, err
	}
	if q.Archive && to != tracking.StageStaging && to != tracking.StageProduction {
		return v, refuse(tracking.Invalid, "Model version transition cannot archive existing model versions because '%s' is not an Active stage. Valid stages are Staging, Production", to)
	}
	if err := s.move(ctx, &v, to, q.Comment); err != nil {
		return v, err
	}
	if q.Archive {
		if err := s.archiveOthers(ctx, &v, to); err != nil {
			return v, err
		}
	}
	return s.cfg.Store.Version(v.Name, v.Version)
}

// move brings one version to a stage, through the registry where a release
// hangs on it.
func (s *Server) move(ctx context.Context, v *tracking.ModelVersion, to tracking.Stage, comment string) error {
	from := s.stageOf(v)
	if from == to {
		return nil
	}
	if d, ok := releaseOf(v); ok {
		if _, err := s.cfg.Releases.ReleaseStage(d); err == nil {
			return s.cfg.Releases.MoveRelease(ctx, d, released(to), reasonFor(v, comment))
		}
	}
	if _, err := s.cfg.Store.SetVersionStage(ctx, who(ctx), v.Name, v.Version, to, false); err != nil {
		return err
	}
	return s.cfg.Journal.NoteTracking(ctx, noteStage, map[string]any{
		"model": v.Name, "version": v.Version, "from": from, "to": to, "reason": comment,
	})
}

func reasonFor(v *tracking.ModelVersion, comment string) string {
	if comment = strings.Join(strings.Fields(comment), " "); comment != "" {
		return comment
	}
	return fmt.Sprintf("MLflow transition of models:/%s/%d", v.Name, v.Version)
}

// archiveOthers takes the other versions out of the stage that v came to.
func (s *Server) archiveOthers(ctx context.Context, v *tracking.ModelVersion, stage tracking.Stage) error {
	m, err := s.cfg.Store.RegisteredModel(v.Name)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(m.Versions), func(o tracking.ModelVersion) bool {
		return o.Version == v.Version || s.stageOf(&o) != stage
	})
	for i := range others {
		if err := s.move(ctx, &others[i], tracking.StageArchived, fmt.Sprintf("version %d came to %s", v.Version, stage)); err != nil {
			return err
		}
	}
	return nil
}
