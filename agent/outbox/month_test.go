package outbox

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// minutes makes windows of a model with 12 features as agent/observe does.
type minutes struct {
	model     string
	latencies [][]byte
	distincts [][]byte
	rand      *rand.Rand
}

func newMinutes(tb testing.TB, model string, seed uint64) *minutes {
	tb.Helper()
	m := &minutes{model: model, rand: rand.New(rand.NewPCG(seed, 1))}
	for range 8 {
		l, d := sketch.NewLatency(), sketch.NewDistinct()
		for range rowsAMinute {
			l.Add(time.Duration(300+m.rand.ExpFloat64()*80) * time.Microsecond)
			d.Add(m.rand.Uint64())
		}
		latency, err := l.Encode()
		if err != nil {
			tb.Fatal(err)
		}
		distinct, err := d.Encode()
		if err != nil {
			tb.Fatal(err)
		}
		m.latencies, m.distincts = append(m.latencies, latency), append(m.distincts, distinct)
	}
	return m
}

const rowsAMinute = 60

func (m *minutes) window(wallMs int64) *protocol.Window {
	w := &protocol.Window{
		Model: m.model, Release: make([]byte, protocol.DigestSize), Role: "primary", Provider: "CPUExecutionProvider",
		StartWallMs: wallMs, EndWallMs: wallMs + 60_000, StartMonotonicMs: uint64(wallMs), EndMonotonicMs: uint64(wallMs) + 60_000,
		Rows: rowsAMinute, Calls: rowsAMinute - 1, FailedCalls: 1, FailedRows: 2,
		Latency: m.latencies[m.rand.IntN(len(m.latencies))], Distinct: m.distincts[m.rand.IntN(len(m.distincts))],
	}
	for range 12 {
		h := &protocol.Histogram{Bins: make([]uint64, 32), Missing: 1}
		for range 12 { // most bins stay small, a few are hit again and again
			h.Bins[m.rand.IntN(32)] += uint64(m.rand.IntN(6))
		}
		w.Streams = append(w.Streams, h)
	}
	return w
}

func (m *minutes) body(wallMs int64) *protocol.Body {
	return &protocol.Body{
		At:   &protocol.Stamp{Boot: []byte("0123456789abcdef"), WallMs: wallMs + 60_000, MonotonicMs: uint64(wallMs) + 60_000},
		Kind: &protocol.Body_Window{Window: m.window(wallMs)},
	}
}

// hourKey is what windows of an offline month may not be merged across.
type hourKey struct {
	model string
	hour  int64
}

// twin is an outbox without bounds: it adds everything up, hour by hour.
type twin struct {
	windows map[hourKey]*protocol.Window
	latency map[hourKey]uint64 // calls in the latency sketches
	labels  map[string]*protocol.Labels
}

func newTwin() *twin {
	return &twin{windows: map[hourKey]*protocol.Window{}, latency: map[hourKey]uint64{}, labels: map[string]*protocol.Labels{}}
}

func (w *twin) add(b *protocol.Body) error {
	if l := b.GetLabels(); l != nil {
		if w.labels[l.GetModel()] == nil {
			w.labels[l.GetModel()] = &protocol.Labels{Model: l.GetModel(), Release: l.GetRelease()}
		}
		return sketch.MergeLabels(w.labels[l.GetModel()], l)
	}
	from := b.GetWindow()
	key := hourKey{from.GetModel(), from.GetStartWallMs() / hour}
	if last := (from.GetEndWallMs() - 1) / hour; last != key.hour {
		return fmt.Errorf("a window of %s reaches from hour %d to %d", key.model, key.hour, last)
	}
	latency, err := sketch.DecodeLatency(from.GetLatency())
	if err != nil {
		return err
	}
	w.latency[key] += latency.Count()
	into := w.windows[key]
	if into == nil {
		w.windows[key] = from
		from.Latency, from.Distinct, from.Merged = nil, nil, 0
		return nil
	}
	into.Rows += from.GetRows()
	into.Calls += from.GetCalls()
	into.FailedCalls += from.GetFailedCalls()
	into.FailedRows += from.GetFailedRows()
	into.EndWallMs, into.EndMonotonicMs = max(into.GetEndWallMs(), from.GetEndWallMs()), max(into.GetEndMonotonicMs(), from.GetEndMonotonicMs())
	return sketch.AddHistograms(into.GetStreams(), from.GetStreams())
}

