package score

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/vedette-edge/vedette/agent/infer"
)

// inFlight is how many batches exist: one being parsed, one computed, one
// written and one to hand over.
const inFlight = 4

// job is one run.
type job struct {
	cfg     *Config
	parser  parser
	out     *output
	summary Summary
	end     position // up to which everything is written
	free    chan *batch
}

// parser reads the next row into a batch. The error is a *RowError when only
// the row is bad, io.EOF at the end.
type parser interface {
	// row parses one row into place b.rows, without counting it.
	row(b *batch) error
	// position is where the next row begins; seek goes on from there, with an
	// input that stands at its offset.
	position() position
	seek(p position)
}

// position is a place in the input.
type position struct {
	Offset int64 `json:"offset"` // bytes
	Row    int64 `json:"row"`    // rows before it
	Line   int64 `json:"line"`   // lines before it
}

// batch is a fixed number of rows with room for their outputs.
type batch struct {
	rows    int
	in, out []infer.Tensor // of full size
	numbers []int64        // of the rows, counted from 1
	null    []bool         // rows without outputs
	kept    []string       // columns to keep, row by row
	end     position       // after the last row
	bad     []*RowError    // rows skipped or made null
	skipped int64
}

func newJob(cfg *Config) (*job, error) {
	j := &job{cfg: cfg, free: make(chan *batch, inFlight)}
	columns, err := modelColumns(cfg.Schema)
	if err != nil {
		return nil, err
	}
	cp, err := readCheckpoint(cfg)
	if err != nil {
		return nil, err
	}
	src := newSource(cfg.Input.Reader, cfg.InFormat == CSV)
	switch cfg.InFormat {
	case CSV:
		j.parser, err = newCSVParser(src, columns, cfg)
	default:
		j.parser = &jsonParser{src: src, columns: columns, keep: cfg.Keep}
	}
	if err != nil {
		return nil, err
	}
	if cp != nil {
		if err := cp.seek(cfg, j.parser); err != nil {
			return nil, err
		}
		j.end = cp.Input
		j.summary = cp.Summary
		j.summary.Resumed = cp.Summary.Rows
	}
	if j.out, err = openOutput(cfg, cp); err != nil {
		return nil, err
	}
	j.summary.Output = cfg.Output
	for range inFlight {
		b, err := newBatch(cfg)
		if err != nil {
			return nil, errors.Join(err, j.out.abandon())
		}
		j.free <- b
	}
	return j, nil
}

func newBatch(cfg *Config) (*batch, error) {
	b := &batch{out: make([]infer.Tensor, len(cfg.Schema.Outputs)), numbers: make([]int64, cfg.Batch), null: make([]bool, cfg.Batch)}
	for i, o := range cfg.Schema.Outputs {
		b.out[i] = infer.Tensor{Name: o.Name, Datatype: o.Datatype}
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
		b.in = append(b.in, infer.Tensor{Name: t.Name, Datatype: t.Datatype, Shape: shape, Data: data})
	}
	return b, nil
}

// run is the pipeline: parse → compute → write.
func (j *job) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parsed, computed := make(chan *batch), make(chan *batch)
	var wg sync.WaitGroup
	stage := func(out chan *batch, f func() error) {
		wg.Go(func() {
			if out != nil {
				defer close(out)
			}
			if err := f(); err != nil {
				cancel(err)
			}
		})
	}
	stage(parsed, func() error { return j.parse(ctx, parsed) })
	stage(computed, func() error { return j.compute(ctx, parsed, computed) })
	stage(nil, func() error { return j.write(ctx, computed) })
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

