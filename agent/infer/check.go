package infer

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/vedette-edge/vedette/protocol/release"
)

// MaxID bounds a caller's prediction id, in bytes.
const MaxID = 256

// checker tests requests against a schema. It is made once per release.
type checker struct {
	inputs  []inputCheck
	outputs []string
}

type inputCheck struct {
	spec  release.Tensor
	size  int // elements of a row, −1 when a dimension after the first is free
	rules []rule
}

// rule is what one feature may not be. Only features with a rule are looked at.
type rule struct {
	index    int
	name     string
	refuse   bool // missing values
	min, max *float64
}

func newChecker(s *release.Schema) (*checker, error) {
	c := &checker{}
	for _, t := range s.Inputs {
		in, err := newInputCheck(t)
		if err != nil {
			return nil, err
		}
		c.inputs = append(c.inputs, in)
	}
	for _, t := range s.Outputs {
		c.outputs = append(c.outputs, t.Name)
	}
	if len(c.inputs) == 0 || len(c.outputs) == 0 {
		return nil, errors.New("no inputs or no outputs")
	}
	return c, nil
}

func newInputCheck(t release.Tensor) (inputCheck, error) {
	if !KnownDatatype(t.Datatype) {
		return inputCheck{}, fmt.Errorf("input %q: datatype %q cannot be served", t.Name, t.Datatype)
	}
	if len(t.Shape) == 0 {
		return inputCheck{}, fmt.Errorf("input %q has no batch dimension", t.Name)
	}
	in := inputCheck{spec: t, size: -1}
	if n, fixed := t.RowSize(); fixed {
		in.size = int(n)
	}
	for i, f := range t.Features {
		if f.Missing == "refuse" || f.Min != nil || f.Max != nil {
			in.rules = append(in.rules, rule{index: i, name: f.Name, refuse: f.Missing == "refuse", min: f.Min, max: f.Max})
		}
	}
	return in, nil
}

// output is the index of a named output, −1 for none.
func (c *checker) output(name string) int { return slices.Index(c.outputs, name) }

// request puts the inputs into the order of the schema, in room where the order
// is another, and counts the rows. Its
// errors are the caller's, and each is an *InputError: nothing that such a
// request says of itself is believed, its rows least of all.
func (c *checker) request(req *Request, room []Tensor, maxRows int) (in []Tensor, rows int, err error) {
	if len(req.Key) > MaxID {
		return nil, 0, &InputError{Row: -1, Reason: fmt.Sprintf("key has %d bytes, at most %d are taken", len(req.Key), MaxID)}
	}
	if len(req.ID) > MaxID {
		return nil, 0, &InputError{Row: -1, Reason: fmt.Sprintf("id has %d bytes, at most %d are taken", len(req.ID), MaxID)}
	}
	for _, name := range req.Outputs {
		if c.output(name) < 0 {
			return nil, 0, &InputError{Row: -1, Reason: fmt.Sprintf("there is no output %q, but %q", name, c.outputs)}
		}
	}
	in, err = c.order(req.Inputs, room)
	if err != nil {
		return nil, 0, err
	}
	if shape := in[0].Shape; len(shape) > 0 {
		rows = int(shape[0]) // to be found in every tensor
	}
	for i := range in {
		if err := c.inputs[i].tensor(&in[i], rows, maxRows); err != nil {
			return nil, 0, err
		}
	}
	return in, rows, nil
}

// order puts the tensors into the order of the schema, in room where it must.
func (c *checker) order(given, room []Tensor) ([]Tensor, error) {
	if len(c.inputs) == 1 && len(given) == 1 && given[0].Name == c.inputs[0].spec.Name {
		return given, nil
	}
	in := room[:0]
	for i := range c.inputs {
		name := c.inputs[i].spec.Name
		at := slices.IndexFunc(given, func(t Tensor) bool { return t.Name == name })
		if at < 0 {
			return nil, &InputError{Input: name, Row: -1, Reason: "is missing" + c.unknown(given)}
		}
		in = append(in, given[at])
	}
	for _, t := range given {
		if !c.has(t.Name) {
			return nil, &InputError{Input: t.Name, Row: -1, Reason: "is not an input of this model"}
		}
	}
	if len(given) != len(in) {
		return nil, &InputError{Row: -1, Reason: "an input is given twice"}
	}
	return in, nil
}

func (c *checker) has(input string) bool {
	return slices.ContainsFunc(c.inputs, func(ic inputCheck) bool { return ic.spec.Name == input })
}

