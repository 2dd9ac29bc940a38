package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/score"
	"github.com/vedette-edge/vedette/protocol/mlmodel"
	"github.com/vedette-edge/vedette/protocol/release"
)

// conditionColumn is the column of logged training rows that names the
// circumstance of each, unless settings name another.
const conditionColumn = "condition"

// logged is a model as an MLflow client logged it, with what the training script
// left for the fleet.
type logged struct {
	model    *mlmodel.Model
	handover *mlmodel.Handover
	example  *mlmodel.Table // that golden vectors are made of; nil when they come from the training rows
	temp     string         // folder of the example as a table; empty until it is written
}

func (l *logged) close() {
	if l.temp != "" {
		_ = os.RemoveAll(l.temp) // a copy, of which nothing is lost
	}
}

// exampleFile is what the framework computed for the input example.
func (l *logged) exampleFile() string {
	if l == nil || l.example == nil {
		return ""
	}
	return l.handover.ExampleExpected
}

// readLogged reads the folder of --mlmodel, fills flags that were not given from
// it and returns the path of the graph.
func (f *profileFlags) readLogged(given func(name string) bool) (graph string, err error) {
	l := &logged{}
	if l.model, err = mlmodel.Find(f.mlmodel); err != nil {
		return "", fmt.Errorf("--mlmodel: %w", err)
	}
	if l.handover, err = mlmodel.ReadHandover(f.mlmodel); err != nil {
		return "", err
	}
	f.logged = l
	f.take(given)
	if f.expected == "" && l.handover.ExampleExpected != "" {
		if l.example, err = l.model.ReadExample(os.DirFS(f.mlmodel)); err != nil {
			return "", err
		}
	}
	switch {
	case f.rows == "":
		return "", fmt.Errorf("%s holds no training rows (%s/training.csv or .parquet), and --rows names none\n%s", f.mlmodel, mlmodel.HandoverFolder, mlmodel.HowToLog)
	case f.expected == "" && l.exampleFile() == "":
		return "", fmt.Errorf("%s: %w\n%s", f.mlmodel, mlmodel.ErrHandover, mlmodel.HowToLog)
	}
	return filepath.Join(f.mlmodel, filepath.FromSlash(l.model.Graph)), nil
}

// take fills the flags that were not given from the settings of the handover.
func (f *profileFlags) take(given func(name string) bool) {
	h := f.logged.handover
	text := func(name string, to *string, from string) {
		if !given(name) {
			*to = from
		}
	}
	text("rows", &f.rows, h.Training)
	text("expected", &f.expected, h.Expected)
	text("condition", &f.condition, h.Settings.Condition)
	text("label", &f.label, h.Settings.Label)
	text("scores", &f.scores, h.Settings.Scores)
	text("source", &f.source, h.Settings.Source)
	if !given("ignore") {
		f.ignore = h.Settings.Ignore
	}
	if !given("classes") {
		f.classes = h.Settings.Classes
	}
	if abs := h.Settings.Abs; !given("abs") && abs != nil {
		f.abs = *abs
	}
	if rel := h.Settings.Rel; !given("rel") && rel != nil {
		f.rel = *rel
	}
}

// columns are the features that the signature names; nil when it names tensors.
func (l *logged) columns() []string {
	if !mlmodel.Columns(l.model.Inputs) {
		return nil
	}
	names := make([]string, len(l.model.Inputs))
	for i, s := range l.model.Inputs {
		names[i] = s.Name
	}
	return names
}

// check compares the signature's tensors with the graph's: a signature of
// another model would name the wrong inputs.
func (l *logged) check(s *release.Schema) error {
	for _, side := range []struct {
		name  string
		specs []mlmodel.Spec
		have  []release.Tensor
	}{{"input", l.model.Inputs, s.Inputs}, {"output", l.model.Outputs, s.Outputs}} {
		for i, spec := range side.specs {
			if spec.Shape == nil {
				continue
			}
			if err := fits(spec, i, side.have); err != nil {
				return fmt.Errorf("%s of the signature: %w; log the model again with the signature of this graph", side.name, err)
			}
		}
	}
	return nil
}

// fits compares one tensor of a signature with those of the graph, by name or,
// without one, by place.
func fits(spec mlmodel.Spec, place int, have []release.Tensor) error {
	at := slices.IndexFunc(have, func(t release.Tensor) bool { return t.Name == spec.Name })
	if spec.Name == "" {
		at = place
	}
	if at < 0 || at >= len(have) {
		return fmt.Errorf("the graph has no tensor %q, it has %s", spec.Name, tensorNames(have))
	}
	t := have[at]
	same := len(spec.Shape) == len(t.Shape)
	for i := range spec.Shape {
		same = same && (spec.Shape[i] < 0 || t.Shape[i] < 0 || spec.Shape[i] == t.Shape[i])
	}
	if !same {
		return fmt.Errorf("%q has shape %v, in the graph %v", t.Name, spec.Shape, t.Shape)
	}
	return nil
}

func tensorNames(list []release.Tensor) string {
	names := make([]string, len(list))
	for i, t := range list {
		names[i] = t.Name
	}
	return strings.Join(names, ", ")
}

// goldenExample makes the golden vectors of the logged input example and what
// the framework computed for it.
func (p *surveyor) goldenExample(ctx context.Context, session infer.Session) error {
	l := p.flags.logged
	rows, err := l.writeExample(p.schema)
	if err != nil {
		return err
	}
	flags := *p.flags
	flags.rows, flags.expected, flags.condition = rows, l.exampleFile(), ""
	example, err := flags.survey(ctx, session, p.schema)
	if err != nil {
		return fmt.Errorf("input example: %w", err)
	}
	p.golden, p.worst = example.golden, example.worst
	return nil
}

// writeExample writes the input example as a table with the features' names.
func (l *logged) writeExample(s *release.Schema) (path string, err error) {
	header := l.example.Header
	if len(header) == 0 {
		for _, t := range s.Inputs {
			for _, feature := range t.Features {
				header = append(header, feature.Name)
			}
		}
	}
	if len(header) != len(l.example.Rows[0]) {
		return "", fmt.Errorf("the input example has %d values a row, the model has %d features", len(l.example.Rows[0]), len(header))
	}
	if l.temp, err = os.MkdirTemp("", "vedette-example-"); err != nil {
		return "", fmt.Errorf("write input example: %w", err)
	}
	path = filepath.Join(l.temp, "example.csv")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("write input example: %w", err)
	}
	w := csv.NewWriter(f)
	if err := errors.Join(w.Write(header), w.WriteAll(l.example.Rows), f.Close()); err != nil {
		return "", fmt.Errorf("write input example: %w", err)
	}
	return path, nil
}

func openInput(name string) (in score.Input, closeFile func(), err error) {
	f, err := os.Open(name)
	if err != nil {
		return in, nil, fmt.Errorf("open table: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return in, nil, errors.Join(fmt.Errorf("open table: %w", err), f.Close())
	}
	return score.Input{Reader: f, Name: name, Size: info.Size()}, func() { _ = f.Close() }, nil
}

func tableColumns(name string) ([]string, error) {
	in, closeFile, err := openInput(name)
	if err != nil {
		return nil, err
	}
	defer closeFile()
	return score.Columns(in, format("", name))
}
