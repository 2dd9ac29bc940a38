package mlmodel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

const signature = `
signature:
  inputs: '[{"type": "double", "name": "sepal length", "required": true}, {"type": "long", "name": "age", "required": false}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]'
  params: null
`

// TestParse reads what 2.x and 3.x clients write.
func TestParse(t *testing.T) {
	inputs := []Spec{{Name: "sepal length", Datatype: "FP64"}, {Name: "age", Datatype: "INT64", Optional: true}}
	outputs := []Spec{{Datatype: "FP32", Shape: []int64{-1, 3}}}
	tests := []struct {
		name, text string
		want       Model
	}{
		{"2.x", `artifact_path: model
flavors:
  onnx: {data: model.onnx, onnx_version: 1.14.1, providers: [CPUExecutionProvider]}
  python_function: {loader_module: mlflow.onnx, python_version: 3.10.12, env: {conda: conda.yaml, virtualenv: python_env.yaml}}
mlflow_version: 2.22.0
model_size_bytes: 74121
model_uuid: aa
run_id: bb
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  type: dataframe
utc_time_created: '2026-11-23 09:00:00.000000'` + signature, Model{
			Graph: "model.onnx", Run: "bb", UUID: "aa", Created: "2026-11-23 09:00:00.000000", Inputs: inputs, Outputs: outputs,
			Example: &Example{Path: "input_example.json", Type: "dataframe"},
		}},
		{"3.x", `artifact_path: mlflow-artifacts:/1/models/m-5f/artifacts
flavors:
  onnx: {code: null, data: model.onnx, onnx_version: 1.19.0, providers: [CUDAExecutionProvider, CPUExecutionProvider]}
is_signature_from_type_hint: false
mlflow_version: 3.6.0
model_id: m-5f
model_uuid: m-5f
prompts: null
run_id: bb
type_hint_from_example: null` + signature, Model{Graph: "model.onnx", Run: "bb", UUID: "m-5f", ModelID: "m-5f", Inputs: inputs, Outputs: outputs}},
		{"little", "flavors: {onnx: {}}", Model{Graph: DefaultGraph}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.text))
			if err != nil || !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
	if !Columns(inputs) || Columns(outputs) || Columns(nil) {
		t.Error("columns and tensors are not told apart")
	}
}

