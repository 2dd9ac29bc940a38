package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
)

// MaxGolden bounds a file of golden vectors in bytes. A few hundred rows prove
// a graph; the device holds them in memory while it does.
const MaxGolden = 64 << 20

// DecodeGolden reads golden vectors: at most MaxGolden bytes, known fields
// only, every tensor with as many elements as its shape says.
func DecodeGolden(r io.Reader) (*Golden, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxGolden+1))
	if err != nil {
		return nil, fmt.Errorf("read golden vectors: %w", err)
	}
	if len(b) > MaxGolden {
		return nil, fmt.Errorf("golden vectors: %w: over %d bytes", ErrTooLarge, MaxGolden)
	}
	var g Golden
	if err := decodeStrict(bytes.NewReader(b), &g); err != nil {
		return nil, fmt.Errorf("golden vectors: %w", err)
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	return &g, nil
}

// Encode validates the golden vectors and writes their canonical bytes.
func (g *Golden) Encode() ([]byte, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	b, err := canonical(g)
	if err != nil {
		return nil, fmt.Errorf("golden vectors: %w", err)
	}
	if len(b) > MaxGolden {
		return nil, fmt.Errorf("golden vectors: %w: %d bytes, at most %d", ErrTooLarge, len(b), MaxGolden)
	}
	return b, nil
}

// Validate says what may not be in a set of golden vectors. Every error wraps
// ErrInvalid.
func (g *Golden) Validate() error {
	if g.Rows < 1 {
		return fmt.Errorf("golden vectors: %w", invalid("rows", "are %d, must be at least 1", g.Rows))
	}
	if len(g.Inputs) == 0 || len(g.Outputs) == 0 {
		return fmt.Errorf("golden vectors: %w", invalid("tensors", "need at least one input and one output"))
	}
	names := map[string]bool{}
	for i := range g.Inputs {
		if err := g.Inputs[i].check("input", g.Rows, names); err != nil {
			return fmt.Errorf("golden vectors: %w", err)
		}
	}
	clear(names)
	for i := range g.Outputs {
		o := &g.Outputs[i]
		if err := o.check("output", g.Rows, names); err != nil {
			return fmt.Errorf("golden vectors: %w", err)
		}
		if !plainNumber(o.Abs) || !plainNumber(o.Rel) || o.Abs < 0 || o.Rel < 0 {
			return fmt.Errorf("golden vectors: %w", invalid("output "+strconv.Quote(o.Name), "has tolerances %g and %g, must be finite and not negative", o.Abs, o.Rel))
		}
	}
	return nil
}

func (v *Values) check(side string, rows int, names map[string]bool) error {
	at := fmt.Sprintf("%s %q", side, v.Name)
	if err := checkTexts(at, v.Name); err != nil {
		return err
	}
	if names[v.Name] {
		return invalid(at, "is there twice")
	}
	names[v.Name] = true
	if len(v.Shape) == 0 || v.Shape[0] != int64(rows) {
		return invalid(at, "has shape %v, must begin with the %d rows", v.Shape, rows)
	}
	n, ok := elements(v.Shape)
	if !ok || n != int64(v.Len()) || (len(v.Data) > 0 && len(v.Strings) > 0) {
		return invalid(at, "has %d elements for shape %v", len(v.Data)+len(v.Strings), v.Shape)
	}
	if slices.ContainsFunc(v.Data, func(x float64) bool { return math.IsInf(x, 0) }) {
		return invalid(at, "has an infinite value")
	}
	return nil
}

// Len is the number of elements.
func (v *Values) Len() int { return max(len(v.Data), len(v.Strings)) }

// elements multiplies the dimensions; all must be known and positive.
func elements(shape []int64) (n int64, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 1 || n > math.MaxInt32/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// Check says where the golden vectors do not fit the schema: each of its inputs
// and outputs must be there, with its datatype's kind of values and its shape.
// An output that the schema has and the vectors lack is an error too: what is
// not compared is not proven.
func (g *Golden) Check(s *Schema) error {
	outputs := make([]Values, len(g.Outputs))
	for i, o := range g.Outputs {
		outputs[i] = o.Values
	}
	if err := errors.Join(checkSide("input", s.Inputs, g.Inputs), checkSide("output", s.Outputs, outputs)); err != nil {
		return fmt.Errorf("golden vectors: %w", err)
	}
	for _, o := range g.Outputs {
		if t := s.Output(o.Name); !isFloat(t.Datatype) && (o.Abs != 0 || o.Rel != 0) {
			return fmt.Errorf("golden vectors: %w", invalid("output "+strconv.Quote(o.Name), "is %s and must be equal: its tolerances must be 0", t.Datatype))
		}
	}
	return nil
}

func checkSide(side string, want []Tensor, got []Values) error {
	for i := range got {
		if find(want, got[i].Name) == nil {
			return invalid(fmt.Sprintf("%s %q", side, got[i].Name), "is not in the schema")
		}
	}
	for _, t := range want {
		i := slices.IndexFunc(got, func(v Values) bool { return v.Name == t.Name })
		if i < 0 {
			return invalid(fmt.Sprintf("%s %q", side, t.Name), "is missing")
		}
		if err := t.fits(side, &got[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tensor) fits(side string, v *Values) error {
	at := fmt.Sprintf("%s %q", side, t.Name)
	match := len(t.Shape) == len(v.Shape)
	for i := 0; match && i < len(t.Shape); i++ {
		match = t.Shape[i] == -1 || t.Shape[i] == v.Shape[i] || i == 0
	}
	if !match {
		return invalid(at, "has shape %v, the schema says %v", v.Shape, t.Shape)
	}
	if (t.Datatype == "BYTES") != (len(v.Strings) > 0) {
		return invalid(at, "is %s: BYTES need strings, every other datatype needs data", t.Datatype)
	}
	if isFloat(t.Datatype) || t.Datatype == "BYTES" {
		return nil
	}
	if i := slices.IndexFunc(v.Data, func(x float64) bool { return x != math.Trunc(x) || math.Abs(x) > MaxSequence }); i >= 0 {
		return invalid(at, "is %s but element %d is %g", t.Datatype, i, v.Data[i])
	}
	return nil
}

func isFloat(datatype string) bool {
	return slices.Contains([]string{"FP16", "BF16", "FP32", "FP64"}, datatype)
}

// MarshalJSON writes NaN as null.
func (f Floats) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 2+len(f)*8)
	b = append(b, '[')
	for i, v := range f {
		if i > 0 {
			b = append(b, ',')
		}
		if math.IsNaN(v) {
			b = append(b, "null"...)
			continue
		}
		n, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		b = append(b, n...)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads null as NaN.
func (f *Floats) UnmarshalJSON(b []byte) error {
	var list []*float64
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	*f = make(Floats, len(list))
	for i, v := range list {
		(*f)[i] = math.NaN()
		if v != nil {
			(*f)[i] = *v
		}
	}
	return nil
}
