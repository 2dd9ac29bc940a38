// Package sample keeps the rows that devices sent for labelling: sealed, so that
// only the publisher reads them, as long as the signed manifest of their release
// says and no longer, and no more of a model than its quota [P-10].
//
// A sample is one value of a bucket; what lists and quotas need of all of them
// is held in memory, some 300 bytes each.
package sample

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// DefaultQuota bounds the samples of one model in bytes: 5,000 full ones.
const DefaultQuota = 256 << 20

// leastCharge is what a sample counts for at least, bytes: without it a device
// could fill the lists in memory with millions of empty ones.
const leastCharge = 1 << 10

// expireEvery is how often expired samples are looked for.
const expireEvery = 10 * time.Minute

// ErrNotFound says that a sample is not kept, or not any more.
var ErrNotFound = errors.New("sample is not kept (any more)")

// Releases knows the signed manifests.
type Releases interface {
	Release(d release.Digest) (registry.Version, error)
}

// Config of a Store.
type Config struct {
	Quota  uint64           // of one model, bytes; DefaultQuota if 0
	Now    func() time.Time // nil is time.Now
	Logger *slog.Logger     // nil discards
}

// Sample is what is known of one sample without opening it.
type Sample struct {
	Key      string
	Model    string
	Release  release.Digest
	Device   string
	From, To time.Time // of the window, server's clock
	Expires  time.Time
	Strata   []Stratum
	Size     uint64 // bytes
}

// Stratum is how many rows of one kind a sample holds.
type Stratum struct {
	Name string
	Seen uint64 // rows that its reservoir chose from
	Rows int
}

// Rows counts the rows of a sample.
func (s *Sample) Rows() (n int) {
	for _, t := range s.Strata {
		n += t.Rows
	}
	return n
}

// Store keeps samples. It is safe for concurrent use.
type Store struct {
	bucket   kvstore.Bucket
	releases Releases
	cfg      Config

	mu   sync.Mutex // guards all
	all  map[string]*Sample
	used map[string]map[string]uint64 // bytes by model and device
}

var _ ingest.Samples = (*Store)(nil)

// Open reads what is kept in a bucket that belongs to this store alone.
func Open(ctx context.Context, b kvstore.Bucket, releases Releases, cfg Config) (*Store, error) {
	cfg.Quota = cmp.Or(cfg.Quota, DefaultQuota)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{bucket: b, releases: releases, cfg: cfg, all: map[string]*Sample{}, used: map[string]map[string]uint64{}}
	entries, err := b.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("read samples: %w", err)
	}
	for _, e := range entries {
		kept, err := decode(e.Key, e.Value)
		if err != nil {
			cfg.Logger.Error("sample is not readable, it is left where it is", "key", e.Key, "error", err)
			continue
		}
		s.add(kept)
	}
	return s, nil
}

// add takes a sample into the lists. The caller holds mu, or has the store alone.
func (s *Store) add(kept *Sample) {
	s.drop(kept.Key)
	s.all[kept.Key] = kept
	if s.used[kept.Model] == nil {
		s.used[kept.Model] = map[string]uint64{}
	}
	s.used[kept.Model][kept.Device] += kept.charge()
}

// charge is what a sample counts for, bytes.
func (s *Sample) charge() uint64 { return max(s.Size, leastCharge) }

// drop takes a sample out of the lists. The caller holds mu.
func (s *Store) drop(key string) {
	if old := s.all[key]; old != nil {
		if s.used[old.Model][old.Device] -= old.charge(); s.used[old.Model][old.Device] == 0 {
			delete(s.used[old.Model], old.Device)
		}
		delete(s.all, key)
	}
}

// Keep implements ingest.Samples. What the signed manifest does not allow is
// not kept: a device that sends it says what nobody can check.
func (s *Store) Keep(ctx context.Context, from ingest.Sampled, p *protocol.Sample) error {
	plan, err := s.allowed(p)
	if err != nil {
		s.cfg.Logger.Warn("sample refused", "device", from.Device, "model", p.GetModel(), "error", err)
		return nil
	}
	value := placed(from, p, time.Duration(plan.Expires))
	raw, err := proto.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode sample: %w", err)
	}
	kept := describe(kvstore.Key(p.GetModel(), from.Device, from.Name), value, len(raw))
	if !kept.Expires.After(s.cfg.Now()) {
		return nil
	}
	if err := s.makeRoom(ctx, kept); err != nil {
		return err
	}
	if _, err := s.bucket.Put(ctx, kept.Key, raw); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(kept)
	return nil
}

// allowed returns the plan under which a sample was drawn.
func (s *Store) allowed(p *protocol.Sample) (*release.Sampling, error) {
	d, err := release.DigestFromBytes(p.GetRelease())
	if err != nil {
		return nil, err
	}
	v, err := s.releases.Release(d)
	if err != nil {
		return nil, fmt.Errorf("find its release: %w", err)
	}
	if v.Manifest == nil || v.Manifest.Sampling == nil || v.Model != p.GetModel() {
		return nil, errors.New("the manifest of its release allows no row to leave a device")
	}
	rows := 0
	for _, t := range p.GetStrata() {
		rows += int(t.GetRows())
	}
	if most := v.Manifest.Sampling.Rows; rows > most {
		return nil, fmt.Errorf("it has %d rows, the manifest of its release allows %d", rows, most)
	}
	return v.Manifest.Sampling, nil
}