func (w *twin) differs(o *twin) error {
	if len(w.windows) != len(o.windows) {
		return fmt.Errorf("%d hours, want %d", len(w.windows), len(o.windows))
	}
	for key, want := range o.windows {
		if got := w.windows[key]; !proto.Equal(got, want) {
			return fmt.Errorf("hour %v is %v, want %v", key, got, want)
		}
		if got, want := w.latency[key], o.latency[key]; got != want {
			return fmt.Errorf("hour %v has %v latencies, want %v", key, got, want)
		}
	}
	for model, want := range o.labels {
		if got := w.labels[model]; !proto.Equal(got, want) {
			return fmt.Errorf("labels of %s are %v, want %v", model, got, want)
		}
	}
	return nil
}

// A month offline at windows of one minute, five models, in 20 MB: nothing is
// dropped, hours stay apart, and every count is what an outbox without bounds has.
func TestMonthOffline(t *testing.T) {
	days, total := 30, DefaultTotalBytes
	if raced {
		days, total = days/15, total/15
	}
	o, _ := open(t, filepath.Join(t.TempDir(), "outbox.db"), Options{TotalBytes: total, ModelBytes: total / 5})
	unsynced(o)
	var models []*minutes
	for i := range 5 {
		models = append(models, newMinutes(t, fmt.Sprint("model-", i), uint64(i)))
	}
	want := newTwin()
	put := func(b *protocol.Body) {
		if err := o.Append(b); err != nil {
			t.Fatal(err)
		}
		if err := want.add(b); err != nil {
			t.Fatal(err)
		}
	}
	for minute := range int64(days * 24 * 60) {
		wall := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() + minute*60_000
		for _, m := range models {
			put(m.body(wall))
			if minute%60 == 7 {
				put(labelled(m.model, wall))
			}
		}
		switch st := o.Stats(); {
		case st.Bytes > int64(total):
			t.Fatalf("minute %d: %d bytes, at most %d", minute, st.Bytes, total)
		case st.File > 2*st.Bytes+4<<20:
			t.Fatalf("minute %d: the file has %d bytes for %d live ones", minute, st.File, st.Bytes)
		}
	}
	st := o.Stats()
	if st.Merged == 0 {
		t.Error("nothing was merged")
	}
	t.Logf("%d windows became %d records of %d bytes by %d merges", 5*days*24*60, st.Pending, st.Bytes, st.Merged)
	got := newTwin()
	for _, it := range o.book.pending {
		b, err := sketch.DecodeBody([]byte(it.Body))
		if err != nil {
			t.Fatal(err)
		}
		if b.GetEvent() != nil {
			t.Fatalf("something was given up: %v", b.GetEvent())
		}
		if err := got.add(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := got.differs(want); err != nil {
		t.Error(err)
	}
	starts := map[string]int64{}
	if !slices.IsSortedFunc(o.book.pending, func(x, y *Item) int { return int(x.Index) - int(y.Index) }) {
		t.Error("records are out of order")
	}
	for _, it := range o.book.pending {
		if it.start < starts[it.lane] {
			t.Fatalf("a record of %d comes after one of %d", it.start, starts[it.lane])
		}
		starts[it.lane] = it.start
	}
}

func labelled(model string, wallMs int64) *protocol.Body {
	return &protocol.Body{
		At: &protocol.Stamp{Boot: []byte("0123456789abcdef"), WallMs: wallMs},
		Kind: &protocol.Body_Labels{Labels: &protocol.Labels{
			Model: model, Release: make([]byte, protocol.DigestSize), Matched: 3, Unmatched: 1, Correct: 2, Confusion: []uint64{1, 0, 1, 1},
			StartWallMs: wallMs, EndWallMs: wallMs + 1, StartMonotonicMs: uint64(wallMs), EndMonotonicMs: uint64(wallMs) + 1,
		}},
	}
}
