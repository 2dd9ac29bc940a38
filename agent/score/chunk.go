package score

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/parquet-go/parquet-go"

	"github.com/vedette-edge/vedette/agent/infer"
)

// position is a place between two rows of the input.
type position struct {
	Offset int64 `json:"offset"` // bytes before it; unpacked ones of a compressed file
	Row    int64 `json:"row"`    // rows before it
	Line   int64 `json:"line"`   // lines before it
}

// chunk is a fixed number of rows on their way through the pipeline, with room
// for their outputs. Whoever holds it may change it, one goroutine at a time.
type chunk struct {
	first int64    // number of the first row, counted from 1
	n     int      // rows as they were read
	end   position // after the last row
	read  int64    // bytes of the input's size that are done

	raw     []byte   // text of the rows
	records []record // where they are in raw
	cells   []cells  // or the columns of the rows, by leaf

	rows    int            // that the tensors hold: bad ones are left out
	in, out []infer.Tensor // inputs have room for a whole batch
	place   []int          // by row as read: its row in the tensors, −1 for a bad one
	bad     []*RowError    // in the order of the rows
	kept    []field        // columns to keep, by row as read

	text   []byte            // the output of a text format
	values [][]parquet.Value // or the columns of the output
	weight int               // bytes of values, about
	counts *counts           // nil when nothing is compared
	err    error             // ends the run

	done chan struct{} // receives when the worker is done with the chunk
}

// record is one row's text.
type record struct {
	from, to int
	line     int64 // the last one of the record, counted from 1
}

// field is a value that is copied to the output. What it was in the input
// decides how formats other than CSV write it.
type field struct {
	text string
	kind fieldKind
}

type fieldKind uint8

const (
	textField    fieldKind = iota
	literalField           // a number, true or false, as JSON writes it
	nullField
)

// newChunk makes an empty chunk.
func newChunk(cfg *Config) (*chunk, error) {
	c := &chunk{place: make([]int, cfg.Batch), out: make([]infer.Tensor, len(cfg.Schema.Outputs)), done: make(chan struct{}, 1)}
	for i, o := range cfg.Schema.Outputs {
		c.out[i] = infer.Tensor{Name: o.Name, Datatype: o.Datatype}
	}
	for _, t := range cfg.Schema.Inputs {
		shape := append([]int64{int64(cfg.Batch)}, t.Shape[1:]...)
		n, err := infer.Elements(shape)
		if err != nil {
			return nil, fmt.Errorf("%w: a batch of %d rows of input %q: %w; try a smaller --batch", ErrInput, cfg.Batch, t.Name, err)
		}
		data, err := infer.MakeData(t.Datatype, n)
		if err != nil {
			return nil, fmt.Errorf("%w: input %q: %w", ErrInput, t.Name, err)
		}
		c.in = append(c.in, infer.Tensor{Name: t.Name, Datatype: t.Datatype, Shape: shape, Data: data})
	}
	return c, nil
}

// reset empties the chunk for rows from the place p on.
func (c *chunk) reset(p position) {
	c.first, c.n, c.rows, c.end, c.err = p.Row+1, 0, 0, p, nil
	c.raw, c.records, c.bad, c.kept, c.text = c.raw[:0], c.records[:0], c.bad[:0], c.kept[:0], c.text[:0]
}

// capacity is how many rows the chunk has room for.
func (c *chunk) capacity() int { return len(c.place) }

// number of a row as read, counted from 1.
func (c *chunk) number(r int) int64 { return c.first + int64(r) }

// reject says that row r as read cannot be scored. Only the first reason of a
// row is kept.
func (c *chunk) reject(r int, e *RowError) {
	if c.place[r] >= 0 {
		c.place[r] = -1
		c.bad = append(c.bad, e)
	}
}

// drop closes the gaps that rejected rows leave in the tensors, and those of
// rows that keep answers false for.
func (c *chunk) drop(keep func(r, to int) (bool, error)) error {
	c.rows = 0
	for r := range c.n {
		if c.place[r] < 0 {
			continue
		}
		kept, err := keep(r, c.rows)
		if err != nil {
			return err
		}
		if kept {
			c.place[r] = c.rows
			c.rows++
		}
	}
	slices.SortStableFunc(c.bad, func(a, b *RowError) int { return cmp.Compare(a.Row, b.Row) })
	return nil
}

// moveRow moves a row of the input tensors.
func (c *chunk) moveRow(to, from int) {
	if to == from {
		return
	}
	for i := range c.in {
		moveRow(&c.in[i], to, from, elementsOf(c.in[i])/c.capacity())
	}
}

// keptOf are the kept fields of row r as read.
func (c *chunk) keptOf(r, n int) []field {
	if n == 0 {
		return nil
	}
	return c.kept[r*n : (r+1)*n]
}

// rowSize is how many values of output i a row has.
func (c *chunk) rowSize(i int) int {
	if len(c.out[i].Shape) == 0 || c.out[i].Shape[0] == 0 {
		return 0
	}
	n := 1
	for _, d := range c.out[i].Shape[1:] {
		n *= int(d)
	}
	return n
}

// moveRow copies row `from` of a tensor to row `to`.
func moveRow(t *infer.Tensor, to, from, size int) {
	switch d := t.Data.(type) {
	case []float32:
		move(d, to, from, size)
	case []float64:
		move(d, to, from, size)
	case []int64:
		move(d, to, from, size)
	case []int32:
		move(d, to, from, size)
	case []int16:
		move(d, to, from, size)
	case []int8:
		move(d, to, from, size)
	case []uint64:
		move(d, to, from, size)
	case []uint32:
		move(d, to, from, size)
	case []uint16:
		move(d, to, from, size)
	case []uint8:
		move(d, to, from, size)
	case []bool:
		move(d, to, from, size)
	case []string:
		move(d, to, from, size)
	}
}

func move[T any](d []T, to, from, size int) {
	copy(d[to*size:(to+1)*size], d[from*size:(from+1)*size])
}
