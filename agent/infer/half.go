package infer

import "math"

// Float16 is the bits of an IEEE 754 binary16 number: 1 sign, 5 exponent and 10
// fraction bits. A named type keeps half floats apart from UINT16, which has the
// same size; Go has no arithmetic for them, so they travel as they are.
type Float16 uint16

// BFloat16 is the upper half of a float32: 8 exponent and 7 fraction bits.
type BFloat16 uint16

// half is one of the two, as float32.
type half interface {
	Float16 | BFloat16
	Float32() float32
}

// Float32 is the exact value.
func (h Float16) Float32() float32 {
	sign, exponent, fraction := uint32(h)>>15<<31, uint32(h)>>10&0x1f, uint32(h)&0x3ff
	switch exponent {
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	case 0: // zero or subnormal: fraction × 2⁻²⁴, exact as float32
		v := float32(fraction) * 0x1p-24
		return math.Float32frombits(math.Float32bits(v) | sign)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// NewFloat16 rounds v to the nearest number, ties to even. What is too large
// becomes an infinity, NaN stays NaN.
func NewFloat16(v float32) Float16 {
	bits := math.Float32bits(v)
	sign, magnitude := uint16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case magnitude > 0x7f800000: // NaN, quiet
		return Float16(sign | 0x7e00)
	case magnitude >= 0x477ff000: // 65520 and above round past the largest, 65504
		return Float16(sign | 0x7c00)
	case magnitude < 0x38800000: // below 2⁻¹⁴: adding 0.5 leaves fraction × 2⁻²⁴ in the low bits, rounded by the processor
		low := math.Float32bits(math.Float32frombits(magnitude)+0.5) - math.Float32bits(0.5)
		return Float16(sign | uint16(low)) //nolint:gosec // at most 2¹⁰
	}
	rounded := magnitude + 0xfff + magnitude>>13&1 // half of the last place kept, ties to even
	return Float16(sign | uint16((rounded-(127-15)<<23)>>13))
}

// Float32 is the exact value.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// NewBFloat16 rounds v to the nearest number, ties to even; NaN stays NaN.
func NewBFloat16(v float32) BFloat16 {
	bits := math.Float32bits(v)
	if v != v { // NaN alone differs from itself
		return BFloat16(bits>>16 | 0x40) //nolint:gosec // 16 bits are left
	}
	return BFloat16((bits + 0x7fff + bits>>16&1) >> 16)
}

func fillHalves[T half](to []T, from []float64, round func(float32) T) {
	for i, x := range from {
		to[i] = round(float32(x))
	}
}

func fromHalves[T half](to []float64, from []T) {
	for i, x := range from {
		to[i] = float64(x.Float32())
	}
}
