// Package runner drives the rollouts. It gathers the facts that a rollout
// rests on, lets the pure engine decide, and commits what it decided by one
// append to the rollout's ledger chain: with that append the decision is taken,
// and only then are devices told.
//
// What is in memory is a fold of the chains and nothing more, so a restart, or
// another server that was faster, costs a read. The runner sleeps until a
// device says something, an operator acts or the nearest deadline passes.
package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Defaults of Config.
const (
	// DefaultGap is the least time between two looks at the fleet. It gathers
	// the reports of many devices into one look, and bounds what a stop takes.
	DefaultGap = 200 * time.Millisecond
	// DefaultSettle is how long after something was counted the runner looks at
	// the latest. It gathers what many devices count into one look: that needs
	// no haste as reports do, which updates wait for.
	DefaultSettle = 2 * time.Second
	// maxRetry bounds the wait after a ledger that cannot be written.
	maxRetry = 30 * time.Second
	// maxConflicts is how often a decision is made again because another
	// server was faster.
	maxConflicts = 5
)

// ErrNotFound says that there is no such rollout.
var ErrNotFound = errors.New("no such rollout: list them with `vedette rollout list`")

// Ledger is where decisions are committed.
type Ledger interface {
	Append(ctx context.Context, chain string, expect uint64, kind, actor string, body any) (ledger.Record, error)
	Read(ctx context.Context, chain string) ([]ledger.Record, error)
	Chains(ctx context.Context, prefix string) ([]string, error)
}

// Fleet is what devices report.
type Fleet interface {
	Devices(match func(labels map[string]string) bool) []fleet.Device
	Device(id string) (fleet.Device, bool)
	Subscribe() *fleet.Subscription
	// Heard says in which of the last hours a device was heard of, and how many of them are known.
	Heard(id string, now time.Time) (heard fleet.Heard, known int)
}

// Evidence is what devices counted.
type Evidence interface {
	// EvidenceOf is what a device counted, by release, in windows that began at
	// since or later and, unless it is zero, before until.
	EvidenceOf(device, model string, since, until time.Time) map[release.Digest]drift.Evidence
	// ShadowOf is what it counted with a release as a shadow.
	ShadowOf(device, model string, d release.Digest, since time.Time) (drift.BesideCounts, bool)
	// Touched are the devices that have counted since it was last called.
	Touched() []string
	// Counted says, at least once after each call of Touched, that there are such
	// devices again.
	Counted() <-chan struct{}
}

// Sizes knows what devices need not download.
type Sizes interface {
	// Less returns, by name of the variants of release to for which it is known
	// to be less than all of it, what a device that has release from downloads,
	// in bytes. From may be zero.
	Less(from, to release.Digest) map[string]int64
}

// Releases knows what was published.
type Releases interface {
	// Release returns a version of a model. The error is for people.
	Release(ctx context.Context, model, version string) (release.Digest, *release.Manifest, error)
}

// Desired tells devices what to be.
type Desired interface {
	Apply(r ledger.Record) error
	Assigned(device, model string) desired.Assignment
	Ready() <-chan struct{}
}

