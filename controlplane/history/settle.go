package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/release"
)

// settleEvery is how often Run looks whether an hour is over.
const settleEvery = time.Minute

// Run settles until ctx ends. What fails is tried again.
func (h *History) Run(ctx context.Context) error {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	failing := false
	for now := h.cfg.Now(); ; { // at once: a crash may have broken a move off
		err := h.Settle(ctx, now)
		if err != nil && !failing && ctx.Err() == nil {
			h.cfg.Logger.Error("history could not be written, trying again", "error", err)
		}
		failing = err != nil
		select {
		case now = <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Settle seals hours that are over, moves what is sealed and durable into the
// archive and makes days that are over. It may be called at any time and again
// after an error.
func (h *History) Settle(ctx context.Context, now time.Time) error {
	h.seal(now)
	for _, k := range h.movable() {
		if err := h.move(ctx, now, k); err != nil {
			return fmt.Errorf("move hour %s of release %s: %w", startOf(k.hour).Format(time.RFC3339), k.release.Short(), err)
		}
	}
	return h.closeDays(ctx, now)
}

// seal closes the open packs of hours that are over, once an hour: late windows
// of one hour are moved together.
func (h *History) seal(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	round := hourOf(now.Add(-grace))
	if round <= h.round {
		return
	}
	h.round = round
	for k, p := range h.parts {
		if k.hour < round && p.stage == unsealed && len(p.open) > 0 {
			p.sealed, p.sealedSeq, p.stage = p.open, p.seq, sealed
			p.open, p.dirty = pack{}, true
		}
	}
}

// hourKey is one release in one hour.
type hourKey struct {
	release release.Digest
	hour    int64
}

func (k hourKey) compare(o hourKey) int {
	return cmp.Or(cmp.Compare(k.hour, o.hour), slices.Compare(k.release[:], o.release[:]))
}

// movable are the hours of which anything can be moved, oldest first.
func (h *History) movable() []hourKey {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := map[hourKey]bool{}
	for k, p := range h.parts {
		if p.stage == durable {
			found[hourKey{k.release, k.hour}] = true
		}
	}
	return slices.SortedFunc(maps.Keys(found), hourKey.compare)
}

// durable are the parts of an hour that can be moved. What they have sealed
// changes no more.
func (h *History) durable(k hourKey) map[int]*part {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[int]*part{}
	for shard := range shards {
		if p := h.parts[partKey{k.release, k.hour, shard}]; p != nil && p.stage == durable {
			out[shard] = p
		}
	}
	return out
}

// move puts what is durable of an hour into the archive: into the hour, and into
// its day if that was made already; into the day alone when its hours are about
// to be forgotten, and nowhere when the day is.
func (h *History) move(ctx context.Context, now time.Time, k hourKey) error {
	h.moving.Lock()
	defer h.moving.Unlock()
	parts := h.durable(k)
	day := k.hour / perDay
	var err error
	switch {
	case day < oldestDay(now, KeepDays):
		h.cfg.Logger.Warn("windows are older than the history", "release", k.release.Short(), "hour", startOf(k.hour))
	case day < oldestDay(now, KeepHours)+margin:
		err = h.moveInto(ctx, h.cfg.Days, dayPrefix(k.release, day), k, parts)
	default:
		err = h.moveIntoHour(ctx, k, parts)
	}
	if err != nil {
		return err
	}
	h.moved(parts)
	return nil
}

func (h *History) moveIntoHour(ctx context.Context, k hourKey, parts map[int]*part) error {
	day := k.hour / perDay
	if err := h.index(ctx, k.release, day); err != nil {
		return err
	}
	if err := h.moveInto(ctx, h.cfg.Hours, hourPrefix(k.release, k.hour), k, parts); err != nil {
		return err
	}
	through, err := h.madeThrough(ctx)
	if err != nil || day > through {
		return err
	}
	return h.makeDay(ctx, k.release, day)
}

// moveInto merges sealed packs into the values below a prefix, each once, and
// sums them up anew.
func (h *History) moveInto(ctx context.Context, b kvstore.Bucket, prefix string, k hourKey, parts map[int]*part) error {
	changed := map[string][]byte{}
	for shard, p := range parts {
		key := packKey(prefix, shard)
		v, err := getValue(ctx, b, key)
		if err != nil {
			return err
		}
		if v.taken[k.hour] == p.sealedSeq {
			continue // before a crash
		}
		if err := v.cells.merge(p.sealed); err != nil {
			return err
		}
		v.taken[k.hour] = p.sealedSeq
		changed[key] = v.encode()
	}
	if err := kvstore.PutAll(ctx, b, changed); err != nil {
		return err
	}
	return h.sumUp(ctx, b, prefix)
}

// moved forgets what is in the archive now. An empty part stays until none of
// its messages can come again.
func (h *History) moved(parts map[int]*part) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range parts {
		p.sealed, p.sealedSeq, p.stage, p.dirty = nil, 0, unsealed, true
	}
}

// oldestDay is the oldest day that is kept whole.
func oldestDay(now time.Time, keep time.Duration) int64 { return dayOf(now.Add(-keep)) + 1 }

// Keys of the archive. Hours and days are numbers since 1970; blocks of days
// keep lists short.
func hourPrefix(d release.Digest, hour int64) string {
	return strings.Join([]string{d.String(), number(hour / perDay / dayBlock), number(hour)}, ".")
}

func dayPrefix(d release.Digest, day int64) string { return d.String() + "." + number(day) }

const dayBlock = 32

func packKey(prefix string, shard int) string { return "pack." + prefix + "." + strconv.Itoa(shard) }

func sumKey(prefix string) string { return "sum." + prefix }

func number(n int64) string { return strconv.FormatInt(n, 10) }

// getValue is an empty value where none is kept.
func getValue(ctx context.Context, b kvstore.Bucket, key string) (*value, error) {
	e, err := b.Get(ctx, key)
	if errors.Is(err, kvstore.ErrNotFound) {
		return newValue(), nil
	}
	if err != nil {
		return nil, err
	}
	v, err := decodeValue(e.Value)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return v, nil
}

// fleetName and cohortName name the cells of a sum.
const fleetName = ""

func cohortName(cohort string) string { return "=" + cohort }

// sums adds devices up, all of them and by cohort.
type sums struct {
	cohort func(device string) string
	of     map[string]*Tally
}

func newSums(cohort func(string) string) *sums { return &sums{cohort, map[string]*Tally{}} }

func (s *sums) tally(name string) *Tally {
	t := s.of[name]
	if t == nil {
		t = newTally()
		s.of[name] = t
	}
	return t
}

func (s *sums) add(p pack) error {
	for device, c := range p {
		if err := s.tally(fleetName).beside(c); err != nil {
			return err
		}
		if cohort := s.cohort(device); cohort != "" {
			if err := s.tally(cohortName(cohort)).beside(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// pack encodes the sums.
func (s *sums) pack() (pack, error) {
	out := pack{}
	for name, t := range s.of {
		c, err := t.cell()
		if err != nil {
			return nil, err
		}
		out[name] = c
	}
	return out, nil
}

// sumUp writes what all devices below a prefix counted together, which is what
// is asked for most.
func (h *History) sumUp(ctx context.Context, b kvstore.Bucket, prefix string) error {
	all := newSums(h.cfg.Cohort)
	for shard := range shards {
		v, err := getValue(ctx, b, packKey(prefix, shard))
		if err != nil {
			return err
		}
		if err := all.add(v.cells); err != nil {
			return err
		}
	}
	cells, err := all.pack()
	if err != nil {
		return err
	}
	_, err = b.Put(ctx, sumKey(prefix), (&value{cells: cells}).encode())
	return err
}
