package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/release"
)

// madeKey holds the number of the last day that was made.
const madeKey = "made"

// indexKey says that a release has hours in a day.
func indexKey(day int64, d release.Digest) string { return "index." + number(day) + "." + d.String() }

func (h *History) index(ctx context.Context, d release.Digest, day int64) error {
	key := indexKey(day, d)
	h.mu.Lock()
	known := h.indexed[key]
	h.mu.Unlock()
	if known {
		return nil
	}
	if _, err := h.cfg.Days.Put(ctx, key, []byte{1}); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.indexed[key] = true
	return nil
}

// madeThrough is the last day that was made, 0 for none.
func (h *History) madeThrough(ctx context.Context) (int64, error) {
	e, err := h.cfg.Days.Get(ctx, madeKey)
	if errors.Is(err, kvstore.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	day, err := strconv.ParseInt(string(e.Value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the last day made: %w", err)
	}
	return day, nil
}

// closeDays makes every day that is over and was not made.
func (h *History) closeDays(ctx context.Context, now time.Time) error {
	through, err := h.madeThrough(ctx)
	if err != nil {
		return err
	}
	last := dayOf(now.Add(-dayGrace)) - 1
	if last <= through {
		return nil
	}
	if through == 0 {
		if through, err = h.beforeFirst(ctx, last); err != nil {
			return err
		}
	}
	for day := max(through+1, oldestDay(now, KeepHours)); day <= last; day++ {
		if err := h.closeDay(ctx, day); err != nil {
			return fmt.Errorf("make day %s: %w", startOf(day*perDay).Format(time.DateOnly), err)
		}
	}
	h.forgetIndex()
	_, err = h.cfg.Days.Put(ctx, madeKey, []byte(number(last)))
	return err
}

// beforeFirst is the day before the first one that has hours, or last if none has.
func (h *History) beforeFirst(ctx context.Context, last int64) (int64, error) {
	all, err := h.cfg.Days.List(ctx, "index")
	if err != nil {
		return 0, err
	}
	for _, e := range all {
		parts := strings.Split(e.Key, ".")
		day, err := strconv.ParseInt(parts[min(1, len(parts)-1)], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", e.Key, err)
		}
		last = min(last, day-1)
	}
	return last, nil
}

// forgetIndex drops what is known of the index: a day that is over is rarely
// looked up again.
func (h *History) forgetIndex() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.indexed)
}

func (h *History) closeDay(ctx context.Context, day int64) error {
	releases, err := h.cfg.Days.List(ctx, "index."+number(day))
	if err != nil {
		return err
	}
	for _, e := range releases {
		d, err := release.ParseDigest(e.Key[strings.LastIndexByte(e.Key, '.')+1:])
		if err != nil {
			return fmt.Errorf("read %s: %w", e.Key, err)
		}
		h.moving.Lock()
		err = h.makeDay(ctx, d, day)
		h.moving.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// makeDay merges the hours of a day. The caller holds moving.
func (h *History) makeDay(ctx context.Context, d release.Digest, day int64) error {
	prefix := dayPrefix(d, day)
	all := newSums(h.cfg.Cohort)
	for shard := range shards {
		v, err := h.dayOfHours(ctx, d, day, shard)
		if err != nil {
			return err
		}
		if len(v.cells) == 0 {
			continue
		}
		if err := all.add(v.cells); err != nil {
			return err
		}
		if _, err := h.cfg.Days.Put(ctx, packKey(prefix, shard), v.encode()); err != nil {
			return err
		}
	}
	cells, err := all.pack()
	if err != nil || len(cells) == 0 {
		return err
	}
	_, err = h.cfg.Days.Put(ctx, sumKey(prefix), (&value{cells: cells}).encode())
	return err
}

// dayOfHours merges one share of the devices.
func (h *History) dayOfHours(ctx context.Context, d release.Digest, day int64, shard int) (*value, error) {
	out := newValue()
	tallies := map[string]*Tally{}
	for hour := day * perDay; hour < (day+1)*perDay; hour++ {
		v, err := getValue(ctx, h.cfg.Hours, packKey(hourPrefix(d, hour), shard))
		if err != nil {
			return nil, err
		}
		maps.Copy(out.taken, v.taken)
		for device, c := range v.cells {
			if tallies[device] == nil {
				tallies[device] = newTally()
			}
			if err := tallies[device].after(c); err != nil {
				return nil, err
			}
		}
	}
	for device, t := range tallies {
		c, err := t.cell()
		if err != nil {
			return nil, err
		}
		out.cells[device] = c
	}
	return out, nil
}
