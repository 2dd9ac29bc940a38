// Package observe turns what the engine serves into summaries: per model,
// release and role it counts inputs, outputs and latency into the bins of the
// release's baseline, closes a window every few minutes and hands it to the
// outbox. Labels that arrive later are joined by prediction id through a ring
// file, so that they find their prediction after a restart too.
//
// The totals of all bodies handed over equal what was served. Only a kill loses
// something: at most what was served since the last snapshot.
package observe

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Defaults of Settings, and what a setting is held to.
const (
	// DefaultWindow is how long a window stays open.
	DefaultWindow = 5 * time.Minute
	// DefaultSnapshot is how often an open window is written down: what a kill may cost.
	DefaultSnapshot = 10 * time.Second

	minWindow, maxWindow     = time.Second, 24 * time.Hour
	minSnapshot, maxSnapshot = time.Second, 10 * time.Minute
)

// Defaults of Config: what fits 6 MiB of flash and a day of late labels.
const (
	DefaultPredictions = 100_000
	DefaultKeep        = 24 * time.Hour
)

// Sink takes what is to be sent. agent/outbox is one.
type Sink interface {
	// PutOpen writes an open window or label record down under a key,
	// replacing what was there. After a kill it is sent as it is.
	PutOpen(key string, b *protocol.Body) error
	// CloseOpen replaces what is under the key a last time and hands it over for
	// sending, in one step that a power cut does not tear.
	CloseOpen(key string, b *protocol.Body) error
}

// Boot stamps moments of this start of the agent. host.Boot is one.
type Boot interface {
	Stamp() *protocol.Stamp
}

// Config of an Observer.
type Config struct {
	// Provider tells the execution provider in use for a model in a role; nil leaves it out of windows.
	Provider func(model, role string) string
	// Predictions is how many predictions the ring remembers, DefaultPredictions if 0.
	Predictions int
	// Keep is how long a prediction waits for its label, DefaultKeep if 0.
	Keep time.Duration
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Observer counts. It is the engine's infer.Observer.
type Observer struct {
	cfg   Config
	sink  Sink
	boot  Boot
	base  *protocol.Stamp // the stamp at
	since time.Time       // this moment
	ring  *ring
	known *table

	// shadows holds what shadows predicted, under the ids of the primary's
	// predictions, so that one truth scores both. It is opened for the first one.
	shadows atomic.Pointer[ring]
	dir     string

	settings chan pace // holds the newest, taken by Run

	flushing sync.Mutex // held while windows are written down or closed
	sinking  bool       // guarded by flushing: the sink's last answer was an error

	mu      sync.RWMutex // guards the maps
	windows map[windowKey]*window
	labels  map[labelsKey]*labels
	infos   map[string][]*info // by model, announced last is last
}

// maxInfos is how many releases of a model can be counted in full: the one that
// serves, its shadow, and the ones they may go back to.
const maxInfos = 4

var _ infer.Observer = (*Observer)(nil)

type windowKey struct {
	model   string
	release release.Digest
	role    string
	primary release.Digest // that a shadow is compared with, else zero
}

// pace is how often windows are closed and written down.
type pace struct{ window, snapshot time.Duration }

// New opens the ring in dir, or makes one. Windows go to sink. A disk that gives
// or takes nothing costs late labels their match, which is logged, and no more.
func New(dir string, sink Sink, boot Boot, cfg Config) *Observer {
	cfg.Predictions = cmp.Or(cfg.Predictions, DefaultPredictions)
	cfg.Keep = cmp.Or(cfg.Keep, DefaultKeep)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Observer{
		cfg: cfg, sink: sink, boot: boot, base: boot.Stamp(), since: time.Now(), dir: dir,
		ring: openRing(dir, cfg.Predictions, cfg.Logger), known: openTable(dir, cfg.Logger),
		settings: make(chan pace, 1),
		windows:  map[windowKey]*window{}, labels: map[labelsKey]*labels{}, infos: map[string][]*info{},
	}
}

// SetRelease says how calls of a release are counted. Call it before the
// release serves. b may be nil: then only rows, calls and latency are counted.
// A role other than infer.RolePrimary says that the release is a challenger.
func (o *Observer) SetRelease(model string, d release.Digest, role string, m *release.Manifest, b *sketch.Baseline) error {
	in := &info{model: model, digest: d, schema: &m.Schema, classes: classIndex(m.Schema.Classes)}
	if b != nil {
		c, err := sketch.NewCounter(b)
		if err != nil {
			return err
		}
		in.counter, in.limits = c, limitsOf(b)
	}
	challenger := role == infer.RoleShadow || role == infer.RoleShare
	if err := o.known.add(knownRelease{Model: model, Release: d, Classes: m.Schema.Classes, Challenger: challenger}); err != nil {
		o.cfg.Logger.Error("release is known until the next start only: its late labels count for none after it", "model", model, "release", d.Short(), "error", err)
	}
	if role == infer.RoleShadow && len(in.classes) > 0 {
		o.openShadows()
	}
	for _, w := range o.announce(in) {
		w.learn(in)
	}
	return nil
}

// announce makes a release the newest of its model and returns the windows
// that may have been opened without it.
func (o *Observer) announce(in *info) []*window {
	o.mu.Lock()
	defer o.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(o.infos[in.model]), func(i *info) bool { return i.digest == in.digest })
	rest = append(rest, in)
	o.infos[in.model] = rest[max(0, len(rest)-maxInfos):]
	var open []*window
	for k, w := range o.windows {
		if k.model == in.model && k.release == in.digest {
			open = append(open, w)
		}
	}
	return open
}

