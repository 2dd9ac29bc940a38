package observe

import (
	"encoding/hex"
	"errors"
	"sync"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// info is what is known of a release.
type info struct {
	model   string
	digest  release.Digest
	schema  *release.Schema // nil when nobody announced it
	classes map[string]int64
	counter *sketch.Counter      // to make twins of; nil without a baseline
	limits  map[string][]float64 // of outputs that are no scores; see limitsOf
}

func classIndex(classes []string) map[string]int64 {
	index := make(map[string]int64, len(classes))
	for i, c := range classes {
		index[c] = int64(i)
	}
	return index
}

// window counts the calls of one model, release and role. While one set of
// counts is handed over the other one counts on.
type window struct {
	key  windowKey
	name string // under which the sink keeps it

	mu      sync.Mutex // guards everything below
	info    *info
	now     *counts
	spare   *counts
	changed bool // since it was written down
	dead    bool // retired: take another one
	batch   *batch
	hasher  sketch.Hasher
	// Of a shadow: the release beside it, nil when nobody announced it.
	primary      *info
	primaryBatch *batch
}

// counts are what a window reports.
type counts struct {
	counter            *sketch.Counter // nil without a baseline
	latency            *sketch.Latency
	distinct           *sketch.Distinct
	rows, calls        uint64
	failedRows, failed uint64
	startMonotonic     uint64
	startWall          int64
	beside             *compared // of a shadow, else nil
}

func newWindow(key windowKey, in, primary *info) *window {
	w := &window{key: key, name: "window/" + key.model + "/" + hex.EncodeToString(key.release[:]) + "/" + key.role}
	if key.role == infer.RoleShadow {
		w.name += "/" + hex.EncodeToString(key.primary[:])
	}
	if primary != nil && primary.schema != nil {
		w.primary, w.primaryBatch = primary, newBatch(primary)
	}
	w.take(in)
	return w
}

func (w *window) take(in *info) {
	w.info, w.batch = in, newBatch(in)
	w.now, w.spare = w.newCounts(), w.newCounts()
}

func (w *window) newCounts() *counts {
	c := &counts{latency: sketch.NewLatency(), distinct: sketch.NewDistinct()}
	if w.info.counter != nil {
		c.counter = w.info.counter.Twin()
	}
	if w.key.role == infer.RoleShadow {
		c.beside = newCompared()
	}
	return c
}

// learn takes over what is known of a release that was served before it was
// announced. What was counted without it goes on counting.
func (w *window) learn(in *info) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.info.schema != nil {
		return
	}
	old := w.now
	w.take(in)
	w.now.absorb(old)
}

// served counts a call, unless the window was retired meanwhile.
func (w *window) served(o *Observer, c *infer.Call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return false
	}
	n := w.now
	monotonic, wall := o.at(c.At)
	if n.empty() {
		n.startMonotonic, n.startWall = monotonic, wall
	}
	w.changed = true
	rows := uint64(max(c.Rows, 0))
	if n.beside != nil && c.Beside != nil {
		n.beside.skipped += uint64(max(c.Beside.Skipped, 0))
	}
	if errors.Is(c.Err, infer.ErrSkipped) {
		return true
	}
	if c.Err != nil {
		n.failed++
		n.failedRows += rows
		return true
	}
	n.calls++
	n.rows += rows
	n.latency.Add(c.Latency)
	if w.info.schema == nil {
		return true
	}
	b := w.batch.of(c)
	if n.beside != nil && c.Beside != nil {
		n.beside.judge(c, b, w.info, w.besides(c), w.primary)
	}
	if n.counter != nil {
		n.counter.Count(b)
	}
	for r := range b.Rows {
		n.distinct.Add(w.hasher.Row(b.Inputs, r))
	}
	if ring := o.ringOf(c.Role); ring != nil && len(w.info.classes) > 0 {
		ring.append(c, b, moment{boot: bootTag(o.base.GetBoot()), monotonic: monotonic, wall: wall}, tagOf(w.info.digest))
	}
	return true
}

// besides is what the primary release made of a shadow's call, nil when it was
// not announced.
func (w *window) besides(c *infer.Call) *sketch.Batch {
	if w.primaryBatch == nil {
		return nil
	}
	return w.primaryBatch.of(&infer.Call{Rows: c.Rows, Outputs: c.Beside.Outputs})
}

func (n *counts) empty() bool { return n.calls+n.failed == 0 && n.beside.asleep() }

func (n *counts) reset() {
	if n.counter != nil {
		n.counter.Reset()
	}
	n.latency.Reset()
	n.distinct.Reset()
	n.rows, n.calls, n.failedRows, n.failed = 0, 0, 0, 0
	if n.beside != nil {
		n.beside.reset()
	}
}

// absorb adds the counts of another set over the same baseline.
func (n *counts) absorb(o *counts) {
	if o.empty() {
		return
	}
	if n.empty() || o.startMonotonic < n.startMonotonic {
		n.startMonotonic, n.startWall = o.startMonotonic, o.startWall
	}
	n.rows += o.rows
	n.calls += o.calls
	n.failedRows += o.failedRows
	n.failed += o.failed
	// Both are of one shape: made by newCounts of one info, or o has no counter.
	if n.counter != nil && o.counter != nil {
		_ = n.counter.Merge(o.counter)
	}
	_ = n.latency.Merge(o.latency)
	_ = n.distinct.Merge(o.distinct)
	if n.beside != nil && o.beside != nil {
		n.beside.absorb(o.beside)
	}
}

// peek returns the window as it stands, nil when it has not changed since.
func (w *window) peek(o *Observer) *protocol.Body {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.changed || w.now.empty() {
		return nil
	}
	w.changed = false
	return w.body(o, w.now)
}

// touch makes the next peek return the window again.
func (w *window) touch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = true
}

// swap takes the counts out to be handed over, nil when there are none. settle
// must follow, and nobody else swaps before: the caller holds o.flushing.
func (w *window) swap() *counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now.empty() {
		return nil
	}
	out := w.now
	w.now, w.spare, w.changed = w.spare, nil, false
	return out
}

// settle ends a swap: the counts are gone, or they come back.
func (w *window) settle(out *counts, refused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if refused {
		w.now.absorb(out)
		w.changed = true
	}
	if w.spare == nil { // else what was learned meanwhile has brought another shape
		out.reset()
		w.spare = out
	}
}

// retire marks an empty window as dead.
func (w *window) retire() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = w.now.empty()
	return w.dead
}

func (w *window) body(o *Observer, n *counts) *protocol.Body {
	at := o.boot.Stamp()
	out := &protocol.Window{
		Model: w.key.model, Release: append([]byte(nil), w.key.release[:]...), Role: w.key.role,
		StartMonotonicMs: n.startMonotonic, EndMonotonicMs: max(at.GetMonotonicMs(), n.startMonotonic),
		StartWallMs: n.startWall, EndWallMs: max(at.GetWallMs(), n.startWall),
		Rows: n.rows, Calls: n.calls, FailedCalls: n.failed, FailedRows: n.failedRows,
	}
	// Encoding these two fails for no content they can have.
	out.Latency, _ = n.latency.Encode()
	out.Distinct, _ = n.distinct.Encode()
	if n.counter != nil {
		out.Streams = n.counter.Histograms()
	}
	if n.beside != nil {
		out.Comparison = n.beside.wire(w.key.primary)
	}
	if o.cfg.Provider != nil {
		out.Provider = o.cfg.Provider(w.key.model, w.key.role)
	}
	return &protocol.Body{At: at, Kind: &protocol.Body_Window{Window: out}}
}