// placed puts the window of a sample on the server's clock. The monotonic clock
// of a boot says how old it is; of another boot there is only the wall clock,
// which may be wrong, so nothing is believed to be older than its expiry.
func placed(from ingest.Sampled, p *protocol.Sample, expires time.Duration) *stored {
	age := from.Sent.GetWallMs() - p.GetEndWallMs()
	if bytes.Equal(from.Sent.GetBoot(), from.At.GetBoot()) {
		age = int64(from.Sent.GetMonotonicMs()) - int64(p.GetEndMonotonicMs()) //nolint:gosec // of one boot
	}
	to := from.Received.Add(-min(time.Duration(max(0, age))*time.Millisecond, expires))
	length := time.Duration(max(0, p.GetEndWallMs()-p.GetStartWallMs())) * time.Millisecond
	return &stored{
		Device: from.Device, Sample: p,
		FromMs: to.Add(-min(length, expires)).UnixMilli(), ToMs: to.UnixMilli(), ExpiresMs: to.Add(expires).UnixMilli(),
	}
}

// makeRoom deletes samples of the model until one more is within the quota: the
// oldest of the device that has the most, so that one that sends too much
// crowds out no other.
func (s *Store) makeRoom(ctx context.Context, next *Sample) error {
	for {
		oldest := s.oldest(next)
		if oldest == nil {
			return nil
		}
		s.cfg.Logger.Warn("sample deleted before it expired: the quota of the model is full", "model", next.Model, "quota_bytes", s.cfg.Quota)
		if err := s.delete(ctx, oldest.Key); err != nil {
			return err
		}
	}
}

// oldest is the sample that goes next to make room, nil when there is room.
func (s *Store) oldest(next *Sample) *Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	total, most, device := next.charge(), uint64(0), ""
	for name, used := range s.used[next.Model] {
		total += used
		if name == next.Device {
			used += next.charge()
		}
		if used > most {
			most, device = used, name
		}
	}
	if total <= s.cfg.Quota {
		return nil
	}
	var oldest *Sample
	for _, kept := range s.all {
		if kept.Model == next.Model && kept.Device == device && (oldest == nil || kept.To.Before(oldest.To)) {
			oldest = kept
		}
	}
	return oldest
}

func (s *Store) delete(ctx context.Context, key string) error {
	if err := s.bucket.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete sample: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(key)
	return nil
}

// Expire deletes what has expired by now, and says how many that were.
func (s *Store) Expire(ctx context.Context, now time.Time) (int, error) {
	s.mu.Lock()
	var keys []string
	for key, kept := range s.all {
		if !kept.Expires.After(now) {
			keys = append(keys, key)
		}
	}
	s.mu.Unlock()
	for i, key := range keys {
		if err := s.delete(ctx, key); err != nil {
			return i, err
		}
	}
	return len(keys), nil
}

// Run deletes what expires until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		if n, err := s.Expire(ctx, s.cfg.Now()); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error("expired samples are not deleted, trying again", "error", err)
		} else if n > 0 {
			s.cfg.Logger.Info("expired samples deleted", "samples", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// List returns the samples of a model that ended since a moment and have not
// expired, oldest first.
func (s *Store) List(model string, since time.Time) []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	var out []Sample
	for _, kept := range s.all {
		if kept.Model == model && !kept.To.Before(since) && kept.Expires.After(now) {
			out = append(out, *kept)
		}
	}
	slices.SortFunc(out, func(a, b Sample) int { return cmp.Or(a.To.Compare(b.To), strings.Compare(a.Key, b.Key)) })
	return out
}

// Models lists the models of which there are samples.
func (s *Store) Models() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]bool{}
	for _, kept := range s.all {
		names[kept.Model] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Sealed returns the rows of a sample as the device sealed them.
func (s *Store) Sealed(ctx context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	kept := s.all[key]
	expired := kept == nil || !kept.Expires.After(s.cfg.Now())
	s.mu.Unlock()
	if expired {
		return nil, ErrNotFound
	}
	e, err := s.bucket.Get(ctx, key)
	if errors.Is(err, kvstore.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read sample: %w", err)
	}
	value := &stored{}
	if err := proto.Unmarshal(e.Value, value); err != nil {
		return nil, fmt.Errorf("read sample: %w", err)
	}
	return value.GetSample().GetSealed(), nil
}

// stored is a sample as it lies in the bucket.
type stored = protocol.StoredSample

func decode(key string, raw []byte) (*Sample, error) {
	value := &stored{}
	if err := proto.Unmarshal(raw, value); err != nil {
		return nil, err
	}
	return describe(key, value, len(raw)), nil
}

func describe(key string, v *stored, size int) *Sample {
	p := v.GetSample()
	d, _ := release.DigestFromBytes(p.GetRelease()) // was checked before it was kept
	out := &Sample{
		Key: key, Model: p.GetModel(), Release: d, Device: v.GetDevice(), Size: uint64(max(0, size)),
		From: time.UnixMilli(v.GetFromMs()).UTC(), To: time.UnixMilli(v.GetToMs()).UTC(), Expires: time.UnixMilli(v.GetExpiresMs()).UTC(),
	}
	for _, t := range p.GetStrata() {
		out.Strata = append(out.Strata, Stratum{Name: t.GetName(), Seen: t.GetSeen(), Rows: int(t.GetRows())})
	}
	return out
}
