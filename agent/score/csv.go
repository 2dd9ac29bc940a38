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

// csvParser reads RFC 4180 records straight into a batch.
type csvParser struct {
	src     *source
	columns []column
	order   []int // field → column of the model, −1 for none
	kept    []int // fields to keep
	first   []byte
	fields  [][]byte // of a record that needs them all
	scratch []byte   // unquoted text
}

var _ parser = (*csvParser)(nil)

// newCSVParser reads the header, or the first row when there is none.
func newCSVParser(src *source, columns []column, cfg *Config) (*csvParser, error) {
	p := &csvParser{src: src, columns: columns}
	rec, err := p.record()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s is empty", ErrInput, cfg.Input.Name)
	}
	if err != nil {
		return nil, err
	}
	rec = bytes.TrimPrefix(rec, []byte("\xef\xbb\xbf"))
	if err := p.split(rec); err != nil {
		return nil, err
	}
	names := make([]string, len(p.fields))
	for i, f := range p.fields {
		names[i] = string(bytes.TrimSpace(f))
	}
	header := cfg.Header == HeaderYes || cfg.Header == HeaderSkip || cfg.Header == HeaderAuto && !allNumbers(p.fields)
	if !header {
		p.first = bytes.Clone(rec)
		for i := range names {
			names[i] = strconv.Itoa(i + 1)
		}
	}
	named := header && cfg.Header != HeaderSkip && hasFeatures(cfg)
	p.order, p.kept, err = mapHeader(columns, names, cfg.Keep, named)
	return p, err
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

// record skips empty lines.
func (p *csvParser) record() ([]byte, error) {
	for {
		rec, err := p.src.record()
		if err != nil || len(rec) > 0 {
			return rec, err
		}
	}
}

func (p *csvParser) position() position { return p.src.pos }

func (p *csvParser) seek(to position) {
	p.first = nil
	p.src.seekTo(to)
}

func (p *csvParser) row(b *batch) error {
	rec := p.first
	p.first = nil
	if rec == nil {
		var err error
		if rec, err = p.record(); err != nil {
			return err
		}
	}
	p.src.pos.Row++
	if len(p.kept) == 0 && bytes.IndexByte(rec, '"') < 0 && p.plain(b, rec) {
		return nil
	}
	return p.slow(b, rec)
}

// plain is the fast way for rows of plain numbers without quotes: every number
// is read where its field begins, and its end is the field's end. It gives up, having done no
// harm, at the first field that is something else.
func (p *csvParser) plain(b *batch, rec []byte) bool {
	i := 0
	for f, ci := range p.order {
		if ci < 0 {
			end := bytes.IndexByte(rec[i:], ',')
			if end < 0 {
				end = len(rec) - i
			}
			i += end
		} else {
			c := &p.columns[ci]
			d, ok := b.in[c.tensor].Data.([]float32)
			if !ok {
				return false
			}
			v, n := infer.ScanFloat32(rec[i:])
			if wide := float64(v); n == 0 || math.IsInf(wide, 0) || wide < c.min || wide > c.max {
				return false
			}
			d[b.rows*c.size+c.index] = v
			i += n
		}
		if f == len(p.order)-1 {
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
func (p *csvParser) slow(b *batch, rec []byte) error {
	bad := func(column, reason string) error {
		return &RowError{Row: p.src.pos.Row, Line: p.src.pos.Line, Column: column, Reason: reason}
	}
	if err := p.split(rec); err != nil {
		return bad("", err.Error())
	}
	if got, want := len(p.fields), len(p.order); got < want {
		return bad(p.fieldName(got), fmt.Sprintf("is missing: the row has %d of %d columns", got, want))
	} else if got > want {
		return bad("", fmt.Sprintf("has %d columns, %d are expected", got, want))
	}
	for f, ci := range p.order {
		if ci < 0 {
			continue
		}
		c := &p.columns[ci]
		if reason := c.set(b, b.rows, p.fields[f]); reason != "" {
			return bad(c.name, reason)
		}
	}
	for _, f := range p.kept {
		b.kept = append(b.kept, string(p.fields[f]))
	}
	return nil
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
