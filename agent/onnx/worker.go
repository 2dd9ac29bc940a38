package onnx

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/agent/infer"
)

// buckets are the sizes, in rows, to which a worker's buffers grow.
var buckets = []int{1, 16, 256, maxChunk}

// maxBindings bounds the batch sizes that a worker keeps bound. Callers use few
// sizes; binding another takes microseconds.
const maxBindings = 8

// worker runs the graph on buffers of its own, one run at a time. For every
// batch size it has a binding of exactly that many rows over the same buffers:
// padding to the bucket would compute up to sixteen times the rows.
type worker struct {
	in, out  []buffer
	rows     int        // capacity of the buffers
	bindings []*binding // most recently used last
}

type binding struct {
	rows   int
	io     *ort.IoBinding
	values []ort.Value
}

// buffer is the pinned memory of one port.
type buffer interface {
	grow(rows int)
	value(rows int) (ort.Value, error)
	// load copies rows [from, from+rows) of t in; store copies them out to the
	// same place of a tensor of total rows.
	load(t *infer.Tensor, from, rows int) error
	store(t *infer.Tensor, from, rows, total int)
}

func newWorker(p *plan) (*worker, error) {
	w := &worker{}
	for _, side := range []struct {
		ports []port
		to    *[]buffer
	}{{p.inputs, &w.in}, {p.outputs, &w.out}} {
		for i := range side.ports {
			b, err := newBuffer(&side.ports[i])
			if err != nil {
				return nil, err
			}
			*side.to = append(*side.to, b)
		}
	}
	return w, nil
}

// runAll computes all rows, a chunk at a time. Rows that are left of a fixed
// batch are refused by the library.
func (w *worker) runAll(g *ort.DynamicAdvancedSession, p *plan, rows int, in, out []infer.Tensor) error {
	for from := 0; from < rows; from += p.chunk {
		if err := w.run(g, p, from, min(p.chunk, rows-from), rows, in, out); err != nil {
			return err
		}
	}
	return nil
}

// run computes one chunk: rows [from, from+rows) of total.
func (w *worker) run(g *ort.DynamicAdvancedSession, p *plan, from, rows, total int, in, out []infer.Tensor) error {
	b, err := w.binding(g, p, rows)
	if err != nil {
		return err
	}
	for i, buf := range w.in {
		if err := buf.load(&in[i], from, rows); err != nil {
			return err
		}
	}
	if err := g.RunWithBinding(b.io); err != nil {
		return fmt.Errorf("run graph: %w", err)
	}
	for i, buf := range w.out {
		buf.store(&out[i], from, rows, total)
	}
	return nil
}

// binding finds or makes the binding for a batch size.
func (w *worker) binding(g *ort.DynamicAdvancedSession, p *plan, rows int) (*binding, error) {
	last := len(w.bindings) - 1
	for i := last; i >= 0; i-- {
		if b := w.bindings[i]; b.rows == rows {
			copy(w.bindings[i:], w.bindings[i+1:])
			w.bindings[last] = b
			return b, nil
		}
	}
	if err := w.reserve(rows); err != nil {
		return nil, err
	}
	b, err := w.bind(g, p, rows)
	if err != nil {
		return nil, err
	}
	w.bindings = append(w.bindings, b)
	return b, nil
}

// reserve makes room for a binding of rows rows. New buffers invalidate the
// bindings of the old ones.
func (w *worker) reserve(rows int) error {
	drop := max(0, len(w.bindings)-maxBindings+1)
	if rows > w.rows {
		drop = len(w.bindings)
	}
	if err := w.release(drop); err != nil {
		return err
	}
	if rows > w.rows {
		w.rows = rows
		if i := slices.IndexFunc(buckets, func(b int) bool { return b >= rows }); i >= 0 {
			w.rows = buckets[i]
		}
		for _, b := range slices.Concat(w.in, w.out) {
			b.grow(w.rows)
		}
	}
	return nil
}

// release frees the n bindings that were not used for longest.
func (w *worker) release(n int) error {
	var errs []error
	for _, b := range w.bindings[:n] {
		errs = append(errs, b.destroy())
	}
	w.bindings = slices.Delete(w.bindings, 0, n)
	return errors.Join(errs...)
}

