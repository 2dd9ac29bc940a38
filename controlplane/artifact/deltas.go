package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/delta"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Defaults and limits of deltas.
const (
	// DefaultMaxDeltas bounds the bytes of all deltas. The oldest go first.
	DefaultMaxDeltas = 8 << 30
	// DefaultMaxDeltaFile bounds the files deltas are made for: at 15 MB/s, one
	// such file keeps a core busy for two minutes.
	DefaultMaxDeltaFile = 2 << 30
	// DefaultDepth is how many versions before the newest get a delta to it.
	DefaultDepth = 3

	// maxWaiting bounds what waits to be made: devices can ask for anything.
	maxWaiting = 256
	// deltaRetry is how long a delta that could not be made is left alone.
	deltaRetry = time.Hour
	// unlike is how many times larger one of two files may be than the other
	// before nobody looks for what they share.
	unlike = 4
)

// Index remembers which deltas there are. It is a kvstore.Bucket.
type Index interface {
	List(ctx context.Context, prefix string) ([]kvstore.Entry, error)
	Put(ctx context.Context, key string, value []byte) (uint64, error)
	Delete(ctx context.Context, key string) error
}

// DeltasConfig of Deltas. Zero values take the defaults.
type DeltasConfig struct {
	MaxTotal int64 // bytes of all deltas
	MaxFile  int64 // bytes of a file that deltas are made for
	Depth    int   // versions before the newest
	// Tried is told after every pair that was tried; nil: nobody.
	Tried  func()
	Logger *slog.Logger // nil: none
}

// Deltas makes deltas between blobs of a store, one at a time and in the
// background, and finds those that were made.
type Deltas struct {
	store *Store
	index Index
	cfg   DeltasConfig
	wake  chan struct{} // has a value when something waits

	mu      sync.Mutex
	known   map[pair]outcome        // guarded by mu: what was tried
	pairs   map[release.Digest]pair // guarded by mu: of each delta
	queued  map[pair]struct{}       // guarded by mu: what is in waiting or being made
	waiting []pair                  // guarded by mu: oldest first
	stats   DeltaStats              // guarded by mu: but for Held, HeldBytes and Waiting
}

// pair is two blobs, the second of which is wanted.
type pair struct{ from, to release.Digest }

func (p pair) key() string { return p.to.String() + "." + p.from.String() }

func parsePair(key string) (p pair, err error) {
	to, from, _ := strings.Cut(key, ".")
	if p.to, err = release.ParseDigest(to); err != nil {
		return p, err
	}
	p.from, err = release.ParseDigest(from)
	return p, err
}

// outcome is what became of trying to make a delta.
type outcome struct {
	Delta release.Digest `json:"delta,omitzero"` // a blob; zero when none pays
	Size  int64          `json:"size,omitempty"` // bytes
	Made  time.Time      `json:"made"`

	failed bool // kept in memory only
}

func (o outcome) pays() bool { return !o.Delta.IsZero() }

// DeltaStats counts since the start, but for what is held now.
type DeltaStats struct {
	Made, Useless, Failed uint64 // deltas made; pairs whose delta would not pay; errors
	Applied               uint64 // deltas that a device made a file of
	SavedBytes            uint64 // by those, against the whole files
	Held                  int    // deltas now
	HeldBytes             int64  // in bytes
	Waiting               int    // to be made, now
}

