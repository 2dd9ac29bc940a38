package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

var (
	digest = release.Digest{7}
	begin  = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
)

// fleet makes messages of devices that booted at begin, in 1970 by their own
// clocks.
type fleet struct {
	t   *testing.T
	log []*protocol.Accepted
}

func boot(device string) []byte { return []byte((device + strings.Repeat(".", 16))[:16]) }

func (f *fleet) add(device string, now time.Time, a *protocol.Accepted) {
	ms := now.Sub(begin).Milliseconds()
	a.Device, a.ReceivedMs = device, now.UnixMilli()
	a.Sent = &protocol.Stamp{Boot: boot(device), MonotonicMs: uint64(ms), WallMs: ms}
	f.log = append(f.log, a)
}

func (f *fleet) hello(device string, now time.Time) {
	f.add(device, now, &protocol.Accepted{Body: &protocol.Accepted_Hello{Hello: &protocol.Hello{}}})
}

func (f *fleet) record(device string, now time.Time, b *protocol.Body) {
	f.t.Helper()
	b.At = &protocol.Stamp{Boot: boot(device), MonotonicMs: uint64(now.Sub(begin).Milliseconds())}
	data, err := sketch.EncodeBody(b)
	if err != nil {
		f.t.Fatal(err)
	}
	f.add(device, now, &protocol.Accepted{Body: &protocol.Accepted_Record{Record: &protocol.Record{Body: data}}})
}

// window reports, at now, rows that were counted from start on for a minute.
func (f *fleet) window(device string, now, start time.Time, rows uint64) {
	f.t.Helper()
	l := sketch.NewLatency()
	l.Add(time.Duration(rows) * time.Millisecond)
	latency, err := l.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	ms := uint64(start.Sub(begin).Milliseconds())
	f.record(device, now, &protocol.Body{Kind: &protocol.Body_Window{Window: &protocol.Window{
		Model: "m", Release: digest[:], Rows: rows, Calls: 1, StartMonotonicMs: ms, EndMonotonicMs: ms + 60_000,
		Latency: latency, Streams: []*protocol.Histogram{{Bins: []uint64{rows - 1, 1}}},
	}}})
}

func (f *fleet) labels(device string, now, start time.Time, matched, correct uint64) {
	f.t.Helper()
	ms := uint64(start.Sub(begin).Milliseconds())
	f.record(device, now, &protocol.Body{Kind: &protocol.Body_Labels{Labels: &protocol.Labels{
		Model: "m", Release: digest[:], Matched: matched, Correct: correct, StartMonotonicMs: ms, EndMonotonicMs: ms + 60_000,
		Calibration: []*protocol.CalibrationBin{{Count: matched, Confidence: float64(matched) / 2, Correct: correct}},
	}}})
}

func site(device string) string {
	if device == "alone" {
		return ""
	}
	return "site-" + device[len(device)-1:]
}

// disk is what outlives a crash.
type disk struct {
	hours, days *kvstore.Memory
	checkpoint  map[string][]byte
	marker      int
}

func newDisk() *disk {
	return &disk{hours: kvstore.NewMemory(), days: kvstore.NewMemory(), checkpoint: map[string][]byte{}}
}

var errPulled = errors.New("the plug was pulled")

// plug lets so many writes through. Values of one batch are single writes.
type plug struct {
	*kvstore.Memory
	left *int
}

func (p plug) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if *p.left--; *p.left < 0 {
		return 0, errPulled
	}
	return p.Memory.Put(ctx, key, value)
}

func open(t *testing.T, d *disk, writes *int) *History {
	t.Helper()
	h := New(Config{Hours: plug{d.hours, writes}, Days: plug{d.days, writes}, Cohort: site})
	if err := h.Load(d.checkpoint); err != nil {
		t.Fatal(err)
	}
	return h
}

// flush writes the checkpoint down, or only some of its records.
func (d *disk) flush(h *History, at int, some func() bool) {
	records := h.Dirty()
	for key, v := range records {
		if some != nil && !some() {
			continue
		}
		if len(v) == 0 {
			delete(d.checkpoint, key)
		} else {
			d.checkpoint[key] = slices.Clone(v)
		}
	}
	if some == nil {
		d.marker = at
		h.Written()
	}
}

func settle(t *testing.T, h *History, now time.Time) {
	t.Helper()
	if err := h.Settle(t.Context(), now); err != nil {
		t.Fatal(err)
	}
}