func (w *worker) bind(g *ort.DynamicAdvancedSession, p *plan, rows int) (_ *binding, err error) {
	b := &binding{rows: rows}
	if b.io, err = g.CreateIoBinding(); err != nil {
		return nil, fmt.Errorf("make binding: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.destroy())
		}
	}()
	for i, buf := range w.in {
		if err := b.add(buf, rows, p.inputs[i].inGraph(), b.io.BindInput); err != nil {
			return nil, fmt.Errorf("bind input %q: %w", p.inputs[i].name, err)
		}
	}
	for i, buf := range w.out {
		if err := b.add(buf, rows, p.outputs[i].inGraph(), b.io.BindOutput); err != nil {
			return nil, fmt.Errorf("bind output %q: %w", p.outputs[i].name, err)
		}
	}
	return b, nil
}

func (b *binding) add(buf buffer, rows int, name string, bind func(string, ort.Value) error) error {
	v, err := buf.value(rows)
	if err != nil {
		return err
	}
	b.values = append(b.values, v)
	return bind(name, v)
}

func (b *binding) destroy() error {
	errs := []error{b.io.Destroy()}
	for _, v := range b.values {
		errs = append(errs, v.Destroy())
	}
	return errors.Join(errs...)
}

func (w *worker) close() error {
	err := w.release(len(w.bindings))
	for _, b := range slices.Concat(w.in, w.out) {
		b.grow(0)
	}
	return err
}

// array is a buffer of one element type. Its memory is pinned while the library
// holds its address.
type array[T ort.TensorData] struct {
	port    *port
	element ort.TensorElementDataType // of half floats, which no Go type stands for; else undefined
	data    []T
	pin     runtime.Pinner
}

func (a *array[T]) grow(rows int) {
	a.pin.Unpin()
	a.data = nil
	if rows > 0 {
		a.data = make([]T, rows*a.port.size)
		a.pin.Pin(&a.data[0])
	}
}

func (a *array[T]) value(rows int) (ort.Value, error) {
	return newValue(a.port.shape(rows), a.data, a.element)
}

// newValue makes a library value over data, which must be pinned.
func newValue[T ort.TensorData](shape []int64, data []T, element ort.TensorElementDataType) (ort.Value, error) {
	if element == ort.TensorElementDataTypeUndefined {
		return ort.NewTensor(shape, data)
	}
	n, err := infer.Elements(shape)
	if err != nil || n == 0 || n > len(data) {
		return nil, fmt.Errorf("shape %v does not fit %d half floats", shape, len(data))
	}
	const width = 2
	return ort.NewCustomDataTensor(shape, unsafe.Slice((*byte)(unsafe.Pointer(&data[0])), n*width), element)
}

func (a *array[T]) load(t *infer.Tensor, from, rows int) error {
	d, ok := t.Data.([]T)
	size := a.port.size
	if !ok || len(d) < (from+rows)*size {
		return fmt.Errorf("input %q has %T, not %d rows of %s", a.port.name, t.Data, from+rows, a.port.datatype)
	}
	copy(a.data, d[from*size:(from+rows)*size])
	return nil
}

func (a *array[T]) store(t *infer.Tensor, from, rows, total int) {
	size := a.port.size
	t.Name, t.Datatype = a.port.name, a.port.datatype
	t.FitShape(total, a.port.rest...)
	copy(infer.Fit[T](t, total*size)[from*size:], a.data[:rows*size])
}

// newBuffer makes an empty buffer of the port's element type.
func newBuffer(p *port) (buffer, error) {
	switch p.datatype {
	case "BOOL":
		return &array[bool]{port: p}, nil
	case "UINT8":
		return &array[uint8]{port: p}, nil
	case "UINT16":
		return &array[uint16]{port: p}, nil
	case "UINT32":
		return &array[uint32]{port: p}, nil
	case "UINT64":
		return &array[uint64]{port: p}, nil
	case "INT8":
		return &array[int8]{port: p}, nil
	case "INT16":
		return &array[int16]{port: p}, nil
	case "INT32":
		return &array[int32]{port: p}, nil
	case "INT64":
		return &array[int64]{port: p}, nil
	case "FP16":
		return &array[infer.Float16]{port: p, element: ort.TensorElementDataTypeFloat16}, nil
	case "BF16":
		return &array[infer.BFloat16]{port: p, element: ort.TensorElementDataTypeBFloat16}, nil
	case "FP32":
		return &array[float32]{port: p}, nil
	case "FP64":
		return &array[float64]{port: p}, nil
	}
	return nil, fmt.Errorf("tensor %q: datatype %q cannot be bound", p.name, p.datatype)
}