// OpenDeltas returns the deltas between blobs of store that index knows of. Run
// makes new ones.
func OpenDeltas(ctx context.Context, store *Store, index Index, cfg DeltasConfig) (*Deltas, error) {
	cfg.MaxTotal = orDefault(cfg.MaxTotal, DefaultMaxDeltas)
	cfg.MaxFile = orDefault(cfg.MaxFile, DefaultMaxDeltaFile)
	cfg.Depth = orDefault(cfg.Depth, DefaultDepth)
	if cfg.Tried == nil {
		cfg.Tried = func() {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Deltas{
		store: store, index: index, cfg: cfg, wake: make(chan struct{}, 1),
		known: map[pair]outcome{}, pairs: map[release.Digest]pair{}, queued: map[pair]struct{}{},
	}
	entries, err := index.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("list deltas: %w", err)
	}
	for _, e := range entries {
		p, err := parsePair(e.Key)
		var o outcome
		if err = errors.Join(err, json.Unmarshal(e.Value, &o)); err != nil {
			cfg.Logger.Warn("entry of the index is no delta", slog.String("key", e.Key), slog.Any("error", err))
			continue
		}
		d.note(p, o)
	}
	return d, nil
}

func orDefault[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// note takes an outcome in.
func (d *Deltas) note(p pair, o outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[p] = o
	if o.pays() {
		d.pairs[o.Delta] = p
	}
}

// Prepare has deltas made to the newest of a model's versions from those before
// it. versions are in descending order; nil ones are left out.
func (d *Deltas) Prepare(versions []*release.Manifest) {
	for _, p := range plan(versions, d.cfg.Depth) {
		d.want(p)
	}
}

// plan pairs the files of the newest version with those of the versions before
// it that play the same part.
func plan(versions []*release.Manifest, depth int) (pairs []pair) {
	if len(versions) == 0 || versions[0] == nil {
		return nil
	}
	for _, old := range versions[1:min(len(versions), depth+1)] {
		if old == nil {
			continue
		}
		before := parts(old)
		for part, to := range parts(versions[0]) {
			if from, ok := before[part]; ok && from != to {
				pairs = append(pairs, pair{from: from, to: to})
			}
		}
	}
	return pairs
}

// parts are the files of a version by what they are for.
func parts(m *release.Manifest) map[string]release.Digest {
	out := map[string]release.Digest{"baseline": m.Baseline.Digest, "golden": m.Golden.Digest}
	for _, v := range m.Variants {
		out["variant "+v.Name] = v.Graph.Digest
	}
	return out
}

// Offer returns the smallest delta that makes a blob of one that the device has.
// One that is not there yet is made for those who ask later: nobody waits.
func (d *Deltas) Offer(to release.Digest, from []release.Digest) (offer protocol.DeltaOffer, ok bool) {
	for _, f := range from[:min(len(from), protocol.MaxDeltaFrom)] {
		size, made := d.Size(f, to)
		if !made {
			d.want(pair{from: f, to: to})
		} else if !ok || size < offer.Size {
			offer, ok = protocol.DeltaOffer{From: f.String(), Delta: d.outcome(pair{f, to}).Delta.String(), Size: size}, true
		}
	}
	return offer, ok
}

// Size is how many bytes the delta between two blobs has. It is false when there
// is none: the whole file is fetched then.
func (d *Deltas) Size(from, to release.Digest) (int64, bool) {
	o := d.outcome(pair{from: from, to: to})
	return o.Size, o.pays() && d.store.Has(o.Delta)
}

func (d *Deltas) outcome(p pair) outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known[p]
}

// Applied counts a delta, by its SHA-256 in hex, that a device made a file of. One
// that is unknown is not counted: devices can say anything.
func (d *Deltas) Applied(sha256hex string) {
	blob, err := release.ParseDigest(sha256hex)
	if err != nil {
		return
	}
	d.mu.Lock()
	p, ok := d.pairs[blob]
	d.mu.Unlock()
	if !ok {
		return
	}
	whole, err := d.store.Size(p.to)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Applied++
	d.stats.SavedBytes += uint64(max(whole-d.known[p].Size, 0))
}

// Stats tells what was made and saved.
func (d *Deltas) Stats() DeltaStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Waiting = len(d.queued)
	for _, o := range d.known {
		if o.pays() {
			s.Held++
			s.HeldBytes += o.Size
		}
	}
	return s
}

// want queues a pair that nothing is known of, if it can pay at all.
func (d *Deltas) want(p pair) {
	if !d.promising(p) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	o, tried := d.known[p]
	if tried && (!o.failed || time.Since(o.Made) <= deltaRetry) {
		return
	}
	if _, ok := d.queued[p]; ok || len(d.waiting) >= maxWaiting {
		return
	}
	d.queued[p] = struct{}{}
	d.waiting = append(d.waiting, p)
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// promising says whether two blobs are there and of sizes worth looking at.
func (d *Deltas) promising(p pair) bool {
	to, err := d.store.Size(p.to)
	if err != nil || to < delta.MinFile || to > d.cfg.MaxFile || p.from == p.to {
		return false
	}
	from, err := d.store.Size(p.from)
	return err == nil && from <= to*unlike && to <= from*unlike
}
