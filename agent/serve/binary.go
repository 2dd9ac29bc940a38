package serve

import (
	"encoding/binary"
	"unsafe"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Binary tensors are little-endian and so is every processor that the runtime
// library exists for: elements travel as they lie in memory.

// memory is what a slice of numbers or booleans occupies; nil for any other.
func memory(data any) []byte {
	switch d := data.(type) {
	case []float32:
		return bytesOf(d)
	case []float64:
		return bytesOf(d)
	case []infer.Float16:
		return bytesOf(d)
	case []infer.BFloat16:
		return bytesOf(d)
	case []int64:
		return bytesOf(d)
	case []int32:
		return bytesOf(d)
	case []int16:
		return bytesOf(d)
	case []int8:
		return bytesOf(d)
	case []uint64:
		return bytesOf(d)
	case []uint32:
		return bytesOf(d)
	case []uint16:
		return bytesOf(d)
	case []uint8:
		return d
	case []bool:
		return bytesOf(d)
	}
	return nil
}

func bytesOf[T any](d []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(d))), len(d)*int(unsafe.Sizeof(one)))
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
	width := release.ElementSize(t.Datatype)
	if width == 0 {
		return inputError(t.Name, "datatype %q is not supported", t.Datatype)
	}
	if len(raw) != n*width {
		return inputError(t.Name, "has %d bytes, shape %v of %s needs %d", len(raw), t.Shape, t.Datatype, n*width)
	}
	if err := t.FitData(n); err != nil {
		return inputError(t.Name, "%v", err)
	}
	if d, ok := t.Data.([]bool); ok {
		for i, b := range raw {
			d[i] = b != 0
		}
		return nil
	}
	to := memory(t.Data)
	copy(to, raw)
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

// isHalf reports whether the datatype is a float of 16 bits, which the protocol
// knows in binary form alone.
func isHalf(datatype string) bool { return datatype == "FP16" || datatype == "BF16" }

func binarySize(t *infer.Tensor) int {
	d, ok := t.Data.([]string)
	if !ok {
		raw := memory(t.Data)
		return len(raw)
	}
	n := 0
	for _, s := range d {
		n += 4 + len(s)
	}
	return n
}

func appendBinary(b []byte, t *infer.Tensor) []byte {
	d, ok := t.Data.([]string)
	if !ok {
		raw := memory(t.Data)
		return append(b, raw...)
	}
	for _, s := range d {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // under 2 GiB
		b = append(b, s...)
	}
	return b
}