// rows are the rows of each step of the only series, by the hours from begin on.
func rows(t *testing.T, h *History, now time.Time, q Query) map[int64]uint64 {
	t.Helper()
	q.Releases = []release.Digest{digest}
	if q.To.IsZero() {
		q.To = now.Add(time.Hour)
	}
	all, err := h.Series(t.Context(), now, q)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int64]uint64{}
	for _, s := range all {
		for _, p := range s.Points {
			out[int64(p.At.Sub(begin)/time.Hour)] += p.Window.GetRows()
		}
	}
	return out
}

// Wherever the plug is pulled, every window is counted once in its own hour and
// its own day, live ones and late ones.
func TestCrashesCountEveryWindowOnce(t *testing.T) {
	seeds := uint64(2)
	if os.Getenv("VEDETTE_FULL") != "" {
		seeds = 100
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 3))
		f := &fleet{t: t}
		hours, days := map[int64]uint64{}, map[int64]uint64{}
		devices := []string{"cam-1", "cam-2", "alone"}
		now := begin.Add(30 * time.Minute)
		for _, d := range devices {
			f.hello(d, now)
		}
		for range 120 {
			now = now.Add(time.Duration(rng.IntN(60)) * time.Minute)
			start := now.Add(-5 * time.Minute)
			if rng.IntN(3) == 0 {
				start = begin.Add(time.Duration(rng.Int64N(int64(now.Sub(begin) - time.Minute))))
			}
			n := uint64(1 + rng.IntN(50))
			f.window(devices[rng.IntN(3)], now, start, n)
			hour := int64(start.Sub(begin) / time.Hour)
			hours[hour] += n
			days[hour/24*24] += n
		}
		d, writes := newDisk(), 1<<30
		h := open(t, d, &writes)
		crash := func() int {
			writes = 1 << 30
			h = open(t, d, &writes)
			return d.marker
		}
		for i := 0; i < len(f.log); {
			h.Apply(uint64(i+1), f.log[i])
			at := time.UnixMilli(f.log[i].GetReceivedMs())
			i++
			switch rng.IntN(12) {
			case 0, 1, 2:
				d.flush(h, i, nil)
			case 3, 4, 5:
				settle(t, h, at)
			case 6:
				d.flush(h, i, func() bool { return rng.IntN(2) == 0 })
				i = crash()
			case 7:
				writes = rng.IntN(6)
				if err := h.Settle(t.Context(), at); err != nil && !errors.Is(err, errPulled) {
					t.Fatal(err)
				}
				i = crash()
			}
		}
		check := func(when string) {
			if got := rows(t, h, now, Query{From: begin, Step: time.Hour}); !maps.Equal(got, hours) {
				t.Errorf("seed %d, %s: by hour got %v, want %v", seed, when, got, hours)
			}
			if got := rows(t, h, now, Query{From: begin, Step: Day}); !maps.Equal(got, days) {
				t.Errorf("seed %d, %s: by day got %v, want %v", seed, when, got, days)
			}
			byDevice := map[int64]uint64{}
			for _, name := range devices {
				for at, n := range rows(t, h, now, Query{From: begin, Step: Day, Device: name}) {
					byDevice[at] += n
				}
			}
			if !maps.Equal(byDevice, days) {
				t.Errorf("seed %d, %s: devices together got %v, want %v", seed, when, byDevice, days)
			}
		}
		settle(t, h, now) // as at a start: a move may have been broken off
		check("running")
		for range 3 {
			now = now.Add(25 * time.Hour)
			f.hello("cam-1", now)
			h.Apply(uint64(len(f.log)), f.log[len(f.log)-1])
			settle(t, h, now)
			d.flush(h, len(f.log), nil)
		}
		settle(t, h, now)
		d.flush(h, len(f.log), nil)
		if len(h.parts) > 0 {
			t.Fatalf("seed %d: %d parts are left in memory", seed, len(h.parts))
		}
		check("all in the archive")
	}
}

// run applies messages and moves all that is over into the archive.
func run(t *testing.T, h *History, d *disk, f *fleet, from int, now time.Time) int {
	t.Helper()
	for i := from; i < len(f.log); i++ {
		h.Apply(uint64(i+1), f.log[i])
	}
	settle(t, h, now)
	d.flush(h, len(f.log), nil)
	settle(t, h, now)
	d.flush(h, len(f.log), nil)
	return len(f.log)
}

