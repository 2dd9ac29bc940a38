// Package mlmodel reads the folder that an MLflow client logs for a model: the
// MLmodel file with its flavors and signature, and the logged input example. It
// understands what 2.x and 3.x clients write, reads nothing outside the folder
// and no more than its limits, and runs none of the code that may lie there.
//
// Beside what MLflow writes it knows the files by which a training script hands
// a version over to the fleet; see Handover.
package mlmodel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Names in the folder.
const (
	// FileName is the description of the model.
	FileName = "MLmodel"
	// DefaultGraph is the graph of an ONNX flavor that names none.
	DefaultGraph = "model.onnx"
)

// Limits of what is read.
const (
	MaxSize    = 1 << 20  // of the MLmodel file, bytes
	MaxExample = 16 << 20 // of the input example, bytes
	maxSpecs   = 1 << 14  // columns or tensors of a signature
	maxRank    = 16
)

// Reasons to refuse a folder.
var (
	// ErrNotONNX says that there is no graph that devices can run.
	ErrNotONNX = errors.New("the model has no ONNX flavor, and devices run ONNX graphs: convert it and log it with mlflow.onnx.log_model")
	// ErrMalformed says that the description is not one of MLflow's.
	ErrMalformed = errors.New("not readable as an MLmodel")
	// ErrPath says that a name leads out of the folder.
	ErrPath = errors.New("not a path inside the model's folder")
	// ErrSignature says that the signature is of a kind that has no tensors.
	ErrSignature = errors.New("the signature has no fixed columns or tensors")
)

// Model is what an MLmodel file says.
type Model struct {
	Graph   string // path of the ONNX file below the folder
	Run     string // id of the run that logged it; empty when not said
	UUID    string // of MLflow 2
	ModelID string // of MLflow 3, "m-…"
	Inputs  []Spec // of the signature; nil without one
	Outputs []Spec
	Example *Example // nil when none was logged
	Created string   // as written
}

// Spec is one column or tensor of a signature.
type Spec struct {
	Name     string // may be empty for the only tensor
	Datatype string // of the Open Inference Protocol, such as FP32
	// Shape is a tensor's with -1 for the batch and what varies; nil for a column,
	// which is one value a row.
	Shape    []int64
	Optional bool // a column that may be missing
}

// Columns reports whether the specs are columns of a table.
func Columns(specs []Spec) bool {
	return len(specs) > 0 && !slices.ContainsFunc(specs, func(s Spec) bool { return s.Shape != nil })
}

// Example says where the logged input example lies.
type Example struct {
	Path string // below the folder
	Type string // dataframe, ndarray or json_object
}

// file is the MLmodel file as MLflow writes it.
type file struct {
	Flavors map[string]struct {
		Data any `yaml:"data"`
	} `yaml:"flavors"`
	Run       string `yaml:"run_id"`
	UUID      string `yaml:"model_uuid"`
	ModelID   string `yaml:"model_id"`
	Created   string `yaml:"utc_time_created"`
	Signature *struct {
		Inputs  string `yaml:"inputs"` // JSON
		Outputs string `yaml:"outputs"`
	} `yaml:"signature"`
	Example *struct {
		Path string `yaml:"artifact_path"`
		Type string `yaml:"type"`
	} `yaml:"saved_input_example_info"`
}

// Read reads the description of the model in a folder.
func Read(folder fs.FS) (*Model, error) {
	b, err := readBounded(folder, FileName, MaxSize)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", FileName, err)
	}
	return Parse(b)
}

// Parse reads an MLmodel file.
func Parse(b []byte) (*Model, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(b), MaxSize)
	}
	var f file
	if err := yaml.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	onnx, ok := f.Flavors["onnx"]
	if !ok {
		return nil, ErrNotONNX
	}
	m := &Model{Run: f.Run, UUID: f.UUID, ModelID: f.ModelID, Created: f.Created}
	var err error
	if m.Graph, err = graphPath(onnx.Data); err != nil {
		return nil, err
	}
	if f.Example != nil && f.Example.Path != "" {
		if err := checkPath(f.Example.Path); err != nil {
			return nil, err
		}
		m.Example = &Example{Path: f.Example.Path, Type: f.Example.Type}
	}
	if f.Signature == nil {
		return m, nil
	}
	if m.Inputs, err = parseSpecs("inputs", f.Signature.Inputs); err != nil {
		return nil, err
	}
	m.Outputs, err = parseSpecs("outputs", f.Signature.Outputs)
	return m, err
}

