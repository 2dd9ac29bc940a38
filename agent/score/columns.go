package score

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// column is one element of an input row.
type column struct {
	name          string // of the feature, or tensor[index]
	tensor, index int
	size          int // elements of a row of the tensor
	min, max      float64
	missing       string // policy of the schema
	datatype      string
}

// modelColumns lists what one row of the model's inputs consists of.
func modelColumns(s *release.Schema) ([]column, error) {
	var list []column
	for ti, t := range s.Inputs {
		n, fixed := t.RowSize()
		if !fixed || n > math.MaxInt16 {
			return nil, fmt.Errorf("%w: input %q has rows of no fixed size or of more than %d values; a table cannot hold them", ErrInput, t.Name, math.MaxInt16)
		}
		for i := range int(n) {
			c := column{tensor: ti, index: i, size: int(n), min: math.Inf(-1), max: math.Inf(1), datatype: t.Datatype}
			c.name = elementName(&t, i, int(n))
			if i < len(t.Features) {
				f := t.Features[i]
				c.missing = f.Missing
				if f.Min != nil {
					c.min = *f.Min
				}
				if f.Max != nil {
					c.max = *f.Max
				}
			}
			list = append(list, c)
		}
	}
	return list, nil
}

func elementName(t *release.Tensor, i, n int) string {
	switch {
	case i < len(t.Features):
		return t.Features[i].Name
	case n == 1:
		return t.Name
	}
	return t.Name + "[" + strconv.Itoa(i) + "]"
}

// set parses one field into its place of row r. It returns why the field cannot
// be taken, "" when it can.
func (c *column) set(b *chunk, r int, field []byte) string {
	at := r*c.size + c.index
	switch d := b.in[c.tensor].Data.(type) {
	case []float32:
		v, n := infer.ScanFloat32(field)
		if n != len(field) || n == 0 || v > math.MaxFloat32 || v < -math.MaxFloat32 {
			f, reason := c.special(field)
			d[at] = float32(f)
			return reason
		}
		d[at] = v
		return c.check(float64(v))
	case []float64:
		v, n := infer.ScanFloat64(field)
		if n != len(field) || n == 0 || math.IsInf(v, 0) {
			var reason string
			d[at], reason = c.special(field)
			return reason
		}
		d[at] = v
		return c.check(v)
	case []string:
		d[at] = string(field)
		return ""
	case []bool:
		v, err := strconv.ParseBool(string(field))
		d[at] = v
		return c.reason(field, err)
	}
	return c.setInteger(b, at, field)
}

func (c *column) setInteger(b *chunk, at int, field []byte) string {
	text := string(field)
	if strings.HasPrefix(c.datatype, "UINT") {
		v, err := strconv.ParseUint(text, 10, bits(c.datatype))
		switch d := b.in[c.tensor].Data.(type) {
		case []uint64:
			d[at] = v
		case []uint32:
			d[at] = uint32(v) //nolint:gosec // parsed with this size
		case []uint16:
			d[at] = uint16(v) //nolint:gosec // parsed with this size
		case []uint8:
			d[at] = uint8(v) //nolint:gosec // parsed with this size
		}
		return firstReason(c.reason(field, err), c.check(float64(v)))
	}
	v, err := strconv.ParseInt(text, 10, bits(c.datatype))
	switch d := b.in[c.tensor].Data.(type) {
	case []int64:
		d[at] = v
	case []int32:
		d[at] = int32(v) //nolint:gosec // parsed with this size
	case []int16:
		d[at] = int16(v) //nolint:gosec // parsed with this size
	case []int8:
		d[at] = int8(v) //nolint:gosec // parsed with this size
	}
	return firstReason(c.reason(field, err), c.check(float64(v)))
}

