package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/vedette-edge/vedette/protocol/release"
)

// demoModels are the committed models of the demo.
var demoModels = filepath.Join("..", "..", "deploy", "demo", "models")

const loggedMLmodel = `artifact_path: model
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_version: 1.16.0
  python_function:
    data: model.onnx
    loader_module: mlflow.onnx
model_uuid: 0123456789abcdef0123456789abcdef
run_id: 9f3c3b1c5f6e4c7b8a1d2e3f4a5b6c7d
saved_input_example_info:
  artifact_path: input_example.json
  format: tf-serving
  type: ndarray
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 64]}, "name": "X"}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}, "name": "label"}, {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 10]}, "name": "probabilities"}]'
  params: null
utc_time_created: '2026-11-23 09:00:00.000000'
`

// loggedFolder is the demo's first model as a client would have logged it,
// without the files of the handover.
func loggedFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "vedette"), 0o700); err != nil {
		t.Fatal(err)
	}
	copyTo(t, filepath.Join(dir, "model.onnx"), "digits-1.onnx")
	put(t, filepath.Join(dir, "MLmodel"), loggedMLmodel)
	return dir
}

func copyTo(t *testing.T, to, name string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(demoModels, name))
	if err != nil {
		t.Fatal(err)
	}
	put(t, to, string(b))
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readSchemaOf(t *testing.T, dir string) release.Schema {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, schemaFile))
	if err != nil {
		t.Fatal(err)
	}
	var s release.Schema
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestProfileOfLoggedModel: schema, baseline and golden vectors of a folder that
// MLflow's client logged, with the rows that the training script logged beside it.
func TestProfileOfLoggedModel(t *testing.T) {
	dir, to := loggedFolder(t), t.TempDir()
	copyTo(t, filepath.Join(dir, "model.onnx"), "digits-2.onnx")
	copyTo(t, filepath.Join(dir, "vedette", "training.csv"), "digits-2.train.csv")
	copyTo(t, filepath.Join(dir, "vedette", "expected.csv"), "digits-2.expected.csv")
	put(t, filepath.Join(dir, "vedette", "profile.yaml"), "source: scikit-learn 1.2.1\n")
	code, out, errOut := command(t, "profile", "--mlmodel", dir, "--to", to)
	if code != 0 || !strings.Contains(out, "agrees with training") || !strings.Contains(out, "conditions: clean, faded") {
		t.Fatalf("exit %d: %s%s", code, out, errOut)
	}
	s := readSchemaOf(t, to)
	if s.Label != "label" || s.Scores != "probabilities" || len(s.Inputs[0].Features) != 64 || len(s.Classes) != 10 {
		t.Errorf("schema is %+v", s)
	}
	golden, err := os.ReadFile(filepath.Join(to, goldenFile))
	if err != nil || !strings.Contains(string(golden), "scikit-learn 1.2.1") {
		t.Errorf("golden vectors do not say what computed them (%v)", err)
	}
}

// TestProfileOfInputExample: golden vectors come from the logged example and
// the framework's outputs for it; Parquet rows without outputs give the baseline.
func TestProfileOfInputExample(t *testing.T) {
	dir, to := loggedFolder(t), t.TempDir()
	rows := readCSV(t, "digits-1.train.csv")
	expected := readCSV(t, "digits-1.expected.csv")
	writeParquet(t, filepath.Join(dir, "vedette", "training.parquet"), rows[0], rows[1:])
	var example strings.Builder
	for i, row := range rows[1:4] {
		if i > 0 {
			example.WriteString(",")
		}
		example.WriteString("[" + strings.Join(row[:64], ",") + "]")
	}
	put(t, filepath.Join(dir, "input_example.json"), `{"inputs": [`+example.String()+`]}`)
	file, err := os.Create(filepath.Join(dir, "vedette", "example_expected.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if err := csv.NewWriter(file).WriteAll(expected[:4]); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := command(t, "profile", "--mlmodel", dir, "--to", to, "-o", "json")
	if code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, errOut)
	}
	var p Profiled
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	if p.Rows != int64(len(rows)-1) || p.GoldenRows != 3 || p.Worst > 1e-4 {
		t.Errorf("got %+v", p)
	}
}

func readCSV(t *testing.T, name string) [][]string {
	t.Helper()
	f, err := os.Open(filepath.Join(demoModels, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// writeParquet writes a table of whole numbers but for the column "condition".
func writeParquet(t *testing.T, path string, header []string, rows [][]string) {
	t.Helper()
	group := parquet.Group{}
	for _, name := range header {
		group[name] = parquet.Int(64)
	}
	group["condition"] = parquet.String()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := parquet.NewGenericWriter[map[string]any](f, parquet.NewSchema("rows", group))
	for _, row := range rows {
		line := map[string]any{"condition": row[len(row)-1]}
		for i, name := range header[:len(header)-1] {
			n, err := strconv.ParseInt(row[i], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			line[name] = n
		}
		if _, err := w.Write([]map[string]any{line}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestProfileRefusesLoggedModels(t *testing.T) {
	tests := []struct {
		name    string
		spoil   func(dir string)
		mention string
	}{
		{"no outputs of the framework", func(dir string) {
			copyTo(t, filepath.Join(dir, "vedette", "training.csv"), "digits-1.train.csv")
		}, `mlflow.log_text(outputs.to_csv(index=False), "vedette/expected.csv")`},
		{"no training rows", func(string) {}, "holds no training rows"},
		{"pickle", func(dir string) {
			put(t, filepath.Join(dir, "MLmodel"), "flavors:\n  sklearn:\n    pickled_model: model.pkl\n")
		}, "no ONNX flavor"},
		{"graph outside", func(dir string) {
			put(t, filepath.Join(dir, "MLmodel"), "flavors:\n  onnx:\n    data: ../../etc/model.onnx\n")
		}, "not a path inside the model's folder"},
		{"signature of another model", func(dir string) {
			put(t, filepath.Join(dir, "MLmodel"), strings.Replace(loggedMLmodel, "[-1, 64]", "[-1, 63]", 1))
			copyTo(t, filepath.Join(dir, "vedette", "training.csv"), "digits-1.train.csv")
			copyTo(t, filepath.Join(dir, "vedette", "expected.csv"), "digits-1.expected.csv")
		}, `"X" has shape [-1 63], in the graph [-1 64]`},
		{"outputs of another model", func(dir string) {
			copyTo(t, filepath.Join(dir, "vedette", "training.csv"), "digits-1.train.csv")
			copyTo(t, filepath.Join(dir, "vedette", "expected.csv"), "digits-2.expected.csv")
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := loggedFolder(t)
			tt.spoil(dir)
			code, out, errOut := command(t, "profile", "--mlmodel", dir, "--to", t.TempDir())
			if code == 0 || !strings.Contains(errOut, tt.mention) {
				t.Errorf("exit %d: %s%s, want %q", code, out, errOut, tt.mention)
			}
		})
	}
}
