package onnx

import (
	"context"
	"errors"
	"fmt"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Bounds of one worker's buffers.
const (
	// maxChunk is the most rows of one run; more are cut. A small model has
	// reached its best rate per row well before.
	maxChunk = 1024
	// maxChunkBytes bounds one tensor's buffer, for models with large rows.
	maxChunkBytes = 16 << 20
)

// port is one input or output of the graph.
type port struct {
	name, datatype string
	batch          int64   // fixed first dimension, −1 when it is the rows
	rest           []int64 // dimensions after the first
	size           int     // elements of one row, −1 when the schema leaves it open
	width          int     // bytes of one element, 0 for strings
}

func ports(ts []release.Tensor) []port {
	list := make([]port, len(ts))
	for i, t := range ts {
		p := port{name: t.Name, datatype: t.Datatype, batch: -1, size: -1, width: widths[t.Datatype]}
		if len(t.Shape) > 0 {
			p.batch, p.rest = t.Shape[0], t.Shape[1:]
		}
		if n, fixed := t.RowSize(); fixed && len(t.Shape) > 0 {
			p.size = int(n)
		}
		list[i] = p
	}
	return list
}

func names(ps []port) []string {
	list := make([]string, len(ps))
	for i, p := range ps {
		list[i] = p.name
	}
	return list
}

var widths = map[string]int{
	"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "UINT32": 4, "INT32": 4, "FP32": 4,
	"UINT64": 8, "INT64": 8, "FP64": 8,
}

// session is one loaded graph with its workers. There are as many workers as
// runs ever went on at once, which the caller bounds.
type session struct {
	graph           *ort.DynamicAdvancedSession
	inputs, outputs []port
	chunk           int // rows of one bound run, 0 when the graph cannot be bound

	mu     sync.Mutex // guards free and closed
	free   []*worker
	closed bool
}

var _ infer.Session = (*session)(nil)

func newSession(g *ort.DynamicAdvancedSession, inputs, outputs []port) *session {
	return &session{graph: g, inputs: inputs, outputs: outputs, chunk: chunkRows(inputs, outputs)}
}

// chunkRows is how many rows one bound run may have: 0 when a shape or a string
// keeps the graph from being bound, the batch itself when the graph fixes it.
func chunkRows(inputs, outputs []port) int {
	rows := maxChunk
	for _, p := range append(append([]port(nil), inputs...), outputs...) {
		if p.width == 0 || p.size <= 0 {
			return 0
		}
		rows = min(rows, max(1, maxChunkBytes/(p.size*p.width)))
	}
	for _, p := range append(append([]port(nil), inputs...), outputs...) {
		if p.batch > 0 {
			rows = int(p.batch)
		}
	}
	return rows
}

// Provider is the execution provider in use.
func (s *session) Provider() string { return cpuProvider }

// Run computes rows rows of in into out.
func (s *session) Run(ctx context.Context, rows int, in, out []infer.Tensor) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("before the run: %w", err)
	}
	if len(in) != len(s.inputs) || len(out) != len(s.outputs) || rows < 1 {
		return fmt.Errorf("run needs %d inputs, %d outputs and a row; got %d, %d and %d rows",
			len(s.inputs), len(s.outputs), len(in), len(out), rows)
	}
	if s.chunk == 0 {
		if s.isClosed() {
			return ErrClosed
		}
		return s.runFree(in, out)
	}
	w, err := s.worker()
	if err != nil {
		return err
	}
	defer s.put(w)
	for from := 0; from < rows; from += s.chunk {
		if err := w.run(s, from, min(s.chunk, rows-from), rows, in, out); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// worker takes a free worker, the most recently used one first: its buffers
// are in the cache.
func (s *session) worker() (*worker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if n := len(s.free); n > 0 {
		w := s.free[n-1]
		s.free = s.free[:n-1]
		return w, nil
	}
	return newWorker(s)
}

func (s *session) put(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, w)
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
	for _, w := range s.free {
		errs = append(errs, w.close())
	}
	s.free = nil
	errs = append(errs, s.graph.Destroy())
	return errors.Join(errs...)
}
