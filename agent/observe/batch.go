package observe

import (
	"math"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// batch turns tensors into the plain numbers that sketches take. It keeps its
// buffers from call to call.
type batch struct {
	info    *info
	out     sketch.Batch
	numbers [][]float32 // by input, then by output
	class   []int64
}

func newBatch(in *info) *batch {
	b := &batch{info: in}
	if in.schema == nil {
		return b
	}
	b.numbers = make([][]float32, len(in.schema.Inputs)+len(in.schema.Outputs))
	b.out.Inputs = make([]sketch.Tensor, 0, len(in.schema.Inputs))
	b.out.Outputs = make([]sketch.Tensor, 0, len(in.schema.Outputs))
	return b
}

// of converts a call. The result is valid until the next one, and no longer
// than the call's own slices.
func (b *batch) of(c *infer.Call) *sketch.Batch {
	b.out.Rows, b.out.Class, b.out.Scores, b.out.Classes = c.Rows, nil, nil, 0
	b.out.Inputs, b.out.Outputs = b.out.Inputs[:0], b.out.Outputs[:0]
	for i := range c.Inputs {
		b.out.Inputs = append(b.out.Inputs, b.tensor(i, &c.Inputs[i], c.Rows))
	}
	s := b.info.schema
	for i := range c.Outputs {
		t := &c.Outputs[i]
		switch t.Name {
		case s.Label:
			b.out.Class = b.classes(t)
		case s.Scores:
			x := b.tensor(len(s.Inputs)+i, t, c.Rows)
			b.out.Scores, b.out.Classes = x.Data, x.Width
		default:
			if s.Label == "" && s.Scores == "" {
				b.out.Outputs = append(b.out.Outputs, b.tensor(len(s.Inputs)+i, t, c.Rows))
			}
		}
	}
	return &b.out
}

// tensor converts one tensor, numbers into buffer i.
func (b *batch) tensor(i int, t *infer.Tensor, rows int) sketch.Tensor {
	out := sketch.Tensor{Name: t.Name, Shape: t.Shape[min(1, len(t.Shape)):]}
	if rows <= 0 {
		return out
	}
	if s, ok := t.Data.([]string); ok {
		out.Strings, out.Width = s, len(s)/rows
		return out
	}
	if i >= len(b.numbers) { // more tensors than the schema has: nothing watches them
		return out
	}
	out.Data, b.numbers[i] = numbers(t, b.numbers[i][:0])
	out.Width = len(out.Data) / rows
	return out
}

// numbers returns the elements as float32, in place when they are, else in buf,
// whose possibly larger self comes second.
func numbers(t *infer.Tensor, buf []float32) (data, grown []float32) {
	switch d := t.Data.(type) {
	case []float32:
		return d, buf
	case []float64:
		buf = convert(buf, d)
	case []infer.Float16:
		buf = widen(buf, d)
	case []infer.BFloat16:
		buf = widen(buf, d)
	case []int64:
		buf = convert(buf, d)
	case []int32:
		buf = convert(buf, d)
	case []int16:
		buf = convert(buf, d)
	case []int8:
		buf = convert(buf, d)
	case []uint64:
		buf = convert(buf, d)
	case []uint32:
		buf = convert(buf, d)
	case []uint16:
		buf = convert(buf, d)
	case []uint8:
		buf = convert(buf, d)
	case []bool:
		for _, v := range d {
			if v {
				buf = append(buf, 1)
			} else {
				buf = append(buf, 0)
			}
		}
	}
	return buf, buf
}

type number interface {
	~float64 | ~int64 | ~int32 | ~int16 | ~int8 | ~uint64 | ~uint32 | ~uint16 | ~uint8
}

func convert[T number](buf []float32, from []T) []float32 {
	for _, v := range from {
		buf = append(buf, float32(v))
	}
	return buf
}

func widen[T interface{ Float32() float32 }](buf []float32, from []T) []float32 {
	for _, v := range from {
		buf = append(buf, v.Float32())
	}
	return buf
}

// classes returns the predicted classes as indices. A class that the schema does
// not name is −1.
func (b *batch) classes(t *infer.Tensor) []int64 {
	switch d := t.Data.(type) {
	case []int64:
		return d
	case []string:
		b.class = b.class[:0]
		for _, name := range d {
			i, ok := b.info.classes[name]
			if !ok {
				i = -1
			}
			b.class = append(b.class, i)
		}
		return b.class
	default:
		values, _ := numbers(t, nil)
		b.class = b.class[:0]
		for _, v := range values {
			b.class = append(b.class, int64(v))
		}
		return b.class
	}
}

// Batch converts the tensors of a call as an Observer does, so that a baseline
// is made of exactly what devices will count. The result shares memory with the
// tensors.
func Batch(schema *release.Schema, rows int, inputs, outputs []infer.Tensor) *sketch.Batch {
	b := newBatch(&info{schema: schema, classes: classIndex(schema.Classes)})
	return b.of(&infer.Call{Rows: rows, Inputs: inputs, Outputs: outputs})
}

// Predicted is class and confidence of one row, class −1 and NaN when not known.
func Predicted(b *sketch.Batch, r int) (class int32, confidence float32) {
	class, confidence = -1, float32(math.NaN())
	if b.Classes > 0 && (r+1)*b.Classes <= len(b.Scores) {
		best, p := sketch.Predicted(b.Scores[r*b.Classes : (r+1)*b.Classes])
		class, confidence = int32(best), p //nolint:gosec // number of classes
	}
	if r < len(b.Class) && b.Class[r] >= 0 && b.Class[r] <= math.MaxInt32 {
		class = int32(b.Class[r])
	}
	return class, confidence
}