// unknown names a given tensor that the schema does not have, likely the missing
// one by another name.
func (c *checker) unknown(given []Tensor) string {
	for _, t := range given {
		if !c.has(t.Name) {
			return fmt.Sprintf("; the request has %.64q, which is not an input of this model", t.Name)
		}
	}
	return ""
}

func (ic *inputCheck) tensor(t *Tensor, rows, maxRows int) error {
	if t.Datatype != ic.spec.Datatype {
		return ic.errorf(-1, "", "datatype is %q, the model takes %q", t.Datatype, ic.spec.Datatype)
	}
	if err := ic.shape(t.Shape, rows, maxRows); err != nil {
		return err
	}
	want, err := Elements(t.Shape)
	if err != nil {
		return ic.errorf(-1, "", "shape %v: %v", t.Shape, err)
	}
	got, ok := dataLen(t.Datatype, t.Data)
	if !ok {
		return ic.errorf(-1, "", "data is %T, datatype %s needs another type", t.Data, t.Datatype)
	}
	if got != want {
		return ic.errorf(-1, "", "data has %d elements, shape %v needs %d", got, t.Shape, want)
	}
	if len(ic.rules) == 0 {
		return nil
	}
	return ic.values(t, rows)
}

func (ic *inputCheck) shape(got []int64, rows, maxRows int) error {
	want := ic.spec.Shape
	if len(got) != len(want) {
		return ic.errorf(-1, "", "shape is %v, the model takes %v", got, want)
	}
	if got[0] < 1 || got[0] > int64(maxRows) {
		return ic.errorf(-1, "", "shape %v has %d rows, 1 to %d are taken", got, got[0], maxRows)
	}
	if got[0] != int64(rows) {
		return ic.errorf(-1, "", "has %d rows, the first input has %d", got[0], rows)
	}
	for i, d := range want {
		if d >= 0 && got[i] != d {
			return ic.errorf(-1, "", "shape is %v, the model takes %v", got, want)
		}
	}
	return nil
}

// values applies the rules to every row.
func (ic *inputCheck) values(t *Tensor, rows int) error {
	if ic.size < 0 {
		return nil
	}
	switch d := t.Data.(type) {
	case []float32:
		return checkRules(ic, d, rows)
	case []float64:
		return checkRules(ic, d, rows)
	case []Float16:
		return checkHalves(ic, d, rows)
	case []BFloat16:
		return checkHalves(ic, d, rows)
	case []int64:
		return checkRules(ic, d, rows)
	case []int32:
		return checkRules(ic, d, rows)
	case []int16:
		return checkRules(ic, d, rows)
	case []int8:
		return checkRules(ic, d, rows)
	case []uint64:
		return checkRules(ic, d, rows)
	case []uint32:
		return checkRules(ic, d, rows)
	case []uint16:
		return checkRules(ic, d, rows)
	case []uint8:
		return checkRules(ic, d, rows)
	}
	return nil // strings and booleans have no range
}

func checkRules[T number](ic *inputCheck, data []T, rows int) error {
	for row := range rows {
		line := data[row*ic.size : (row+1)*ic.size]
		for i := range ic.rules {
			r := &ic.rules[i]
			if r.index >= len(line) {
				break
			}
			if reason := r.broken(float64(line[r.index])); reason != "" {
				return ic.errorf(row, r.name, "%s", reason)
			}
		}
	}
	return nil
}

// checkHalves is checkRules for numbers that Go cannot compare.
func checkHalves[T half](ic *inputCheck, data []T, rows int) error {
	plain := make([]float32, len(data))
	for i, h := range data {
		plain[i] = h.Float32()
	}
	return checkRules(ic, plain, rows)
}

// broken says how v breaks the rule, "" when it does not. A missing value is
// NaN and is in no range; whether it may pass is a matter of refuse alone.
func (r *rule) broken(v float64) string {
	switch {
	case math.IsNaN(v):
		if r.refuse {
			return "is missing, which the model refuses"
		}
	case r.min != nil && v < *r.min:
		return fmt.Sprintf("is %v, below the valid minimum %v", v, *r.min)
	case r.max != nil && v > *r.max:
		return fmt.Sprintf("is %v, above the valid maximum %v", v, *r.max)
	}
	return ""
}

func (ic *inputCheck) errorf(row int, feature, format string, args ...any) error {
	return &InputError{Input: ic.spec.Name, Row: row, Feature: feature, Reason: fmt.Sprintf(format, args...)}
}