// send hands a batch on unless the run ends.
func send(ctx context.Context, to chan<- *batch, b *batch) error {
	select {
	case to <- b:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (j *job) parse(ctx context.Context, to chan<- *batch) error {
	for {
		var b *batch
		select {
		case b = <-j.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		end, err := j.fill(b)
		if err != nil {
			return err
		}
		if b.rows > 0 || b.skipped > 0 {
			if err := send(ctx, to, b); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// fill parses rows until the batch is full or the input ends. A batch of bad
// rows alone is handed on too, so that progress and checkpoints go on.
func (j *job) fill(b *batch) (end bool, err error) {
	b.rows, b.skipped, b.bad, b.kept = 0, 0, b.bad[:0], b.kept[:0]
	for b.rows < len(b.numbers) && b.skipped < int64(len(b.numbers)) {
		kept := len(b.kept)
		err := j.parser.row(b)
		if errors.Is(err, io.EOF) {
			end = true
			break
		}
		var bad *RowError
		switch {
		case err == nil:
		case !errors.As(err, &bad):
			return false, err
		default:
			if err := j.badRow(b, bad); err != nil {
				return false, err
			}
			if j.cfg.OnError == OnErrorSkip {
				b.kept = b.kept[:kept]
				continue
			}
			b.kept = append(b.kept[:kept], make([]string, len(j.cfg.Keep))...)
		}
		b.numbers[b.rows], b.null[b.rows] = j.parser.position().Row, err != nil
		b.rows++
	}
	b.end = j.parser.position()
	return end, nil
}

// badRow counts a bad row or ends the run.
func (j *job) badRow(b *batch, bad *RowError) error {
	if j.cfg.OnError == OnErrorFail {
		return fmt.Errorf("%w; --on-error skip or null goes on without it", bad)
	}
	b.bad = append(b.bad, bad)
	if j.cfg.OnError == OnErrorSkip {
		b.skipped++
	}
	return nil
}

func (j *job) compute(ctx context.Context, from <-chan *batch, to chan<- *batch) error {
	for b := range from {
		if b.rows > 0 {
			if err := j.predict(ctx, b); err != nil {
				return err
			}
		}
		if err := send(ctx, to, b); err != nil {
			return err
		}
	}
	return nil
}

// predict runs the model over a batch. When that fails the rows are tried one
// by one, so that one bad row is not taken for all.
func (j *job) predict(ctx context.Context, b *batch) error {
	rows := b.rows
	if fixedBatch(j.cfg.Schema) > 0 {
		rows = len(b.numbers) // what follows the last row is of an earlier batch, its outputs are not written
	}
	in, err := firstRows(b.in, rows, len(b.numbers))
	if err != nil {
		return err
	}
	err = j.cfg.Model.Run(ctx, rows, in, b.out)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if fixedBatch(j.cfg.Schema) > 1 {
		return fmt.Errorf("rows %d to %d: %w", b.numbers[0], b.numbers[b.rows-1], err)
	}
	return j.predictEach(ctx, b)
}

// predictEach runs every row alone and puts the outputs together.
func (j *job) predictEach(ctx context.Context, b *batch) error {
	whole := make([][]infer.Tensor, 0, b.rows)
	for r := range b.rows {
		in := make([]infer.Tensor, len(b.in))
		for i := range b.in {
			var err error
			if in[i], err = b.in[i].Slice(r, r+1, len(b.numbers)); err != nil {
				return err
			}
		}
		out := make([]infer.Tensor, len(b.out))
		for i := range out {
			out[i].Name, out[i].Datatype = b.out[i].Name, b.out[i].Datatype
		}
		if err := j.cfg.Model.Run(ctx, 1, in, out); err != nil {
			bad := &RowError{Row: b.numbers[r], Reason: err.Error()}
			if j.cfg.OnError == OnErrorFail {
				return bad
			}
			b.null[r] = true
			b.bad = append(b.bad, bad)
			out = nil
		}
		whole = append(whole, out)
	}
	return gather(b, whole)
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

// gather copies the outputs of single rows into the batch's. Rows without
// outputs, and rows that were bad before, stay whatever they are: null.
func gather(b *batch, rows [][]infer.Tensor) error {
	for i := range b.out {
		var parts []infer.Tensor
		size := 0
		for _, r := range rows {
			if r != nil {
				parts = append(parts, r[i])
				size = max(size, elementsOf(r[i]))
			}
		}
		data, err := infer.MakeData(b.out[i].Datatype, size*len(rows))
		if err != nil {
			return err
		}
		b.out[i].Data = data
		b.out[i].FitShape(len(rows), int64(size))
		k := 0
		for r := range rows {
			if rows[r] == nil {
				continue
			}
			if err := copyRow(&b.out[i], r*size, &parts[k]); err != nil {
				return err
			}
			k++
		}
	}
	return nil
}

func (j *job) write(ctx context.Context, from <-chan *batch) error {
	for b := range from {
		if err := j.out.batch(b); err != nil {
			return err
		}
		j.count(b)
		j.end = b.end
		if err := j.out.checkpoint(j.end, &j.summary, false); err != nil {
			return err
		}
		if j.cfg.Progress != nil {
			j.cfg.Progress(Progress{Rows: j.summary.Rows, Bytes: b.end.Offset})
		}
		if err := send(ctx, j.free, b); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// count adds a written batch to the summary.
func (j *job) count(b *batch) {
	s := &j.summary
	s.Rows = b.end.Row
	s.Skipped += b.skipped
	for r := range b.rows {
		if b.null[r] && j.cfg.OnError == OnErrorSkip {
			s.Skipped++
		} else if b.null[r] {
			s.Nulls++
		} else {
			s.Scored++
		}
	}
	for _, e := range b.bad {
		if len(s.Errors) < maxReported {
			s.Errors = append(s.Errors, e)
		}
	}
}
