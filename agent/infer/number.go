package infer

import (
	"math"
	"strconv"
	"unsafe"
)

// ScanFloat32 reads a decimal number at the start of b: an optional sign,
// digits with or without a point, an optional exponent. It returns the nearest
// float32 and the bytes read, 0 when there is no number. A number too large
// gives an infinity.
func ScanFloat32(b []byte) (v float32, n int) {
	d := scanDecimal(b)
	if d.mantissa < 1<<24 && d.exponent <= 0 && d.exponent >= -10 && !d.cut {
		// Both are exact as float32, so their quotient is rounded once.
		v = float32(d.mantissa) / smallPowersOfTen[-d.exponent]
		if d.negative {
			v = -v
		}
		return v, d.length
	}
	if f, ok := d.float64(); ok {
		// f is correctly rounded, and rounding it again is right unless f lies
		// exactly between two float32, where the first rounding may have hidden
		// on which side the number was. Subnormals have other midpoints.
		tie := math.Float64bits(f)&(1<<29-1) == 1<<28
		if abs := math.Abs(f); !tie && (abs >= smallestNormal32 && abs < math.MaxFloat32 || d.mantissa == 0) {
			return float32(f), d.length
		}
	}
	if d.length == 0 {
		return 0, 0
	}
	f, _ := strconv.ParseFloat(text(b[:d.length]), 32) // an error is an infinity
	return float32(f), d.length
}

// ScanFloat64 is ScanFloat32 for the nearest float64.
func ScanFloat64(b []byte) (v float64, n int) {
	d := scanDecimal(b)
	if f, ok := d.float64(); ok {
		return f, d.length
	}
	if d.length == 0 {
		return 0, 0
	}
	f, _ := strconv.ParseFloat(text(b[:d.length]), 64) // an error is an infinity
	return f, d.length
}

const smallestNormal32 = 0x1p-126

// text lends b as a string to a function that does not keep it.
func text(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// decimal is mantissa × 10^exponent. It is exact unless cut.
type decimal struct {
	mantissa uint64
	exponent int
	negative bool
	cut      bool // more digits than a uint64 is sure to hold
	length   int  // bytes, 0 for no number
}

// maxDigits is how many decimal digits always fit a uint64.
const maxDigits = 19

// scanDecimal keeps everything in locals: it runs once for every number of
// every request and every cell of every file.
func scanDecimal(b []byte) decimal {
	i, negative := 0, false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		i, negative = 1, b[0] == '-'
	}
	first, m := i, uint64(0)
	for ; i < len(b) && isDigit(b[i]); i++ {
		m = m*10 + uint64(b[i]-'0')
	}
	digits, exponent := i-first, 0
	if i < len(b) && b[i] == '.' {
		i++
		point := i
		for ; i < len(b) && isDigit(b[i]); i++ {
			m = m*10 + uint64(b[i]-'0')
		}
		digits += i - point
		exponent = point - i
	}
	if digits == 0 {
		return decimal{}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		e, n := scanExponent(b[i:])
		exponent += e
		i += n
	}
	return decimal{mantissa: m, exponent: exponent, negative: negative, cut: digits > maxDigits, length: i}
}

// scanExponent reads "e±digits" and returns its value and length; anything else
// is not part of the number.
func scanExponent(b []byte) (e, n int) {
	i, sign := 1, 1
	if len(b) > 1 && (b[1] == '-' || b[1] == '+') {
		i = 2
		if b[1] == '-' {
			sign = -1
		}
	}
	first := i
	for ; i < len(b) && isDigit(b[i]); i++ {
		e = min(e*10+int(b[i]-'0'), 1<<20)
	}
	if i == first {
		return 0, 0
	}
	return sign * e, i
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// float64 computes the value where one rounding suffices: a mantissa that a
// float64 holds exactly and a power of ten that it holds exactly (W. D.
// Clinger, How to Read Floating Point Numbers Accurately, 1990).
func (d *decimal) float64() (float64, bool) {
	if d.length == 0 || d.cut || d.mantissa > 1<<53 || d.exponent < -22 || d.exponent > 22 {
		return 0, false
	}
	f := float64(d.mantissa)
	if d.exponent < 0 {
		f /= powersOfTen[-d.exponent]
	} else {
		f *= powersOfTen[d.exponent]
	}
	if d.negative {
		f = -f
	}
	return f, true
}

// smallPowersOfTen are those that a float32 holds exactly.
var smallPowersOfTen = [...]float32{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10}

var powersOfTen = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}