// Served counts one call. It allocates nothing in steady state.
func (o *Observer) Served(c *infer.Call) {
	key := windowKey{model: c.Model, release: c.Release, role: c.Role}
	if c.Beside != nil {
		key.primary = c.Beside.Primary
	}
	for {
		if o.window(key).served(o, c) {
			return
		}
	}
}

// window returns the window of a key. A release nobody announced is counted
// without its inputs and outputs: what was served must not be missing.
func (o *Observer) window(key windowKey) *window {
	o.mu.RLock()
	w := o.windows[key]
	o.mu.RUnlock()
	if w != nil {
		return w
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if w = o.windows[key]; w == nil {
		w = newWindow(key, o.info(key.model, key.release), o.info(key.model, key.primary))
		o.windows[key] = w
	}
	return w
}

// info is what was announced of a release, or little. The caller holds mu.
func (o *Observer) info(model string, d release.Digest) *info {
	for _, known := range o.infos[model] {
		if known.digest == d {
			return known
		}
	}
	return &info{model: model, digest: d}
}

// at places a moment on the clocks of this boot.
func (o *Observer) at(t time.Time) (monotonicMS uint64, wallMS int64) {
	ms := t.Sub(o.since).Milliseconds()
	return uint64(max(0, int64(o.base.GetMonotonicMs())+ms)), o.base.GetWallMs() + ms //nolint:gosec // milliseconds of one boot
}

// Apply takes over settings of the control plane; zero fields mean the defaults.
func (o *Observer) Apply(s *protocol.Settings) {
	p := paceOf(s)
	for {
		select {
		case o.settings <- p:
			return
		default:
		}
		select { // an older setting waits there: replace it
		case <-o.settings:
		default:
		}
	}
}

// WindowOf is how long a window stays open under settings of the control plane.
func WindowOf(s *protocol.Settings) time.Duration {
	if ms := s.GetWindowMs(); ms > 0 {
		return min(max(time.Duration(ms)*time.Millisecond, minWindow), maxWindow)
	}
	return DefaultWindow
}

func paceOf(s *protocol.Settings) pace {
	window, snapshot := WindowOf(s), DefaultSnapshot
	if ms := s.GetSnapshotMs(); ms > 0 {
		snapshot = min(max(time.Duration(ms)*time.Millisecond, minSnapshot), maxSnapshot)
	}
	return pace{window, snapshot}
}

// Run closes windows and writes open ones down until ctx ends; then it closes
// everything and returns. Stop serving first.
func (o *Observer) Run(ctx context.Context) error {
	p := paceOf(nil)
	window, snapshot := time.NewTicker(p.window), time.NewTicker(p.snapshot)
	defer window.Stop()
	defer snapshot.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(o.CloseWindows(), o.ring.sync(), o.shadows.Load().sync())
		case next := <-o.settings:
			if next != p {
				p = next
				window.Reset(p.window)
				snapshot.Reset(p.snapshot)
			}
		case <-window.C:
			o.report(o.CloseWindows())
		case <-snapshot.C:
			o.report(o.Snapshot())
		}
	}
}

