package onnx

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/agent/infer"
)

// runFree computes a graph whose shapes are not known before or that takes or
// gives strings: the inputs are wrapped, the library allocates the outputs, and
// what it allocated is copied and freed. Small models take about twice as long
// this way.
func (s *session) runFree(in, out []infer.Tensor) (err error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	given := make([]ort.Value, 0, len(in))
	got := make([]ort.Value, len(out))
	defer func() { err = errors.Join(err, destroyAll(given), destroyAll(got)) }()
	for i := range in {
		v, err := wrap(&in[i], &pin)
		if err != nil {
			return fmt.Errorf("input %q: %w", in[i].Name, err)
		}
		given = append(given, v)
	}
	if err := s.graph.Run(given, got); err != nil {
		return fmt.Errorf("run graph: %w", err)
	}
	for i, v := range got {
		if err := s.outputs[i].take(v, &out[i]); err != nil {
			return err
		}
	}
	return nil
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
func (p *port) take(v ort.Value, t *infer.Tensor) error {
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

// fits compares a shape with the schema's, in which −1 is free.
func (p *port) fits(shape []int64) bool {
	if len(shape) != len(p.rest)+1 || p.batch >= 0 && shape[0] != p.batch {
		return false
	}
	for i, d := range p.rest {
		if d >= 0 && shape[i+1] != d {
			return false
		}
	}
	return true
}
