package serve

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
)

// Limits of one request beside the size of its body.
const (
	maxTensors = 64
	maxRank    = 8
)

// request is a decoded infer request. Decoding another one into it writes over
// the slices of the first.
type request struct {
	infer.Request
	binary  bool          // outputs go out as binary unless they say otherwise
	formats []format      // outputs that say so
	timeout time.Duration // for the wait before the run, 0 for none
	texts   []tensorText
}

// format is how one output is to go out.
type format struct {
	output string
	binary bool
}

// tensorText is an input as far as it is read.
type tensorText struct {
	infer.Tensor
	hasType, hasShape bool
	data              []byte // JSON of the data, when it came before shape and datatype
	done              bool   // data is in Tensor
	binary            int    // bytes after the JSON, −1 for none
}

// decode reads an Open Inference Protocol request: the JSON in body[:header],
// binary tensors after it.
func (r *request) decode(body []byte, header int) error {
	r.reset()
	s := &scanner{b: body[:header]}
	err := s.object(func(key []byte) (err error) {
		switch string(key) {
		case "id":
			r.ID, err = s.text()
		case "parameters":
			err = s.parameters(func(key []byte) error { return s.requestParameter(key, r) })
		case "inputs":
			err = s.inputs(r)
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
		return err
	}
	return r.finish(body[header:])
}

func (r *request) reset() {
	r.Request = infer.Request{Inputs: r.Inputs[:0], Outputs: r.Outputs[:0]}
	r.binary, r.timeout, r.formats, r.texts = false, 0, r.formats[:0], r.texts[:0]
}

// requestParameter reads a parameter of the whole request. The timeout is
// Triton's: a whole number of microseconds.
func (s *scanner) requestParameter(key []byte, r *request) (err error) {
	switch string(key) {
	case "binary_data_output":
		r.binary, err = s.boolean()
	case "key":
		r.Key, err = s.textLike(r.Key)
	case "timeout":
		var us int64
		if us, err = s.integer(); err == nil {
			r.timeout, err = timeoutOf(us)
		}
	default:
		_, err = s.skip(0)
	}
	return err
}

// timeoutOf is a timeout parameter, in microseconds; 0 is none.
func timeoutOf(us int64) (time.Duration, error) {
	if us < 0 || us > math.MaxInt64/int64(time.Microsecond) {
		return 0, &infer.InputError{Row: -1, Reason: fmt.Sprintf("timeout %d is no number of microseconds to wait", us)}
	}
	return time.Duration(us) * time.Microsecond, nil
}

// parameters reads a parameters object; null stands for an empty one.
func (s *scanner) parameters(field func(key []byte) error) error {
	if s.peek(); s.missing() {
		return nil
	}
	return s.object(field)
}

func (s *scanner) outputs(r *request) error {
	return s.array(func() error {
		name, isBinary, says := "", false, false
		err := s.object(func(key []byte) (err error) {
			switch string(key) {
			case "name":
				name, err = s.text()
			case "parameters":
				err = s.parameters(func(key []byte) (err error) {
					if string(key) == "binary_data" {
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
		return r.want(name, isBinary, says)
	})
}

// want adds an output to those asked for.
func (r *request) want(name string, isBinary, says bool) error {
	if len(r.Outputs) >= maxTensors || slices.Contains(r.Outputs, name) {
		return &infer.InputError{Row: -1, Reason: fmt.Sprintf("output %q is asked for twice, or too many are", name)}
	}
	r.Outputs = append(r.Outputs, name)
	if says {
		r.formats = append(r.formats, format{name, isBinary})
	}
	return nil
}

func (s *scanner) inputs(r *request) error {
	return s.array(func() error {
		if len(r.texts) >= maxTensors {
			return &infer.InputError{Row: -1, Reason: fmt.Sprintf("more than %d inputs", maxTensors)}
		}
		return s.input(r.room())
	})
}

// room is the next input to read, in the slices of an earlier one.
func (r *request) room() *tensorText {
	n := len(r.texts)
	if n == cap(r.texts) {
		r.texts = append(r.texts, tensorText{})
	} else {
		r.texts = r.texts[:n+1]
	}
	t := &r.texts[n]
	*t = tensorText{Tensor: t.Tensor, binary: -1}
	t.Shape = t.Shape[:0]
	return t
}

// input reads one input. What was there before serves as room only: a name or a
// datatype that is missing must not be that of the request before.
func (s *scanner) input(t *tensorText) error {
	name, datatype := t.Name, t.Datatype
	t.Name = ""
	err := s.object(func(key []byte) (err error) {
		switch string(key) {
		case "name":
			t.Name, err = s.textLike(name)
		case "datatype":
			t.Datatype, err = s.textLike(datatype)
			t.hasType = true
		case "shape":
			t.hasShape = true
			t.Shape, err = s.shape(t.Shape[:0])
		case "parameters":
			err = s.parameters(func(key []byte) error { return s.inputParameter(key, t) })
		case "data":
			if t.hasShape && t.hasType {
				t.done = true
				return s.data(&t.Tensor)
			}
			t.data, err = s.skip(0)
		default:
			_, err = s.skip(0)
		}
		return err
	})
	if !t.hasType {
		t.Datatype = ""
	}
	return err
}

func (s *scanner) inputParameter(key []byte, t *tensorText) error {
	if string(key) != "binary_data_size" {
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

func (s *scanner) shape(shape []int64) ([]int64, error) {
	err := s.array(func() error {
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
func (r *request) finish(rest []byte) error {
	for i := range r.texts {
		t := &r.texts[i]
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
	start := s.i
	if n > len(s.b)/2+1 { // and no room is made for them
		return s.sizeError(t, start, n)
	}
	if isHalf(t.Datatype) {
		return inputError(t.Name, "%s has no form in JSON: send it as binary data", t.Datatype)
	}
	if err := t.FitData(n); err != nil {
		return inputError(t.Name, "%v", err)
	}
	f := &filler{scanner: s, tensor: t, want: n}
	f.floats, _ = t.Data.([]float32)
	err = f.level(0)
	if errors.Is(err, errSurplus) || err == nil && f.got != n {
		return s.sizeError(t, start, n)
	}
	return err
}

// errSurplus says that data has more elements than its shape.
var errSurplus = errors.New("more elements than the shape has")

// sizeError is an InputError about data that does not fill its shape. What shape
// the model takes is for the handler to add, who knows the schema.
type sizeError struct{ infer.InputError }

func (e *sizeError) Unwrap() error { return &e.InputError }

// sizeError counts the data that begins at start, which does not have the n
// elements of its shape.
func (s *scanner) sizeError(t *infer.Tensor, start, n int) error {
	s.i = start
	got, err := s.leaves(0)
	if err != nil {
		return err
	}
	reason := fmt.Sprintf("data has %d elements, shape %v needs %d", got, t.Shape, n)
	return &sizeError{infer.InputError{Input: t.Name, Row: -1, Reason: reason}}
}

// leaves counts the elements of an array and of those inside it.
func (s *scanner) leaves(depth int) (n int, err error) {
	if s.peek() != '[' {
		_, err = s.skip(depth)
		return 1, err
	}
	if depth > maxDepth {
		return 0, s.fail("nested too deeply")
	}
	err = s.array(func() error {
		more, err := s.leaves(depth + 1)
		n += more
		return err
	})
	return n, err
}

// filler puts elements of JSON arrays into a slice.
type filler struct {
	*scanner
	tensor    *infer.Tensor
	floats    []float32 // the tensor's data, when that is what it is
	want, got int
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
		return errSurplus
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

// element reads one element into place i of the tensor's data.
func (f *filler) element(i int) (ok bool) {
	if f.floats != nil { // nearly always, and worth not asking for the type again
		f.floats[i], ok = f.float32()
		return ok
	}
	switch d := f.tensor.Data.(type) {
	case []float64:
		d[i], ok = f.float64()
	case []int64:
		return signed(f, d, i, 64)
	case []int32:
		return signed(f, d, i, 32)
	case []int16:
		return signed(f, d, i, 16)
	case []int8:
		return signed(f, d, i, 8)
	case []uint64:
		return unsigned(f, d, i, 64)
	case []uint32:
		return unsigned(f, d, i, 32)
	case []uint16:
		return unsigned(f, d, i, 16)
	case []uint8:
		return unsigned(f, d, i, 8)
	case []bool:
		v, err := f.boolean()
		d[i], ok = v, err == nil
	case []string:
		v, err := f.text()
		d[i], ok = v, err == nil
	}
	return ok
}

func signed[T int8 | int16 | int32 | int64](f *filler, d []T, i, bits int) bool {
	v, ok := f.signed(bits)
	d[i] = T(v)
	return ok
}

func unsigned[T uint8 | uint16 | uint32 | uint64](f *filler, d []T, i, bits int) bool {
	v, ok := f.unsigned(bits)
	d[i] = T(v)
	return ok
}

func inputError(input, format string, args ...any) error {
	return &infer.InputError{Input: input, Row: -1, Reason: fmt.Sprintf(format, args...)}
}
