package sampling

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Numbers reads an array's elements as float64, exactly but for integers beyond
// 2^53. Text has none: see Strings of the array.
func Numbers(a *protocol.Array) ([]float64, error) {
	size := release.ElementSize(a.GetDatatype())
	raw := a.GetRaw()
	if size == 0 || len(raw)%size != 0 {
		return nil, fmt.Errorf("%w: %s has %d bytes of %s", ErrSample, a.GetName(), len(raw), a.GetDatatype())
	}
	out := make([]float64, 0, len(raw)/size)
	for ; len(raw) > 0; raw = raw[size:] {
		out = append(out, number(a.GetDatatype(), raw))
	}
	return out, nil
}

// number reads the first element of raw.
func number(datatype string, raw []byte) float64 {
	le := binary.LittleEndian
	switch datatype {
	case "FP32":
		return float64(math.Float32frombits(le.Uint32(raw)))
	case "FP64":
		return math.Float64frombits(le.Uint64(raw))
	case "FP16":
		return half(le.Uint16(raw))
	case "BF16":
		return float64(math.Float32frombits(uint32(le.Uint16(raw)) << 16))
	case "INT64":
		return float64(int64(le.Uint64(raw))) //nolint:gosec // as it was written
	case "INT32":
		return float64(int32(le.Uint32(raw))) //nolint:gosec // as it was written
	case "INT16":
		return float64(int16(le.Uint16(raw))) //nolint:gosec // as it was written
	case "INT8":
		return float64(int8(raw[0])) //nolint:gosec // as it was written
	case "UINT64":
		return float64(le.Uint64(raw))
	case "UINT32":
		return float64(le.Uint32(raw))
	case "UINT16":
		return float64(le.Uint16(raw))
	default: // UINT8, BOOL
		return float64(raw[0])
	}
}

// half reads an IEEE 754 float of 16 bits.
func half(bits uint16) float64 {
	sign, exponent, fraction := 1.0, int(bits>>10&0x1f), float64(bits&0x3ff)
	if bits>>15 == 1 {
		sign = -1
	}
	switch {
	case exponent == 0x1f && fraction != 0:
		return math.NaN()
	case exponent == 0x1f:
		return math.Inf(int(sign))
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	default:
		return sign * math.Ldexp(1+fraction/1024, exponent-15)
	}
}
