package serve

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/vedette-edge/vedette/agent/infer"
)

// Limits of one request beside the size of its body.
const (
	maxTensors = 64
	maxRank    = 8
)

// request is a decoded infer request.
type request struct {
	infer.Request
	named  bool            // the caller gave an id
	binary bool            // outputs go out as binary unless they say otherwise
	format map[string]bool // outputs that say so: name → binary
}

// tensorText is an input as far as it is read.
type tensorText struct {
	infer.Tensor
	hasShape bool
	data     []byte // JSON of the data, when it came before shape and datatype
	done     bool   // data is in Tensor
	binary   int    // bytes after the JSON, −1 for none
}

// decodeRequest reads an Open Inference Protocol request: the JSON in
// body[:header], binary tensors after it.
func decodeRequest(body []byte, header int) (*request, error) {
	s := &scanner{b: body[:header]}
	r := &request{}
	var inputs []tensorText
	err := s.object(func(key string) (err error) {
		switch key {
		case "id":
			r.ID, err = s.text()
			r.named = true
		case "parameters":
			err = s.parameters(func(key string) (err error) {
				if key == "binary_data_output" {
					r.binary, err = s.boolean()
					return err
				}
				_, err = s.skip(0)
				return err
			})
		case "inputs":
			inputs, err = s.inputs()
		case "outputs":
			err = s.outputs(r)
		default:
			_, err = s.skip(0)
		}
		return err
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, err
	}
	return r, r.finish(inputs, body[header:])
}

// parameters reads a parameters object; null stands for an empty one.
func (s *scanner) parameters(field func(key string) error) error {
	if s.peek(); s.missing() {
		return nil
	}
	return s.object(field)
}

func (s *scanner) outputs(r *request) error {
	return s.array(func() error {
		name, isBinary, says := "", false, false
		err := s.object(func(key string) (err error) {
			switch key {
			case "name":
				name, err = s.text()
			case "parameters":
				err = s.parameters(func(key string) (err error) {
					if key == "binary_data" {
						isBinary, err = s.boolean()
						says = true
						return err
					}
					_, err = s.skip(0)
					return err
				})
			default:
				_, err = s.skip(0)
			}
			return err
		})
		if err != nil {
			return err
		}
		if len(r.Outputs) >= maxTensors || slices.Contains(r.Outputs, name) {
			return &infer.InputError{Row: -1, Reason: fmt.Sprintf("output %q is asked for twice, or too many are", name)}
		}
		r.Outputs = append(r.Outputs, name)
		if says {
			if r.format == nil {
				r.format = map[string]bool{}
			}
			r.format[name] = isBinary
		}
		return nil
	})
}

func (s *scanner) inputs() (list []tensorText, err error) {
	err = s.array(func() error {
		if len(list) >= maxTensors {
			return &infer.InputError{Row: -1, Reason: fmt.Sprintf("more than %d inputs", maxTensors)}
		}
		t, err := s.input()
		list = append(list, t)
		return err
	})
	return list, err
}

func (s *scanner) input() (t tensorText, err error) {
	t.binary = -1
	err = s.object(func(key string) (err error) {
		switch key {
		case "name":
			t.Name, err = s.text()
		case "datatype":
			t.Datatype, err = s.text()
		case "shape":
			t.hasShape = true
			t.Shape, err = s.shape()
		case "parameters":
			err = s.parameters(func(key string) error { return s.inputParameter(key, &t) })
		case "data":
			if t.hasShape && t.Datatype != "" {
				t.done = true
				return s.data(&t.Tensor)
			}
			t.data, err = s.skip(0)
		default:
			_, err = s.skip(0)
		}
		return err
	})
	return t, err
}

func (s *scanner) inputParameter(key string, t *tensorText) error {
	if key != "binary_data_size" {
		_, err := s.skip(0)
		return err
	}
	n, err := s.integer()
	if err == nil && (n < 0 || n > math.MaxInt32) {
		err = inputError(t.Name, "binary_data_size %d is out of range", n)
	}
	t.binary = int(n)
	return err
}

func (s *scanner) shape() (shape []int64, err error) {
	shape = make([]int64, 0, 4)
	err = s.array(func() error {
		if len(shape) >= maxRank {
			return &infer.InputError{Row: -1, Reason: fmt.Sprintf("a shape has more than %d dimensions", maxRank)}
		}
		n, err := s.integer()
		shape = append(shape, n)
		return err
	})
	return shape, err
}

// finish reads what had to wait: data that stood before its shape, and the
// binary part of the body.
func (r *request) finish(inputs []tensorText, rest []byte) error {
	r.Inputs = make([]infer.Tensor, 0, len(inputs))
	for i := range inputs {
		t := &inputs[i]
		switch {
		case t.binary >= 0 && (t.done || t.data != nil):
			return inputError(t.Name, "has both data and binary_data_size")
		case t.binary >= 0:
			if t.binary > len(rest) {
				return inputError(t.Name, "binary_data_size is %d, the body has %d bytes left", t.binary, len(rest))
			}
			if err := decodeBinary(&t.Tensor, rest[:t.binary]); err != nil {
				return err
			}
			rest = rest[t.binary:]
		case t.data != nil:
			s := &scanner{b: t.data}
			if err := s.data(&t.Tensor); err != nil {
				return err
			}
		case !t.done:
			return inputError(t.Name, "has no data")
		}
		r.Inputs = append(r.Inputs, t.Tensor)
	}
	if len(rest) > 0 {
		return &infer.InputError{Row: -1, Reason: fmt.Sprintf("%d bytes follow the last binary tensor", len(rest))}
	}
	return nil
}

// data reads a tensor's numbers, flat or nested, into a slice of its datatype.
func (s *scanner) data(t *infer.Tensor) error {
	n, err := infer.Elements(t.Shape)
	if err != nil {
		return inputError(t.Name, "shape %v: %v", t.Shape, err)
	}
	if n > len(s.b)/2+1 {
		return inputError(t.Name, "has fewer elements than its shape %v needs", t.Shape)
	}
	f := &filler{scanner: s, tensor: t, want: n}
	if t.Data, err = infer.MakeData(t.Datatype, n); err != nil {
		return inputError(t.Name, "%v", err)
	}
	f.element = f.setter()
	if err := f.level(0); err != nil {
		return err
	}
	if f.got != n {
		return inputError(t.Name, "data has %d elements, shape %v needs %d", f.got, t.Shape, n)
	}
	return nil
}

// filler puts elements of JSON arrays into a slice.
type filler struct {
	*scanner
	tensor    *infer.Tensor
	want, got int
	element   func(i int) bool // reads one element into place i
}

// level reads one array. Arrays inside it must have the size that the shape
// gives them; without any inside, the whole tensor may be flat.
func (f *filler) level(depth int) error {
	if err := f.expect('['); err != nil {
		return err
	}
	before, nested := f.got, false
	for first := true; ; first = false {
		more, err := f.next(first, ']')
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if f.peek() == '[' {
			nested = true
			if depth+1 >= len(f.tensor.Shape) {
				return inputError(f.tensor.Name, "data is nested deeper than its shape %v", f.tensor.Shape)
			}
			if err := f.level(depth + 1); err != nil {
				return err
			}
			continue
		}
		if nested {
			return inputError(f.tensor.Name, "data mixes arrays and elements")
		}
		if err := f.one(); err != nil {
			return err
		}
	}
	if depth == 0 {
		return nil
	}
	want, err := infer.Elements(f.tensor.Shape[depth:])
	if err != nil || f.got-before != want {
		return inputError(f.tensor.Name, "an array at depth %d has %d elements, shape %v needs %d", depth, f.got-before, f.tensor.Shape, want)
	}
	return nil
}

// one reads one element.
func (f *filler) one() error {
	if f.got >= f.want {
		return inputError(f.tensor.Name, "data has more than the %d elements of shape %v", f.want, f.tensor.Shape)
	}
	start := f.i
	if !f.element(f.got) {
		return f.elementError(start)
	}
	f.got++
	return nil
}

// elementError names the row and the element within it. Feature holds the
// element's index until the handler, who knows the schema, puts in its name.
func (f *filler) elementError(start int) error {
	row, size := 0, f.want
	if len(f.tensor.Shape) > 0 && f.tensor.Shape[0] > 0 {
		size = f.want / int(f.tensor.Shape[0])
	}
	if size > 0 {
		row = f.got / size
	}
	f.i = start
	raw, err := f.skip(0)
	if err != nil {
		return err
	}
	return &elementError{
		row: row, index: f.got - row*size, input: f.tensor.Name,
		reason: fmt.Sprintf("%.40q is no %s", raw, f.tensor.Datatype),
	}
}

// elementError is an InputError whose feature is still a number.
type elementError struct {
	input      string
	row, index int
	reason     string
}

func (e *elementError) Error() string {
	return fmt.Sprintf("input %q row %d element %d: %s", e.input, e.row, e.index, e.reason)
}

// setter is the function that reads one element of the tensor's datatype.
func (f *filler) setter() func(i int) bool {
	switch d := f.tensor.Data.(type) {
	case []float32:
		return func(i int) (ok bool) { d[i], ok = f.float32(); return ok }
	case []float64:
		return func(i int) (ok bool) { d[i], ok = f.float64(); return ok }
	case []int64:
		return func(i int) (ok bool) { d[i], ok = f.signed(64); return ok }
	case []int32:
		return signedSetter(f, d, 32)
	case []int16:
		return signedSetter(f, d, 16)
	case []int8:
		return signedSetter(f, d, 8)
	case []uint64:
		return unsignedSetter(f, d, 64)
	case []uint32:
		return unsignedSetter(f, d, 32)
	case []uint16:
		return unsignedSetter(f, d, 16)
	case []uint8:
		return unsignedSetter(f, d, 8)
	case []bool:
		return func(i int) bool { v, err := f.boolean(); d[i] = v; return err == nil }
	case []string:
		return func(i int) bool { v, err := f.text(); d[i] = v; return err == nil }
	}
	return func(int) bool { return false }
}

func signedSetter[T int8 | int16 | int32](f *filler, d []T, bits int) func(int) bool {
	return func(i int) bool { v, ok := f.signed(bits); d[i] = T(v); return ok }
}

func unsignedSetter[T uint8 | uint16 | uint32 | uint64](f *filler, d []T, bits int) func(int) bool {
	return func(i int) bool { v, ok := f.unsigned(bits); d[i] = T(v); return ok }
}

func inputError(input, format string, args ...any) error {
	return &infer.InputError{Input: input, Row: -1, Reason: fmt.Sprintf(format, args...)}
}

// decodeBinary reads little-endian row-major elements; BYTES elements each have
// their length in four bytes before them.
func decodeBinary(t *infer.Tensor, raw []byte) error {
	n, err := infer.Elements(t.Shape)
	if err != nil {
		return inputError(t.Name, "shape %v: %v", t.Shape, err)
	}
	if t.Datatype == "BYTES" {
		return decodeStrings(t, raw, n)
	}
	width := elementSize(t.Datatype)
	if width == 0 {
		return inputError(t.Name, "datatype %q is not supported", t.Datatype)
	}
	if len(raw) != n*width {
		return inputError(t.Name, "has %d bytes, shape %v of %s needs %d", len(raw), t.Shape, t.Datatype, n*width)
	}
	if t.Data, err = infer.MakeData(t.Datatype, n); err != nil {
		return inputError(t.Name, "%v", err)
	}
	if d, ok := t.Data.([]bool); ok {
		for i, b := range raw {
			d[i] = b != 0
		}
		return nil
	}
	if _, err := binary.Decode(raw, binary.LittleEndian, t.Data); err != nil {
		return inputError(t.Name, "%v", err)
	}
	return nil
}

func decodeStrings(t *infer.Tensor, raw []byte, n int) error {
	if n > len(raw)/4 {
		return inputError(t.Name, "has %d bytes, too few for %d strings", len(raw), n)
	}
	d := make([]string, n)
	for i := range d {
		if len(raw) < 4 {
			return inputError(t.Name, "ends within string %d", i)
		}
		size := binary.LittleEndian.Uint32(raw)
		raw = raw[4:]
		if uint64(size) > uint64(len(raw)) {
			return inputError(t.Name, "ends within string %d", i)
		}
		d[i], raw = string(raw[:size]), raw[size:]
	}
	if len(raw) > 0 {
		return inputError(t.Name, "has %d bytes after its last string", len(raw))
	}
	t.Data = d
	return nil
}

// elementSize is the bytes of one element, 0 for datatypes without a fixed one.
func elementSize(datatype string) int {
	switch datatype {
	case "BOOL", "UINT8", "INT8":
		return 1
	case "UINT16", "INT16":
		return 2
	case "UINT32", "INT32", "FP32":
		return 4
	case "UINT64", "INT64", "FP64":
		return 8
	}
	return 0
}
