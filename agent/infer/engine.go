package infer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Defaults of Config.
const (
	// DefaultQueue is how many calls of one model may wait for their turn. At
	// 10 ms a run on one core it is a wait of under a second, more than which a
	// caller at the edge has given up.
	DefaultQueue = 64
	// DefaultMaxRows bounds the rows of one call, and with them the time for
	// which one call can keep others waiting.
	DefaultMaxRows = 8192
	// MaxConcurrency is the highest default of runs at once per model: every
	// one has its own buffers, and an edge device has other things to do.
	MaxConcurrency = 4
	// MinDeadline is the shortest time after which a run counts as hung. It is
	// long against a device that swaps or throttles, short against a watchdog.
	MinDeadline = 5 * time.Second
	// DeadlineFactor times the trial's p95 is the deadline of slow models.
	DeadlineFactor = 20
)

// Limits bound what one model may take up. A field that is zero takes what the
// engine's Config says, then the default.
type Limits struct {
	Concurrency int // runs at once, 0 for the processors, at most MaxConcurrency
	Queue       int // calls waiting, 0 for DefaultQueue
	MaxRows     int // per call, 0 for DefaultMaxRows
	// BatchRows lets calls that wait share one run of up to so many rows; below
	// 2 every call has a run of its own. It pays where a run of many rows costs
	// little more than one of few, and costs small models their speed.
	BatchRows int
	// BatchDelay is how long a call waits for others to share a run with, even
	// when a turn is free; 0 shares only what waits for a turn anyway.
	BatchDelay time.Duration
}

// or fills the fields that are zero from d.
func (l Limits) or(d Limits) Limits {
	return Limits{
		Concurrency: cmp.Or(l.Concurrency, d.Concurrency), Queue: cmp.Or(l.Queue, d.Queue), MaxRows: cmp.Or(l.MaxRows, d.MaxRows),
		BatchRows: cmp.Or(l.BatchRows, d.BatchRows), BatchDelay: cmp.Or(l.BatchDelay, d.BatchDelay),
	}
}

// Config holds the optional parts of an engine.
type Config struct {
	Limits // of every model that Models does not name
	// Models holds limits of single models.
	Models   map[string]Limits
	Observer Observer // told of every call that fits its schema, nil for none
	// Hung is told once of every run that misses its deadline, on a goroutine
	// of its own; nil for none. The process should be restarted soon.
	Hung func(model string, d release.Digest)
	// ChallengerHung is told of a challenger that was retired because one of its
	// runs missed its deadline; nil for none. The primary release goes on.
	ChallengerHung func(model string, d release.Digest)
	Log            *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Limits = c.or(Limits{
		Concurrency: min(runtime.GOMAXPROCS(0), MaxConcurrency), Queue: DefaultQueue, MaxRows: DefaultMaxRows,
	})
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Engine serves models. All methods may be called at once.
type Engine struct {
	rt  Runtime
	cfg Config
	ids *idSource

	// lanes is copied on write, so that a call reads it without a lock.
	lanes atomic.Pointer[map[string]*lane]
	// mu serialises changes of lanes and what they serve, and guards closed. No
	// session is loaded under it: a load may hang.
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup // runners, loads and closing sessions
}

// New returns an engine that serves nothing yet.
func New(rt Runtime, cfg Config) *Engine {
	e := &Engine{rt: rt, cfg: cfg.withDefaults(), ids: newIDSource()}
	e.lanes.Store(&map[string]*lane{})
	return e
}

// Runtime says what computes.
func (e *Engine) Runtime() RuntimeInfo { return e.rt.Info() }

// Activate loads and warms a release and lets it take over between two calls.
// Calls in progress end on the release they began with, which is closed after
// the last of them. On an error the old release goes on serving. Activating
// what serves already does nothing.
//
// A load inside the library cannot be cancelled. When ctx ends first, the error
// wraps ErrLoading; the load goes on beside everything else, and what comes of
// it is closed unused.
func (e *Engine) Activate(ctx context.Context, r Release) error {
	s, err := newServed(r)
	if err != nil {
		return err
	}
	if here, err := e.begin(s); here || err != nil {
		return err
	}
	loaded, given := make(chan error), make(chan struct{})
	defer close(given)
	go func() {
		defer e.wg.Done()
		err := e.load(ctx, s)
		select {
		case loaded <- err:
		case <-given: // up: nobody waits for it any more
			if err == nil {
				e.discard(s)
			}
		}
	}()
	select {
	case err := <-loaded:
		if err != nil {
			return err
		}
		return e.takeOver(s)
	case <-ctx.Done():
		return fmt.Errorf("load %s %s: %w: %w", r.Manifest.Model, r.Manifest.Version, ErrLoading, ctx.Err())
	}
}

// begin says whether s serves already; if not, the engine waits for its load
// from now on before it is closed.
func (e *Engine) begin(s *served) (here bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false, ErrClosed
	}
	if l := e.lane(s.manifest.Model); l != nil && l.has(s) {
		return true, nil
	}
	e.wg.Add(1)
	return false, nil
}

