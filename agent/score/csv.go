package score

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/vedette-edge/vedette/agent/infer"
)

// csvTable is a CSV file (RFC 4180) whose header was read.
type csvTable struct {
	*text
	columns []column
	order   []int // field → column of the model, −1 for none
	kept    []int // fields to keep
	plain   []plainField
}

var (
	_ table  = (*csvTable)(nil)
	_ parser = (*csvParser)(nil)
)

// openCSV reads the header, or the first row when there is none.
func openCSV(cfg *Config, columns []column) (*csvTable, error) {
	text, err := openText(cfg, true, func(rec []byte) bool { return len(rec) == 0 })
	if err != nil {
		return nil, err
	}
	t := &csvTable{text: text, columns: columns}
	rec, err := t.record()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s is empty", ErrInput, cfg.Input.Name)
	}
	if err != nil {
		return nil, err
	}
	rec = bytes.TrimPrefix(rec, []byte("\xef\xbb\xbf"))
	p := &csvParser{csvTable: t}
	if err := p.split(rec); err != nil {
		return nil, fmt.Errorf("%w: line 1 %w", ErrInput, err)
	}
	names := make([]string, len(p.fields))
	for i, f := range p.fields {
		names[i] = string(bytes.TrimSpace(f))
	}
	header := cfg.Header == HeaderYes || cfg.Header == HeaderSkip || cfg.Header == HeaderAuto && !allNumbers(p.fields)
	if !header {
		t.first = bytes.Clone(rec)
		for i := range names {
			names[i] = strconv.Itoa(i + 1)
		}
	}
	named := header && cfg.Header != HeaderSkip && hasFeatures(cfg)
	if t.order, t.kept, err = mapHeader(columns, names, cfg.Keep, named); err != nil {
		return nil, hintSeparator(err, rec)
	}
	if len(cfg.Keep) == 0 {
		t.plain = plainFields(columns, t.order)
	}
	return t, nil
}

// hintSeparator adds to an error what the first line looks like.
func hintSeparator(err error, line []byte) error {
	for _, s := range []struct{ mark, name string }{{";", "semicolons"}, {"\t", "tabs"}} {
		if n := bytes.Count(line, []byte(s.mark)); n > 0 && n >= bytes.Count(line, []byte(",")) {
			return fmt.Errorf("%w; its first line looks separated by %s: write it with commas", err, s.name)
		}
	}
	return err
}

// hasFeatures reports whether the schema names what it takes. Inputs of one
// value a row are named by the tensor.
func hasFeatures(cfg *Config) bool {
	for _, t := range cfg.Schema.Inputs {
		if n, _ := t.RowSize(); len(t.Features) == 0 && n > 1 {
			return false
		}
	}
	return true
}

func allNumbers(fields [][]byte) bool {
	return !slices.ContainsFunc(fields, func(f []byte) bool {
		f = bytes.TrimSpace(f)
		_, n := infer.ScanFloat64(f)
		return n != len(f) || n == 0
	})
}

// csvParser parses rows straight into tensors.
type csvParser struct {
	*csvTable
	fields  [][]byte // of a record that needs them all
	scratch []byte   // unquoted text
}

func (t *csvTable) parser() parser { return &csvParser{csvTable: t} }

func (p *csvParser) parse(c *chunk) error {
	floats := plainPlaces(p.plain, p.columns, c)
	c.each(func(rec []byte, to int) (string, string) {
		if floats != nil && parsePlain(p.plain, floats, rec, to) {
			return "", ""
		}
		return p.slow(c, rec, to)
	})
	return nil
}

// plainField says what the fast way does with a field.
type plainField struct {
	column      int // of the model, −1 to pass over the field
	index, size int // in the row of the tensor
	min, max    float64
}

// plainFields is nil when the fast way is none: a column is not FP32.
func plainFields(columns []column, order []int) []plainField {
	list := make([]plainField, len(order))
	for i, ci := range order {
		list[i].column = ci
		if ci < 0 {
			continue
		}
		c := &columns[ci]
		if c.datatype != "FP32" {
			return nil
		}
		list[i] = plainField{ci, c.index, c.size, max(c.min, -math.MaxFloat32), min(c.max, math.MaxFloat32)}
	}
	return list
}

