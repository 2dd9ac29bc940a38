package score

import (
	"cmp"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Rows are rows of a table as the tensors of a schema. They are valid until the
// next ones are read.
type Rows struct {
	N       int
	First   int64          // number of the first row, counted from 1
	Tensors []infer.Tensor // in the order of the schema's inputs
	Kept    []string       // kept columns, row by row
}

// Reader reads a table batch by batch, without a model.
type Reader struct {
	table  table
	parser parser
	chunk  *chunk
}

// NewReader reads the header. The first bad row ends the reading with an error
// that names it. Of cfg it needs Schema and Input; Header, Keep, InFormat (CSV if
// empty) and Batch are optional.
func NewReader(cfg Config) (*Reader, error) {
	cfg.InFormat = cmp.Or(cfg.InFormat, CSV)
	cfg.OutFormat, cfg.OnError, cfg.Resume = CSV, OnErrorFail, false
	// Of the schema only inputs are read; a chunk needs no room for outputs.
	cfg.Schema = &release.Schema{Inputs: cfg.Schema.Inputs}
	if err := cfg.withDefaults(); err != nil {
		return nil, err
	}
	columns, err := modelColumns(cfg.Schema)
	if err != nil {
		return nil, err
	}
	t, err := openTable(&cfg, columns)
	if err != nil {
		return nil, err
	}
	c, err := newChunk(&cfg)
	if err != nil {
		return nil, err
	}
	return &Reader{table: t, parser: t.parser(), chunk: c}, nil
}

// Next reads the next rows; io.EOF after the last.
func (r *Reader) Next() (*Rows, error) {
	c := r.chunk
	if err := r.table.next(c); err != nil {
		return nil, err
	}
	if err := r.parser.parse(c); err != nil {
		return nil, err
	}
	if len(c.bad) > 0 {
		return nil, c.bad[0]
	}
	in, err := firstRows(c.in, c.rows, c.capacity())
	if err != nil {
		return nil, err
	}
	rows := &Rows{N: c.rows, First: c.first, Tensors: in}
	for _, f := range c.kept {
		rows.Kept = append(rows.Kept, f.text)
	}
	return rows, nil
}