// load opens the session of s and runs it once.
func (e *Engine) load(ctx context.Context, s *served) (err error) {
	if s.session, err = e.rt.Load(ctx, s.release); err != nil {
		return fmt.Errorf("load %s %s: %w", s.manifest.Model, s.manifest.Version, err)
	}
	if err := s.warm(ctx); err != nil {
		return errors.Join(fmt.Errorf("warm %s %s: %w", s.manifest.Model, s.manifest.Version, err), s.session.Close())
	}
	return nil
}

// takeOver lets s serve, unless the engine was closed meanwhile.
func (e *Engine) takeOver(s *served) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		e.discard(s)
		return ErrClosed
	}
	if s.challenges() {
		e.installChallenger(s)
	} else {
		e.install(s)
	}
	return nil
}

// discard frees a session that never served.
func (e *Engine) discard(s *served) {
	if err := s.session.Close(); err != nil {
		e.cfg.Log.Warn("closing a session", "model", s.manifest.Model, "error", err)
	}
}

// install makes s the one that serves its model. The caller holds mu.
func (e *Engine) install(s *served) {
	l := e.makeLane(s.manifest.Model)
	s.onClose = e.closeServed
	e.wg.Add(1) // until the session is closed
	if old := l.current.Swap(s); old != nil {
		old.unref()
	}
	e.cfg.Log.Info("model activated", "model", s.manifest.Model, "version", s.manifest.Version,
		"release", s.digest.String(), "provider", s.session.Provider())
}

// makeLane returns the lane of a model, new if it has to be. The caller holds mu.
func (e *Engine) makeLane(model string) *lane {
	l := e.lane(model)
	if l == nil {
		l = newLane(e.cfg.Models[model].or(e.cfg.Limits), &e.wg)
		l.late = e.late
		if l.limits.BatchRows > 1 {
			l.batcher = &batcher{engine: e, lane: l}
		}
		lanes := maps.Clone(*e.lanes.Load())
		lanes[model] = l
		e.lanes.Store(&lanes)
	}
	return l
}

// closeServed frees a release that nobody uses any more, away from the call
// that happened to be the last one.
func (e *Engine) closeServed(s *served) {
	go func() {
		defer e.wg.Done()
		if err := s.session.Close(); err != nil {
			e.cfg.Log.Warn("closing a session", "model", s.manifest.Model, "error", err)
		}
		close(s.done)
	}()
}

// Remove stops serving a model and waits until its session is closed or ctx
// ends. Removing what does not serve does nothing.
func (e *Engine) Remove(ctx context.Context, model string) error {
	e.mu.Lock()
	var old *served
	if l := e.lane(model); l != nil {
		old = l.current.Swap(nil)
	}
	e.mu.Unlock()
	if old == nil {
		return nil
	}
	old.unref()
	select {
	case <-old.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the last calls of %s: %w", model, ctx.Err())
	}
}

