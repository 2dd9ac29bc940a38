package score

import (
	"errors"
	"io"

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
	job   *job
	batch *batch
	done  bool
}

// NewReader reads the header. The first bad row ends the reading with an error
// that names it. Of cfg it needs Schema and Input; Header, Keep, InFormat (CSV if
// empty) and Batch are optional.
func NewReader(cfg Config) (*Reader, error) {
	if cfg.InFormat == "" {
		cfg.InFormat = CSV
	}
	cfg.OutFormat, cfg.OnError, cfg.Resume = CSV, OnErrorFail, false
	// Of the schema only inputs are read; a batch needs no room for outputs.
	cfg.Schema = &release.Schema{Inputs: cfg.Schema.Inputs}
	if err := cfg.withDefaults(); err != nil {
		return nil, err
	}
	columns, err := modelColumns(cfg.Schema)
	if err != nil {
		return nil, err
	}
	r := &Reader{job: &job{cfg: &cfg}}
	src := newSource(cfg.Input.Reader, cfg.InFormat == CSV)
	if cfg.InFormat == CSV {
		r.job.parser, err = newCSVParser(src, columns, &cfg)
	} else {
		r.job.parser = &jsonParser{src: src, columns: columns, keep: cfg.Keep}
	}
	if err != nil {
		return nil, err
	}
	r.batch, err = newBatch(&cfg)
	return r, err
}

// Next reads the next rows; io.EOF after the last.
func (r *Reader) Next() (*Rows, error) {
	if r.done {
		return nil, io.EOF
	}
	end, err := r.job.fill(r.batch)
	if err != nil {
		if bad, ok := errors.AsType[*RowError](err); ok {
			return nil, bad
		}
		return nil, err
	}
	r.done = end
	b := r.batch
	if b.rows == 0 {
		return nil, io.EOF
	}
	in, err := firstRows(b.in, b.rows, len(b.numbers))
	if err != nil {
		return nil, err
	}
	return &Rows{N: b.rows, First: b.numbers[0], Tensors: in, Kept: b.kept}, nil
}
