package score

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol/release"
)

// layout is what a row of the output consists of, whatever the format: the row's
// number, the columns to keep, the class, and the outputs value by value.
type layout struct {
	schema  *release.Schema
	keep    []string
	nulls   bool       // bad rows are written too
	label   int        // index of the label output, −1 for none
	columns [][]string // names by output
}

func newLayout(cfg *Config) layout {
	l := layout{schema: cfg.Schema, keep: cfg.Keep, nulls: cfg.OnError == OnErrorNull}
	l.label = slices.IndexFunc(cfg.Schema.Outputs, func(t release.Tensor) bool { return t.Name == cfg.Schema.Label && t.Name != "" })
	l.columns = outputNames(cfg.Schema)
	return l
}

// outputNames are the columns of every output: its own name when a row has one
// value, else with the class or the place.
func outputNames(s *release.Schema) [][]string {
	list := make([][]string, len(s.Outputs))
	for i, t := range s.Outputs {
		n, fixed := t.RowSize()
		switch {
		case !fixed || n == 1:
			list[i] = []string{t.Name}
			continue
		case t.Name == s.Scores && int64(len(s.Classes)) == n:
			for _, class := range s.Classes {
				list[i] = append(list[i], t.Name+"_"+class)
			}
			continue
		}
		for k := range n {
			list[i] = append(list[i], t.Name+"_"+strconv.FormatInt(k, 10))
		}
	}
	return list
}

func (l *layout) hasClass() bool { return l.label >= 0 && len(l.schema.Classes) > 0 }

// class is the name of the predicted class in row p of the tensors.
func (l *layout) class(c *chunk, r, p int) (string, error) {
	switch d := c.out[l.label].Data.(type) {
	case []int64:
		if k := d[p]; k >= 0 && k < int64(len(l.schema.Classes)) {
			return l.schema.Classes[k], nil
		}
		return "", fmt.Errorf("row %d: the model answers class %d, the schema has %d", c.number(r), d[p], len(l.schema.Classes))
	case []string:
		return d[p], nil
	}
	return "", nil
}

// sized checks that output i has as many values a row as it has columns.
func (l *layout) sized(c *chunk, i int) error {
	if size := c.rowSize(i); size != len(l.columns[i]) {
		return fmt.Errorf("output %q has %d values a row, a table needs a fixed number; write JSON Lines instead", c.out[i].Name, size)
	}
	return nil
}

// textEncoder writes CSV or JSON Lines.
type textEncoder struct {
	layout
	json bool
}

var _ encoder = (*textEncoder)(nil)

func newTextEncoder(cfg *Config) *textEncoder {
	return &textEncoder{layout: newLayout(cfg), json: cfg.OutFormat == JSONLines}
}

func (e *textEncoder) begin(w io.Writer) error {
	if e.json {
		return nil
	}
	_, err := w.Write(e.appendHeader(nil))
	return err
}