// Config of a Runner. The first five are required.
type Config struct {
	Ledger   Ledger
	Fleet    Fleet
	Evidence Evidence
	Releases Releases
	Desired  Desired
	// Sizes is nil where every device downloads whole files.
	Sizes Sizes
	// Clearance is nil where every release may be rolled out.
	Clearance Clearance
	// OnChange is told of every rollout that changed; nil for nobody. It must
	// not block.
	OnChange func(id string)
	// Gap and Settle take their defaults when 0.
	Gap, Settle time.Duration
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Runner drives all rollouts. Its methods may be called from several
// goroutines.
type Runner struct {
	cfg      Config
	nudge    chan struct{}
	gatherer gatherer
	tally    *tally

	deciding sync.Mutex // held from gathering facts to the end of the commit: decisions are made one at a time

	mu       sync.RWMutex
	rollouts map[string]*chain // guarded by mu; the values are never changed, only replaced

	planning chan struct{}        // full while a plan is made
	failing  map[failure]struct{} // what went wrong in the newest pass; pass's alone
}

// Open reads the rollouts from the ledger. Run drives them.
func Open(ctx context.Context, cfg Config) (*Runner, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Gap, cfg.Settle = cmp.Or(cfg.Gap, DefaultGap), cmp.Or(cfg.Settle, DefaultSettle)
	r := &Runner{cfg: cfg, nudge: make(chan struct{}, 1), tally: newTally(), rollouts: map[string]*chain{}, planning: make(chan struct{}, 1)}
	r.gatherer.news, r.gatherer.of = cfg.Fleet.Subscribe(), map[string]*gathered{}
	names, err := cfg.Ledger.Chains(ctx, "rollout")
	if err != nil {
		return nil, fmt.Errorf("open rollouts: %w", err)
	}
	for _, name := range names {
		c, err := r.read(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("open rollouts: %w", err)
		}
		r.rollouts[c.state.ID] = c
	}
	return r, nil
}

func (r *Runner) read(ctx context.Context, name string) (*chain, error) {
	records, err := r.cfg.Ledger.Read(ctx, name)
	if err != nil {
		return nil, err
	}
	return fold(records)
}

// Nudge says that evidence has changed. It never blocks.
func (r *Runner) Nudge() {
	select {
	case r.nudge <- struct{}{}:
	default:
	}
}

// Run drives the rollouts until ctx ends, when it returns nil.
func (r *Runner) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.cfg.Desired.Ready():
	}
	defer r.gatherer.news.Close()
	for retry := time.Duration(0); ctx.Err() == nil; {
		var wake time.Time
		wake, retry = r.pass(ctx, retry)
		r.sleep(ctx, r.until(wake, retry))
	}
	return nil
}

// pass looks at every rollout once. It returns when the next one has to be
// looked at, and how long to wait before trying again what went wrong. What was
// decided is a fact for the next decision, so it is looked at again at once.
func (r *Runner) pass(ctx context.Context, retry time.Duration) (wake time.Time, next time.Duration) {
	failed := r.resumeStarts(ctx)
	decided := false
	for _, id := range r.driven() {
		before := r.chain(id)
		if err := r.decide(ctx, id, nil); err != nil {
			failed[failure{rollout: id}] = err
		}
		decided = decided || r.chain(id) != before
	}
	if ctx.Err() != nil {
		return wake, 0 // what failed, failed by that
	}
	r.complain(failed)
	if len(failed) > 0 {
		next = min(max(2*retry, time.Second), maxRetry)
	}
	for _, id := range r.driven() {
		if c := r.chain(id); c != nil {
			wake = earliest(wake, c.state.Wake(r.cfg.Now()))
		}
	}
	if decided {
		wake = r.cfg.Now()
	}
	return wake, next
}

// until is how long to sleep; negative means until something happens.
func (r *Runner) until(wake time.Time, retry time.Duration) time.Duration {
	wait := time.Duration(-1)
	if !wake.IsZero() {
		// A deadline is a whole millisecond: wake after it, not in it.
		wait = max(wake.Sub(r.cfg.Now())+time.Millisecond, 0)
	}
	if retry > 0 && (wait < 0 || retry < wait) {
		wait = retry
	}
	return wait
}

// sleep waits for news or for the time, then for the gap.
func (r *Runner) sleep(ctx context.Context, wait time.Duration) {
	var timer <-chan time.Time
	if wait >= 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	r.await(ctx, timer)
	gap := time.NewTimer(r.cfg.Gap)
	defer gap.Stop()
	select {
	case <-ctx.Done():
	case <-gap.C:
	}
}

// await waits until it is time to look. Evidence that nothing else follows is
// looked at after it has settled.
func (r *Runner) await(ctx context.Context, timer <-chan time.Time) {
	counted := r.cfg.Evidence.Counted()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
		case <-timer:
		case <-settled:
		case <-r.nudge:
		case <-r.gatherer.news.Changed():
		case <-counted:
			counted = nil // so this is done once
			t := time.NewTimer(r.cfg.Settle)
			defer t.Stop()
			settled = t.C
			continue
		}
		return
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// decide takes one step of one rollout and commits it. When another server was
// faster it reads what that one decided and decides again.
func (r *Runner) decide(ctx context.Context, id string, cmd *rollout.Command) error {
	r.deciding.Lock()
	defer r.deciding.Unlock()
	return r.decideLocked(ctx, id, cmd)
}

