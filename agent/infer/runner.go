package infer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// runner is a goroutine that computes, apart from the caller's, because a run
// inside the library cannot be cancelled and a caller must get its answer.
// Whoever takes a runner from its lane owns it and its job; run gives it back.
type runner struct {
	lane  *lane
	timer *time.Timer
	start chan struct{} // job is set
	done  chan struct{} // job has ended in time
	watch *time.Timer   // calls late
	told  chan struct{} // late has returned
	job   job
}

// job is one run.
type job struct {
	served  *served
	rows    int
	in, out []Tensor
	latency time.Duration
	err     error
	// settled is swapped to true by the runner at the end and by the caller at
	// the deadline; the second of them knows that it lost.
	settled atomic.Bool

	// Of a run on the caller's own goroutine:
	call    *Call
	abandon func()
}

func newRunner(l *lane) *runner {
	r := &runner{lane: l, timer: time.NewTimer(time.Hour), start: make(chan struct{}, 1), done: make(chan struct{}, 1)}
	r.timer.Stop()
	r.told = make(chan struct{}, 1)
	r.watch = time.AfterFunc(time.Hour, r.late)
	r.watch.Stop()
	return r
}

// runHere is run on the caller's own goroutine, which saves changing it twice.
// If the run does not end before the deadline, c is told and abandon called from
// elsewhere; runHere returns ErrHung when the run ends after all.
func (r *runner) runHere(s *served, c *Call, out []Tensor, deadline time.Duration, abandon func()) (time.Duration, error) {
	r.job.served, r.job.rows, r.job.in, r.job.out = s, c.Rows, c.Inputs, out
	r.job.call, r.job.abandon = c, abandon
	r.job.settled.Store(false)
	r.watch.Reset(deadline)
	r.compute()
	if !r.watch.Stop() {
		<-r.told
	}
	latency, err := r.job.latency, r.job.err
	if r.job.settled.Swap(true) {
		r.lane.hung.Add(-1)
		latency, err = 0, ErrHung
	} else {
		r.lane.measured(latency)
	}
	r.release()
	return latency, err
}

// late is called at the deadline of runHere.
func (r *runner) late() {
	if !r.job.settled.Swap(true) {
		r.lane.hung.Add(1)
		r.lane.late(r.job.served, r.job.call)
		r.job.abandon()
	}
	r.told <- struct{}{}
}

// run computes rows of in into out and gives the runner back. If the run does
// not end before the deadline, the error is ErrHung: the runner stays busy with
// it, owns in and out, and gives back itself and the reference to s at its end.
func (r *runner) run(s *served, rows int, in, out []Tensor, deadline time.Duration) (time.Duration, error) {
	r.job.served, r.job.rows, r.job.in, r.job.out = s, rows, in, out
	r.job.settled.Store(false)
	r.timer.Reset(deadline)
	r.start <- struct{}{}
	select {
	case <-r.done:
		r.timer.Stop()
	case <-r.timer.C:
		if !r.job.settled.Swap(true) {
			r.lane.hung.Add(1)
			return 0, ErrHung
		}
		<-r.done // it ended at the same moment
	}
	latency, err := r.job.latency, r.job.err
	r.lane.measured(latency)
	r.release()
	return latency, err
}

// release gives the runner back, without what its last job held.
func (r *runner) release() {
	r.job.served, r.job.in, r.job.out, r.job.err, r.job.call, r.job.abandon = nil, nil, nil, nil, nil, nil
	r.lane.idle <- r
}

func (r *runner) loop() {
	for range r.start {
		r.compute()
		if !r.job.settled.Swap(true) {
			r.done <- struct{}{}
			continue
		}
		s := r.job.served
		r.lane.hung.Add(-1)
		r.release()
		s.unref()
	}
}

// errPanic says that the runtime's Go side panicked; the device goes on.
var errPanic = errors.New("the runtime panicked")

func (r *runner) compute() {
	start := time.Now()
	defer func() {
		r.job.latency = time.Since(start)
		if p := recover(); p != nil {
			r.job.err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	r.job.err = r.job.served.session.Run(context.Background(), r.job.rows, r.job.in, r.job.out)
}
