package demo

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed train/*.py
var scripts embed.FS

// mlmodel is the file that MLflow's clients put beside a model, here as
// mlflow.onnx.log_model writes it.
const mlmodel = `artifact_path: model
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_version: 1.12.0
    providers:
    - CPUExecutionProvider
  python_function:
    data: model.onnx
    loader_module: mlflow.onnx
    python_version: 3.11.2
mlflow_version: 2.22.0
signature:
  inputs: '[{"name": "X", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 64]}}]'
  outputs: '[{"name": "label", "type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}, {"name": "probabilities", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 10]}}]'
`

// train makes version 2 for a retrain request: by the training script where
// this machine has a Python with scikit-learn and onnx, else from the files
// that it made before.
func (p *plant) train(ctx context.Context, event cloudEvent, sample string) (t training, by string, err error) {
	t.folder = p.path("trained")
	b, err := json.Marshal(event)
	if err != nil {
		return t, "", err
	}
	if err := write(p.path("event.json"), b); err != nil {
		return t, "", err
	}
	by = "the committed version 2: no Python with scikit-learn and onnx here (apt-get install python3-sklearn python3-onnx)"
	if python := python(ctx); python != "" {
		by, err = "deploy/demo/train/retrain.py", p.script(ctx, python, t.folder, sample)
	} else {
		err = p.committed(t.folder)
	}
	if err != nil {
		return t, by, err
	}
	if err := write(filepath.Join(t.folder, "model", "MLmodel"), []byte(mlmodel)); err != nil {
		return t, by, err
	}
	b, err = os.ReadFile(filepath.Join(t.folder, "run.json"))
	if err != nil {
		return t, by, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // a seed is logged as it was written
	return t, by, dec.Decode(&t.run)
}

// python finds an interpreter that can train.
func python(ctx context.Context) string {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.CommandContext(ctx, name, "-c", "import sklearn, onnx").Run() == nil {
			return name
		}
	}
	return ""
}

// script runs the training script.
func (p *plant) script(ctx context.Context, python, to, sample string) error {
	if err := os.CopyFS(p.path("pipeline"), scripts); err != nil {
		return fmt.Errorf("unpack the training script: %w", err)
	}
	_, err := call(ctx, []string{"PYTHONDONTWRITEBYTECODE=1"}, python, p.path("pipeline", "train", "retrain.py"), p.path("event.json"), to, sample)
	return err
}

// committed lays out the files of version 2 as the training script would.
func (p *plant) committed(to string) error {
	var made struct {
		Seed     int                           `json:"seed"`
		Sklearn  string                        `json:"scikit_learn"`
		Rows     int                           `json:"train_rows"`
		Accuracy map[string]map[string]float64 `json:"accuracy"`
	}
	b, err := models.ReadFile("models/metrics.json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &made); err != nil {
		return err
	}
	accuracy := made.Accuracy["digits-2"]
	run, err := json.Marshal(trainedRun{
		Params:  map[string]any{"seed": made.Seed, "rows": 2 * made.Rows}, // each row clean and faded
		Metrics: map[string]any{"accuracy_clean": accuracy["clean"], "accuracy_faded": accuracy["faded"]},
		Source:  "scikit-learn " + made.Sklearn,
	})
	if err != nil {
		return err
	}
	for name, from := range map[string]string{
		"model/model.onnx": "digits-2.onnx", "model/vedette/training.csv": "digits-2.train.csv", "model/vedette/expected.csv": "digits-2.expected.csv",
	} {
		b, err := models.ReadFile("models/" + from)
		if err != nil {
			return err
		}
		if err := write(filepath.Join(to, name), b); err != nil {
			return err
		}
	}
	return write(filepath.Join(to, "run.json"), run)
}

// write writes a file and makes the folder it is in.
func write(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600) //nolint:gosec // a file of the demo's own folder
}
