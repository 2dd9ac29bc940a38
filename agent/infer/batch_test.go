package infer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// doubler answers every row with twice its first number, and counts its runs.
type doubler struct {
	runs   atomic.Int64
	most   atomic.Int64             // rows of the largest run
	before func(rows int) error     // called within every run
	refuse func(row []float32) bool // rows that fail the whole run
	closed atomic.Bool
}

func (d *doubler) Provider() string { return "test" }
func (d *doubler) Close() error     { d.closed.Store(true); return nil }

func (d *doubler) Run(_ context.Context, rows int, in, out []Tensor) error {
	d.runs.Add(1)
	d.most.Store(max(d.most.Load(), int64(rows)))
	if d.before != nil {
		if err := d.before(rows); err != nil {
			return err
		}
	}
	x := in[0].Data.([]float32)
	out[0].FitShape(rows)
	answer := Fit[int64](&out[0], rows)
	for i := range rows {
		if d.refuse != nil && d.refuse(x[2*i:2*i+2]) {
			return errors.New("a row cannot be computed")
		}
		answer[i] = int64(2 * x[2*i])
	}
	return nil
}

func batching(t *testing.T, d *doubler, limits Limits, o Observer) *Engine {
	t.Helper()
	e := New(&runtime0{load: func(Release) (Session, error) { return d, nil }}, Config{Models: map[string]Limits{"m": limits}, Observer: o})
	if err := e.Activate(t.Context(), testRelease(1)); err != nil {
		t.Fatal(err)
	}
	d.runs.Store(0) // the warm one
	d.most.Store(0)
	return e
}

// numbered is a request of n rows whose numbers start at first.
func numbered(first, n int) *Request {
	x := make([]float32, 2*n)
	for i := range n {
		x[2*i] = float32(first + i)
	}
	return &Request{Model: "m", ID: fmt.Sprint("id", first), Inputs: []Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{int64(n), 2}, Data: x}}}
}

func checkNumbered(t *testing.T, first, n int, resp *Response) {
	t.Helper()
	got := resp.Outputs[0].Data.([]int64)
	if resp.ID != fmt.Sprint("id", first) || resp.Rows != n || len(got) != n || resp.Outputs[0].Shape[0] != int64(n) {
		t.Errorf("request %d of %d rows: id %q, %d rows, %d answers of shape %v", first, n, resp.ID, resp.Rows, len(got), resp.Outputs[0].Shape)
		return
	}
	for i, v := range got {
		if v != int64(2*(first+i)) {
			t.Errorf("request %d row %d: answer %d, want %d", first, i, v, 2*(first+i))
		}
	}
}

// TestBatchMixesNothing asks from many sides with many sizes, reusing
// responses: every row finds its own answer, and everything is counted once.
func TestBatchMixesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, seen := &doubler{}, &counts{}
		e := batching(t, d, Limits{Concurrency: 2, BatchRows: 16, Queue: 1000}, seen)
		d.before = func(int) error { time.Sleep(200 * time.Microsecond); return nil } // simulated: a run takes its time, so that calls meet
		var wg sync.WaitGroup
		var rows atomic.Int64
		for caller := range 24 {
			wg.Go(func() {
				resp := &Response{}
				for k := range 40 {
					first, n := 1000*(caller*40+k), 1+(caller+k)%5
					if k%13 == 0 {
						n = 20 // more than a batch: runs alone
					}
					if err := e.InferInto(context.Background(), numbered(first, n), resp); err != nil {
						t.Error(err)
						return
					}
					rows.Add(int64(n))
					checkNumbered(t, first, n, resp)
				}
			})
		}
		wg.Wait()
		if seen.calls != 24*40 || seen.rows != int(rows.Load()) || seen.failed != 0 {
			t.Errorf("observer saw %d calls and %d rows, %d failed; callers %d and %d", seen.calls, seen.rows, seen.failed, 24*40, rows.Load())
		}
		if d.runs.Load() >= 24*40 {
			t.Errorf("%d runs for %d calls: nothing was shared", d.runs.Load(), 24*40)
		}
		if err := e.Close(t.Context()); err != nil || !d.closed.Load() {
			t.Errorf("close: %v, session closed: %v", err, d.closed.Load())
		}
	})
}

func TestBatchWaitsForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &doubler{}
		e := batching(t, d, Limits{Concurrency: 1, BatchRows: 8, BatchDelay: 10 * time.Millisecond}, nil)
		start := time.Now()
		resp, err := e.Infer(t.Context(), numbered(1, 1))
		if err != nil || time.Since(start) != 10*time.Millisecond || resp.Waited != 10*time.Millisecond {
			t.Errorf("alone: answered after %v, waited %+v, %v; want 10ms", time.Since(start), resp, err)
		}
		start = time.Now()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				resp, err := e.Infer(context.Background(), numbered(100*i, 1))
				if err != nil {
					t.Error(err)
					return
				}
				checkNumbered(t, 100*i, 1, resp)
			})
		}
		wg.Wait()
		if d.runs.Load() != 2 || d.most.Load() != 8 || time.Since(start) != 0 {
			t.Errorf("a full batch: %d runs, the largest of %d rows, after %v; want 2, 8 and at once", d.runs.Load(), d.most.Load(), time.Since(start))
		}
		e.Close(t.Context())
	})
}

// TestBadRowFailsAlone: a run that one row breaks is made again call by call.
func TestBadRowFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, seen := &doubler{refuse: func(row []float32) bool { return row[0] == 300 }}, &counts{}
		e := batching(t, d, Limits{Concurrency: 1, BatchRows: 6, BatchDelay: time.Second}, seen)
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				resp, err := e.Infer(context.Background(), numbered(100*i, 1))
				if (err != nil) != (i == 3) {
					t.Errorf("request %d: %v", i, err)
				}
				if err == nil {
					checkNumbered(t, 100*i, 1, resp)
				}
			})
		}
		wg.Wait()
		if seen.calls != 6 || seen.failed != 1 || seen.rows != 5 {
			t.Errorf("observer saw %d calls, %d failed and %d rows; want 6, 1 and 5", seen.calls, seen.failed, seen.rows)
		}
		// What does not fit the schema never gets into a batch.
		if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(0)}); err == nil || seen.calls != 6 {
			t.Errorf("a bad request: %v", err)
		}
		e.Close(t.Context())
	})
}

func TestBatchIsLeftAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		d := &doubler{}
		e := batching(t, d, Limits{Concurrency: 1, BatchRows: 4, Queue: 3}, nil)
		d.before = func(int) error { <-gate; return nil }
		answers := make(chan error, 10)
		ask := func(ctx context.Context, first int) {
			_, err := e.Infer(ctx, numbered(first, 1))
			answers <- err
		}
		go ask(context.Background(), 1)
		synctest.Wait() // it is being computed
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go ask(soon, 2)
		synctest.Wait()
		go ask(context.Background(), 3)
		synctest.Wait()
		if err := e.InferInto(t.Context(), numbered(4, 1), &Response{}); !errors.Is(err, ErrBusy) {
			t.Errorf("beyond the queue: %v, want %v", err, ErrBusy)
		}
		if err := <-answers; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient one: %v", err)
		}
		close(gate)
		for range 2 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if d.most.Load() != 1 {
			t.Errorf("a run of %d rows: one of them was gone", d.most.Load())
		}
		e.Close(t.Context())
	})
}

// TestHungBatch: all of a batch that hangs are told, once, and the release is
// kept open until the run ends.
func TestHungBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		d, hung := &doubler{}, make(chan string, 10)
		e := New(&runtime0{load: func(Release) (Session, error) { return d, nil }}, Config{
			Limits: Limits{Concurrency: 1, BatchRows: 2, BatchDelay: time.Millisecond},
			Hung:   func(model string, _ release.Digest) { hung <- model },
		})
		if err := e.Activate(t.Context(), testRelease(1)); err != nil {
			t.Fatal(err)
		}
		d.before = func(int) error { <-gate; return nil }
		answers := make(chan error, 2)
		for i := range 2 {
			go func() {
				_, err := e.Infer(context.Background(), numbered(i, 1))
				answers <- err
			}()
		}
		for range 2 {
			if err := <-answers; !errors.Is(err, ErrHung) {
				t.Errorf("got %v, want %v", err, ErrHung)
			}
		}
		if got := <-hung; got != "m" || len(hung) != 0 {
			t.Errorf("told of %q and %d more times", got, len(hung))
		}
		go e.Close(context.Background())
		synctest.Wait()
		if d.closed.Load() {
			t.Error("the session was closed under a run")
		}
		close(gate)
		synctest.Wait()
		if !d.closed.Load() {
			t.Error("the session was not closed")
		}
	})
}