func graphPath(data any) (string, error) {
	name, ok := data.(string)
	if data == nil || ok && name == "" {
		name, ok = DefaultGraph, true
	}
	if !ok || path.Ext(name) != ".onnx" {
		return "", fmt.Errorf("%w: the ONNX flavor names %v as its graph", ErrMalformed, data)
	}
	return name, checkPath(name)
}

// checkPath refuses a name that could lead out of the folder, here or on a
// system with other separators.
func checkPath(name string) error {
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\:\x00") || len(name) > 1024 {
		return fmt.Errorf("%w: %.80q", ErrPath, name)
	}
	return nil
}

// wireSpec is one entry of a signature. The type of a column is a word; MLflow
// 3 also knows structured types, which are objects of further fields.
type wireSpec struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Required *bool  `json:"required"`
	Tensor   *struct {
		Datatype string  `json:"dtype"`
		Shape    []int64 `json:"shape"`
	} `json:"tensor-spec"`
}

func parseSpecs(side, text string) ([]Spec, error) {
	if text == "" || text == "null" {
		return nil, nil
	}
	var wire []wireSpec
	if err := json.Unmarshal([]byte(text), &wire); err != nil {
		return nil, fmt.Errorf("%w: signature %s: %w", ErrMalformed, side, err)
	}
	if len(wire) > maxSpecs {
		return nil, fmt.Errorf("%w: signature %s: %d entries, at most %d", ErrMalformed, side, len(wire), maxSpecs)
	}
	specs := make([]Spec, len(wire))
	names := map[string]bool{}
	for i := range wire {
		s, err := wire[i].spec()
		if err != nil {
			return nil, fmt.Errorf("signature %s: %w", side, err)
		}
		if names[s.Name] {
			return nil, fmt.Errorf("%w: signature %s: %q comes twice", ErrMalformed, side, s.Name)
		}
		names[s.Name] = true
		specs[i] = s
	}
	return specs, nil
}

// columnTypes are those of MLflow's DataType that are numbers or text.
var columnTypes = map[string]string{
	"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES",
}

// tensorTypes are names of numpy.
var tensorTypes = map[string]string{
	"bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
	"int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
	"float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "BYTES", "str": "BYTES",
}

func (w *wireSpec) spec() (Spec, error) {
	if len(w.Name) > 1024 || !utf8.ValidString(w.Name) || strings.ContainsFunc(w.Name, unicode.IsControl) {
		return Spec{}, fmt.Errorf("%w: a name is not text", ErrMalformed)
	}
	s := Spec{Name: w.Name, Optional: w.Required != nil && !*w.Required}
	known := columnTypes
	word := w.Type
	if w.Tensor != nil {
		known, word = tensorTypes, w.Tensor.Datatype
		if len(w.Tensor.Shape) == 0 || len(w.Tensor.Shape) > maxRank || slices.ContainsFunc(w.Tensor.Shape, func(n int64) bool { return n < -1 }) {
			return Spec{}, fmt.Errorf("%w: %q has shape %v", ErrMalformed, w.Name, w.Tensor.Shape)
		}
		s.Shape = w.Tensor.Shape
	}
	var ok bool
	if s.Datatype, ok = known[word]; !ok {
		return Spec{}, fmt.Errorf("%w: %q is of type %q", ErrSignature, w.Name, word)
	}
	return s, nil
}

// readBounded reads a small file of the folder.
func readBounded(folder fs.FS, name string, limit int64) ([]byte, error) {
	f, err := folder.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrMalformed, name, limit)
	}
	return b, err
}
