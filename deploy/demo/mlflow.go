package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// scientist logs runs the way any MLflow client does: by its REST API, with
// nothing of Vedette but the address and a token.
type scientist struct {
	server, token string
}

// training is what a training script left behind.
type training struct {
	folder string // its artifacts, laid out as they are logged
	run    trainedRun
}

// trainedRun is run.json of train/retrain.py.
type trainedRun struct {
	Params      map[string]any    `json:"params"`
	Metrics     map[string]any    `json:"metrics"` // a number, or one a step
	Environment map[string]string `json:"environment"`
	Source      string            `json:"source"`
}

// registered is where a training was registered.
type registered struct {
	Run     string `json:"run"`
	Version string `json:"version"`
}

type tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// register logs a training as a run and registers its model as the next
// version, with tags. A version that answers the same request is not
// registered again.
func (s *scientist) register(ctx context.Context, t training, name string, tags map[string]string) (r registered, err error) {
	if r, err = s.answer(ctx, tags["vedette.retrain"]); err != nil || r.Version != "" {
		return r, err
	}
	experiment, err := s.experiment(ctx, name)
	if err != nil {
		return r, err
	}
	if r.Run, err = s.begin(ctx, experiment, t); err != nil {
		return r, err
	}
	if err := s.upload(ctx, t.folder, experiment+"/"+r.Run+"/artifacts"); err != nil {
		return r, err
	}
	if err := s.post(ctx, "runs/update", map[string]any{"run_id": r.Run, "status": "FINISHED", "end_time": time.Now().UnixMilli()}, nil); err != nil {
		return r, err
	}
	r.Version, err = s.version(ctx, name, r.Run, "mlflow-artifacts:/"+experiment+"/"+r.Run+"/artifacts/model", tags)
	return r, err
}

// answer finds the version that answers a request.
func (s *scientist) answer(ctx context.Context, request string) (registered, error) {
	var found struct {
		Versions []struct {
			Version string `json:"version"`
			Run     string `json:"run_id"`
		} `json:"model_versions"`
	}
	filter := url.QueryEscape("tags.`vedette.retrain` = '" + request + "'")
	err := s.call(ctx, http.MethodGet, "mlflow/model-versions/search?filter="+filter, nil, &found)
	if err != nil || len(found.Versions) == 0 {
		return registered{}, err
	}
	return registered{Run: found.Versions[0].Run, Version: found.Versions[0].Version}, nil
}

// experiment finds or makes an experiment.
func (s *scientist) experiment(ctx context.Context, name string) (string, error) {
	var found struct {
		Experiment struct {
			ID string `json:"experiment_id"`
		} `json:"experiment"`
	}
	err := s.call(ctx, http.MethodGet, "mlflow/experiments/get-by-name?experiment_name="+url.QueryEscape(name), nil, &found)
	if err == nil {
		return found.Experiment.ID, nil
	}
	if !strings.Contains(err.Error(), "RESOURCE_DOES_NOT_EXIST") {
		return "", err
	}
	var made struct {
		ID string `json:"experiment_id"`
	}
	return made.ID, s.post(ctx, "experiments/create", map[string]any{"name": name}, &made)
}

// begin makes a run with its parameters and metrics.
func (s *scientist) begin(ctx context.Context, experiment string, t training) (id string, err error) {
	now := time.Now().UnixMilli()
	data, err := os.ReadFile(filepath.Join(t.folder, "model", "vedette", "training.csv"))
	if err != nil {
		return "", err
	}
	tags := []tag{
		{"mlflow.user", "demo"},
		{"mlflow.source.name", "deploy/demo/train/retrain.py"},
		{"mlflow.source.type", "LOCAL"},
		{"data_version", fmt.Sprintf("sha256:%x", sha256.Sum256(data))},
	}
	if c := commit(); c != "" {
		tags = append(tags, tag{"mlflow.source.git.commit", c})
	}
	var made struct {
		Run struct {
			Info struct {
				ID string `json:"run_id"`
			} `json:"info"`
		} `json:"run"`
	}
	if err := s.post(ctx, "runs/create", map[string]any{"experiment_id": experiment, "start_time": now, "tags": tags}, &made); err != nil {
		return "", err
	}
	batch := map[string]any{"run_id": made.Run.Info.ID, "params": params(t.run), "metrics": metrics(t.run, now)}
	return made.Run.Info.ID, s.post(ctx, "runs/log-batch", batch, nil)
}

// commit is that of the code, empty where the build does not know it.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

func params(t trainedRun) (out []tag) {
	for k, v := range t.Params {
		out = append(out, tag{k, fmt.Sprint(v)})
	}
	for k, v := range t.Environment {
		out = append(out, tag{"environment." + k, v})
	}
	return out
}

func metrics(t trainedRun, now int64) (out []map[string]any) {
	for k, v := range t.Metrics {
		steps, curve := v.([]any)
		if !curve {
			steps = []any{v}
		}
		for i, v := range steps {
			out = append(out, map[string]any{"key": k, "value": v, "timestamp": now, "step": i})
		}
	}
	return out
}

// upload puts a folder's files below a place of the artifact proxy.
func (s *scientist) upload(ctx context.Context, folder, to string) error {
	files := os.DirFS(folder)
	return fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		return s.call(ctx, http.MethodPut, "mlflow-artifacts/artifacts/"+path.Join(to, name), b, nil)
	})
}

// version registers a run's model as the next version.
func (s *scientist) version(ctx context.Context, name, run, source string, tags map[string]string) (string, error) {
	err := s.post(ctx, "registered-models/create", map[string]any{"name": name}, nil)
	if err != nil && !strings.Contains(err.Error(), "ALREADY_EXISTS") {
		return "", err
	}
	list := make([]tag, 0, len(tags))
	for k, v := range tags {
		list = append(list, tag{k, v})
	}
	var made struct {
		Version struct {
			Version string `json:"version"`
		} `json:"model_version"`
	}
	err = s.post(ctx, "model-versions/create", map[string]any{"name": name, "run_id": run, "source": source, "tags": list}, &made)
	return made.Version.Version, err
}

func (s *scientist) post(ctx context.Context, endpoint string, body map[string]any, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPost, "mlflow/"+endpoint, b, into)
}

// call makes one request, whose answer is small.
func (s *scientist) call(ctx context.Context, method, endpoint string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.server+"/api/2.0/"+endpoint, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, endpoint, strconv.Itoa(resp.StatusCode), b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}
