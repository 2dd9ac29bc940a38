package operator

import (
	"context"
	"time"
)

// RunReader reads what data scientists tracked through MLflow.
type RunReader interface {
	Experiments(ctx context.Context) ([]Experiment, error)
	Runs(ctx context.Context, q RunQuery) (*Page[Run], error)
	Run(ctx context.Context, id string) (*RunDetail, error)
	RunMetric(ctx context.Context, id string, q RunMetricQuery) ([]MetricPoint, error)
	RunFiles(ctx context.Context, id string, q RunFileQuery) ([]RunFile, error)
}

// Experiment groups runs.
type Experiment struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Runs    int               `json:"runs"` // deleted ones not counted
	Created time.Time         `json:"created,omitzero"`
	Updated time.Time         `json:"updated,omitzero"`
	Tags    map[string]string `json:"tags,omitempty"`
}

// RunQuery selects runs. Experiment is an id or a name, empty for all. Filter
// and Order are MLflow's: "metrics.accuracy > 0.9 and params.depth = '3'",
// "metrics.accuracy DESC". Newest first without an order.
type RunQuery struct {
	Paging

	Experiment string `json:"experiment,omitempty" query:"experiment"`
	Filter     string `json:"filter,omitempty" query:"filter"`
	Order      string `json:"order,omitempty" query:"order"`
}

// Run is one execution of training or evaluation code.
type Run struct {
	ID             string               `json:"id"`
	Name           string               `json:"name"`
	Experiment     string               `json:"experiment"` // id
	ExperimentName string               `json:"experiment_name"`
	User           string               `json:"user,omitempty"`      // as the client says
	Principal      string               `json:"principal,omitempty"` // who was authenticated
	Status         string               `json:"status"`              // RUNNING, SCHEDULED, FINISHED, FAILED, KILLED
	Started        time.Time            `json:"started,omitzero"`
	Ended          time.Time            `json:"ended,omitzero"` // zero while it runs
	Commit         string               `json:"commit,omitempty"`
	Source         string               `json:"source,omitempty"` // script or notebook
	Params         map[string]string    `json:"params,omitempty"`
	Metrics        map[string]RunMetric `json:"metrics,omitempty"` // the newest value of each
	Tags           map[string]string    `json:"tags,omitempty"`
}

// RunMetric is the newest value of a metric.
type RunMetric struct {
	Value *float64  `json:"value"` // null when it is infinite or not a number
	Step  int64     `json:"step"`
	At    time.Time `json:"at,omitzero"`
}

// RunDetail is everything about one run but the histories of its metrics.
type RunDetail struct {
	Run

	Datasets []RunDataset `json:"datasets,omitempty"`
	Models   []RunModel   `json:"models,omitempty"` // versions registered from it
	Logged   []string     `json:"logged,omitempty"` // ids of MLflow 3's models that it made
}

// RunDataset is data that a run used.
type RunDataset struct {
	Name    string `json:"name"`
	Digest  string `json:"digest"`
	Source  string `json:"source,omitempty"`
	Context string `json:"context,omitempty"` // training, evaluation
}

// RunModel is a registered version that came from a run.
type RunModel struct {
	Name       string `json:"name"`
	Version    int    `json:"version"`
	Stage      string `json:"stage"` // as MLflow spells it
	Release    string `json:"release,omitempty"`
	Deployable string `json:"deployable,omitempty"` // true, false, empty when not known
	Reason     string `json:"reason,omitempty"`
}

// RunMetricQuery names one metric.
type RunMetricQuery struct {
	Key string `json:"key" query:"key"`
}

// MetricPoint is one value of a metric's history.
type MetricPoint struct {
	Step  int64     `json:"step"`
	At    time.Time `json:"at,omitzero"`
	Value *float64  `json:"value"` // null when it is infinite or not a number
}

// RunFileQuery names a directory of a run's artifacts, empty for the root.
type RunFileQuery struct {
	Path string `json:"path,omitempty" query:"path"`
}

// RunFile is one entry of such a directory.
type RunFile struct {
	Path string `json:"path"` // below the run's artifacts
	Dir  bool   `json:"dir,omitempty"`
	Size int64  `json:"size,omitempty"` // bytes
}
