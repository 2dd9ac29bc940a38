package sketch

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

func TestLatencyQuantilesSurviveMergeAndWire(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	a, b := NewLatency(), NewLatency()
	for i := range 20_000 {
		d := time.Duration(math.Exp(rng.NormFloat64()) * float64(time.Millisecond))
		[]*Latency{a, b}[i%2].Add(d)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeLatency(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Merge(got); err != nil {
		t.Fatal(err)
	}
	if a.Count() != 20_000 {
		t.Errorf("count: got %d, want 20000", a.Count())
	}
	want := math.Exp(1.6449) * float64(time.Millisecond) // p95 of the lognormal
	if q := float64(a.Quantile(0.95)); math.Abs(q/want-1) > 0.06 {
		t.Errorf("p95: got %v, want %v within 6%%", time.Duration(q), time.Duration(want))
	}
	if len(data) > 4<<10 {
		t.Errorf("encoded: %d bytes, want at most 4 KiB", len(data))
	}
	extreme := NewLatency()
	extreme.Add(-1)
	extreme.Add(math.MaxInt64)
	data, _ = extreme.Encode()
	if got, err := DecodeLatency(data); err != nil || got.Count() != 2 {
		t.Errorf("extremes: got %v", err)
	}
}

func FuzzDecodeLatency(f *testing.F) {
	l := NewLatency()
	l.Add(time.Millisecond)
	l.Add(time.Hour)
	data, _ := l.Encode()
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := DecodeLatency(data)
		if err != nil {
			if !errors.Is(err, ErrLatency) {
				t.Errorf("got %v, want ErrLatency", err)
			}
			return
		}
		again, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if m, err := DecodeLatency(again); err != nil || m.Count() != l.Count() || m.Quantile(0.5) != l.Quantile(0.5) {
			t.Errorf("not the same after another trip: %v", err)
		}
	})
}

func TestDistinctUnion(t *testing.T) {
	var h Hasher
	add := func(d *Distinct, from, to int) {
		for i := from; i < to; i++ {
			d.Add(h.Row([]Tensor{{Width: 2, Data: []float32{float32(i), float32(-i)}}}, 0))
		}
	}
	for _, c := range []struct{ n, overlap int }{{1, 0}, {540, 540}, {540, 270}, {20_000, 100}} {
		a, b := NewDistinct(), NewDistinct()
		add(a, 0, c.n)
		add(a, 0, c.n) // again: nothing new
		add(b, c.n-c.overlap, 2*c.n-c.overlap)
		data, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeDistinct(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Merge(got); err != nil {
			t.Fatal(err)
		}
		want := float64(2*c.n - c.overlap)
		if e := float64(a.Estimate()); math.Abs(e-want) > 1+0.2*want {
			t.Errorf("%d and %d of them in both: got %v, want %v within three standard errors", c.n, c.overlap, e, want)
		}
		if len(data) > 112 {
			t.Errorf("%d rows: %d bytes, want at most 112", c.n, len(data))
		}
	}
}

func TestHasherTellsRowsApart(t *testing.T) {
	var h Hasher
	wide := Tensor{Width: 300, Data: make([]float32, 600)}
	wide.Data[599] = 1
	words := Tensor{Width: 2, Strings: []string{"ab", "c", "a", "bc"}}
	for name, in := range map[string][]Tensor{"numbers": {wide}, "words": {words}} {
		if h.Row(in, 0) == h.Row(in, 1) {
			t.Errorf("%s: two different rows hash the same", name)
		}
		if a, b := h.Row(in, 1), h.Row(in, 1); a != b {
			t.Errorf("%s: the same row hashes differently", name)
		}
	}
}

func FuzzDecodeDistinct(f *testing.F) {
	d := NewDistinct()
	for i := range uint64(300) {
		d.Add(i * 0x9e3779b97f4a7c15)
	}
	data, _ := d.Encode()
	f.Add(data)
	f.Add([]byte{1, 1, 54})
	f.Add(make([]byte, 4097))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := DecodeDistinct(data)
		if err != nil {
			if !errors.Is(err, ErrDistinct) {
				t.Errorf("got %v, want ErrDistinct", err)
			}
			return
		}
		again, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if e, err := DecodeDistinct(again); err != nil || e.Estimate() != d.Estimate() {
			t.Errorf("not the same after another trip: %v", err)
		}
	})
}

func window(t *testing.T, rows uint64, start, end int64) *protocol.Window {
	t.Helper()
	l, d := NewLatency(), NewDistinct()
	for i := range rows {
		l.Add(time.Millisecond)
		d.Add((i + 1) * 0x9e3779b97f4a7c15)
	}
	latency, _ := l.Encode()
	distinct, _ := d.Encode()
	return &protocol.Window{
		Model: "m", Release: []byte("r"), Role: "primary", Rows: rows, Calls: rows, FailedCalls: 1, FailedRows: 2,
		StartWallMs: start, EndWallMs: end, StartMonotonicMs: uint64(start), EndMonotonicMs: uint64(end),
		Latency: latency, Distinct: distinct,
		Streams: []*protocol.Histogram{{Bins: []uint64{rows, 0}, Missing: 1}},
	}
}

