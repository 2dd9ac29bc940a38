package infer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// batcher lets calls of one lane share runs. A batch takes calls from the first
// one on until it has BatchRows rows, or BatchDelay has passed and a runner is
// free: calls that would wait for a turn anyway wait together.
type batcher struct {
	engine *Engine
	lane   *lane

	mu   sync.Mutex // guards open, and every batch that is not sealed
	open *batch
}

// batch is calls that share a run.
type batch struct {
	served  *served // with a reference of the batch's own
	members []*member
	rows    int
	sealed  bool          // nobody joins or leaves any more
	full    chan struct{} // closed when nobody can join any more
}

// member is one call of a batch.
type member struct {
	call *Call
	out  []Tensor
	done chan struct{} // closed when the call is answered
}

// compute answers c together with others and fills in what it came to. It
// returns when the batch has let go of the call's inputs.
func (x *batcher) compute(ctx context.Context, s *served, c *Call, out []Tensor) {
	m := &member{call: c, out: out, done: make(chan struct{})}
	defer x.lane.waiting.Add(-1)
	if x.lane.waiting.Add(1) > int64(x.lane.limits.Queue) {
		c.Err = x.lane.overload()
		return
	}
	b := x.join(s, m)
	select {
	case <-m.done:
	case <-ctx.Done():
		if x.leave(b, m) {
			c.Err = &waitError{ctx.Err()}
			return
		}
		<-m.done // it is being computed, and that ends by the deadline
	}
}

// join adds m to the open batch, or opens one.
func (x *batcher) join(s *served, m *member) *batch {
	x.mu.Lock()
	defer x.mu.Unlock()
	b := x.open
	if b != nil && !x.takes(b, s, m) {
		x.shut(b)
		b = nil
	}
	if b == nil {
		s.refs.Add(1) // the call holds one, so the release is not closed yet
		b = &batch{served: s, full: make(chan struct{})}
		x.open = b
		x.engine.wg.Go(func() { x.run(b) })
	}
	b.members, b.rows = append(b.members, m), b.rows+m.call.Rows
	if b.rows == x.lane.limits.BatchRows {
		x.shut(b)
	}
	return b
}

// takes reports whether m can share a run with those in b.
func (x *batcher) takes(b *batch, s *served, m *member) bool {
	return b.served == s && b.rows+m.call.Rows <= x.lane.limits.BatchRows && sameRows(b.members[0].call.Inputs, m.call.Inputs)
}

// shut lets nobody join b any more. The caller holds mu.
func (x *batcher) shut(b *batch) {
	if x.open == b {
		x.open = nil
		close(b.full)
	}
}

// leave takes m out of b unless it is being computed. A batch of nobody goes on
// taking others until it is run.
func (x *batcher) leave(b *batch, m *member) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b.sealed {
		return false
	}
	b.members = slices.DeleteFunc(b.members, func(o *member) bool { return o == m })
	b.rows -= m.call.Rows
	if len(b.members) == 0 {
		x.shut(b) // the next one opens another: there is nobody here to compare with
	}
	return true
}

func (x *batcher) seal(b *batch) []*member {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.shut(b)
	b.sealed = true
	return b.members
}

// run waits for company and for a turn, computes and answers everybody.
func (x *batcher) run(b *batch) {
	if delay := x.lane.limits.BatchDelay; delay > 0 {
		t := x.lane.timer(delay)
		select {
		case <-b.full:
		case <-t.C:
		}
		t.Stop()
		x.lane.timers.Put(t)
	}
	r, err := x.lane.wait(context.Background(), b.served.deadline(1))
	members := x.seal(b)
	switch {
	case err != nil:
		fail(members, err)
	case len(members) == 0:
		r.release()
	default:
		err = x.together(r, b.served, members)
	}
	for _, m := range members {
		close(m.done)
	}
	if !errors.Is(err, ErrHung) { // else the run keeps the reference
		b.served.unref()
	}
}

func fail(members []*member, err error) {
	for _, m := range members {
		m.call.Err = err
	}
}

// together computes all members in one run, and each alone when that fails: a
// bad request must not fail those beside it.
func (x *batcher) together(r *runner, s *served, members []*member) error {
	err := x.once(r, s, members)
	if err == nil || errors.Is(err, ErrHung) || len(members) == 1 {
		return err
	}
	for i := range members {
		if r, err = x.lane.wait(context.Background(), s.deadline(1)); err != nil {
			fail(members[i:], err)
			return err
		}
		members[i].call.Err = nil
		if err := x.once(r, s, members[i:i+1]); errors.Is(err, ErrHung) {
			fail(members[i:], err)
			return err
		}
	}
	return nil
}

// once computes members in one run, on copies of what they gave: a run that
// hangs keeps nothing of theirs.
func (x *batcher) once(r *runner, s *served, members []*member) error {
	in, out, rows := gather(members), s.emptyOutputs(), 0
	now := time.Now()
	for _, m := range members {
		m.call.Waited = now.Sub(m.call.At)
		rows += m.call.Rows
	}
	latency, err := r.run(s, rows, in, out, s.deadline(rows))
	switch {
	case errors.Is(err, ErrHung):
		x.engine.hung(s, members[0].call)
	case err != nil:
		err = fmt.Errorf("run %s: %w", s.manifest.Model, err)
	default:
		err = scatter(members, out, rows)
	}
	fail(members, err)
	for _, m := range members {
		m.call.Latency = latency
	}
	return err
}

// gather puts the members' inputs one behind another.
func gather(members []*member) []Tensor {
	in := copyTensors(nil, members[0].call.Inputs)
	for _, m := range members[1:] {
		for i, t := range m.call.Inputs {
			have, _ := dataLen(in[i].Datatype, in[i].Data)
			in[i].Data = copyData(in[i].Data, have, t.Data)
			in[i].Shape[0] += t.Shape[0]
		}
	}
	return in
}

// scatter gives every member its rows of out.
func scatter(members []*member, out []Tensor, rows int) error {
	from := 0
	for _, m := range members {
		for i, t := range out {
			part, err := t.Slice(from, from+m.call.Rows, rows)
			if err != nil {
				return fmt.Errorf("share out a run: %w", err)
			}
			m.out[i] = part
		}
		from += m.call.Rows
	}
	return nil
}

// sameRows reports whether rows of a and b have the same shapes.
func sameRows(a, b []Tensor) bool {
	return slices.EqualFunc(a, b, func(s, t Tensor) bool { return slices.Equal(s.Shape[1:], t.Shape[1:]) })
}

// batchable reports whether rows of different calls can be computed together:
// all tensors have as many rows as the call.
func batchable(s *release.Schema) bool {
	free := func(t release.Tensor) bool { return len(t.Shape) > 0 && t.Shape[0] < 0 }
	return !slices.ContainsFunc(slices.Concat(s.Inputs, s.Outputs), func(t release.Tensor) bool { return !free(t) })
}