// Close stops serving everything and waits until all sessions are closed or ctx
// ends; a hung run can outlast it.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	var beside []*challenger
	for _, l := range *e.lanes.Load() {
		if c := l.challenger.Swap(nil); c != nil {
			c.stop()
			beside = append(beside, c)
		}
		if !e.closed {
			l.close()
		}
	}
	e.closed = true
	e.mu.Unlock()
	done := make(chan struct{})
	go func() {
		e.wg.Wait()
		for _, c := range beside {
			<-c.gone
		}
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for running calls: %w", ctx.Err())
	}
}

// Status is one model as it serves now.
type Status struct {
	Model    string         `json:"model"`
	Version  string         `json:"version"`
	Release  release.Digest `json:"release"`
	Role     string         `json:"role"`
	Variant  string         `json:"variant"`
	Provider string         `json:"provider"`
	Since    time.Time      `json:"since"`
	Calls    uint64         `json:"calls"` // answered by this release
	Rows     uint64         `json:"rows"`
	Failed   uint64         `json:"failed"`  // calls not answered, without those refused
	Refused  uint64         `json:"refused"` // calls whose request does not fit the schema
	Running  int            `json:"running"`
	Waiting  int            `json:"waiting"`
	Hung     int            `json:"hung"` // runs past their deadline that have not ended yet
	Deadline time.Duration  `json:"deadline_ns"`
	// Of a challenger:
	Share     int    `json:"share,omitempty"`     // parts per thousand of the calls
	Skipped   uint64 `json:"skipped,omitempty"`   // rows that a shadow had no time for
	Fallbacks uint64 `json:"fallbacks,omitempty"` // calls that the primary release answered after all
}

// Status lists the models served, by name.
func (e *Engine) Status() []Status {
	var list []Status
	for _, l := range *e.lanes.Load() {
		if s := l.acquire(); s != nil {
			list = append(list, s.status(l))
			s.unref()
		}
	}
	sortStatus(list)
	return list
}

func sortStatus(list []Status) {
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Model, b.Model) })
}

// Manifest is that of the release that serves the model.
func (e *Engine) Manifest(model string) (*release.Manifest, release.Digest, error) {
	s := e.acquire(model)
	if s == nil {
		return nil, release.Digest{}, fmt.Errorf("%w: %s", ErrUnknownModel, model)
	}
	defer s.unref()
	return s.manifest, s.digest, nil
}

