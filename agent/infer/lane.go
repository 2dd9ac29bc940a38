package infer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// lane is the road of one model's calls: the release that serves now and the
// runners that compute. Runners outlive releases, so a swap costs no queue.
type lane struct {
	current atomic.Pointer[served]
	// challenger runs beside current; nil for none.
	challenger atomic.Pointer[challenger]
	idle       chan *runner
	limits     Limits // without zeros
	waiting    atomic.Int64
	hung       atomic.Int64
	service    atomic.Int64             // moving average of a run, in nanoseconds
	timers     sync.Pool                // *time.Timer, stopped
	batcher    *batcher                 // nil when every call has a run of its own
	late       func(s *served, c *Call) // told of a call that hangs on its caller's goroutine
}

func newLane(limits Limits, wg *sync.WaitGroup) *lane {
	l := &lane{idle: make(chan *runner, limits.Concurrency), limits: limits}
	for range limits.Concurrency {
		r := newRunner(l)
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

// turn waits for a runner: no more calls than the queue holds do so, and none
// longer than limit.
func (l *lane) turn(ctx context.Context, limit time.Duration) (*runner, error) {
	select {
	case r, ok := <-l.idle:
		if !ok {
			return nil, ErrClosed
		}
		return r, nil
	default:
	}
	defer l.waiting.Add(-1)
	if l.waiting.Add(1) > int64(l.limits.Queue) {
		return nil, l.overload()
	}
	return l.wait(ctx, limit)
}

// wait is turn for those who are in the queue already.
func (l *lane) wait(ctx context.Context, limit time.Duration) (*runner, error) {
	t := l.timer(limit)
	defer l.timers.Put(t)
	defer t.Stop()
	select {
	case r, ok := <-l.idle:
		if !ok {
			return nil, ErrClosed
		}
		return r, nil
	case <-ctx.Done():
		return nil, &waitError{ctx.Err()}
	case <-t.C:
		return nil, l.overload()
	}
}

func (l *lane) timer(d time.Duration) *time.Timer {
	if t, ok := l.timers.Get().(*time.Timer); ok {
		t.Reset(d)
		return t
	}
	return time.NewTimer(d)
}

// overload says when those waiting now will have had their turn, as runs take
// at present.
func (l *lane) overload() error {
	rounds := l.waiting.Load()/int64(l.limits.Concurrency) + 1
	return &Overload{After: time.Duration(rounds * l.service.Load())}
}

// measured takes a run into the moving average. Two at once may lose one of
// themselves: it is an estimate.
func (l *lane) measured(latency time.Duration) {
	const weight = 8
	old := l.service.Load()
	if old == 0 {
		old = int64(latency)
	}
	l.service.Store(old + (int64(latency)-old)/weight)
}

// close retires the release and ends the runners as they become idle.
func (l *lane) close() {
	if s := l.current.Swap(nil); s != nil {
		s.unref()
	}
	go func() {
		for range l.limits.Concurrency {
			close((<-l.idle).start)
		}
		close(l.idle)
	}()
}

func (l *lane) running() int {
	return l.limits.Concurrency - len(l.idle)
}
