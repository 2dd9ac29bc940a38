package infer

import (
	"errors"
	"fmt"
	"math"

	"github.com/vedette-edge/vedette/protocol/release"
)

// maxElements bounds one tensor, so that a shape from outside cannot overflow.
const maxElements = math.MaxInt32

var errShape = errors.New("a dimension is negative or the tensor too large")

type number interface {
	~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64
}

// Elements is the product of a shape without free dimensions.
func Elements(shape []int64) (int, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || d > maxElements {
			return 0, errShape
		}
		if n *= d; n > maxElements {
			return 0, errShape
		}
	}
	return int(n), nil
}

// KnownDatatype reports whether tensors of the datatype can be served.
func KnownDatatype(datatype string) bool {
	_, err := MakeData(datatype, 0)
	return err == nil
}

// MakeData makes a zero slice of n elements for the datatype.
func MakeData(datatype string, n int) (any, error) {
	switch datatype {
	case "BOOL":
		return make([]bool, n), nil
	case "UINT8":
		return make([]uint8, n), nil
	case "UINT16":
		return make([]uint16, n), nil
	case "UINT32":
		return make([]uint32, n), nil
	case "UINT64":
		return make([]uint64, n), nil
	case "INT8":
		return make([]int8, n), nil
	case "INT16":
		return make([]int16, n), nil
	case "INT32":
		return make([]int32, n), nil
	case "INT64":
		return make([]int64, n), nil
	case "FP16":
		return make([]Float16, n), nil
	case "BF16":
		return make([]BFloat16, n), nil
	case "FP32":
		return make([]float32, n), nil
	case "FP64":
		return make([]float64, n), nil
	case "BYTES":
		return make([]string, n), nil
	}
	return nil, fmt.Errorf("datatype %q is not supported", datatype)
}

// Fit returns t's data as n elements of T, keeping the slice that is there when
// it has the room, so that sessions can fill outputs without allocating.
func Fit[T any](t *Tensor, n int) []T {
	d, ok := t.Data.([]T)
	switch {
	case ok && len(d) == n:
		return d
	case ok && cap(d) >= n:
		d = d[:n]
	default:
		d = make([]T, n)
	}
	t.Data = d
	return d
}

// FitData makes t's data n elements of its datatype, keeping the slice that is
// there when it is just that; its elements stay what they were.
func (t *Tensor) FitData(n int) (err error) {
	if has, ok := dataLen(t.Datatype, t.Data); ok && has == n {
		return nil
	}
	t.Data, err = MakeData(t.Datatype, n)
	return err
}

// FitShape sets the shape, keeping the slice that is there when it fits.
func (t *Tensor) FitShape(rows int, rest ...int64) {
	if len(t.Shape) != len(rest)+1 {
		t.Shape = make([]int64, len(rest)+1)
	}
	t.Shape[0] = int64(rows)
	copy(t.Shape[1:], rest)
}

// dataLen is the length of data, false when it is not of the datatype's type.
func dataLen(datatype string, data any) (int, bool) {
	switch d := data.(type) {
	case []bool:
		return len(d), datatype == "BOOL"
	case []uint8:
		return len(d), datatype == "UINT8"
	case []uint16:
		return len(d), datatype == "UINT16"
	case []uint32:
		return len(d), datatype == "UINT32"
	case []uint64:
		return len(d), datatype == "UINT64"
	case []int8:
		return len(d), datatype == "INT8"
	case []int16:
		return len(d), datatype == "INT16"
	case []int32:
		return len(d), datatype == "INT32"
	case []int64:
		return len(d), datatype == "INT64"
	case []Float16:
		return len(d), datatype == "FP16"
	case []BFloat16:
		return len(d), datatype == "BF16"
	case []float32:
		return len(d), datatype == "FP32"
	case []float64:
		return len(d), datatype == "FP64"
	case []string:
		return len(d), datatype == "BYTES"
	}
	return 0, false
}

// Slice is the rows [from, to) of a tensor with rows rows, sharing its data.
func (t Tensor) Slice(from, to, rows int) (Tensor, error) {
	n, ok := dataLen(t.Datatype, t.Data)
	if !ok || rows <= 0 || n%rows != 0 || from < 0 || to > rows || from > to {
		return Tensor{}, fmt.Errorf("tensor %q cannot be cut at rows %d to %d of %d", t.Name, from, to, rows)
	}
	size := n / rows
	out := Tensor{Name: t.Name, Datatype: t.Datatype, Shape: append([]int64(nil), t.Shape...)}
	out.Shape[0] = int64(to - from)
	out.Data = cut(t.Data, from*size, to*size)
	return out, nil
}

func cut(data any, from, to int) any {
	switch d := data.(type) {
	case []bool:
		return d[from:to:to]
	case []uint8:
		return d[from:to:to]
	case []uint16:
		return d[from:to:to]
	case []uint32:
		return d[from:to:to]
	case []uint64:
		return d[from:to:to]
	case []int8:
		return d[from:to:to]
	case []int16:
		return d[from:to:to]
	case []int32:
		return d[from:to:to]
	case []int64:
		return d[from:to:to]
	case []Float16:
		return d[from:to:to]
	case []BFloat16:
		return d[from:to:to]
	case []float32:
		return d[from:to:to]
	case []float64:
		return d[from:to:to]
	case []string:
		return d[from:to:to]
	}
	return nil
}