func TestMergeWindow(t *testing.T) {
	a, b := window(t, 3, 10, 20), window(t, 5, 20, 30)
	if err := MergeWindow(a, b); err != nil {
		t.Fatal(err)
	}
	if a.GetRows() != 8 || a.GetFailedRows() != 4 || a.GetStartWallMs() != 10 || a.GetEndWallMs() != 30 || a.GetMerged() != 2 {
		t.Errorf("got %v", a)
	}
	if s := a.GetStreams()[0]; s.GetBins()[0] != 8 || s.GetMissing() != 2 {
		t.Errorf("streams: got %v", s)
	}
	if l, err := DecodeLatency(a.GetLatency()); err != nil || l.Count() != 8 {
		t.Errorf("latency: got %v", err)
	}
	if d, err := DecodeDistinct(a.GetDistinct()); err != nil || d.Estimate() != 5 {
		t.Errorf("distinct: got %v, want 5 of which 3 in both", err)
	}
	before := proto.Clone(a)
	for name, spoil := range map[string]func(*protocol.Window){
		"other release": func(w *protocol.Window) { w.Release = []byte("s") },
		"other role":    func(w *protocol.Window) { w.Role = "shadow" },
		"other bins":    func(w *protocol.Window) { w.Streams[0].Bins = []uint64{1} },
		"torn latency":  func(w *protocol.Window) { w.Latency = w.GetLatency()[1:] },
		"torn distinct": func(w *protocol.Window) { w.Distinct = []byte{9} },
	} {
		c := window(t, 1, 0, 1)
		spoil(c)
		if err := MergeWindow(a, c); err == nil {
			t.Errorf("%s: merged", name)
		}
		if !proto.Equal(before, a) {
			t.Errorf("%s: changed what it was to be merged into", name)
		}
	}
}

func TestMergeLabels(t *testing.T) {
	a := &protocol.Labels{Model: "m", Unmatched: 2}
	b := &protocol.Labels{
		Model: "m", Matched: 3, Correct: 2, StartWallMs: 5, EndWallMs: 9, Confusion: []uint64{2, 0, 1, 0},
		Calibration: []*protocol.CalibrationBin{{Count: 3, Confidence: 2.5, Correct: 2, Squared: 2.25, ConfidenceCorrect: 1.75}},
	}
	for range 2 {
		if err := MergeLabels(a, b); err != nil {
			t.Fatal(err)
		}
	}
	want := &protocol.Labels{
		Model: "m", Matched: 6, Unmatched: 2, Correct: 4, StartWallMs: 5, EndWallMs: 9, Confusion: []uint64{4, 0, 2, 0},
		Calibration: []*protocol.CalibrationBin{{Count: 6, Confidence: 5, Correct: 4, Squared: 4.5, ConfidenceCorrect: 3.5}},
	}
	if !proto.Equal(a, want) {
		t.Errorf("got %v, want %v", a, want)
	}
	if err := MergeLabels(a, &protocol.Labels{Model: "m", Confusion: []uint64{1}}); !errors.Is(err, ErrMismatch) {
		t.Errorf("other classes: got %v, want ErrMismatch", err)
	}
}

// Comparisons add up like everything else, and only with one primary release.
func TestMergeComparisons(t *testing.T) {
	slow := NewLatency()
	slow.Add(time.Second)
	latency, err := slow.Encode()
	if err != nil {
		t.Fatal(err)
	}
	window := func(primary string, rows uint64, worst float64) *protocol.Window {
		return &protocol.Window{Role: "shadow", Rows: rows, Comparison: &protocol.Comparison{
			Primary: []byte(primary), Rows: rows, Agreed: rows - 1, SkippedRows: 2, Worst: worst, Latency: latency,
		}}
	}
	dst := window("v1", 5, 0.5)
	if err := MergeWindow(dst, window("v1", 3, 0.75)); err != nil {
		t.Fatal(err)
	}
	c := dst.GetComparison()
	if c.GetRows() != 8 || c.GetAgreed() != 6 || c.GetSkippedRows() != 4 || c.GetWorst() != 0.75 || dst.GetRows() != 8 {
		t.Errorf("merged into %v", c)
	}
	if got, err := DecodeLatency(c.GetLatency()); err != nil || got.Count() != 2 {
		t.Errorf("latency of the primary: %v", err)
	}
	before := proto.CloneOf(dst)
	for name, src := range map[string]*protocol.Window{
		"another primary": window("v2", 1, 0), "none": {Role: "shadow", Rows: 1}, "another role": {Role: "share", Rows: 1},
	} {
		if err := MergeWindow(dst, src); !errors.Is(err, ErrMismatch) || !proto.Equal(dst, before) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
