package infer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// ErrSkipped is the error of a Call that tells of rows a shadow had no time for.
var ErrSkipped = errors.New("the shadow had no time for these rows")

const (
	// shadowCalls is how many calls may wait for a shadow: a burst, not a load.
	shadowCalls = 16
	// shadowBytes bounds what waits for a shadow. One call always may.
	shadowBytes = 4 << 20
	// keptBytes is the room that a waiting place keeps between two calls.
	keptBytes = 1 << 20
	// shadowPatience times the deadline of a primary run is that of a shadow: on
	// a busy device its thread waits for the others.
	shadowPatience = 4
	// shadowNice is how far below everything else a shadow is scheduled.
	shadowNice = 10
)

// Beside is what the primary release made of the call that a shadow computed.
type Beside struct {
	Primary release.Digest
	Outputs []Tensor      // in the order of the primary's schema, valid as Call's are
	Latency time.Duration // of the primary's run
	Skipped int           // rows of earlier calls that the shadow had no time for
}

// shadow computes the same calls as the primary release after it, on one thread
// of low priority. Nothing on the way of a primary call waits for it: what does
// not fit its queue is skipped and counted.
type shadow struct {
	engine *Engine
	of     *challenger
	queue  chan *sight
	free   chan *sight
	ended  chan struct{} // closed by stop

	waiting atomic.Int64  // bytes in queue
	skipped atomic.Uint64 // rows, not told yet
	lost    atomic.Uint64 // rows, since activation
	stopped atomic.Bool
}

// sight is a copy of a call as the primary release answered it.
type sight struct {
	call            Call
	inputs, outputs []Tensor
	bytes           int64
	beside          Beside
}

func newShadow(e *Engine, c *challenger) *shadow {
	w := &shadow{
		engine: e, of: c, ended: make(chan struct{}),
		queue: make(chan *sight, shadowCalls), free: make(chan *sight, shadowCalls+1),
	}
	for range cap(w.free) {
		w.free <- &sight{}
	}
	return w
}

// offer hands the shadow a call that the primary release has answered. It
// copies what is needed and never waits.
func (w *shadow) offer(c *Call, key string) {
	if !w.of.takes(c.Model, key) {
		return
	}
	size := sizeOf(c.Inputs) + sizeOf(c.Outputs)
	if before := w.waiting.Add(size) - size; before > 0 && before+size > shadowBytes {
		w.waiting.Add(-size)
		w.skip(c.Rows)
		return
	}
	select {
	case s := <-w.free:
		s.take(c, size)
		w.queue <- s // has room: there are no more places than it holds, but for the one in work
	default:
		w.waiting.Add(-size)
		w.skip(c.Rows)
	}
}

func (w *shadow) skip(rows int) {
	w.skipped.Add(uint64(max(rows, 0)))
	w.lost.Add(uint64(max(rows, 0)))
}

func (s *sight) take(c *Call, size int64) {
	s.inputs, s.outputs = copyTensors(s.inputs, c.Inputs), copyTensors(s.outputs, c.Outputs)
	s.bytes = size
	s.call = Call{Model: c.Model, ID: c.ID, Rows: c.Rows, At: c.At}
	s.beside = Beside{Primary: c.Release, Outputs: s.outputs, Latency: c.Latency}
}

// stop ends the loop after the run in progress.
func (w *shadow) stop() {
	if !w.stopped.Swap(true) {
		close(w.ended)
	}
}

// loop computes until stop. It keeps its thread to itself, so that the thread's
// priority is nobody else's, and lets the thread end with it.
func (w *shadow) loop() {
	runtime.LockOSThread()
	lowerPriority(shadowNice)
	out := w.of.emptyOutputs()
	timer := time.AfterFunc(time.Hour, func() { w.engine.hungChallenger(w.of) })
	timer.Stop()
	defer w.of.unref()
	for {
		select {
		case <-w.ended:
			w.drain()
			return
		case s := <-w.queue:
			w.compute(s, out, timer)
			w.done(s)
		}
	}
}

// drain counts what nobody will compute any more.
func (w *shadow) drain() {
	for {
		select {
		case s := <-w.queue:
			w.skip(s.call.Rows)
			w.tell(s)
			w.done(s)
		default:
			w.tell(&sight{call: Call{Model: w.of.manifest.Model, At: time.Now()}})
			return
		}
	}
}

func (w *shadow) done(s *sight) {
	w.waiting.Add(-s.bytes)
	if s.bytes > keptBytes {
		*s = sight{}
	}
	w.free <- s
}

// compute runs one call and tells the observer how it compares.
func (w *shadow) compute(s *sight, out []Tensor, timer *time.Timer) {
	c, r := &s.call, w.of.served
	c.Release, c.Role, c.Beside = r.digest, RoleShadow, &s.beside
	timer.Reset(shadowPatience * r.deadline(c.Rows))
	c.Inputs, c.Latency, c.Err = w.run(s, out)
	timer.Stop()
	if c.Err == nil {
		c.Outputs = out
	}
	s.beside.Skipped = int(w.skipped.Swap(0)) //nolint:gosec // rows of a few calls
	w.engine.served(r, c)
}

// run fits the call's inputs to the shadow's own schema and computes.
func (w *shadow) run(s *sight, out []Tensor) (in []Tensor, took time.Duration, err error) {
	r := w.of.served
	in, _, err = r.check.request(&Request{Inputs: s.inputs}, nil, s.call.Rows)
	if err != nil {
		r.refused.Add(1)
		return s.inputs, 0, fmt.Errorf("shadow: %w", err)
	}
	start := time.Now()
	defer func() {
		took = time.Since(start)
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return in, 0, r.session.Run(context.Background(), s.call.Rows, in, out)
}

// tell hands on what was skipped and has not been told yet.
func (w *shadow) tell(s *sight) {
	n := w.skipped.Swap(0)
	if n == 0 || w.engine.cfg.Observer == nil {
		return
	}
	s.beside.Skipped = int(n) //nolint:gosec // rows of a few calls
	s.call.Release, s.call.Role, s.call.Beside, s.call.Err = w.of.digest, RoleShadow, &s.beside, ErrSkipped
	s.call.Rows, s.call.Inputs = 0, nil
	w.engine.cfg.Observer.Served(&s.call)
}
