// Package graph reads what an ONNX file says about itself: inputs, outputs,
// operator sets, producer, operators from elsewhere and data in other files. It
// reads the protobuf encoding field by field from an io.ReaderAt and steps over
// weights without loading them, so a control plane can check a file of many
// gigabytes in a few kilobytes of memory, without ONNX Runtime and without
// running anything the file brought along.
//
// Field numbers are those of onnx.proto (ONNX 1.19, IR version 12); fields it
// does not know are stepped over.
package graph

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Bounds of what Read takes. Real graphs stay far below them.
const (
	MaxText   = 1 << 10 // bytes of one name
	MaxValues = 1 << 10 // inputs or outputs, initializers among them
	MaxFields = 1 << 27 // protobuf fields visited in one file; a forest has some per node of its trees
	MaxDepth  = 32      // graphs inside nodes inside graphs
	MaxList   = 256     // operator sets, domains, external files
	MaxDims   = 16
	// MaxClasses bounds the class labels of all classifiers in a file.
	MaxClasses = 1 << 14
)

// Refusals. Each error wraps one of them.
var (
	// ErrFormat says that the bytes are not an ONNX model, or are cut off.
	ErrFormat = errors.New("not a readable ONNX model")
	// ErrBounds says that the file is more than this package reads.
	ErrBounds = errors.New("larger than any graph should be")
	// ErrExternalData says that weights lie in other files.
	ErrExternalData = errors.New("graph keeps its weights in other files")
	// ErrCustomOps says that operators are needed which no runtime brings along.
	ErrCustomOps = errors.New("graph needs operators that ONNX Runtime does not have")
	// ErrSchema says that graph and schema disagree.
	ErrSchema = errors.New("graph does not match the schema")
)

// Datatypes of values that are no tensors, and of tensors that no protocol
// type stands for.
const (
	Sequence = "SEQUENCE"
	Map      = "MAP"
	Other    = "OTHER"
)

// Graph is what an ONNX file says about itself.
type Graph struct {
	IRVersion       int64
	Producer        string
	ProducerVersion string
	Opsets          map[string]int64 // version by domain; "" is ai.onnx
	Inputs          []Tensor         // without those that an initializer fills
	Outputs         []Tensor
	Nodes           int // of the main graph and all inside it
	Initializers    int
	// CustomDomains are the domains of operators that neither ONNX Runtime nor
	// the model's own functions define.
	CustomDomains []string
	// External are the files, relative to the graph's, that hold weights.
	External []string
}

// Tensor is an input or an output.
type Tensor struct {
	Name     string
	Datatype string // name of the Open Inference Protocol, or Sequence, Map, Other
	// Shape has −1 for a dimension that is free or has a name. It is nil when
	// the file does not say.
	Shape []int64
	// Key is set on a Sequence of maps, one map a row with a number for each
	// class, as classic classifiers answer: the datatype of the maps' keys, INT64
	// or BYTES. Classes are the keys in the classifier's order, nil when the file
	// does not say.
	Key     string
	Classes []string
}

// IsScores says that the output is a sequence of maps that devices can turn
// into a tensor [rows, classes]. A schema describes it as that tensor.
func (t Tensor) IsScores() bool {
	return t.Datatype == Sequence && (t.Key == "INT64" || t.Key == "BYTES")
}

// String is the tensor for people, such as `X FP32 [-1 64]`.
func (t Tensor) String() string {
	if t.Key != "" {
		return t.Name + " " + t.Datatype + " of maps from " + t.Key
	}
	if t.Shape == nil {
		return t.Name + " " + t.Datatype
	}
	return fmt.Sprintf("%s %s %v", t.Name, t.Datatype, t.Shape)
}

// Read reads the header of an ONNX file of size bytes.
func Read(r io.ReaderAt, size int64) (*Graph, error) {
	d := newDecoder(r, size)
	if err := d.model(); err != nil {
		return nil, fmt.Errorf("read graph: %w", err)
	}
	return d.result()
}

// builtin are the domains of operators that ONNX Runtime brings along.
var builtin = []string{
	"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training",
	"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc",
}