func (e *textEncoder) encode(c *chunk) error {
	if !e.json && c.rows > 0 {
		for i := range c.out {
			if err := e.sized(c, i); err != nil {
				return err
			}
		}
	}
	for r := range c.n {
		p := c.place[r]
		if p < 0 && !e.nulls {
			continue
		}
		var err error
		if e.json {
			c.text, err = e.appendJSON(c.text, c, r, p)
		} else {
			c.text, err = e.appendCSV(c.text, c, r, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *textEncoder) write(w io.Writer, c *chunk) error {
	_, err := w.Write(c.text)
	return err
}

func (e *textEncoder) end(io.Writer) error    { return nil }
func (e *textEncoder) settled() bool          { return true }
func (e *textEncoder) settle(io.Writer) error { return nil }
func (e *textEncoder) state() ([]byte, error) { return nil, nil }

func (e *textEncoder) appendHeader(b []byte) []byte {
	b = append(b, "row"...)
	for _, k := range e.keep {
		b = appendField(append(b, ','), k)
	}
	if e.hasClass() {
		b = append(b, ",class"...)
	}
	for _, names := range e.columns {
		for _, n := range names {
			b = appendField(append(b, ','), n)
		}
	}
	return append(b, '\n')
}

func (e *textEncoder) appendCSV(b []byte, c *chunk, r, p int) ([]byte, error) {
	b = strconv.AppendInt(b, c.number(r), 10)
	for _, v := range c.keptOf(r, len(e.keep)) {
		b = appendField(append(b, ','), v.text)
	}
	if e.hasClass() {
		b = append(b, ',')
		if p >= 0 {
			class, err := e.class(c, r, p)
			if err != nil {
				return nil, err
			}
			b = appendField(b, class)
		}
	}
	for i := range c.out {
		size := len(e.columns[i])
		if p < 0 {
			b = append(b, strings.Repeat(",", size)...)
			continue
		}
		for k := range size {
			b = appendElement(append(b, ','), c.out[i].Data, p*size+k, false)
		}
	}
	return append(b, '\n'), nil
}

func (e *textEncoder) appendJSON(b []byte, c *chunk, r, p int) ([]byte, error) {
	b = append(b, `{"row":`...)
	b = strconv.AppendInt(b, c.number(r), 10)
	for i, v := range c.keptOf(r, len(e.keep)) {
		b = appendKept(appendMember(b, e.keep[i]), v)
	}
	if e.hasClass() && p >= 0 {
		class, err := e.class(c, r, p)
		if err != nil {
			return nil, err
		}
		b = appendString(appendMember(b, "class"), class)
	}
	for i := range c.out {
		b = appendMember(b, c.out[i].Name)
		size := c.rowSize(i)
		switch {
		case p < 0:
			b = append(b, "null"...)
		case size == 1:
			b = appendElement(b, c.out[i].Data, p, true)
		default:
			b = append(b, '[')
			for k := range size {
				if k > 0 {
					b = append(b, ',')
				}
				b = appendElement(b, c.out[i].Data, p*size+k, true)
			}
			b = append(b, ']')
		}
	}
	return append(b, '}', '\n'), nil
}

func appendKept(b []byte, v field) []byte {
	switch v.kind {
	case literalField:
		return append(b, v.text...)
	case nullField:
		return append(b, "null"...)
	case textField:
	}
	return appendString(b, v.text)
}

func appendMember(b []byte, name string) []byte {
	b = append(b, ',')
	b = appendString(b, name)
	return append(b, ':')
}

func appendString(b []byte, s string) []byte {
	raw, err := json.Marshal(s)
	if err != nil {
		return append(b, `""`...) // cannot happen: a string always encodes
	}
	return append(b, raw...)
}

// appendField writes a CSV field, quoted when it has to be.
func appendField(b []byte, s string) []byte {
	if !strings.ContainsAny(s, ",\"\r\n") {
		return append(b, s...)
	}
	b = append(b, '"')
	b = append(b, strings.ReplaceAll(s, `"`, `""`)...)
	return append(b, '"')
}

// appendElement writes element i. In JSON a number that is none is null.
func appendElement(b []byte, data any, i int, isJSON bool) []byte {
	switch d := data.(type) {
	case []float32:
		return appendNumber(b, float64(d[i]), 32, isJSON)
	case []float64:
		return appendNumber(b, d[i], 64, isJSON)
	case []int64:
		return strconv.AppendInt(b, d[i], 10)
	case []bool:
		return strconv.AppendBool(b, d[i])
	case []string:
		if isJSON {
			return appendString(b, d[i])
		}
		return appendField(b, d[i])
	case []int32:
		return strconv.AppendInt(b, int64(d[i]), 10)
	case []int16:
		return strconv.AppendInt(b, int64(d[i]), 10)
	case []int8:
		return strconv.AppendInt(b, int64(d[i]), 10)
	case []uint64:
		return strconv.AppendUint(b, d[i], 10)
	case []uint32:
		return strconv.AppendUint(b, uint64(d[i]), 10)
	case []uint16:
		return strconv.AppendUint(b, uint64(d[i]), 10)
	case []uint8:
		return strconv.AppendUint(b, uint64(d[i]), 10)
	}
	return b
}

// appendNumber writes the shortest text that reads back the same, without an
// exponent as long as a person would.
func appendNumber(b []byte, v float64, size int, isJSON bool) []byte {
	if isJSON && (math.IsNaN(v) || math.IsInf(v, 0)) {
		return append(b, "null"...)
	}
	form := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(b, v, form, -1, size)
}