// report logs the first failure of the sink and its recovery.
func (o *Observer) report(err error) {
	o.flushing.Lock()
	defer o.flushing.Unlock()
	switch {
	case err != nil && !o.sinking:
		o.cfg.Logger.Error("cannot hand windows over, they stay open until it works", "error", err)
	case err == nil && o.sinking:
		o.cfg.Logger.Info("windows are handed over again")
	}
	o.sinking = err != nil
}

// Snapshot writes every open window and label record down that has changed.
func (o *Observer) Snapshot() error {
	o.flushing.Lock()
	defer o.flushing.Unlock()
	o.ring.settle()
	var errs []error
	windows, records := o.open()
	for _, w := range windows {
		if b := w.peek(o); b != nil {
			if err := o.sink.PutOpen(w.name, b); err != nil {
				w.touch()
				errs = append(errs, err)
			}
		}
	}
	for l, b := range o.collect(records, (*labels).peek) {
		if err := o.sink.PutOpen(l.name, b); err != nil {
			l.touch()
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// collect takes what label records hold by take, and then makes sure that no
// power cut lets the ring forget which predictions have their labels: those
// would be counted a second time.
func (o *Observer) collect(list []*labels, take func(*labels, *Observer) *protocol.Body) map[*labels]*protocol.Body {
	bodies := map[*labels]*protocol.Body{}
	for _, l := range list {
		if b := take(l, o); b != nil {
			bodies[l] = b
		}
	}
	if len(bodies) > 0 {
		if err := errors.Join(o.ring.sync(), o.shadows.Load().sync()); err != nil {
			o.cfg.Logger.Warn("predictions are not synced: a power cut may let a label be taken twice", "error", err)
		}
	}
	return bodies
}

// CloseWindows hands every open window and label record over. One that the
// sink refuses stays open and goes on counting: nothing is lost.
func (o *Observer) CloseWindows() error {
	o.flushing.Lock()
	defer o.flushing.Unlock()
	var errs []error
	windows, records := o.open()
	for _, w := range windows {
		out := w.swap()
		if out == nil {
			o.retire(w)
			continue
		}
		err := o.sink.CloseOpen(w.name, w.body(o, out))
		w.settle(out, err != nil)
		errs = append(errs, err)
	}
	for l, b := range o.collect(records, (*labels).take) {
		if err := o.sink.CloseOpen(l.name, b); err != nil {
			l.giveBack(b.GetLabels())
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (o *Observer) open() ([]*window, []*labels) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	windows := make([]*window, 0, len(o.windows))
	for _, w := range o.windows {
		windows = append(windows, w)
	}
	ls := make([]*labels, 0, len(o.labels))
	for _, l := range o.labels {
		ls = append(ls, l)
	}
	return windows, ls
}

// retire forgets a window that counted nothing while it was open: updates must
// not pile up memory.
func (o *Observer) retire(w *window) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w.retire() {
		delete(o.windows, w.key)
	}
}

// Close closes the ring. Call it after Run has returned.
func (o *Observer) Close() error { return errors.Join(o.ring.close(), o.shadows.Load().close()) }