// What is merged is what one window of that time would have been.
func TestMergingKeepsEverything(t *testing.T) {
	f := &fleet{t: t}
	f.hello("cam-1", begin)
	f.hello("cam-2", begin)
	for m := range 48 * 4 {
		at := begin.Add(time.Duration(m) * 15 * time.Minute)
		f.window("cam-1", at.Add(6*time.Minute), at, 10)
		f.window("cam-2", at.Add(6*time.Minute), at, 30)
		f.labels("cam-2", at.Add(6*time.Minute), at, 2, 1)
	}
	now := begin.Add(72 * time.Hour)
	d, writes := newDisk(), 1<<30
	h := open(t, d, &writes)
	run(t, h, d, f, 0, now)
	all, err := h.Series(t.Context(), now, Query{Releases: []release.Digest{digest}, From: begin, To: now, Step: Day})
	if err != nil || len(all) != 1 || len(all[0].Points) != 2 {
		t.Fatalf("series: got %v, %v, want one of two days", all, err)
	}
	p := all[0].Points[1]
	if w := p.Window; p.Devices != 2 || w.GetRows() != 96*40 || w.GetMerged() != 2*96 || w.GetStreams()[0].GetBins()[1] != 2*96 || w.GetStreams()[0].GetBins()[0] != 96*38 {
		t.Errorf("day: got %d devices, %v", p.Devices, p.Window)
	}
	l, err := sketch.DecodeLatency(p.Window.GetLatency())
	if err != nil || l.Count() != 2*96 {
		t.Fatalf("latency of the day: %v", err)
	}
	if p50, p95 := l.Quantile(0.4), l.Quantile(0.95); p50 < 9800*time.Microsecond || p50 > 10200*time.Microsecond || p95 < 29*time.Millisecond || p95 > 31*time.Millisecond {
		t.Errorf("latency of the day: got %v and %v, want 10 ms and 30 ms", p50, p95)
	}
	if c := p.Labels.GetCalibration()[0]; p.Labels.GetMatched() != 192 || p.Labels.GetCorrect() != 96 || c.GetCount() != 192 || c.GetConfidence() != 96 {
		t.Errorf("labels of the day: got %v", p.Labels)
	}
	for _, c := range []struct {
		name string
		q    Query
		want uint64
	}{
		{"one cohort", Query{Cohort: "site-1"}, 2 * 960},
		{"one device", Query{Device: "cam-2"}, 2 * 2880},
		{"one device by the hour", Query{Device: "cam-2", Step: time.Hour}, 2 * 2880},
		{"by cohort", Query{ByCohort: true}, 2 * 3840},
		{"an unknown device", Query{Device: "cam-9"}, 0},
		{"half a day", Query{Step: 6 * time.Hour, To: begin.Add(12 * time.Hour)}, 1920},
	} {
		c.q.From = begin
		if c.q.Step == 0 {
			c.q.Step = Day
		}
		var got uint64
		for _, n := range rows(t, h, now, c.q) {
			got += n
		}
		if got != c.want {
			t.Errorf("%s: got %d rows, want %d", c.name, got, c.want)
		}
	}
}

// Windows that come weeks late land in their own hour, those whose hours are
// forgotten in their own day, those older than the history nowhere.
func TestLateWindows(t *testing.T) {
	f := &fleet{t: t}
	f.hello("cam-1", begin)
	f.window("cam-1", begin.Add(time.Hour), begin, 10)
	d, writes := newDisk(), 1<<30
	h := open(t, d, &writes)
	now := begin.Add(3 * Day)
	n := run(t, h, d, f, 0, now)

	now = begin.Add(45 * Day)
	f.window("cam-1", now, begin.Add(2*time.Hour), 5)
	n = run(t, h, d, f, n, now)
	if got := rows(t, h, now, Query{From: begin, Step: time.Hour}); got[0] != 10 || got[2] != 5 {
		t.Errorf("45 days late, by hour: got %v", got)
	}
	if got := rows(t, h, now, Query{From: begin, Step: Day}); got[0] != 15 {
		t.Errorf("45 days late, by day: got %v", got)
	}

	now = begin.Add(300 * Day)
	f.window("cam-1", now, begin.Add(3*time.Hour), 3)
	f.window("cam-1", now, begin.Add(4*time.Hour), 4)
	n = run(t, h, d, f, n, now)
	if got := rows(t, h, now, Query{From: begin, Step: time.Hour, To: begin.Add(Day)}); len(got) != 0 {
		t.Errorf("hours are kept for 90 days: after 300 got %v", got)
	}
	if got := rows(t, h, now, Query{From: begin, Step: Day}); got[0] != 22 {
		t.Errorf("300 days late, by day: got %v", got)
	}

	now = begin.Add(731 * Day)
	f.window("cam-1", now, begin.Add(5*time.Hour), 6)
	run(t, h, d, f, n, now)
	if got := rows(t, h, now, Query{From: begin, Step: Day}); len(got) != 0 {
		t.Errorf("days are kept for two years: after 731 days got %v", got)
	}
	if len(h.parts) > 0 {
		t.Errorf("%d parts are left that nothing keeps", len(h.parts))
	}
}

