// Package tracking keeps what data scientists record: experiments and runs with
// their parameters, metrics and tags, the models that runs produced, and the
// registered models with their versions, stages and aliases. Package mlflow
// serves it to MLflow clients.
//
// It lies in memory as an index and in a journal as history. A change is a
// record of the journal; the index is a fold of it, checkpointed so that a start
// reads the newest state and the tail, not every metric ever logged. The history
// of a metric is read from the journal when it is asked for.
//
// What comes while the disk is at work is stored as one message, so many clients
// share one sync of the disk, and each is answered after it. Searches hold no
// lock: things are replaced, never changed, and runs are searched by columns.
//
// Bounds: what a run is now takes MaxRunState, about 1 KB as a rule, in memory;
// histories take disk alone, some 20 bytes a value. A run that was deleted is
// forgotten after Config.KeepDeleted; what was logged of it stays in the journal,
// which only grows.
//
// Times are Unix milliseconds, as MLflow's are. A registered version is a
// candidate that somebody trained; a release of package registry is what
// publishers signed and devices run. The tag operator.TagRelease joins the two.
package tracking

import "fmt"

// Code says what kind of error a client made. It is also the error_code of MLflow.
type Code string

// Codes. Internal ones have no code: they are plain errors.
const (
	Invalid       Code = "INVALID_PARAMETER_VALUE"
	NotFound      Code = "RESOURCE_DOES_NOT_EXIST"
	AlreadyExists Code = "RESOURCE_ALREADY_EXISTS"
	InvalidState  Code = "INVALID_STATE"
	Exhausted     Code = "RESOURCE_EXHAUSTED" // the journal has all that it may
)

// Error is what the caller did wrong, with what to do about it.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

func refuse(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// View says whether deleted things are wanted.
type View string

// Views, as MLflow spells them.
const (
	ActiveOnly  View = "ACTIVE_ONLY"
	DeletedOnly View = "DELETED_ONLY"
	All         View = "ALL"
)

// Experiment groups runs.
type Experiment struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	ArtifactURI string            `json:"artifact_uri"`
	Deleted     bool              `json:"deleted,omitempty"`
	CreatedMS   int64             `json:"created_ms"`
	UpdatedMS   int64             `json:"updated_ms"`
	Tags        map[string]string `json:"tags,omitempty"`
}

// RunStatus is where a run stands, as MLflow spells it.
type RunStatus string

// Statuses of a run.
const (
	Running   RunStatus = "RUNNING"
	Scheduled RunStatus = "SCHEDULED"
	Finished  RunStatus = "FINISHED"
	Failed    RunStatus = "FAILED"
	Killed    RunStatus = "KILLED"
)

