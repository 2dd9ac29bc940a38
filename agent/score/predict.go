package score

import (
	"context"
	"fmt"

	"github.com/vedette-edge/vedette/agent/infer"
)

// predict runs the model over a chunk's rows. When that fails the rows are tried
// one by one, so that one bad row is not taken for all.
func (j *job) predict(ctx context.Context, c *chunk) error {
	rows := c.rows
	fixed := fixedBatch(j.cfg.Schema)
	if fixed > 0 {
		rows = c.capacity() // what follows the last row is of an earlier chunk, its outputs are not written
	}
	in, err := firstRows(c.in, rows, c.capacity())
	if err != nil {
		return err
	}
	err = j.cfg.Model.Run(ctx, rows, in, c.out)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if fixed > 1 {
		return fmt.Errorf("rows %d to %d: %w", c.number(0), c.number(c.n-1), err)
	}
	return j.predictEach(ctx, c)
}

// predictEach runs every row alone and puts the outputs together. A row that
// fails is bad.
func (j *job) predictEach(ctx context.Context, c *chunk) error {
	var outputs [][]infer.Tensor
	err := c.drop(func(r, to int) (bool, error) {
		out, err := j.predictOne(ctx, c, c.place[r])
		if err == nil {
			c.moveRow(to, c.place[r])
			outputs = append(outputs, out)
			return true, nil
		}
		bad := &RowError{Row: c.number(r), Reason: err.Error()}
		if j.cfg.OnError == OnErrorFail || ctx.Err() != nil {
			return false, failed(bad)
		}
		c.reject(r, bad)
		return false, nil
	})
	if err != nil {
		return err
	}
	return gather(c, outputs)
}

// predictOne runs row r of the tensors alone.
func (j *job) predictOne(ctx context.Context, c *chunk, r int) ([]infer.Tensor, error) {
	in, out := make([]infer.Tensor, len(c.in)), make([]infer.Tensor, len(c.out))
	for i := range c.in {
		var err error
		if in[i], err = c.in[i].Slice(r, r+1, c.capacity()); err != nil {
			return nil, err
		}
	}
	for i := range out {
		out[i].Name, out[i].Datatype = c.out[i].Name, c.out[i].Datatype
	}
	return out, j.cfg.Model.Run(ctx, 1, in, out)
}

func firstRows(ts []infer.Tensor, rows, of int) ([]infer.Tensor, error) {
	if rows == of {
		return ts, nil
	}
	cut := make([]infer.Tensor, len(ts))
	for i := range ts {
		var err error
		if cut[i], err = ts[i].Slice(0, rows, of); err != nil {
			return nil, err
		}
	}
	return cut, nil
}

// gather copies the outputs of single rows into the chunk's.
func gather(c *chunk, rows [][]infer.Tensor) error {
	for i := range c.out {
		size := 0
		for _, r := range rows {
			size = max(size, elementsOf(r[i]))
		}
		data, err := infer.MakeData(c.out[i].Datatype, size*len(rows))
		if err != nil {
			return err
		}
		c.out[i].Data = data
		c.out[i].FitShape(len(rows), int64(size))
		for k, r := range rows {
			if err := copyRow(&c.out[i], k*size, &r[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func elementsOf(t infer.Tensor) int {
	if n, err := infer.Elements(t.Shape); err == nil {
		return n
	}
	return 0
}

// copyRow copies the elements of one row into place at of a whole.
func copyRow(to *infer.Tensor, at int, from *infer.Tensor) error {
	ok := false
	switch d := to.Data.(type) {
	case []float32:
		ok = copyInto(d, at, from.Data)
	case []float64:
		ok = copyInto(d, at, from.Data)
	case []int64:
		ok = copyInto(d, at, from.Data)
	case []int32:
		ok = copyInto(d, at, from.Data)
	case []int16:
		ok = copyInto(d, at, from.Data)
	case []int8:
		ok = copyInto(d, at, from.Data)
	case []uint64:
		ok = copyInto(d, at, from.Data)
	case []uint32:
		ok = copyInto(d, at, from.Data)
	case []uint16:
		ok = copyInto(d, at, from.Data)
	case []uint8:
		ok = copyInto(d, at, from.Data)
	case []bool:
		ok = copyInto(d, at, from.Data)
	case []string:
		ok = copyInto(d, at, from.Data)
	}
	if !ok {
		return fmt.Errorf("output %q is %T in one row and %T in another", to.Name, from.Data, to.Data)
	}
	return nil
}

func copyInto[T any](to []T, at int, from any) bool {
	d, ok := from.([]T)
	if ok {
		copy(to[at:], d)
	}
	return ok
}
