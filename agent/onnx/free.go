package onnx

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/agent/infer"
)

// runFree computes a graph whose shapes are not known before or that takes or
// gives strings or maps: the inputs are wrapped, the library allocates the
// outputs, and what it allocated is copied and freed. Small models take about
// twice as long this way.
func (s *session) runFree(rows int, in, out []infer.Tensor) (err error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	given := make([]ort.Value, 0, len(in))
	got := make([]ort.Value, len(out))
	halves := make([]buffer, len(out)) // the library cannot give these back by itself
	defer func() {
		err = errors.Join(err, destroyAll(given), destroyAll(got))
		for _, b := range halves {
			if b != nil {
				b.grow(0)
			}
		}
	}()
	for i := range in {
		v, err := wrap(&in[i], &pin)
		if err != nil {
			return fmt.Errorf("input %q: %w", in[i].Name, err)
		}
		given = append(given, v)
	}
	for i := range got {
		if halves[i], got[i], err = s.outputs[i].half(rows); err != nil {
			return fmt.Errorf("output %q: %w", s.outputs[i].name, err)
		}
	}
	if err := s.graph.Run(given, got); err != nil {
		return fmt.Errorf("run graph: %w", err)
	}
	for i, v := range got {
		if halves[i] != nil {
			halves[i].store(&out[i], 0, rows, rows)
			continue
		}
		if err := s.outputs[i].take(v, rows, &out[i]); err != nil {
			return err
		}
	}
	return nil
}

// half allocates an output of half floats, and nothing for others.
func (p *port) half(rows int) (buffer, ort.Value, error) {
	if p.datatype != "FP16" && p.datatype != "BF16" {
		return nil, nil, nil
	}
	b, err := newBuffer(p)
	if err != nil {
		return nil, nil, err
	}
	b.grow(rows)
	v, err := b.value(rows)
	return b, v, err
}

func destroyAll(values []ort.Value) error {
	var errs []error
	for _, v := range values {
		if v != nil {
			errs = append(errs, v.Destroy())
		}
	}
	return errors.Join(errs...)
}

// wrap makes a library value over t's own memory.
func wrap(t *infer.Tensor, pin *runtime.Pinner) (ort.Value, error) {
	switch d := t.Data.(type) {
	case []string:
		return wrapStrings(t.Shape, d)
	case []infer.Float16:
		return wrapHalf(t.Shape, d, ort.TensorElementDataTypeFloat16, pin)
	case []infer.BFloat16:
		return wrapHalf(t.Shape, d, ort.TensorElementDataTypeBFloat16, pin)
	case []bool:
		return wrapSlice(t.Shape, d, pin)
	case []uint8:
		return wrapSlice(t.Shape, d, pin)
	case []uint16:
		return wrapSlice(t.Shape, d, pin)
	case []uint32:
		return wrapSlice(t.Shape, d, pin)
	case []uint64:
		return wrapSlice(t.Shape, d, pin)
	case []int8:
		return wrapSlice(t.Shape, d, pin)
	case []int16:
		return wrapSlice(t.Shape, d, pin)
	case []int32:
		return wrapSlice(t.Shape, d, pin)
	case []int64:
		return wrapSlice(t.Shape, d, pin)
	case []float32:
		return wrapSlice(t.Shape, d, pin)
	case []float64:
		return wrapSlice(t.Shape, d, pin)
	}
	return nil, fmt.Errorf("%T cannot be given to the library", t.Data)
}

func wrapSlice[T ort.TensorData](shape []int64, d []T, pin *runtime.Pinner) (ort.Value, error) {
	if len(d) > 0 {
		pin.Pin(&d[0])
	}
	return ort.NewTensor(shape, d)
}

func wrapHalf[T infer.Float16 | infer.BFloat16](shape []int64, d []T, element ort.TensorElementDataType, pin *runtime.Pinner) (ort.Value, error) {
	if len(d) > 0 {
		pin.Pin(&d[0])
	}
	return newValue(shape, d, element)
}

func wrapStrings(shape []int64, d []string) (ort.Value, error) {
	v, err := ort.NewStringTensor(shape)
	if err != nil {
		return nil, err
	}
	if err := v.SetContents(d); err != nil {
		return nil, errors.Join(err, v.Destroy())
	}
	return v, nil
}

