package history

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Day is the step from which days are read instead of hours.
const Day = 24 * time.Hour

// Query selects series. Device and Cohort are not given together.
type Query struct {
	Releases []release.Digest
	From, To time.Time     // points that begin in [From, To)
	Step     time.Duration // whole hours, or whole days
	Device   string        // of this device alone
	Cohort   string        // of this cohort alone
	ByCohort bool          // a series for each cohort, and none for all devices
}

// Series is what one release did over time, in one group of devices.
type Series struct {
	Release release.Digest
	Cohort  string // "" for all devices, or for the one that was asked for
	Points  []Point
}

// Point is what was counted in one step.
type Point struct {
	At time.Time // start of the step
	*Tally
}

// Series reads what was counted, by release and cohort, oldest first. Steps in
// which nothing was counted are left out.
func (h *History) Series(ctx context.Context, now time.Time, q Query) ([]Series, error) {
	if q.Step < time.Hour || q.Step%time.Hour != 0 || q.Step > Day && q.Step%Day != 0 {
		return nil, fmt.Errorf("a step of %s is neither whole hours nor whole days", q.Step)
	}
	h.moving.RLock()
	defer h.moving.RUnlock()
	r := reading{h: h, q: q, groups: map[groupKey]map[int64]*Tally{}}
	r.first, r.last = hourOf(q.From), hourOf(q.To.Add(-time.Nanosecond))
	r.first = max(r.first, oldestDay(now, KeepDays)*perDay)
	for _, d := range q.Releases {
		if err := r.release(ctx, now, d); err != nil {
			return nil, fmt.Errorf("read the history of release %s: %w", d.Short(), err)
		}
	}
	return r.series(), nil
}

// reading is one query being answered.
type reading struct {
	h           *History
	q           Query
	first, last int64 // hours
	groups      map[groupKey]map[int64]*Tally
}

type groupKey struct {
	release release.Digest
	cohort  string
}

// release reads days where they are made and asked for, hours where not, and
// what is still in memory.
func (r *reading) release(ctx context.Context, now time.Time, d release.Digest) error {
	from := max(r.first, oldestDay(now, KeepHours)*perDay)
	if r.q.Step >= Day {
		through, err := r.h.madeThrough(ctx)
		if err != nil {
			return err
		}
		if err := r.days(ctx, d); err != nil {
			return err
		}
		from = max(from, (through+1)*perDay)
	}
	if err := r.hours(ctx, d, from); err != nil {
		return err
	}
	return r.memory(d)
}

func (r *reading) days(ctx context.Context, d release.Digest) error {
	sums, err := r.h.cfg.Days.List(ctx, "sum."+d.String())
	if err != nil {
		return err
	}
	for _, e := range sums {
		day, err := lastNumber(e.Key)
		if err != nil {
			return err
		}
		hour := day * perDay
		if hour+perDay <= r.first || hour > r.last {
			continue
		}
		if err := r.value(ctx, r.h.cfg.Days, d, hour, dayPrefix(d, day), e.Value); err != nil {
			return err
		}
	}
	return nil
}

// hours reads the hours from one on.
func (r *reading) hours(ctx context.Context, d release.Digest, from int64) error {
	for block := from / perDay / dayBlock; block <= r.last/perDay/dayBlock; block++ {
		sums, err := r.h.cfg.Hours.List(ctx, "sum."+d.String()+"."+number(block))
		if err != nil {
			return err
		}
		for _, e := range sums {
			hour, err := lastNumber(e.Key)
			if err != nil {
				return err
			}
			if hour < from || hour > r.last {
				continue
			}
			if err := r.value(ctx, r.h.cfg.Hours, d, hour, hourPrefix(d, hour), e.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// value adds what the archive holds of one hour or day: of the sum what was
// asked for, or of the pack the device.
func (r *reading) value(ctx context.Context, b kvstore.Bucket, d release.Digest, hour int64, prefix string, sum []byte) error {
	if r.q.Device != "" {
		v, err := getValue(ctx, b, packKey(prefix, shardOf(r.q.Device)))
		if err != nil {
			return err
		}
		return r.add(d, "", hour, v.cells[r.q.Device])
	}
	v, err := decodeValue(sum)
	if err != nil {
		return fmt.Errorf("read %s: %w", sumKey(prefix), err)
	}
	return r.sum(d, hour, v.cells)
}

func (r *reading) sum(d release.Digest, hour int64, cells pack) error {
	for name, c := range cells {
		cohort := strings.TrimPrefix(name, cohortName(""))
		asked := name == fleetName
		if r.q.ByCohort || r.q.Cohort != "" {
			asked = name != fleetName && (r.q.Cohort == "" || cohort == r.q.Cohort)
		}
		if !asked {
			continue
		}
		if err := r.add(d, cohort, hour, c); err != nil {
			return err
		}
	}
	return nil
}

// add puts a cell into its step.
func (r *reading) add(d release.Digest, cohort string, hour int64, c cell) error {
	if c.devices == 0 {
		return nil
	}
	k := groupKey{d, cohort}
	if r.groups[k] == nil {
		r.groups[k] = map[int64]*Tally{}
	}
	step := int64(r.q.Step / time.Hour)
	at := max(hour, r.first) / step * step
	t := r.groups[k][at]
	if t == nil {
		t = newTally()
		r.groups[k][at] = t
	}
	return t.after(c)
}

// memory adds what is not in the archive yet.
func (r *reading) memory(d release.Digest) error {
	hours := map[int64][]pack{}
	r.h.mu.Lock()
	for k, p := range r.h.parts {
		if k.release == d && k.hour >= r.first && k.hour <= r.last {
			hours[k.hour] = append(hours[k.hour], maps.Clone(p.open), p.sealed)
		}
	}
	r.h.mu.Unlock()
	for hour, packs := range hours {
		if err := r.live(d, hour, packs); err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) live(d release.Digest, hour int64, packs []pack) error {
	all := newSums(r.h.cfg.Cohort)
	for _, p := range packs {
		if r.q.Device != "" {
			if err := r.add(d, "", hour, p[r.q.Device]); err != nil {
				return err
			}
			continue
		}
		if err := all.add(p); err != nil {
			return err
		}
	}
	cells, err := all.pack()
	if err != nil {
		return err
	}
	return r.sum(d, hour, cells)
}

func (r *reading) series() []Series {
	out := []Series{}
	for k, steps := range r.groups {
		s := Series{Release: k.release, Cohort: k.cohort}
		for _, at := range slices.Sorted(maps.Keys(steps)) {
			s.Points = append(s.Points, Point{startOf(at), steps[at]})
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Series) int {
		return cmp.Or(slices.Compare(a.Release[:], b.Release[:]), cmp.Compare(a.Cohort, b.Cohort))
	})
	return out
}

// lastNumber reads the last token of a key.
func lastNumber(key string) (int64, error) {
	n, err := strconv.ParseInt(key[strings.LastIndexByte(key, '.')+1:], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read key %s: %w", key, err)
	}
	return n, nil
}

// Sizes are the bytes on disk of each resolution.
type Sizes struct{ Hours, Days uint64 }

// Sizes measures the archive.
func (h *History) Sizes(ctx context.Context) (s Sizes, err error) {
	if s.Hours, err = kvstore.Size(ctx, h.cfg.Hours); err != nil {
		return s, err
	}
	s.Days, err = kvstore.Size(ctx, h.cfg.Days)
	return s, err
}