// FromValues makes the tensor that spec describes of golden values.
func FromValues(spec release.Tensor, v release.Values) (Tensor, error) {
	n, err := Elements(v.Shape)
	if err != nil {
		return Tensor{}, fmt.Errorf("values %q: shape %v: %w", v.Name, v.Shape, err)
	}
	t := Tensor{Name: spec.Name, Datatype: spec.Datatype, Shape: v.Shape}
	have := len(v.Data)
	if spec.Datatype == "BYTES" {
		have = len(v.Strings)
	}
	if have != n {
		return Tensor{}, fmt.Errorf("values %q: %d elements, shape %v needs %d", v.Name, have, v.Shape, n)
	}
	if t.Data, err = MakeData(spec.Datatype, n); err != nil {
		return Tensor{}, fmt.Errorf("values %q: %w", v.Name, err)
	}
	fill(t.Data, v)
	return t, nil
}

func fill(data any, v release.Values) {
	switch d := data.(type) {
	case []string:
		copy(d, v.Strings)
	case []bool:
		for i, x := range v.Data {
			d[i] = x != 0
		}
	case []uint8:
		convert(d, v.Data)
	case []uint16:
		convert(d, v.Data)
	case []uint32:
		convert(d, v.Data)
	case []uint64:
		convert(d, v.Data)
	case []int8:
		convert(d, v.Data)
	case []int16:
		convert(d, v.Data)
	case []int32:
		convert(d, v.Data)
	case []int64:
		convert(d, v.Data)
	case []Float16:
		fillHalves(d, v.Data, NewFloat16)
	case []BFloat16:
		fillHalves(d, v.Data, NewBFloat16)
	case []float32:
		convert(d, v.Data)
	case []float64:
		convert(d, v.Data)
	}
}

func convert[T, F number](to []T, from []F) {
	for i, x := range from {
		to[i] = T(x)
	}
}

// Values is the tensor as golden values.
func (t Tensor) Values() release.Values {
	v := release.Values{Name: t.Name, Shape: t.Shape}
	if s, ok := t.Data.([]string); ok {
		v.Strings = s
		return v
	}
	n, _ := dataLen(t.Datatype, t.Data)
	v.Data = make([]float64, n)
	switch d := t.Data.(type) {
	case []bool:
		for i, x := range d {
			if x {
				v.Data[i] = 1
			}
		}
	case []uint8:
		convert(v.Data, d)
	case []uint16:
		convert(v.Data, d)
	case []uint32:
		convert(v.Data, d)
	case []uint64:
		convert(v.Data, d)
	case []int8:
		convert(v.Data, d)
	case []int16:
		convert(v.Data, d)
	case []int32:
		convert(v.Data, d)
	case []int64:
		convert(v.Data, d)
	case []Float16:
		fromHalves(v.Data, d)
	case []BFloat16:
		fromHalves(v.Data, d)
	case []float32:
		convert(v.Data, d)
	case []float64:
		convert(v.Data, d)
	}
	return v
}

// GoldenInputs are the golden inputs as tensors in the order of the schema.
func GoldenInputs(s *release.Schema, g *release.Golden) ([]Tensor, error) {
	in := make([]Tensor, len(s.Inputs))
	for i, spec := range s.Inputs {
		found := false
		for _, v := range g.Inputs {
			if v.Name != spec.Name {
				continue
			}
			t, err := FromValues(spec, v)
			if err != nil {
				return nil, err
			}
			in[i], found = t, true
		}
		if !found {
			return nil, fmt.Errorf("golden vectors have no input %q", spec.Name)
		}
	}
	return in, nil
}

// firstRow cuts inputs down to one row, or to the fixed batch of the schema.
func firstRow(s *release.Schema, in []Tensor, rows int) ([]Tensor, int, error) {
	n := fixedBatch(s)
	if n > rows {
		return zeroInputs(s)
	}
	out := make([]Tensor, len(in))
	for i, t := range in {
		var err error
		if out[i], err = t.Slice(0, n, rows); err != nil {
			return nil, 0, err
		}
	}
	return out, n, nil
}

// zeroInputs are inputs of zeros and empty strings; free dimensions get one.
func zeroInputs(s *release.Schema) ([]Tensor, int, error) {
	n := fixedBatch(s)
	in := make([]Tensor, len(s.Inputs))
	for i, spec := range s.Inputs {
		shape := append([]int64(nil), spec.Shape...)
		for k := range shape {
			shape[k] = max(shape[k], 1)
		}
		shape[0] = int64(n)
		size, err := Elements(shape)
		if err != nil {
			return nil, 0, fmt.Errorf("input %q: shape %v: %w", spec.Name, spec.Shape, err)
		}
		data, err := MakeData(spec.Datatype, size)
		if err != nil {
			return nil, 0, fmt.Errorf("input %q: %w", spec.Name, err)
		}
		in[i] = Tensor{Name: spec.Name, Datatype: spec.Datatype, Shape: shape, Data: data}
	}
	return in, n, nil
}

// fixedBatch is the batch size that the schema demands, 1 when it is free.
func fixedBatch(s *release.Schema) int {
	for _, t := range s.Inputs {
		if len(t.Shape) > 0 && t.Shape[0] > 0 {
			return int(t.Shape[0])
		}
	}
	return 1
}
