// Package sample draws rows for labelling out of what the device predicts, as
// far as the signed manifest of the release allows it, and seals them for the
// publisher [P-10]. A row is in memory until its window closes and encrypted
// from then on; none is ever written down readable.
//
// Of all rows a part, rate, is drawn by geometric gaps, so a row that is not
// drawn costs one atomic subtraction (Devroye, Non-Uniform Random Variate
// Generation, 1986, chapter XII.2). The rows drawn are told apart by stratum,
// and of each stratum a reservoir keeps a uniform sample (Vitter, Random
// sampling with a reservoir, 1985, algorithm R). At the window's close the rows
// allowed are dealt out to the strata in turn, so rare ones are in it too; a
// Stratum says how many rows its reservoir chose from, which weighs them again.
package sample

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/observe"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// maxPlans is how many releases are sampled at once: a model's two and a few
// models; older ones make room.
const maxPlans = 64

// Sink takes what is to be sent. agent/outbox is one.
type Sink interface {
	Append(bodies ...*protocol.Body) error
}

// Boot stamps moments of this start of the agent. host.Boot is one.
type Boot interface {
	Stamp() *protocol.Stamp
}

// Config of a Sampler.
type Config struct {
	// Rand draws the rows; nil is seeded by chance. It is used under a lock.
	Rand *rand.Rand
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Sampler is an infer.Observer that keeps samples.
type Sampler struct {
	sink  Sink
	boot  Boot
	log   *slog.Logger
	plans atomic.Pointer[[]*plan] // those that may sample; read without a lock on every call
	pace  chan time.Duration      // holds the newest window, taken by Run

	mu   sync.Mutex // guards what follows and the reservoirs of plans
	rand *rand.Rand
	off  bool // by a setting
	most int  // rows of a window by a setting, 0 for what the manifest says
	all  []*plan
}

var _ infer.Observer = (*Sampler)(nil)

// New makes a sampler that samples nothing until SetRelease.
func New(sink Sink, boot Boot, cfg Config) *Sampler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) //nolint:gosec // draws a sample, guards nothing
	}
	return &Sampler{sink: sink, boot: boot, log: cfg.Logger, rand: cfg.Rand, pace: make(chan time.Duration, 1)}
}

// SetRelease samples a release as its manifest says; one without a plan, or a
// shadow, which answers nobody, is not sampled.
func (s *Sampler) SetRelease(d release.Digest, role string, m *release.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(p *plan) bool { return p.release == d && p.empty() })
	known := slices.ContainsFunc(s.all, func(p *plan) bool { return p.release == d })
	if m.Sampling != nil && role != infer.RoleShadow && !known {
		p := newPlan(d, m, s.boot.Stamp())
		p.left.Store(s.gap(p))
		s.all = append(s.all, p)
		s.all = s.all[max(0, len(s.all)-maxPlans):]
	}
	s.publish()
}

// Apply takes over settings of the control plane. They can lower what a
// manifest allows, or switch it off; nothing raises it.
func (s *Sampler) Apply(settings *protocol.Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off, s.most = settings.GetSamplingOff(), int(min(settings.GetSampleRows(), release.MaxSampleRows))
	if s.off {
		for _, p := range s.all {
			p.reset(s.boot.Stamp())
		}
	}
	s.publish()
	window := observe.WindowOf(settings)
	for {
		select {
		case s.pace <- window:
			return
		default:
		}
		select { // an older setting waits there: replace it
		case <-s.pace:
		default:
		}
	}
}

// publish shows Served the plans that may sample. The caller holds mu.
func (s *Sampler) publish() {
	if s.off || len(s.all) == 0 {
		s.plans.Store(nil)
		return
	}
	s.plans.Store(new(slices.Clone(s.all)))
}

// Served looks whether rows of a call are drawn. It implements infer.Observer.
func (s *Sampler) Served(c *infer.Call) {
	plans := s.plans.Load()
	if plans == nil || c.Err != nil || c.Role == infer.RoleShadow {
		return
	}
	for _, p := range *plans {
		if p.release == c.Release && p.model == c.Model {
			rows := int64(c.Rows)
			if after := p.left.Add(-rows); after < 0 {
				s.draw(p, c, after+rows)
			}
			return
		}
	}
}

// draw takes the rows of a call that the gaps point at, the first one at first.
// A negative one was drawn by another call a moment ago.
func (s *Sampler) draw(p *plan, c *infer.Call, first int64) {
	if first < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return
	}
	b := observe.Batch(p.schema, c.Rows, c.Inputs, c.Outputs)
	row := first
	for ; row < int64(c.Rows); row += 1 + s.gap(p) {
		if err := p.offer(s.rand, c, b, int(row)); err != nil {
			s.warn(p, err)
		}
	}
	p.left.Store(row - int64(c.Rows))
}

// gap draws how many rows to pass over before the next one is taken.
func (s *Sampler) gap(p *plan) int64 { return gap(s.rand, p.rate) }

// warn says once a window what keeps rows out.
func (s *Sampler) warn(p *plan, err error) {
	if !p.warned {
		s.log.Warn("row is not sampled", "model", p.model, "release", p.release.Short(), "error", err)
	}
	p.warned = true
}

// Run closes windows until ctx ends, and once more then. Stop serving first.
func (s *Sampler) Run(ctx context.Context) error {
	window := observe.DefaultWindow
	tick := time.NewTicker(window)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.CloseWindow()
		case next := <-s.pace:
			if next != window {
				window = next
				tick.Reset(window)
			}
		case <-tick.C:
			if err := s.CloseWindow(); err != nil {
				s.log.Error("sample is not stored: it is given up", "error", err)
			}
		}
	}
}

// CloseWindow seals what the reservoirs hold and hands it over. What cannot be
// stored is given up: a sample counts nothing, so nothing is amiss without it.
func (s *Sampler) CloseWindow() error {
	var errs []error
	for _, w := range s.take() {
		body, err := w.seal()
		if err == nil {
			err = s.sink.Append(body)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sample of %s: %w", w.plan.model, err))
		}
	}
	return errors.Join(errs...)
}

// take empties the reservoirs.
func (s *Sampler) take() []*window {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.boot.Stamp()
	var out []*window
	for _, p := range s.all {
		if !p.empty() {
			out = append(out, p.close(s.rand, min(cmp.Or(s.most, p.rows), p.rows), now))
		}
		p.reset(now)
	}
	return out
}