// decideLocked is decide for callers that hold deciding.
func (r *Runner) decideLocked(ctx context.Context, id string, cmd *rollout.Command) error {
	for range maxConflicts {
		err := r.decideOnce(ctx, id, cmd)
		if !errors.Is(err, ledger.ErrConflict) {
			return err
		}
		if err := r.reload(ctx, id); err != nil {
			return err
		}
	}
	return fmt.Errorf("rollout %s: %w: another server is deciding, too", id, ledger.ErrConflict)
}

func (r *Runner) decideOnce(ctx context.Context, id string, cmd *rollout.Command) error {
	c := r.chain(id)
	if c == nil {
		return fmt.Errorf("rollout %q: %w", id, ErrNotFound)
	}
	facts := r.gather(c.state)
	next, decision, err := rollout.Step(c.state, facts, r.cfg.Now(), cmd)
	if err != nil {
		return r.heldBy(err, facts)
	}
	if decision.Empty() {
		return nil
	}
	if ended, err := r.takeOver(ctx, c.state, next, cmd); err != nil {
		return err
	} else if ended {
		return r.decideOnce(ctx, id, cmd) // on what is so now
	}
	news := c.facts.Diff(facts)
	digest, err := rollout.Digest(next, c.facts.Apply(news))
	if err != nil {
		return err
	}
	kind, actor := KindStep, Actor
	if cmd != nil {
		kind, actor = KindAction, cmd.Actor
	}
	body := Record{Decision: *decision, Facts: news, Digest: digest}
	rec, err := r.cfg.Ledger.Append(ctx, desired.RolloutChain(id), c.head, kind, actor, body)
	if errors.Is(err, ledger.ErrTooLarge) {
		return fmt.Errorf("commit decision of rollout %s: %w: it states the facts of every device: make two rollouts of it, each with a narrower selector", id, err)
	}
	if err != nil {
		return fmt.Errorf("commit decision of rollout %s: %w", id, err)
	}
	return r.committed(c, rec, &body)
}

// committed takes in a record that is in the ledger, and tells the devices.
func (r *Runner) committed(c *chain, rec ledger.Record, body *Record) error {
	next, err := c.add(rec, body)
	if err != nil {
		return err
	}
	r.set(next)
	r.tally.decided(c.state, body, r.cfg.Now())
	err = r.cfg.Desired.Apply(rec) // before facts are gathered again: they tell what is assigned
	r.gatherer.decided(next.state, &body.Decision)
	for _, change := range body.Decision.Changes {
		if change.Subject != rollout.SubjectDevices {
			r.cfg.Logger.Info("rollout moved", slog.String("rollout", next.state.ID), slog.String("subject", change.Subject),
				slog.Int("wave", change.Wave), slog.String("from", change.From), slog.String("to", change.To), slog.String("why", change.Why))
		}
	}
	if next.state.Header.Status.Final() {
		r.Nudge() // another rollout may have waited for this one
	}
	return err
}

// reload reads a chain again, and tells devices what another server may not
// have told them.
func (r *Runner) reload(ctx context.Context, id string) error {
	records, err := r.cfg.Ledger.Read(ctx, desired.RolloutChain(id))
	if err != nil {
		return fmt.Errorf("read rollout %s again: %w", id, err)
	}
	c, err := fold(records)
	if err != nil {
		return err
	}
	r.set(c)
	for _, rec := range records {
		if err := r.cfg.Desired.Apply(rec); err != nil {
			return err
		}
	}
	r.gatherer.forget()
	return nil
}

func (r *Runner) chain(id string) *chain {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.rollouts[id]
}

func (r *Runner) set(c *chain) {
	r.mu.Lock()
	r.rollouts[c.state.ID] = c
	r.mu.Unlock()
	if r.cfg.OnChange != nil {
		r.cfg.OnChange(c.state.ID)
	}
}
