package incident

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// What a board may answer.
var (
	// ErrNotFound says that there is no such incident or silence.
	ErrNotFound = errors.New("no such incident")
	// ErrState says that an incident has ended already.
	ErrState = errors.New("the incident is resolved already")
	// ErrFull says that too much is wrong at once to tell one from another.
	ErrFull = errors.New("too many incidents are open: resolve or clear some")
)

// What a board holds.
const (
	maxLive      = 2000
	keepResolved = 1000
	// countEvery bounds how often a count alone is written.
	countEvery = time.Minute
)

// Config of a Board.
type Config struct {
	Client *http.Client    // nil: delivery.NewClient's, which dials no link-local addresses
	Link   string          // URL of the dashboard, for messages
	Change func(id string) // called when an incident, silence or the configuration changed; nil for nobody
	Logger *slog.Logger    // nil discards
}

// Board holds incidents. New makes one; Run tells people of them.
type Board struct {
	store kvstore.Bucket
	cfg   Config
	mail  *mailer
	wake  chan struct{} // holds one when there may be something to tell

	mu        sync.Mutex // guards everything below
	incidents map[string]*Incident
	byKey     map[string]string // newest incident of a key
	stored    map[string]int64  // when an incident was written last, Unix milliseconds
	silences  map[string]*Silence
	notices   map[string]*Notice
	settings  operator.NotifySettings
}

// New loads what a bucket holds.
func New(ctx context.Context, store kvstore.Bucket, cfg Config) (*Board, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Change == nil {
		cfg.Change = func(string) {}
	}
	if cfg.Client == nil {
		cfg.Client = delivery.NewClient()
	}
	b := &Board{
		store: store, cfg: cfg, wake: make(chan struct{}, 1), mail: &mailer{dialer: delivery.NewDialer()},
		incidents: map[string]*Incident{}, byKey: map[string]string{}, stored: map[string]int64{},
		silences: map[string]*Silence{}, notices: map[string]*Notice{},
	}
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	b.nudge()
	return b, nil
}

// hold takes an incident into memory.
func (b *Board) hold(i *Incident) {
	b.incidents[i.ID] = i
	if held := b.incidents[b.byKey[i.Cause.Key]]; held == nil || held.OpenedMS <= i.OpenedMS {
		b.byKey[i.Cause.Key] = i.ID
	}
}

// Raise says that a cause stands. The same key while its incident is open, or
// within the grace time after it ended, is that incident.
func (b *Board) Raise(ctx context.Context, now time.Time, c Cause) error {
	c, err := c.clean()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.incidents[b.byKey[c.Key]]
	switch {
	case held == nil || !b.same(held, now):
		return b.begin(ctx, now, c, held)
	case held.Live() && held.Cause == c && now.UnixMilli()-b.stored[held.ID] < countEvery.Milliseconds():
		held.Count++
		held.LastMS = max(held.LastMS, now.UnixMilli())
		return nil
	}
	next := held.clone()
	next.raise(now, c)
	return b.commit(ctx, now, next)
}

// same tells whether a raise now belongs to the newest incident of its key.
func (b *Board) same(held *Incident, now time.Time) bool {
	return held.Live() || now.Sub(time.UnixMilli(held.ResolvedMS)) < held.graceOf(DefaultGrace)
}

// begin opens a new incident.
func (b *Board) begin(ctx context.Context, now time.Time, c Cause, before *Incident) error {
	if b.live() >= maxLive {
		return ErrFull
	}
	flaps := 0
	if before != nil && now.Sub(time.UnixMilli(before.ResolvedMS)) < flapMemory {
		flaps = before.Flaps + 1
	}
	i := open(now, c, before, flaps)
	if err := b.commit(ctx, now, i); err != nil {
		return err
	}
	b.cfg.Logger.Warn("incident opened", "incident", i.ID, "kind", c.Kind, "model", c.Model, "summary", c.Summary)
	b.prune(ctx)
	return nil
}

