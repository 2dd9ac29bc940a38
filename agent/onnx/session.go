package onnx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/agent/infer"
)

// Bounds of one worker's buffers.
const (
	// maxChunk is the most rows of one run; more are cut. A small model has
	// reached its best rate per row well before.
	maxChunk = 1024
	// maxChunkBytes bounds one tensor's buffer, for models with large rows.
	maxChunkBytes = 16 << 20
)

// maxPlans bounds the shapes of rows for which buffers are kept.
const maxPlans = 8

// plan is how calls whose rows have one shape are computed: on buffers bound to
// the graph, by workers. There are as many workers as runs ever went on at once,
// which the caller bounds.
type plan struct {
	inputs, outputs []port
	chunk           int  // rows of one run
	learned         bool // from a call; not stated by the schema

	free []*worker // guarded by the session's mu, as is dropped
	// dropped says that the plan is no good (its outputs' shapes follow from what
	// the inputs hold, not from their shapes alone) or has made room for another:
	// it has no workers, and those that come back are freed.
	dropped bool
}

// session is one loaded graph. Where the schema fixes every shape there is one
// plan. Where it does not, the library allocates the outputs of the first call
// of each shape, and the plan for it is learned from them.
type session struct {
	graph           *ort.DynamicAdvancedSession
	provider        string
	inputs, outputs []port

	mu     sync.Mutex // guards plans, closed and the workers of plans
	plans  []*plan    // most recently used last
	closed bool
}

var _ infer.Session = (*session)(nil)

func newSession(g *ort.DynamicAdvancedSession, provider string, inputs, outputs []port) *session {
	s := &session{graph: g, provider: provider, inputs: inputs, outputs: outputs}
	if chunk := chunkRows(inputs, outputs); chunk > 0 {
		s.plans = []*plan{{inputs: inputs, outputs: outputs, chunk: chunk}}
	}
	return s
}

// chunkRows is how many rows one bound run may have: 0 when a shape, a string
// or a map keeps the graph from being bound, the batch itself when the graph
// fixes it.
func chunkRows(inputs, outputs []port) int {
	rows := maxChunk
	for _, p := range slices.Concat(inputs, outputs) {
		if p.width == 0 || p.size <= 0 || p.columns != nil {
			return 0
		}
		rows = min(rows, max(1, maxChunkBytes/(p.size*p.width)))
	}
	for _, p := range slices.Concat(inputs, outputs) {
		if p.batch > 0 {
			rows = int(p.batch)
		}
	}
	return rows
}

// Provider is the execution provider in use.
func (s *session) Provider() string { return s.provider }

// Run computes rows rows of in into out.
func (s *session) Run(ctx context.Context, rows int, in, out []infer.Tensor) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("before the run: %w", err)
	}
	if len(in) != len(s.inputs) || len(out) != len(s.outputs) || rows < 1 {
		return fmt.Errorf("run needs %d inputs, %d outputs and a row; got %d, %d and %d rows",
			len(s.inputs), len(s.outputs), len(in), len(out), rows)
	}
	p, w, err := s.acquire(in)
	switch {
	case err != nil:
		return err
	case p == nil:
		return s.explore(rows, in, out)
	case w == nil:
		return s.runFree(rows, in, out)
	}
	err = w.runAll(s.graph, p, rows, in, out)
	s.put(p, w)
	if err != nil && p.learned {
		s.unlearn(p)
		return s.runFree(rows, in, out)
	}
	return err
}

// acquire finds the plan for the inputs and one of its workers, the most
// recently used first: its buffers are in the cache. Without a plan there is no
// worker; a plan that cannot be kept has none either.
func (s *session) acquire(in []infer.Tensor) (*plan, *worker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	p := s.find(in)
	if p == nil || p.dropped {
		return p, nil, nil
	}
	if n := len(p.free); n > 0 {
		w := p.free[n-1]
		p.free = p.free[:n-1]
		return p, w, nil
	}
	w, err := newWorker(p)
	return p, w, err
}

// find looks for the plan of the inputs' shapes. The caller holds mu.
func (s *session) find(in []infer.Tensor) *plan {
	last := len(s.plans) - 1
	for i := last; i >= 0; i-- {
		if p := s.plans[i]; !p.learned || p.takes(in) {
			copy(s.plans[i:], s.plans[i+1:])
			s.plans[last] = p
			return p
		}
	}
	return nil
}

// takes says whether the inputs' rows have the plan's shapes.
func (p *plan) takes(in []infer.Tensor) bool {
	for i := range in {
		if len(in[i].Shape) == 0 || !slices.Equal(in[i].Shape[1:], p.inputs[i].rest) {
			return false
		}
	}
	return true
}

func (s *session) put(p *plan, w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dropped {
		_ = w.close() // frees memory only
		return
	}
	p.free = append(p.free, w)
}

// explore computes a call of a shape not seen yet and learns its plan.
func (s *session) explore(rows int, in, out []infer.Tensor) error {
	if err := s.runFree(rows, in, out); err != nil {
		return err
	}
	if p := s.learn(rows, in, out); p != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.find(in) == nil && !s.closed { // another call may have been quicker
			s.plans = append(s.plans, p)
			if len(s.plans) > maxPlans {
				oldest := s.plans[0]
				s.plans = slices.Delete(s.plans, 0, 1)
				return oldest.drop()
			}
		}
	}
	return nil
}

// learn makes the plan of a call that was computed, nil when the graph cannot
// be bound whatever the shapes are.
func (s *session) learn(rows int, in, out []infer.Tensor) *plan {
	p := &plan{learned: true}
	for i := range in {
		q, ok := s.inputs[i].as(in[i].Shape, rows)
		if !ok {
			return nil
		}
		p.inputs = append(p.inputs, q)
	}
	for i := range out {
		q, ok := s.outputs[i].as(out[i].Shape, rows)
		if !ok {
			return nil
		}
		p.outputs = append(p.outputs, q)
	}
	p.chunk = chunkRows(p.inputs, p.outputs)
	return p
}

// unlearn gives a plan up that did not hold for a second call. It stays in the
// list, so that calls of its shapes are computed the free way from now on.
func (s *session) unlearn(p *plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = p.drop() // frees memory only
}

// drop frees the plan's idle workers; others are freed as they come back. The
// caller holds the session's mu.
func (p *plan) drop() error {
	p.dropped = true
	var errs []error
	for _, w := range p.free {
		errs = append(errs, w.close())
	}
	p.free = nil
	return errors.Join(errs...)
}

// Close frees the graph and all buffers. No Run may be in progress.
func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for _, p := range s.plans {
		errs = append(errs, p.drop())
	}
	s.plans = nil
	errs = append(errs, s.graph.Destroy())
	return errors.Join(errs...)
}
