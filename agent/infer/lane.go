package infer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// lane is the road of one model's calls: the release that serves now and the
// runners that compute. Runners outlive releases, so a swap costs no queue.
type lane struct {
	current atomic.Pointer[served]
	idle    chan *runner
	size    int
	waiting atomic.Int64
	hung    atomic.Int64
}

func newLane(size int, wg *sync.WaitGroup) *lane {
	l := &lane{idle: make(chan *runner, size), size: size}
	for range size {
		r := &runner{lane: l, jobs: make(chan *job, 1)}
		wg.Go(r.loop)
		l.idle <- r
	}
	return l
}

// acquire returns the release that serves now with a reference to it, nil when
// none does.
func (l *lane) acquire() *served {
	for {
		s := l.current.Load()
		if s == nil || s.ref() {
			return s
		}
	}
}

// turn waits for a runner: at most queue calls do so, none longer than limit.
func (l *lane) turn(ctx context.Context, queue int, limit time.Duration) (*runner, error) {
	select {
	case r, ok := <-l.idle:
		if !ok {
			return nil, ErrClosed
		}
		return r, nil
	default:
	}
	defer l.waiting.Add(-1)
	if l.waiting.Add(1) > int64(queue) {
		return nil, ErrBusy
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case r, ok := <-l.idle:
		if !ok {
			return nil, ErrClosed
		}
		return r, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a turn: %w", ctx.Err())
	case <-t.C:
		return nil, ErrBusy
	}
}

// close retires the release and ends the runners as they become idle.
func (l *lane) close() {
	if s := l.current.Swap(nil); s != nil {
		s.unref()
	}
	go func() {
		for range l.size {
			close((<-l.idle).jobs)
		}
		close(l.idle)
	}()
}

func (l *lane) running() int {
	return l.size - len(l.idle)
}

// job is one run. done is sent to once when the run ends in time.
type job struct {
	served  *served
	rows    int
	in, out []Tensor
	latency time.Duration
	err     error
	done    chan struct{}
	// settled is swapped to true by the runner at the end and by the caller at
	// the deadline; the second of them knows that it lost.
	settled atomic.Bool
}

// runner is a goroutine that computes, apart from the caller's, because a run
// inside the library cannot be cancelled and a caller must get its answer.
type runner struct {
	lane *lane
	jobs chan *job
}

// run reports whether the job ended before the deadline. If it did not, the
// runner stays busy with it and gives back its reference by itself.
func (r *runner) run(j *job, deadline time.Duration) bool {
	r.jobs <- j
	t := time.NewTimer(deadline)
	defer t.Stop()
	select {
	case <-j.done:
		return true
	case <-t.C:
	}
	if j.settled.Swap(true) {
		<-j.done // it ended at the same moment
		return true
	}
	r.lane.hung.Add(1)
	return false
}

func (r *runner) loop() {
	for j := range r.jobs {
		r.compute(j)
		late := j.settled.Swap(true)
		r.lane.idle <- r
		if late {
			r.lane.hung.Add(-1)
			j.served.unref()
			continue
		}
		j.done <- struct{}{}
	}
}

// errPanic says that the runtime's Go side panicked; the device goes on.
var errPanic = errors.New("the runtime panicked")

func (r *runner) compute(j *job) {
	start := time.Now()
	defer func() {
		j.latency = time.Since(start)
		if p := recover(); p != nil {
			j.err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	j.err = j.served.session.Run(context.Background(), j.rows, j.in, j.out)
}