func (b *Board) live() int {
	n := 0
	for _, i := range b.incidents {
		if i.Live() {
			n++
		}
	}
	return n
}

// Clear says that a cause is gone. One that was never raised, or is resolved
// already, is no error.
func (b *Board) Clear(ctx context.Context, now time.Time, key, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.incidents[b.byKey[key]]
	if held == nil || !held.Live() {
		return nil
	}
	next := held.clone()
	next.resolve(now, "", reason)
	return b.commit(ctx, now, next)
}

// Acknowledge says that somebody is at it: nobody is reminded any more.
func (b *Board) Acknowledge(ctx context.Context, now time.Time, id, who, reason string) (Incident, error) {
	return b.act(ctx, now, id, func(i *Incident) {
		i.State, i.Owner = Acknowledged, line(who, maxName)
		i.enter(Entry{AtMS: now.UnixMilli(), What: EntryAcknowledged, Who: who, Text: reason})
	})
}

// Resolve closes an incident by hand. If its cause is raised again within the
// grace time, it opens again.
func (b *Board) Resolve(ctx context.Context, now time.Time, id, who, reason string) (Incident, error) {
	return b.act(ctx, now, id, func(i *Incident) { i.resolve(now, who, reason) })
}

// act changes a live incident as a person asks.
func (b *Board) act(ctx context.Context, now time.Time, id string, change func(*Incident)) (Incident, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.incidents[id]
	switch {
	case held == nil:
		return Incident{}, fmt.Errorf("%w: %.64q", ErrNotFound, id)
	case !held.Live():
		return Incident{}, fmt.Errorf("%w: %s", ErrState, id)
	}
	next := held.clone()
	change(next)
	if err := b.commit(ctx, now, next); err != nil {
		return Incident{}, err
	}
	return *next.clone(), nil
}

// commit stores an incident and then takes it into memory, so that what could
// not be stored did not happen.
func (b *Board) commit(ctx context.Context, now time.Time, i *Incident) error {
	if err := b.put(ctx, incidentKey(i.ID), i); err != nil {
		return err
	}
	b.stored[i.ID] = now.UnixMilli()
	b.hold(i)
	b.cfg.Change(i.ID)
	b.nudge()
	return nil
}

// prune forgets the incidents that ended first.
func (b *Board) prune(ctx context.Context) {
	ended := slices.DeleteFunc(slices.Collect(maps.Values(b.incidents)), func(i *Incident) bool { return i.Live() })
	slices.SortFunc(ended, func(x, y *Incident) int { return cmp.Compare(y.ResolvedMS, x.ResolvedMS) })
	for _, i := range ended[min(keepResolved, len(ended)):] {
		if err := b.store.Delete(ctx, incidentKey(i.ID)); err != nil {
			b.cfg.Logger.Warn("an old incident stays", "incident", i.ID, "error", err)
			continue
		}
		delete(b.incidents, i.ID)
		delete(b.stored, i.ID)
		if b.byKey[i.Cause.Key] == i.ID {
			delete(b.byKey, i.Cause.Key)
		}
	}
}

// Incidents returns those that are not resolved first, each newest first.
func (b *Board) Incidents() []Incident {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Incident, 0, len(b.incidents))
	for _, i := range b.incidents {
		out = append(out, *i.clone())
	}
	slices.SortFunc(out, func(x, y Incident) int {
		if x.Live() != y.Live() {
			if x.Live() {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(y.OpenedMS, x.OpenedMS), cmp.Compare(x.ID, y.ID))
	})
	return out
}

// Incident returns one by its id.
func (b *Board) Incident(id string) (Incident, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.incidents[id]
	if i == nil {
		return Incident{}, fmt.Errorf("%w: %.64q", ErrNotFound, id)
	}
	return *i.clone(), nil
}

// Newest returns the newest incident of a cause.
func (b *Board) Newest(key string) (Incident, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.incidents[b.byKey[key]]
	if i == nil {
		return Incident{}, false
	}
	return *i.clone(), true
}

// nudge lets Run look for something to tell.
func (b *Board) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
