// Package mlflow is the MLflow REST API, as its 2.x and 3.x clients speak it: it
// decodes a request, checks who makes it, calls package tracking, and encodes
// what comes back in the forms those clients expect. Artifacts go through it to
// the blob store as streams.
//
// Parties: a data scientist's client holds an operator token, sent as a bearer
// token (MLFLOW_TRACKING_TOKEN) or as the password of basic authentication. These
// paths take no cookies, so another site cannot make a browser send one.
package mlflow

import (
	"context"

	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// Store is everything the routes call. tracking.Store is the one of the control plane.
type Store interface {
	Experiments
	Runs
	LoggedModels
	Registered
}

// Experiments are groups of runs.
type Experiments interface {
	// CreateExperiment makes an experiment; an empty artifactURI gets a place of the artifact proxy.
	CreateExperiment(ctx context.Context, name, artifactURI string, tags map[string]string) (tracking.Experiment, error)
	Experiment(id string) (tracking.Experiment, error)
	ExperimentByName(name string) (tracking.Experiment, error)
	RenameExperiment(ctx context.Context, id, name string) error
	DeleteExperiment(ctx context.Context, id string, deleted bool) error       // false restores
	SetExperimentTag(ctx context.Context, id, key string, value *string) error // nil deletes
	SearchExperiments(s tracking.Search) (found []tracking.Experiment, next string, err error)
}

// Runs are executions of training code.
type Runs interface {
	// CreateRun makes a run of what is set in it; id, status and artifact place are given.
	CreateRun(ctx context.Context, r tracking.Run) (tracking.Run, error)
	Run(id string) (tracking.Run, error)
	// UpdateRun sets status, end and name where they are not empty.
	UpdateRun(ctx context.Context, id string, status tracking.RunStatus, endedMS int64, name string) (tracking.Run, error)
	DeleteRun(ctx context.Context, id string, deleted bool) error // false restores
	Log(ctx context.Context, id string, b tracking.Batch) error
	DeleteRunTag(ctx context.Context, id, key string) error
	LogInputs(ctx context.Context, id string, data []tracking.Dataset, models []tracking.ModelRef) error
	LogOutputs(ctx context.Context, id string, models []tracking.ModelRef) error
	SearchRuns(experiments []string, s tracking.Search) (found []tracking.Run, next string, err error)
	MetricHistory(ctx context.Context, id, key string, limit int, page string) (found []tracking.Metric, next string, err error)
}

// LoggedModels are models of MLflow 3.
type LoggedModels interface {
	CreateLoggedModel(ctx context.Context, m tracking.LoggedModel) (tracking.LoggedModel, error)
	LoggedModel(id string) (tracking.LoggedModel, error)
	FinalizeLoggedModel(ctx context.Context, id string, status tracking.ModelStatus) (tracking.LoggedModel, error)
	DeleteLoggedModel(ctx context.Context, id string) error
	SetLoggedModelTags(ctx context.Context, id string, set map[string]string, unset []string) (tracking.LoggedModel, error)
	LogModelParams(ctx context.Context, id string, params map[string]string) error
	SearchLoggedModels(experiments []string, s tracking.Search) (found []tracking.LoggedModel, next string, err error)
}

// Registered are the registered models and their versions.
type Registered interface {
	CreateRegisteredModel(ctx context.Context, name, description string, tags map[string]string) (tracking.RegisteredModel, error)
	RegisteredModel(name string) (tracking.RegisteredModel, error)
	RenameRegisteredModel(ctx context.Context, name, to string) (tracking.RegisteredModel, error)
	DescribeRegisteredModel(ctx context.Context, name, description string) (tracking.RegisteredModel, error)
	DeleteRegisteredModel(ctx context.Context, name string) error
	SetRegisteredModelTag(ctx context.Context, name, key string, value *string) error // nil deletes
	SetAlias(ctx context.Context, name, alias string, version int) error              // version 0 deletes
	SearchRegisteredModels(s tracking.Search) (found []tracking.RegisteredModel, next string, err error)

	CreateVersion(ctx context.Context, v tracking.ModelVersion) (tracking.ModelVersion, error)
	Version(name string, version int) (tracking.ModelVersion, error)
	DescribeVersion(ctx context.Context, name string, version int, description string) (tracking.ModelVersion, error)
	DeleteVersion(ctx context.Context, name string, version int) error
	SetVersionTag(ctx context.Context, name string, version int, key string, value *string) error // nil deletes
	// SetVersionStage moves a version, and archives those that were in that stage where asked to.
	SetVersionStage(ctx context.Context, by, name string, version int, to tracking.Stage, archive bool) (tracking.ModelVersion, error)
	SearchVersions(s tracking.Search) (found []tracking.ModelVersion, next string, err error)
}