func firstReason(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func bits(datatype string) int {
	n, err := strconv.Atoi(strings.TrimLeft(datatype, "UINT"))
	if err != nil {
		return 64
	}
	return n
}

func (c *column) reason(field []byte, err error) string {
	switch {
	case err == nil:
		return ""
	case len(field) == 0:
		return "is empty"
	}
	return fmt.Sprintf("%.40q is no %s", field, c.datatype)
}

// special takes what is no plain number: a missing value, spaces around a
// number. Infinities are what a broken export writes, and no measurement.
func (c *column) special(field []byte) (float64, string) {
	text := strings.TrimSpace(string(field))
	switch strings.ToLower(text) {
	case "", "nan", "+nan", "-nan", "null", "na":
		return c.absent(text)
	case "inf", "+inf", "-inf", "infinity", "-infinity", "+infinity":
		return 0, fmt.Sprintf("%q is not a finite number", text)
	}
	v, n := infer.ScanFloat64([]byte(text))
	switch {
	case n != len(text):
		return 0, fmt.Sprintf("%.40q is not a number", text)
	case c.datatype == "FP32" && math.Abs(v) > math.MaxFloat32, math.IsInf(v, 0):
		return 0, fmt.Sprintf("%.40q is too large for %s", text, c.datatype)
	}
	if c.datatype == "FP32" {
		f, _ := infer.ScanFloat32([]byte(text))
		v = float64(f)
	}
	return v, c.check(v)
}

// absent takes an empty field or the word for a missing value, which are missing
// only when the schema says that missing values are passed on: otherwise a hole
// in a file would be scored as if it were data.
func (c *column) absent(text string) (float64, string) {
	switch {
	case c.missing == "nan":
		return math.NaN(), ""
	case c.missing == "refuse":
		return 0, "is missing, which the model refuses"
	case text == "":
		return 0, "is empty; the model's schema does not say that it may be missing"
	}
	return 0, fmt.Sprintf("%q is not a number; the model's schema does not say that it may be missing", text)
}

// check compares a value with the valid range.
func (c *column) check(v float64) string {
	switch {
	case v < c.min:
		return fmt.Sprintf("is %v, below the valid minimum %v", v, c.min)
	case v > c.max:
		return fmt.Sprintf("is %v, above the valid maximum %v", v, c.max)
	}
	return ""
}

// mapHeader finds every column of the model in the header. Where the schema
// names no features, the order counts.
func mapHeader(columns []column, header, keep []string, named bool) (order, kept []int, err error) {
	order = make([]int, len(header)) // field → column of the model, −1 for none
	for i := range order {
		order[i] = -1
	}
	kept = make([]int, len(keep))
	for i, name := range keep {
		if kept[i] = slices.Index(header, name); kept[i] < 0 {
			return nil, nil, fmt.Errorf("%w: there is no column %q to keep", ErrInput, name)
		}
	}
	if !named {
		return positional(columns, order, kept)
	}
	var lacking []string
	for i := range columns {
		at := slices.Index(header, columns[i].name)
		if at < 0 {
			lacking = append(lacking, columns[i].name)
			continue
		}
		if slices.Contains(header[at+1:], columns[i].name) {
			return nil, nil, fmt.Errorf("%w: column %q is there twice", ErrInput, columns[i].name)
		}
		order[at] = i
	}
	if len(lacking) > 0 {
		return nil, nil, fmt.Errorf("%w: %s; the header must name the model's features, or pass --header skip to go by position",
			ErrInput, lackingNames(lacking, len(columns)))
	}
	return order, kept, nil
}

// lackingNames says which columns of the model a file has not.
func lackingNames(lacking []string, all int) string {
	shown := lacking[:min(len(lacking), 5)]
	more := ""
	if len(lacking) > len(shown) {
		more = fmt.Sprintf(" and %d more", len(lacking)-len(shown))
	}
	return fmt.Sprintf("%d of %d columns are missing: %q%s", len(lacking), all, shown, more)
}

// positional takes the fields that are not kept in their order.
func positional(columns []column, order, kept []int) ([]int, []int, error) {
	next := 0
	for i := range order {
		if slices.Contains(kept, i) {
			continue
		}
		if next < len(columns) {
			order[i] = next
		}
		next++
	}
	if next != len(columns) {
		return nil, nil, fmt.Errorf("%w: rows have %d columns, the model takes %d", ErrInput, next, len(columns))
	}
	return order, kept, nil
}