// Check says whether a device can run the graph under the schema. It names
// everything that does not fit, so that one look is enough.
func Check(g *Graph, s *release.Schema) error {
	var errs []error
	if len(g.External) > 0 {
		errs = append(errs, fmt.Errorf("%w: %s; save the model as one file", ErrExternalData, strings.Join(g.External, ", ")))
	}
	if len(g.CustomDomains) > 0 {
		errs = append(errs, fmt.Errorf("%w: domains %s; export with standard operators only", ErrCustomOps, strings.Join(g.CustomDomains, ", ")))
	}
	errs = append(errs, checkSide("input", g.Inputs, s.Inputs, inputFits)...)
	errs = append(errs, checkSide("output", g.Outputs, s.Outputs, outputFits)...)
	for _, t := range g.Outputs {
		if want := s.Output(t.Name); want != nil && t.IsScores() {
			errs = append(errs, t.checkScores(want, s.Classes))
		}
	}
	for _, t := range g.Inputs {
		if s.Input(t.Name) == nil {
			errs = append(errs, fmt.Errorf("%w: the graph needs input %v, which the schema does not have", ErrSchema, t))
		}
	}
	return errors.Join(errs...)
}

func checkSide(side string, have []Tensor, want []release.Tensor, fits func(graph, schema int64) bool) (errs []error) {
	for _, w := range want {
		i := slices.IndexFunc(have, func(t Tensor) bool { return t.Name == w.Name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%w: %s %q is not in the graph, which has %v", ErrSchema, side, w.Name, have))
			continue
		}
		if err := have[i].check(side, w, fits); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (t Tensor) check(side string, want release.Tensor, fits func(graph, schema int64) bool) error {
	switch {
	case side == "output" && t.IsScores():
		return nil // checkScores looks at it
	case t.Datatype == Sequence || t.Datatype == Map:
		return fmt.Errorf("%w: %s %q is a %s, not a tensor nor a sequence of maps from class to score", ErrSchema, side, t.Name, strings.ToLower(t.Datatype))
	case t.Datatype != want.Datatype:
		return fmt.Errorf("%w: %s %q is %s in the graph and %s in the schema", ErrSchema, side, t.Name, t.Datatype, want.Datatype)
	case t.Shape != nil && !slices.EqualFunc(t.Shape, want.Shape, fits):
		return fmt.Errorf("%w: %s %q has shape %v in the graph and %v in the schema", ErrSchema, side, t.Name, t.Shape, want.Shape)
	}
	return nil
}

// checkScores holds maps from class to score against the tensor that stands for
// them: FP32 [rows, classes], column i for the schema's class i.
func (t Tensor) checkScores(want *release.Tensor, classes []string) error {
	if want.Datatype != "FP32" || len(want.Shape) != 2 || want.Shape[1] != int64(len(classes)) || len(classes) == 0 {
		return fmt.Errorf("%w: output %q holds a map from class to score for each row: the schema must name the classes and describe it as FP32 [-1 %d], not as %s %v",
			ErrSchema, t.Name, max(len(classes), len(t.Classes)), want.Datatype, want.Shape)
	}
	if t.Classes == nil {
		return nil
	}
	have, need := slices.Sorted(slices.Values(t.Classes)), slices.Sorted(slices.Values(classes))
	if !slices.Equal(have, need) {
		return fmt.Errorf("%w: output %q has scores for the classes %q, the schema for %q", ErrSchema, t.Name, t.Classes, classes)
	}
	return nil
}

// inputFits: what the schema lets through, the graph must take.
func inputFits(graph, schema int64) bool { return graph == -1 || graph == schema }

// outputFits: exporters often leave output shapes half said, so only two
// different numbers are a contradiction.
func outputFits(graph, schema int64) bool { return graph == -1 || schema == -1 || graph == schema }

// result turns what was collected into a Graph.
func (d *decoder) result() (*Graph, error) {
	if !d.sawGraph {
		return nil, fmt.Errorf("read graph: %w: it has no graph", ErrFormat)
	}
	g := d.g
	g.Inputs = slices.DeleteFunc(g.Inputs, func(t Tensor) bool { return d.filled[t.Name] })
	for i := range g.Outputs {
		g.Outputs[i].Classes = d.classes[g.Outputs[i].Name]
	}
	if len(g.Outputs) == 0 {
		return nil, fmt.Errorf("read graph: %w: it has no outputs", ErrFormat)
	}
	g.External = slices.Sorted(maps.Keys(d.external))
	for _, domain := range slices.Sorted(maps.Keys(d.domains)) {
		if !slices.Contains(builtin, domain) && !d.functions[domain] {
			g.CustomDomains = append(g.CustomDomains, domain)
		}
	}
	return g, nil
}