// Run is one execution of training or evaluation code.
type Run struct {
	ID          string            `json:"id"` // 32 hex digits
	Experiment  string            `json:"experiment"`
	Name        string            `json:"name"`
	User        string            `json:"user,omitempty"`
	Status      RunStatus         `json:"status"`
	StartedMS   int64             `json:"started_ms"`
	EndedMS     int64             `json:"ended_ms,omitempty"` // 0 while it runs
	ArtifactURI string            `json:"artifact_uri"`
	Deleted     bool              `json:"deleted,omitempty"`
	DeletedMS   int64             `json:"deleted_ms,omitempty"`
	Params      map[string]string `json:"params,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Metrics     map[string]Metric `json:"metrics,omitempty"` // the newest of each key: greatest step, then timestamp, then value
	Datasets    []Dataset         `json:"datasets,omitempty"`
	ModelInputs []ModelRef        `json:"model_inputs,omitempty"`
	Models      []ModelRef        `json:"models,omitempty"` // that it produced
}

// Metric is one measured value.
type Metric struct {
	Key         string  `json:"key"`
	Value       float64 `json:"value"` // NaN and ±Inf are values too: the journal must carry them
	TimestampMS int64   `json:"timestamp_ms"`
	Step        int64   `json:"step"`
	// Of MLflow 3: what the value was measured of.
	ModelID       string `json:"model_id,omitempty"`
	DatasetName   string `json:"dataset_name,omitempty"`
	DatasetDigest string `json:"dataset_digest,omitempty"`
}

// Dataset is data that a run used.
type Dataset struct {
	Name       string            `json:"name"`
	Digest     string            `json:"digest"`
	SourceType string            `json:"source_type"`
	Source     string            `json:"source"`
	Schema     string            `json:"schema,omitempty"`
	Profile    string            `json:"profile,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"` // mlflow.data.context: training, evaluation
}

// ModelRef points to a logged model.
type ModelRef struct {
	ModelID string `json:"model_id"`
	Step    int64  `json:"step,omitempty"`
}

// Batch is what log-batch adds to a run in one record.
type Batch struct {
	Metrics []Metric
	Params  map[string]string
	Tags    map[string]string
}

// ModelStatus is where a logged model stands, as MLflow spells it.
type ModelStatus string

// Statuses of a logged model.
const (
	ModelPending ModelStatus = "LOGGED_MODEL_PENDING"
	ModelReady   ModelStatus = "LOGGED_MODEL_READY"
	ModelFailed  ModelStatus = "LOGGED_MODEL_UPLOAD_FAILED"
)

// LoggedModel is a model of MLflow 3: a thing of its own beside the run that made it.
type LoggedModel struct {
	ID          string            `json:"id"` // "m-" and 32 hex digits
	Experiment  string            `json:"experiment"`
	Name        string            `json:"name"`
	Type        string            `json:"type,omitempty"`
	SourceRun   string            `json:"source_run,omitempty"`
	ArtifactURI string            `json:"artifact_uri"`
	Status      ModelStatus       `json:"status"`
	StatusText  string            `json:"status_text,omitempty"`
	Deleted     bool              `json:"deleted,omitempty"`
	CreatedMS   int64             `json:"created_ms"`
	UpdatedMS   int64             `json:"updated_ms"`
	Params      map[string]string `json:"params,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Metrics     []Metric          `json:"metrics,omitempty"` // logged with its id
}

// RegisteredModel is a name under which versions are registered.
type RegisteredModel struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	CreatedMS   int64             `json:"created_ms"`
	UpdatedMS   int64             `json:"updated_ms"`
	Tags        map[string]string `json:"tags,omitempty"`
	Aliases     map[string]string `json:"aliases,omitempty"` // alias → version
	Versions    []ModelVersion    `json:"-"`                 // highest first
}

// Stage of a registered version, as MLflow spells it.
type Stage string

// Stages.
const (
	StageNone       Stage = "None"
	StageStaging    Stage = "Staging"
	StageProduction Stage = "Production"
	StageArchived   Stage = "Archived"
)

// ModelVersion is one registered version of a model.
type ModelVersion struct {
	Name        string            `json:"name"`
	Version     int               `json:"version"` // 1, 2, …; never given twice
	Stage       Stage             `json:"stage"`
	Source      string            `json:"source"` // where its artifacts are: mlflow-artifacts:/… or models:/m-…
	ArtifactURI string            `json:"artifact_uri"`
	Run         string            `json:"run,omitempty"`
	ModelID     string            `json:"model_id,omitempty"`
	RunLink     string            `json:"run_link,omitempty"`
	User        string            `json:"user,omitempty"`
	Description string            `json:"description,omitempty"`
	CreatedMS   int64             `json:"created_ms"`
	UpdatedMS   int64             `json:"updated_ms"`
	Tags        map[string]string `json:"tags,omitempty"`
	Aliases     []string          `json:"-"` // that point here, sorted
	History     []StageChange     `json:"history,omitempty"`
}

// StageChange says when a version came to a stage and by whom.
type StageChange struct {
	From, To Stage
	By       string
	AtMS     int64
}

// Search asks for a page of things.
type Search struct {
	Filter  string
	OrderBy []string
	View    View
	Max     int    // 0: the default of what is searched
	Page    string // token of the page before, empty for the first
}