// A window of a boot that was never heard of, a shadow's and one over other bins.
func TestWhatCountsInNoHour(t *testing.T) {
	f := &fleet{t: t}
	f.window("cam-1", begin.Add(time.Hour), begin, 10) // before any hello
	f.hello("cam-1", begin.Add(time.Hour))
	f.window("cam-1", begin.Add(2*time.Hour), begin.Add(time.Hour), 20)
	f.record("cam-1", begin.Add(2*time.Hour), &protocol.Body{Kind: &protocol.Body_Window{Window: &protocol.Window{
		Model: "m", Release: digest[:], Role: protocol.RoleShadow, Rows: 40, StartMonotonicMs: 1, EndMonotonicMs: 2,
	}}})
	f.record("cam-1", begin.Add(2*time.Hour), &protocol.Body{Kind: &protocol.Body_Window{Window: &protocol.Window{
		Model: "m", Release: digest[:], Rows: 3, StartMonotonicMs: 3_600_001, EndMonotonicMs: 3_600_002, Streams: []*protocol.Histogram{{Bins: []uint64{1, 1, 1}}},
	}}})
	d, writes := newDisk(), 1<<30
	h := open(t, d, &writes)
	run(t, h, d, f, 0, begin.Add(Day))
	all, err := h.Series(t.Context(), begin.Add(Day), Query{Releases: []release.Digest{digest}, From: begin, To: begin.Add(Day), Step: time.Hour})
	if err != nil || len(all) != 1 || len(all[0].Points) != 1 {
		t.Fatalf("series: got %v, %v, want one hour", all, err)
	}
	if w := all[0].Points[0].Window; w.GetRows() != 23 || len(w.GetStreams()) != 1 || w.GetStreams()[0].GetBins()[0] != 19 {
		t.Errorf("got %v, want the rows of both and the bins of the first", w)
	}
}

// More devices than a value has room for are counted together.
func TestTooManyDevices(t *testing.T) {
	d, writes := newDisk(), 1<<30
	h := open(t, d, &writes)
	p := pack{}
	for i := range 100 {
		p[fmt.Sprintf("old-%d", i)] = cell{devices: 1, window: make([]byte, 5000)}
	}
	h.parts[partKey{digest, hourOf(begin), shardOf("cam-1")}] = &part{open: p}
	f := &fleet{t: t}
	f.hello("cam-1", begin)
	f.window("cam-1", begin.Add(time.Minute), begin, 10)
	f.window("cam-1", begin.Add(2*time.Minute), begin, 10)
	for i, a := range f.log {
		h.Apply(uint64(i+1), a)
	}
	if _, own := p["cam-1"]; own || p[""].devices != 1 || len(p[""].window) == 0 {
		t.Errorf("the device beyond the limit: got %v", p[""])
	}
}

func FuzzDecodeValue(f *testing.F) {
	v := newValue()
	v.taken[-3], v.cells["cam-1"] = 9, cell{2, []byte("window"), []byte("labels")}
	f.Add(v.encode())
	p := &part{seq: 4, open: v.cells, sealedSeq: 3, sealed: pack{"": {}}}
	f.Add(p.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if v, err := decodeValue(data); err == nil {
			again, err := decodeValue(v.encode())
			if err != nil || len(again.cells) != len(v.cells) || !maps.Equal(again.taken, v.taken) {
				t.Errorf("not the same after another trip: %v", err)
			}
		}
		_, _ = decodePart(data)
	})
}

func TestStepsThatAreNone(t *testing.T) {
	h := New(Config{Hours: kvstore.NewMemory(), Days: kvstore.NewMemory()})
	for _, step := range []time.Duration{0, time.Minute, 90 * time.Minute, 25 * time.Hour} {
		if _, err := h.Series(t.Context(), begin, Query{Step: step}); err == nil {
			t.Errorf("a step of %v was taken", step)
		}
	}
}