func TestParseRefuses(t *testing.T) {
	graph := func(name string) string { return "flavors: {onnx: {data: " + name + "}}" }
	signed := func(inputs string) string {
		return "flavors: {onnx: {data: m.onnx}}\nsignature: {inputs: '" + inputs + "'}"
	}
	tests := []struct {
		name, text string
		want       error
	}{
		{"pickle", "flavors: {sklearn: {pickled_model: model.pkl}}", ErrNotONNX},
		{"nothing", "", ErrNotONNX},
		{"not YAML", "\tflavors", ErrMalformed},
		{"too large", strings.Repeat("#", MaxSize+1), ErrMalformed},
		{"graph above", graph("../model.onnx"), ErrPath},
		{"graph from the root", graph("/etc/model.onnx"), ErrPath},
		{"graph behind backslashes", graph(`"..\\model.onnx"`), ErrPath},
		{"graph on a drive", graph(`"c:model.onnx"`), ErrPath},
		{"graph with a NUL", graph(`"a\0.onnx"`), ErrPath},
		{"graph of another kind", graph("model.pkl"), ErrMalformed},
		{"graph that is a list", graph("[a]"), ErrMalformed},
		{"example above", "flavors: {onnx: {}}\nsaved_input_example_info: {artifact_path: ../x}", ErrPath},
		{"signature that is no JSON", signed("[{"), ErrMalformed},
		{"structured column", signed(`[{"name":"a","type":"array"}]`), ErrSignature},
		{"binary column", signed(`[{"name":"a","type":"binary"}]`), ErrSignature},
		{"column twice", signed(`[{"name":"a","type":"long"},{"name":"a","type":"long"}]`), ErrMalformed},
		{"shape below -1", signed(`[{"name":"a","type":"tensor","tensor-spec":{"dtype":"float32","shape":[-2]}}]`), ErrMalformed},
		{"no shape", signed(`[{"name":"a","type":"tensor","tensor-spec":{"dtype":"float32","shape":[]}}]`), ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse([]byte(tt.text)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestReadExample reads every form in which MLflow saves an example.
func TestReadExample(t *testing.T) {
	named := &Table{Header: []string{"a", "b"}, Rows: [][]string{{"1", "0.10000000000000001"}, {"", "2"}}}
	plain := &Table{Rows: named.Rows}
	for text, want := range map[string]*Table{
		`{"columns": ["a", "b"], "data": [[1, 0.10000000000000001], [null, 2]]}`:                      named,
		`{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 0.10000000000000001], [null, 2]]}}`: named,
		`{"inputs": [[1, 0.10000000000000001], [null, 2]]}`:                                           plain,
		`{"instances": [[[1], [0.10000000000000001]], [[null], [2]]]}`:                                plain,
		`{"inputs": {"x": [1, null], "y": [[0.10000000000000001], [2]]}}`:                             plain,
	} {
		m := &Model{Example: &Example{Path: "input_example.json"}}
		got, err := m.ReadExample(fstest.MapFS{"input_example.json": {Data: []byte(text)}})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "{}", `{"inputs": 3}`, `{"inputs": []}`, `{"inputs": [[1], [1, 2]]}`, `{"columns": ["a"], "data": [[1, 2]]}`,
		`{"inputs": [[{"a": 1}]]}`, `{"inputs": {"x": [1], "y": [1, 2]}}`,
	} {
		if got, err := parseExample([]byte(text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, ErrMalformed)
		}
	}
}

func TestHandover(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, HandoverFolder)
	if err := os.Mkdir(base, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(base, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("training.parquet", "")
	write("expected.csv", "")
	write("profile.yaml", "condition: light\nclasses: [day, night]\nabs: 0.001\n")
	h, err := ReadHandover(dir)
	if err != nil {
		t.Fatal(err)
	}
	if h.Training != filepath.Join(base, "training.parquet") || h.Expected != filepath.Join(base, "expected.csv") || h.ExampleExpected != "" {
		t.Errorf("got %+v", h)
	}
	if h.Settings.Condition != "light" || len(h.Settings.Classes) != 2 || *h.Settings.Abs != 0.001 {
		t.Errorf("settings are %+v", h.Settings)
	}
	if h.Evaluation != "" || h.Constraints != "" {
		t.Errorf("got evidence that is not there: %+v", h)
	}
	write("evaluation.parquet", "")
	write("constraints.json", "")
	write("profile.yaml", "truth: kind\nprotect: [light, site]\n")
	if h, err = ReadHandover(dir); err != nil || h.Evaluation != filepath.Join(base, "evaluation.parquet") || h.Constraints == "" || len(h.Settings.Protect) != 2 {
		t.Errorf("got %+v, %v", h, err)
	}
	write("profile.yaml", "conditions: light\n")
	if _, err := ReadHandover(dir); err == nil || !strings.Contains(err.Error(), "line 1: field conditions not found") {
		t.Errorf("a misspelt setting: got %v", err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(base, "training.csv")); err != nil {
		t.Fatal(err)
	}
	write("profile.yaml", "")
	if h, err = ReadHandover(dir); err != nil || h.Training != filepath.Join(base, "training.parquet") {
		t.Errorf("a link counts as a file: %+v, %v", h, err)
	}
}

func TestTruthColumn(t *testing.T) {
	for _, tt := range []struct {
		named   string
		columns []string
		want    string // empty: none can be told
	}{
		{"kind", []string{"x", "label", "kind"}, "kind"},
		{"kind", []string{"x", "label"}, ""},
		{"", []string{"x", "label"}, "label"},
		{"", []string{"truth", "x"}, "truth"},
		{"", []string{"truth", "label"}, ""},
		{"", []string{"x", "Label"}, ""},
	} {
		got, err := (&Settings{Truth: tt.named}).TruthColumn(tt.columns)
		if got != tt.want || errors.Is(err, ErrEvaluation) != (tt.want == "") {
			t.Errorf("%q of %v: got %q, %v, want %q", tt.named, tt.columns, got, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("flavors: {onnx: {data: m.onnx}}" + signature))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err == nil && checkPath(m.Graph) != nil {
			t.Errorf("graph %q leads out of the folder", m.Graph)
		}
	})
}
