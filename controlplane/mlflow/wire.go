package mlflow

import (
	"slices"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// keyValue is how MLflow writes one entry of a map.
type keyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// pairs is a map in MLflow's form, sorted by key.
func pairs(m map[string]string) []keyValue {
	out := make([]keyValue, 0, len(m))
	for k, v := range m {
		out = append(out, keyValue{k, v})
	}
	slices.SortFunc(out, func(a, b keyValue) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// mapOf is the map that pairs are; of a key given twice the last one counts.
func mapOf(list []keyValue) (map[string]string, error) {
	out := make(map[string]string, len(list))
	for _, p := range list {
		if err := required("key", p.Key); err != nil {
			return nil, err
		}
		out[p.Key] = p.Value
	}
	return out, nil
}

const (
	stageActive  = "active"
	stageDeleted = "deleted"
)

func lifecycle(deleted bool) string {
	if deleted {
		return stageDeleted
	}
	return stageActive
}

type wireExperiment struct {
	ID          string     `json:"experiment_id"`
	Name        string     `json:"name"`
	ArtifactURI string     `json:"artifact_location"`
	Lifecycle   string     `json:"lifecycle_stage"`
	Updated     int64      `json:"last_update_time"`
	Created     int64      `json:"creation_time"`
	Tags        []keyValue `json:"tags,omitempty"`
}

func fromExperiment(e *tracking.Experiment) wireExperiment {
	return wireExperiment{
		ID: e.ID, Name: e.Name, ArtifactURI: e.ArtifactURI, Lifecycle: lifecycle(e.Deleted),
		Updated: e.UpdatedMS, Created: e.CreatedMS, Tags: pairs(e.Tags),
	}
}

type wireRun struct {
	Info    wireRunInfo `json:"info"`
	Data    wireRunData `json:"data"`
	Inputs  *wireInputs `json:"inputs,omitempty"`
	Outputs *wireOutput `json:"outputs,omitempty"`
}

// wireRunInfo has the id twice: old clients read run_uuid.
type wireRunInfo struct {
	ID          string `json:"run_id"`
	UUID        string `json:"run_uuid"`
	Name        string `json:"run_name"`
	Experiment  string `json:"experiment_id"`
	User        string `json:"user_id"`
	Status      string `json:"status"`
	Started     int64  `json:"start_time"`
	Ended       *int64 `json:"end_time,omitempty"`
	ArtifactURI string `json:"artifact_uri"`
	Lifecycle   string `json:"lifecycle_stage"`
}

type wireRunData struct {
	Metrics []wireMetric `json:"metrics,omitempty"`
	Params  []keyValue   `json:"params,omitempty"`
	Tags    []keyValue   `json:"tags,omitempty"`
}

type wireMetric struct {
	metricValue

	RunID string `json:"run_id,omitempty"`
}

type metricValue struct {
	Key           string  `json:"key"`
	Value         *double `json:"value"`
	Timestamp     integer `json:"timestamp"`
	Step          integer `json:"step"`
	ModelID       string  `json:"model_id,omitempty"`
	DatasetName   string  `json:"dataset_name,omitempty"`
	DatasetDigest string  `json:"dataset_digest,omitempty"`
}

func fromMetric(m *tracking.Metric, run string) wireMetric {
	return wireMetric{RunID: run, metricValue: metricValue{
		Key: m.Key, Value: new(double(m.Value)), Timestamp: integer(m.TimestampMS), Step: integer(m.Step),
		ModelID: m.ModelID, DatasetName: m.DatasetName, DatasetDigest: m.DatasetDigest,
	}}
}

// fromMetrics writes the newest values of a run, sorted by key. A page of runs has
// a thousand of them, and what they leave behind makes the collector of garbage
// come while others wait: all is made at its size.
func fromMetrics(metrics map[string]tracking.Metric) []wireMetric {
	out := make([]wireMetric, 0, len(metrics))
	values := make([]double, 0, len(metrics))
	for _, m := range metrics {
		values = append(values, double(m.Value))
		w := wireMetric{metricValue: metricValue{
			Key: m.Key, Value: &values[len(values)-1], Timestamp: integer(m.TimestampMS), Step: integer(m.Step),
			ModelID: m.ModelID, DatasetName: m.DatasetName, DatasetDigest: m.DatasetDigest,
		}}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b wireMetric) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func (m *metricValue) metric() (tracking.Metric, error) {
	if err := required("key", m.Key); err != nil {
		return tracking.Metric{}, err
	}
	if m.Value == nil {
		return tracking.Metric{}, refuse(tracking.Invalid, "Missing value for required parameter 'value' of metric %.80q", m.Key)
	}
	return tracking.Metric{
		Key: m.Key, Value: float64(*m.Value), TimestampMS: int64(m.Timestamp), Step: int64(m.Step),
		ModelID: m.ModelID, DatasetName: m.DatasetName, DatasetDigest: m.DatasetDigest,
	}, nil
}

type wireInputs struct {
	Datasets []wireDatasetInput `json:"dataset_inputs,omitempty"`
	Models   []wireModelRef     `json:"model_inputs,omitempty"`
}

type wireOutput struct {
	Models []wireModelRef `json:"model_outputs,omitempty"`
}

type wireDatasetInput struct {
	Tags    []keyValue  `json:"tags,omitempty"`
	Dataset wireDataset `json:"dataset"`
}

type wireDataset struct {
	Name       string `json:"name"`
	Digest     string `json:"digest"`
	SourceType string `json:"source_type"`
	Source     string `json:"source"`
	Schema     string `json:"schema,omitempty"`
	Profile    string `json:"profile,omitempty"`
}

type wireModelRef struct {
	ModelID string  `json:"model_id"`
	Step    integer `json:"step"`
}

func fromRunInfo(r *tracking.Run) wireRunInfo {
	out := wireRunInfo{
		ID: r.ID, UUID: r.ID, Name: r.Name, Experiment: r.Experiment, User: r.User, Status: string(r.Status),
		Started: r.StartedMS, ArtifactURI: r.ArtifactURI, Lifecycle: lifecycle(r.Deleted),
	}
	if r.EndedMS != 0 {
		out.Ended = &r.EndedMS
	}
	return out
}

func fromRun(r *tracking.Run) wireRun {
	out := wireRun{Info: fromRunInfo(r), Data: wireRunData{Params: pairs(r.Params), Tags: pairs(r.Tags)}}
	out.Data.Metrics = fromMetrics(r.Metrics)
	if len(r.Datasets) > 0 || len(r.ModelInputs) > 0 {
		out.Inputs = &wireInputs{Models: fromRefs(r.ModelInputs)}
		for i := range r.Datasets {
			out.Inputs.Datasets = append(out.Inputs.Datasets, fromDataset(&r.Datasets[i]))
		}
	}
	if len(r.Models) > 0 {
		out.Outputs = &wireOutput{Models: fromRefs(r.Models)}
	}
	return out
}

func fromDataset(d *tracking.Dataset) wireDatasetInput {
	return wireDatasetInput{Tags: pairs(d.Tags), Dataset: wireDataset{
		Name: d.Name, Digest: d.Digest, SourceType: d.SourceType, Source: d.Source, Schema: d.Schema, Profile: d.Profile,
	}}
}

func (d *wireDatasetInput) dataset() (tracking.Dataset, error) {
	w := &d.Dataset
	if err := required("dataset.name", w.Name, "dataset.digest", w.Digest, "dataset.source_type", w.SourceType, "dataset.source", w.Source); err != nil {
		return tracking.Dataset{}, err
	}
	tags, err := mapOf(d.Tags)
	return tracking.Dataset{
		Name: w.Name, Digest: w.Digest, SourceType: w.SourceType, Source: w.Source, Schema: w.Schema, Profile: w.Profile, Tags: tags,
	}, err
}

func fromRefs(list []tracking.ModelRef) []wireModelRef {
	var out []wireModelRef
	for _, m := range list {
		out = append(out, wireModelRef{m.ModelID, integer(m.Step)})
	}
	return out
}

func toRefs(list []wireModelRef) ([]tracking.ModelRef, error) {
	var out []tracking.ModelRef
	for _, m := range list {
		if err := required("model_id", m.ModelID); err != nil {
			return nil, err
		}
		out = append(out, tracking.ModelRef{ModelID: m.ModelID, Step: int64(m.Step)})
	}
	return out, nil
}

type wireLogged struct {
	Info wireLoggedInfo `json:"info"`
	Data wireLoggedData `json:"data"`
}

type wireLoggedInfo struct {
	ID          string     `json:"model_id"`
	Experiment  string     `json:"experiment_id"`
	Name        string     `json:"name"`
	Created     int64      `json:"creation_timestamp_ms"`
	Updated     int64      `json:"last_updated_timestamp_ms"`
	ArtifactURI string     `json:"artifact_uri"`
	Status      string     `json:"status"`
	Type        string     `json:"model_type,omitempty"`
	SourceRun   string     `json:"source_run_id,omitempty"`
	StatusText  string     `json:"status_message,omitempty"`
	Tags        []keyValue `json:"tags,omitempty"`
}

type wireLoggedData struct {
	Params  []keyValue   `json:"params,omitempty"`
	Metrics []wireMetric `json:"metrics,omitempty"`
}

func fromLogged(m *tracking.LoggedModel) wireLogged {
	out := wireLogged{
		Info: wireLoggedInfo{
			ID: m.ID, Experiment: m.Experiment, Name: m.Name, Created: m.CreatedMS, Updated: m.UpdatedMS,
			ArtifactURI: m.ArtifactURI, Status: string(m.Status), Type: m.Type, SourceRun: m.SourceRun,
			StatusText: m.StatusText, Tags: pairs(m.Tags),
		},
		Data: wireLoggedData{Params: pairs(m.Params)},
	}
	for i := range m.Metrics {
		out.Data.Metrics = append(out.Data.Metrics, fromMetric(&m.Metrics[i], m.SourceRun))
	}
	return out
}

type wireModel struct {
	Name        string        `json:"name"`
	Created     int64         `json:"creation_timestamp"`
	Updated     int64         `json:"last_updated_timestamp"`
	Description string        `json:"description,omitempty"`
	Latest      []wireVersion `json:"latest_versions,omitempty"`
	Tags        []keyValue    `json:"tags,omitempty"`
	Aliases     []wireAlias   `json:"aliases,omitempty"`
}

type wireAlias struct {
	Alias   string `json:"alias"`
	Version string `json:"version"`
}

// wireVersion has the version as a string: it was one before MLflow had numbers.
type wireVersion struct {
	Name        string     `json:"name"`
	Version     string     `json:"version"`
	Created     int64      `json:"creation_timestamp"`
	Updated     int64      `json:"last_updated_timestamp"`
	User        string     `json:"user_id,omitempty"`
	Stage       string     `json:"current_stage"`
	Description string     `json:"description,omitempty"`
	Source      string     `json:"source"`
	Run         string     `json:"run_id,omitempty"`
	Status      string     `json:"status"`
	StatusText  string     `json:"status_message,omitempty"`
	Tags        []keyValue `json:"tags,omitempty"`
	RunLink     string     `json:"run_link,omitempty"`
	Aliases     []string   `json:"aliases,omitempty"`
	ModelID     string     `json:"model_id,omitempty"`
}

// statusReady is the status of every version: its artifacts are where they were
// logged, so nothing is copied that a client would have to wait for.
const statusReady = "READY"

func fromVersion(v *tracking.ModelVersion) wireVersion {
	return wireVersion{
		Name: v.Name, Version: strconv.Itoa(v.Version), Created: v.CreatedMS, Updated: v.UpdatedMS, User: v.User,
		Stage: string(v.Stage), Description: v.Description, Source: v.Source, Run: v.Run,
		Status: statusReady, StatusText: statusText(v), Tags: pairs(v.Tags), RunLink: v.RunLink,
		Aliases: v.Aliases, ModelID: v.ModelID,
	}
}