// take copies a library value into t and checks it against the schema.
func (p *port) take(v ort.Value, rows int, t *infer.Tensor) error {
	if p.columns != nil {
		return p.takeMaps(v, rows, t)
	}
	shape := v.GetShape()
	if !p.fits(shape) {
		return fmt.Errorf("output %q has shape %v, the schema says %v", p.name, shape, append([]int64{p.batch}, p.rest...))
	}
	t.Name, t.Datatype, t.Shape = p.name, p.datatype, slices.Clone(shape)
	ok := false
	switch v := v.(type) {
	case *ort.StringTensor:
		d, err := v.GetContents()
		if err != nil {
			return fmt.Errorf("output %q: %w", p.name, err)
		}
		t.Data, ok = d, p.datatype == "BYTES"
	case *ort.Tensor[bool]:
		ok = copyOut(t, v.GetData(), "BOOL")
	case *ort.Tensor[uint8]:
		ok = copyOut(t, v.GetData(), "UINT8")
	case *ort.Tensor[uint16]:
		ok = copyOut(t, v.GetData(), "UINT16")
	case *ort.Tensor[uint32]:
		ok = copyOut(t, v.GetData(), "UINT32")
	case *ort.Tensor[uint64]:
		ok = copyOut(t, v.GetData(), "UINT64")
	case *ort.Tensor[int8]:
		ok = copyOut(t, v.GetData(), "INT8")
	case *ort.Tensor[int16]:
		ok = copyOut(t, v.GetData(), "INT16")
	case *ort.Tensor[int32]:
		ok = copyOut(t, v.GetData(), "INT32")
	case *ort.Tensor[int64]:
		ok = copyOut(t, v.GetData(), "INT64")
	case *ort.Tensor[float32]:
		ok = copyOut(t, v.GetData(), "FP32")
	case *ort.Tensor[float64]:
		ok = copyOut(t, v.GetData(), "FP64")
	}
	if !ok {
		return fmt.Errorf("output %q is %T, the schema says %s", p.name, v, p.datatype)
	}
	return nil
}

func copyOut[T any](t *infer.Tensor, d []T, datatype string) bool {
	copy(infer.Fit[T](t, len(d)), d)
	return t.Datatype == datatype
}

// takeMaps copies a sequence of maps from class to score, one map a row, into
// the tensor that the schema describes.
func (p *port) takeMaps(v ort.Value, rows int, t *infer.Tensor) error {
	seq, ok := v.(*ort.Sequence)
	if !ok {
		return fmt.Errorf("output %q is %T, not a sequence of maps", p.name, v)
	}
	list, err := seq.GetValues()
	if err != nil {
		return fmt.Errorf("output %q: %w", p.name, err)
	}
	if len(list) != rows || p.size != len(p.columns) {
		return fmt.Errorf("output %q has %d maps for %d rows and %d classes for %d columns", p.name, len(list), rows, len(p.columns), p.size)
	}
	t.Name, t.Datatype = p.name, p.datatype
	t.FitShape(rows, p.rest...)
	to := infer.Fit[float32](t, rows*p.size)
	for r, m := range list {
		if err := p.takeMap(m, to[r*p.size:(r+1)*p.size]); err != nil {
			return err
		}
	}
	return nil
}

// takeMap copies one row's scores to the columns of their classes.
func (p *port) takeMap(v ort.Value, row []float32) error {
	m, ok := v.(*ort.Map)
	if !ok {
		return fmt.Errorf("output %q holds %T, not a map", p.name, v)
	}
	keys, values, err := m.GetKeysAndValues()
	if err != nil {
		return fmt.Errorf("output %q: %w", p.name, err)
	}
	classes, err := texts(keys)
	if err != nil {
		return fmt.Errorf("output %q: %w", p.name, err)
	}
	scores, ok := values.(*ort.Tensor[float32])
	if !ok || len(scores.GetData()) != len(classes) || len(classes) != len(row) {
		return fmt.Errorf("output %q holds %d classes with %T, the schema names %d", p.name, len(classes), values, len(row))
	}
	for i, class := range classes {
		k, err := p.column(class)
		if err != nil {
			return err
		}
		row[k] = scores.GetData()[i]
	}
	return nil
}

// texts are the keys of a map as the schema spells classes.
func texts(keys ort.Value) ([]string, error) {
	switch k := keys.(type) {
	case *ort.StringTensor:
		return k.GetContents()
	case *ort.Tensor[int64]:
		list := make([]string, len(k.GetData()))
		for i, v := range k.GetData() {
			list[i] = strconv.FormatInt(v, 10)
		}
		return list, nil
	}
	return nil, fmt.Errorf("map from %T", keys)
}