// Infer answers one request into a response of its own. See InferInto.
func (e *Engine) Infer(ctx context.Context, req *Request) (*Response, error) {
	resp := &Response{}
	if err := e.InferInto(ctx, req, resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// InferInto answers one request into resp, writing into the slices that an
// earlier answer left there: a caller that keeps req and resp allocates nothing.
// After ErrHung the run goes on reading what req.Inputs hold, which must not be
// written to any more.
//
// ctx bounds the wait for a turn; a run that has begun is bounded by the
// release's deadline alone, so that what was computed is also counted. A request
// that does not fit the schema is the caller's fault: it is counted in Status
// alone and is no evidence against the release. One that fits and finds no turn
// counts as failed, with the rows it was found to have: a release too slow for
// its callers must show.
func (e *Engine) InferInto(ctx context.Context, req *Request, resp *Response) error {
	l, s, err := e.find(req)
	if err != nil {
		return err
	}
	id := req.ID
	if id == "" {
		id = e.ids.next()
	}
	beside, held := l.challenger.Load(), false
	if beside != nil {
		var answered bool
		if answered, held = beside.answer(ctx, e, req, id, resp); answered {
			s.unref()
			return nil
		}
	}
	c := newCall(req, s)
	c.ID = id
	if c.Inputs, c.Rows, err = s.check.request(req, c.ordered, l.limits.MaxRows); err != nil {
		s.refused.Add(1)
		s.unref()
		return err
	}
	if len(c.Inputs) > 1 {
		c.ordered = c.Inputs // a single one is the request's own
	}
	out := s.outputs(resp)
	owned := e.compute(ctx, l, s, c, out, req.Abandon)
	if c.Err == nil {
		c.Outputs = out
	}
	e.served(s, c)
	if beside != nil && beside.shadow != nil && c.Err == nil {
		beside.shadow.offer(c, key(req, id))
	}
	s.respond(req, c, resp)
	resp.Held = resp.Held || held
	err = c.Err
	if owned { // else the run hangs: it keeps the reference, the inputs and the outputs
		s.unref()
		c.recycle()
	}
	return err
}

// find returns the lane of the request's model and the release that serves,
// with a reference to it.
func (e *Engine) find(req *Request) (*lane, *served, error) {
	l := e.lane(req.Model)
	if l == nil {
		return nil, nil, unknownModel(req)
	}
	s := l.acquire()
	if s == nil {
		return nil, nil, unknownModel(req)
	}
	if req.Version != "" && req.Version != s.manifest.Version {
		s.unref()
		return nil, nil, unknownModel(req)
	}
	return l, s, nil
}

func unknownModel(req *Request) error {
	if req.Version == "" {
		return fmt.Errorf("%w: %s", ErrUnknownModel, req.Model)
	}
	return fmt.Errorf("%w: %s version %s", ErrUnknownModel, req.Model, req.Version)
}

// compute waits for a turn, runs, and fills in what the call came to. It reports
// whether the reference to s is still the caller's: a run that hangs keeps it.
// See Request for abandon, which may be nil.
func (e *Engine) compute(ctx context.Context, l *lane, s *served, c *Call, out []Tensor, abandon func()) (owned bool) {
	if l.batcher != nil && s.batchable && c.Rows < l.limits.BatchRows {
		l.batcher.compute(ctx, s, c, out)
		return true
	}
	deadline := s.deadline(c.Rows)
	r, err := l.turn(ctx, deadline)
	if err != nil {
		c.Err = err
		return true
	}
	c.Waited = time.Since(c.At)
	var latency time.Duration
	if abandon != nil {
		latency, err = r.runHere(s, c, out, deadline, abandon)
		c.told = errors.Is(err, ErrHung)
	} else {
		latency, err = r.run(s, c.Rows, c.Inputs, out, deadline)
	}
	if c.told {
		c.Err = err
		return true // the run has ended after all
	}
	if errors.Is(err, ErrHung) {
		c.Err = err
		e.hung(s, c)
		return false
	}
	c.Latency = latency
	if err != nil {
		c.Err = fmt.Errorf("run %s: %w", c.Model, err)
	}
	return true
}

func (e *Engine) hung(s *served, c *Call) {
	if c.Role != RolePrimary {
		return // hungChallenger follows
	}
	e.cfg.Log.Error("a run missed its deadline", "model", c.Model, "release", s.digest.String(), "prediction_id", c.ID)
	if e.cfg.Hung != nil {
		go e.cfg.Hung(c.Model, s.digest)
	}
}

// late counts a call that hangs on its caller's goroutine.
func (e *Engine) late(s *served, c *Call) {
	failed := *c
	failed.Err = ErrHung
	e.hung(s, &failed)
	e.served(s, &failed)
}

// served tells the observer of a call and then counts it, unless late did: a
// truth about a call that is counted finds its prediction.
func (e *Engine) served(s *served, c *Call) {
	if c.told {
		return
	}
	if e.cfg.Observer != nil {
		e.cfg.Observer.Served(c)
	}
	if c.Err != nil {
		s.failed.Add(1)
	} else {
		s.calls.Add(1)
		s.rows.Add(uint64(c.Rows)) //nolint:gosec // not negative
	}
}

func (e *Engine) lane(model string) *lane { return (*e.lanes.Load())[model] }

func (e *Engine) acquire(model string) *served {
	if l := e.lane(model); l != nil {
		return l.acquire()
	}
	return nil
}
