package graph

import (
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one protobuf field: a number, or the place of its bytes.
type field struct {
	num   int32
	typ   protowire.Type
	value uint64 // of varints
	body  span   // of bytes
}

// span is a range of the file, from off up to end.
type span struct{ off, end int64 }

// page is how much is read at once. Fields that are stepped over cost nothing
// beyond their tag.
const page = 16 << 10

// decoder walks a file's fields and collects what Graph needs.
type decoder struct {
	at   io.ReaderAt
	size int64

	buf    []byte // the part of the file from start on
	start  int64
	fields int // visited

	g         *Graph
	sawGraph  bool
	inputs    map[string]bool // names of the main graph's inputs
	filled    map[string]bool // those that an initializer fills
	domains   map[string]bool // of all nodes
	functions map[string]bool // domains that the model's own functions define
	external  map[string]bool
	classes   map[string][]string // of ZipMap nodes, by their output
	labels    int                 // in classes
}

func newDecoder(r io.ReaderAt, size int64) *decoder {
	return &decoder{
		at: r, size: size, g: &Graph{Opsets: map[string]int64{}},
		inputs: map[string]bool{}, filled: map[string]bool{}, domains: map[string]bool{},
		functions: map[string]bool{}, external: map[string]bool{}, classes: map[string][]string{},
	}
}

// window returns up to n bytes of the file from off on, less at its end.
func (d *decoder) window(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), d.size-off))
	if off >= d.start && off+int64(n) <= d.start+int64(len(d.buf)) {
		return d.buf[off-d.start:][:n], nil
	}
	if d.buf == nil {
		d.buf = make([]byte, page)
	}
	d.buf = d.buf[:min(int64(page), d.size-off)]
	d.start = off
	if got, err := d.at.ReadAt(d.buf, off); got < len(d.buf) {
		if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: cut off at byte %d", ErrFormat, off+int64(got))
		}
		d.buf = d.buf[:0]
		return nil, err
	}
	return d.buf[:n], nil
}

// walk calls fn with every field of s.
func (d *decoder) walk(s span, fn func(field) error) error {
	for s.off < s.end {
		f, next, err := d.field(s)
		if err != nil {
			return err
		}
		if err := fn(f); err != nil {
			return err
		}
		s.off = next
	}
	return nil
}

// field reads the field at the beginning of s and says where the next one is.
func (d *decoder) field(s span) (f field, next int64, err error) {
	if d.fields++; d.fields > MaxFields {
		return field{}, 0, fmt.Errorf("%w: more than %d fields", ErrBounds, MaxFields)
	}
	b, err := d.window(s.off, int(min(2*maxVarint, s.end-s.off)))
	if err != nil {
		return field{}, 0, err
	}
	num, typ, tag := protowire.ConsumeTag(b)
	if tag < 0 {
		return field{}, 0, fmt.Errorf("%w: no field at byte %d", ErrFormat, s.off)
	}
	f = field{num: int32(num), typ: typ}
	var n int
	switch typ {
	case protowire.VarintType:
		f.value, n = protowire.ConsumeVarint(b[tag:])
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	case protowire.BytesType:
		var length uint64
		length, n = protowire.ConsumeVarint(b[tag:])
		from := s.off + int64(tag+n)
		if n >= 0 && (from > s.end || length > uint64(s.end-from)) { //nolint:gosec // from ≤ s.end was checked
			return field{}, 0, fmt.Errorf("%w: field %d at byte %d is longer than what holds it", ErrFormat, num, s.off)
		}
		f.body = span{from, from + int64(length)} //nolint:gosec // not above s.end
		next = f.body.end
	case protowire.StartGroupType, protowire.EndGroupType:
		fallthrough
	default:
		n = -1 // groups, which no version of ONNX has
	}
	if n < 0 || s.off+int64(tag+n) > s.end {
		return field{}, 0, fmt.Errorf("%w: field %d at byte %d", ErrFormat, num, s.off)
	}
	return f, max(next, s.off+int64(tag+n)), nil
}

const maxVarint = 10 // bytes

// text reads a short string.
func (d *decoder) text(f field) (string, error) {
	n := f.body.end - f.body.off
	if f.typ != protowire.BytesType {
		return "", fmt.Errorf("%w: field %d is no text", ErrFormat, f.num)
	}
	if n > MaxText {
		return "", fmt.Errorf("%w: a name of %d bytes", ErrBounds, n)
	}
	b, err := d.window(f.body.off, int(n))
	if err != nil {
		return "", err
	}
	if !utf8.Valid(b) {
		return "", fmt.Errorf("%w: field %d at byte %d is not UTF-8", ErrFormat, f.num, f.body.off)
	}
	return string(b), nil
}

// message descends into a field that must hold a message.
func (d *decoder) message(f field, fn func(field) error) error {
	if f.typ != protowire.BytesType {
		return fmt.Errorf("%w: field %d is no message", ErrFormat, f.num)
	}
	return d.walk(f.body, fn)
}

// packed calls fn with every number of a packed list.
func (d *decoder) packed(s span, fn func(uint64) error) error {
	for s.off < s.end {
		b, err := d.window(s.off, int(min(maxVarint, s.end-s.off)))
		if err != nil {
			return err
		}
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return fmt.Errorf("%w: no number at byte %d", ErrFormat, s.off)
		}
		if err := fn(v); err != nil {
			return err
		}
		s.off += int64(n)
	}
	return nil
}

// mark adds a name to a bounded set.
func mark(set map[string]bool, name string) error {
	if set[name] = true; len(set) > MaxList {
		return fmt.Errorf("%w: more than %d names of one kind", ErrBounds, MaxList)
	}
	return nil
}
