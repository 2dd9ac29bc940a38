package score

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// transpose puts a column of a file into its place of every row of the tensors
// and rejects the rows whose value the model does not take.
func (c *column) transpose(to *chunk, from *cells) {
	switch v := from.values.(type) {
	case []float32:
		if d, ok := to.in[c.tensor].Data.([]float32); ok && len(from.null) == 0 {
			c.transposeFloats(to, d, v)
			return
		}
		transposeNumbers(c, to, from, v)
	case []float64:
		transposeNumbers(c, to, from, v)
	case []int32:
		transposeNumbers(c, to, from, v)
	case []uint32:
		transposeNumbers(c, to, from, v)
	case []int64:
		c.transposeIntegers(to, from, v)
	case []uint64:
		c.transposeUnsigned(to, from, v)
	case []bool:
		c.transposeBooleans(to, from, v)
	case []string:
		c.transposeTexts(to, from, v)
	}
}

// refuse rejects row r when there is a reason to.
func (c *column) refuse(to *chunk, r int, reason string) {
	if reason != "" {
		to.reject(r, &RowError{Row: to.number(r), Column: c.name, Reason: reason})
	}
}

// transposeFloats is the common case, and the fast one.
func (c *column) transposeFloats(to *chunk, d, v []float32) {
	low, high := max(c.min, -math.MaxFloat32), min(c.max, math.MaxFloat32)
	at := c.index
	for r, x := range v[:to.n] {
		if wide := float64(x); wide >= low && wide <= high {
			d[at] = x
		} else {
			c.refuse(to, r, c.setNumber(to, r, wide))
		}
		at += c.size
	}
}

// narrow are the numbers that a float64 holds exactly.
type narrow interface {
	~float32 | ~float64 | ~int32 | ~uint32
}

func transposeNumbers[T narrow](c *column, to *chunk, from *cells, v []T) {
	for r, x := range v[:to.n] {
		if from.isNull(r) {
			c.refuse(to, r, c.setMissing(to, r))
			continue
		}
		c.refuse(to, r, c.setNumber(to, r, float64(x)))
	}
}

// exact is below which a float64 holds every integer.
const exact = 1 << 53

func (c *column) transposeIntegers(to *chunk, from *cells, v []int64) {
	for r, x := range v[:to.n] {
		switch {
		case from.isNull(r):
			c.refuse(to, r, c.setMissing(to, r))
		case c.isFloat() || x > -exact && x < exact:
			c.refuse(to, r, c.setNumber(to, r, float64(x)))
		default:
			c.refuse(to, r, c.set(to, r, strconv.AppendInt(nil, x, 10)))
		}
	}
}

func (c *column) transposeUnsigned(to *chunk, from *cells, v []uint64) {
	for r, x := range v[:to.n] {
		switch {
		case from.isNull(r):
			c.refuse(to, r, c.setMissing(to, r))
		case c.isFloat() || x < exact:
			c.refuse(to, r, c.setNumber(to, r, float64(x)))
		default:
			c.refuse(to, r, c.set(to, r, strconv.AppendUint(nil, x, 10)))
		}
	}
}

func (c *column) transposeBooleans(to *chunk, from *cells, v []bool) {
	for r, x := range v[:to.n] {
		number := 0.0
		if x {
			number = 1
		}
		if from.isNull(r) {
			c.refuse(to, r, c.setMissing(to, r))
			continue
		}
		c.refuse(to, r, c.setNumber(to, r, number))
	}
}

func (c *column) transposeTexts(to *chunk, from *cells, v []string) {
	d, ok := to.in[c.tensor].Data.([]string)
	if !ok {
		return // refused when the file was opened
	}
	for r, x := range v[:to.n] {
		if from.isNull(r) {
			c.refuse(to, r, "is missing")
			continue
		}
		d[r*c.size+c.index] = x
	}
}

func (c *column) isFloat() bool { return strings.HasPrefix(c.datatype, "FP") }

// setMissing takes a value that is not there.
func (c *column) setMissing(to *chunk, r int) string {
	if !c.isFloat() {
		return "is missing"
	}
	v, reason := c.absent("")
	if reason == "" {
		c.store(to, r, v)
	}
	return reason
}

// setNumber takes a number for row r, or says why not. NaN is a missing value.
func (c *column) setNumber(to *chunk, r int, v float64) string {
	switch {
	case math.IsNaN(v):
		return c.setMissing(to, r)
	case math.IsInf(v, 0):
		return "is not a finite number"
	case c.datatype == "FP32" && math.Abs(v) > math.MaxFloat32:
		return fmt.Sprintf("%v is too large for FP32", v)
	case c.isFloat():
		c.store(to, r, v)
		return c.check(v)
	case c.datatype == "BOOL" && (v == 0 || v == 1):
		return c.set(to, r, strconv.AppendBool(nil, v == 1))
	case v != math.Trunc(v) || math.Abs(v) > exact:
		return fmt.Sprintf("%v is no %s", v, c.datatype)
	}
	return c.set(to, r, strconv.AppendInt(nil, int64(v), 10))
}

// store puts a number into a tensor of floats.
func (c *column) store(to *chunk, r int, v float64) {
	switch d := to.in[c.tensor].Data.(type) {
	case []float32:
		d[r*c.size+c.index] = float32(v)
	case []float64:
		d[r*c.size+c.index] = v
	}
}
