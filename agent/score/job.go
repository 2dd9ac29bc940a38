package score

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// table cuts the input into chunks of rows, in their order. One goroutine uses
// it at a time.
type table interface {
	// next fills an empty chunk with the next rows; io.EOF when there are none.
	next(c *chunk) error
	// seek goes on at a place where an earlier table was, before any next.
	seek(p position) error
	// read is how many bytes of the input's size are done.
	read() int64
	// parser makes a parser for one worker.
	parser() parser
	close() error
}

// parser turns the rows of a chunk into tensors and names those that it cannot.
type parser interface {
	parse(c *chunk) error
}

// job is one run.
type job struct {
	cfg     *Config
	table   table
	out     *output
	drift   *drift // nil when nothing is compared
	summary Summary
	end     position // up to which everything is written
	free    chan *chunk
	// finish makes a chunk ready to be written, on one of the workers.
	finish func(ctx context.Context, p parser, c *chunk) error
}

func newJob(cfg *Config, cp *checkpoint) (_ *job, err error) {
	j := &job{cfg: cfg}
	j.finish = j.score
	columns, err := modelColumns(cfg.Schema)
	if err != nil {
		return nil, err
	}
	if j.table, err = openTable(cfg, columns); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.table.close())
		}
	}()
	if j.drift, err = newDrift(cfg, cp); err != nil {
		return nil, err
	}
	if cp != nil {
		if err := j.table.seek(cp.Input); err != nil {
			return nil, err
		}
		j.end, j.summary = cp.Input, cp.Summary
		j.summary.Resumed = cp.Summary.Rows
	}
	// One chunk is cut, one written, every worker has one and finds another.
	j.free = make(chan *chunk, 2*cfg.Threads+2)
	for range cap(j.free) {
		c, err := newChunk(cfg)
		if err != nil {
			return nil, err
		}
		c.counts = j.drift.counts()
		j.free <- c
	}
	j.summary.Output = cfg.Output
	j.out, err = openOutput(cfg, j.table, cp)
	return j, err
}

// openTable opens the input in its format.
func openTable(cfg *Config, columns []column) (table, error) {
	switch cfg.InFormat {
	case Parquet:
		return openParquet(cfg, columns)
	case JSONLines:
		return openJSONLines(cfg, columns)
	default:
		return openCSV(cfg, columns)
	}
}

// run is the pipeline: cut → parse, compute and format → write.
func (j *job) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Both have room for every chunk: handing one on never waits.
	work, order := make(chan *chunk, cap(j.free)), make(chan *chunk, cap(j.free))
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(order)
		defer close(work)
		if err := j.cut(ctx, work, order); err != nil {
			cancel(err)
		}
	})
	for range j.cfg.Threads {
		wg.Go(func() { j.work(ctx, work) })
	}
	wg.Go(func() {
		if err := j.write(ctx, order); err != nil {
			cancel(err)
		}
	})
	wg.Wait()
	return context.Cause(ctx)
}

// cut reads chunks and hands each to the workers and, in order, to the writer.
func (j *job) cut(ctx context.Context, work, order chan<- *chunk) error {
	for {
		var c *chunk
		select {
		case c = <-j.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := j.table.next(c)
		if errors.Is(err, io.EOF) {
			return nil
		}
		// What was read before an error is written before the run ends with it.
		c.err, c.read = err, j.table.read()
		work <- c
		order <- c
		if err != nil {
			return nil //nolint:nilerr // the writer meets it in its turn
		}
	}
}

// work makes chunks ready to be written.
func (j *job) work(ctx context.Context, from <-chan *chunk) {
	p := j.table.parser()
	for c := range from {
		if c.err == nil {
			c.err = j.finish(ctx, p, c)
		}
		c.done <- struct{}{}
	}
}

// score does everything with a chunk that needs no order.
func (j *job) score(ctx context.Context, p parser, c *chunk) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.parse(c); err != nil {
		return err
	}
	if len(c.bad) > 0 && j.cfg.OnError == OnErrorFail {
		return failed(c.bad[0])
	}
	if c.rows > 0 {
		if err := j.predict(ctx, c); err != nil {
			return err
		}
	}
	if err := c.counts.count(j.cfg.Schema, c); err != nil {
		return err
	}
	return j.out.encoder.encode(c)
}

// failed is the error for a bad row that ends the run.
func failed(bad *RowError) error {
	return fmt.Errorf("%w; --on-error skip or null goes on without it", bad)
}

func (j *job) write(ctx context.Context, order <-chan *chunk) error {
	for c := range order {
		select {
		case <-c.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if c.err != nil {
			return c.err
		}
		if err := j.out.write(c); err != nil {
			return err
		}
		if err := j.count(c); err != nil {
			return err
		}
		if err := j.out.checkpoint(j, false); err != nil {
			return err
		}
		if j.cfg.Progress != nil {
			j.cfg.Progress(Progress{Rows: j.summary.Rows, Bytes: c.read})
		}
		j.free <- c
	}
	return ctx.Err()
}

// count adds a written chunk to the summary.
func (j *job) count(c *chunk) error {
	s := &j.summary
	s.Rows = c.end.Row
	s.Scored += int64(c.rows)
	if j.cfg.OnError == OnErrorSkip {
		s.Skipped += int64(c.n - c.rows)
	} else {
		s.Nulls += int64(c.n - c.rows)
	}
	s.Errors = append(s.Errors, c.bad[:min(len(c.bad), maxReported-len(s.Errors))]...)
	j.end = c.end
	return j.drift.merge(c.counts)
}

// save makes what was written safe for a later run.
func (j *job) save() error { return j.out.checkpoint(j, true) }
