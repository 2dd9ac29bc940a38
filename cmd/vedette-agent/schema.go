package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/vedette-edge/vedette/protocol/graph"
	"github.com/vedette-edge/vedette/protocol/release"
)

// decodeSchema reads a schema as YAML or JSON, which is YAML too. Fields that
// are not known are refused.
func decodeSchema(raw []byte) (*release.Schema, error) {
	var tree any
	if err := yaml.Unmarshal(raw, &tree); err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	s := &release.Schema{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	return s, s.Validate()
}

func readGraph(name string) (*graph.Graph, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open graph: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open graph: %w", err)
	}
	return graph.Read(f, st.Size())
}

// drafter makes a schema of what the graph, the rows' header and the flags say.
type drafter struct {
	graph    *graph.Graph
	features []string // names of the columns that are features
	classes  []string
	label    string
	scores   string
}

func (d *drafter) schema() (*release.Schema, error) {
	s := &release.Schema{Label: d.label, Scores: d.scores}
	var err error
	if s.Inputs, err = d.tensors(d.graph.Inputs); err != nil {
		return nil, err
	}
	if s.Outputs, err = d.tensors(d.graph.Outputs); err != nil {
		return nil, err
	}
	s.Classes = d.classes
	if err := d.nameFeatures(s); err != nil {
		return nil, err
	}
	d.findOutputs(s)
	return s, s.Validate()
}

var errNoClasses = errors.New("the graph gives scores by class and does not say which classes there are; name them with --classes")

var errNoShape = errors.New("the graph does not say its shape; write a schema and pass it with --schema")

func (d *drafter) tensors(list []graph.Tensor) ([]release.Tensor, error) {
	var out []release.Tensor
	for _, t := range list {
		if t.IsScores() {
			scores, err := d.zipped(t)
			if err != nil {
				return nil, err
			}
			out = append(out, scores)
			continue
		}
		if len(t.Shape) == 0 {
			return nil, fmt.Errorf("%q: %w", t.Name, errNoShape)
		}
		out = append(out, release.Tensor{Name: t.Name, Datatype: t.Datatype, Shape: slices.Clone(t.Shape)})
	}
	return out, nil
}

// zipped describes maps from class to score as the tensor that devices make of
// them. The order of its columns is that of the classes: the flag's, or else the
// graph's own.
func (d *drafter) zipped(t graph.Tensor) (release.Tensor, error) {
	if len(d.classes) == 0 {
		d.classes = t.Classes
	}
	if len(d.classes) == 0 {
		return release.Tensor{}, fmt.Errorf("output %q: %w", t.Name, errNoClasses)
	}
	return release.Tensor{Name: t.Name, Datatype: "FP32", Shape: []int64{-1, int64(len(d.classes))}}, nil
}

// nameFeatures gives the header's names to the inputs in their order.
func (d *drafter) nameFeatures(s *release.Schema) error {
	names := d.features
	for i := range s.Inputs {
		t := &s.Inputs[i]
		n, fixed := t.RowSize()
		if !fixed {
			return fmt.Errorf("input %q: %w", t.Name, errNoShape)
		}
		if int(n) > len(names) {
			break
		}
		for _, name := range names[:n] {
			t.Features = append(t.Features, release.Feature{Name: name})
		}
		names = names[n:]
	}
	if len(names) > 0 || len(s.Inputs[len(s.Inputs)-1].Features) == 0 {
		return fmt.Errorf("the rows have %d feature columns, the graph takes %s; leave out others with --condition or --ignore", len(d.features), inputSizes(s))
	}
	return nil
}

func inputSizes(s *release.Schema) string {
	total := int64(0)
	for i := range s.Inputs {
		n, _ := s.Inputs[i].RowSize()
		total += n
	}
	return strconv.FormatInt(total, 10)
}

// findOutputs takes the first whole number a row for the label and the first
// several numbers a row for the scores, unless flags name them.
func (d *drafter) findOutputs(s *release.Schema) {
	for i := range s.Outputs {
		t := &s.Outputs[i]
		n, fixed := t.RowSize()
		switch {
		case s.Label == "" && fixed && n == 1 && (t.Datatype == "INT64" || t.Datatype == "BYTES"):
			s.Label = t.Name
		case s.Scores == "" && fixed && n > 1 && fractional(t.Datatype):
			s.Scores = t.Name
		}
	}
	if t := s.Output(s.Scores); t != nil && len(s.Classes) == 0 {
		n, _ := t.RowSize()
		for k := range n {
			s.Classes = append(s.Classes, strconv.FormatInt(k, 10))
		}
	}
}
