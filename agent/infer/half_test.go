package infer

import (
	"math"
	"testing"
)

// valueOfHalf is a binary16 number by the definition of IEEE 754, §3.4.
func valueOfHalf(h uint16) float64 {
	sign := 1 - 2*float64(h>>15)
	exponent, fraction := int(h>>10&0x1f), float64(h&0x3ff)
	switch {
	case exponent == 31 && fraction == 0:
		return math.Inf(int(sign))
	case exponent == 31:
		return math.NaN()
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

func TestFloat16IsExactBothWays(t *testing.T) {
	for i := range 1 << 16 {
		h := Float16(i)
		got, want := float64(h.Float32()), valueOfHalf(uint16(i))
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) != math.Signbit(want) && !math.IsNaN(want) {
			t.Fatalf("%#04x is %v, want %v", i, got, want)
		}
		if back := NewFloat16(h.Float32()); back != h && !math.IsNaN(want) {
			t.Fatalf("%v became %#04x, want %#04x", got, back, i)
		}
	}
	if h := NewFloat16(float32(math.NaN())); !math.IsNaN(float64(h.Float32())) {
		t.Errorf("NaN became %#04x", h)
	}
}

// Between two neighbours the nearer one is taken, in the middle the even one.
func TestFloat16Rounds(t *testing.T) {
	for i := range uint16(0x7bff) {
		low, high := valueOfHalf(i), valueOfHalf(i+1)
		middle := float32((low + high) / 2) // exact: one bit more than binary16
		even := Float16(i + i&1)
		for v, want := range map[float32]Float16{
			math.Nextafter32(middle, 0): Float16(i), middle: even,
			math.Nextafter32(middle, math.MaxFloat32): Float16(i + 1),
		} {
			if got := NewFloat16(v); got != want {
				t.Fatalf("%v became %#04x, want %#04x", v, got, want)
			}
			if got := NewFloat16(-v); got != want|0x8000 {
				t.Fatalf("%v became %#04x, want %#04x", -v, got, want|0x8000)
			}
		}
	}
	for v, want := range map[float32]Float16{
		65519: 0x7bff, 65520: 0x7c00, 1e30: 0x7c00, float32(math.Inf(-1)): 0xfc00, 0x1p-25: 0, 0x1.8p-25: 1, 1e-30: 0,
	} {
		if got := NewFloat16(v); got != want {
			t.Errorf("%v became %#04x, want %#04x", v, got, want)
		}
	}
}

func TestBFloat16(t *testing.T) {
	for v, want := range map[float32]BFloat16{
		0: 0, 1: 0x3f80, -2.5: 0xc020, 3.140625: 0x4049, 0x1.01p0: 0x3f80, 0x1.03p0: 0x3f82, 0x1.010002p0: 0x3f81,
		math.MaxFloat32: 0x7f80, float32(math.Inf(1)): 0x7f80,
	} {
		if got := NewBFloat16(v); got != want {
			t.Errorf("%v became %#04x, want %#04x", v, got, want)
		}
	}
	for i := range 1 << 16 {
		b := BFloat16(i)
		if v := b.Float32(); v == v && NewBFloat16(v) != b {
			t.Fatalf("%#04x does not come back", i)
		}
	}
	if v := NewBFloat16(float32(math.NaN())).Float32(); !math.IsNaN(float64(v)) {
		t.Errorf("NaN became %v", v)
	}
}