// plainPlaces are the tensors of a chunk by field, nil without a fast way.
func plainPlaces(fields []plainField, columns []column, c *chunk) [][]float32 {
	if fields == nil {
		return nil
	}
	list := make([][]float32, len(fields))
	for i, f := range fields {
		if f.column >= 0 {
			list[i], _ = c.in[columns[f.column].tensor].Data.([]float32)
		}
	}
	return list
}

// parsePlain is the fast way for rows of plain numbers without quotes: every
// number is read where its field begins, and its end is the field's end. It
// gives up, having done no harm, at the first field that is something else.
func parsePlain(fields []plainField, to [][]float32, rec []byte, row int) bool {
	i := 0
	for k := range fields {
		f := &fields[k]
		if f.column < 0 {
			end := bytes.IndexByte(rec[i:], ',')
			if end < 0 {
				end = len(rec) - i
			}
			if bytes.IndexByte(rec[i:i+end], '"') >= 0 {
				return false
			}
			i += end
		} else {
			v, n := infer.ScanFloat32(rec[i:])
			if wide := float64(v); n == 0 || wide < f.min || wide > f.max {
				return false
			}
			to[k][row*f.size+f.index] = v
			i += n
		}
		if k == len(fields)-1 {
			return i == len(rec)
		}
		if i >= len(rec) || rec[i] != ',' {
			return false
		}
		i++
	}
	return false
}

// slow splits the record and names what is wrong.
func (p *csvParser) slow(c *chunk, rec []byte, to int) (column, reason string) {
	err := p.split(rec)
	p.keep(c)
	if err != nil {
		return "", err.Error()
	}
	if got, want := len(p.fields), len(p.order); got < want {
		return p.fieldName(got), fmt.Sprintf("is missing: the row has %d of %d columns", got, want)
	} else if got > want {
		return "", fmt.Sprintf("has %d columns, %d are expected", got, want)
	}
	for f, ci := range p.order {
		if ci < 0 {
			continue
		}
		column := &p.columns[ci]
		if reason := column.set(c, to, p.fields[f]); reason != "" {
			return column.name, reason
		}
	}
	return "", ""
}

// keep copies fields of the row, bad or not, as far as it has them: a row that
// is written without outputs can still be told by its id.
func (p *csvParser) keep(c *chunk) {
	for _, f := range p.kept {
		v := field{kind: nullField}
		if f < len(p.fields) {
			v = field{text: string(p.fields[f])}
		}
		c.kept = append(c.kept, v)
	}
}

// fieldName is what a field is called in an error.
func (p *csvParser) fieldName(f int) string {
	if ci := p.order[f]; ci >= 0 {
		return p.columns[ci].name
	}
	return strconv.Itoa(f + 1)
}

var errQuote = errors.New("has a quote in the middle of a field")

// split cuts a record into fields.
func (p *csvParser) split(rec []byte) error {
	p.fields, p.scratch = p.fields[:0], p.scratch[:0]
	for {
		if len(rec) > 0 && rec[0] == '"' {
			field, rest, err := p.unquote(rec[1:])
			if err != nil {
				return err
			}
			p.fields = append(p.fields, field)
			if len(rest) == 0 {
				return nil
			}
			rec = rest[1:]
			continue
		}
		end := bytes.IndexByte(rec, ',')
		if end < 0 {
			p.fields = append(p.fields, rec)
			return nil
		}
		p.fields = append(p.fields, rec[:end])
		rec = rec[end+1:]
	}
}

// unquote reads a quoted field after its first quote; rest begins with a comma
// or is empty.
func (p *csvParser) unquote(rec []byte) (field, rest []byte, err error) {
	from := len(p.scratch)
	for {
		q := bytes.IndexByte(rec, '"')
		if q < 0 {
			return nil, nil, errQuote
		}
		p.scratch = append(p.scratch, rec[:q]...)
		rec = rec[q+1:]
		switch {
		case len(rec) == 0 || rec[0] == ',':
			return bytes.Clone(p.scratch[from:]), rec, nil
		case rec[0] != '"':
			return nil, nil, errQuote
		}
		p.scratch = append(p.scratch, '"')
		rec = rec[1:]
	}
}
