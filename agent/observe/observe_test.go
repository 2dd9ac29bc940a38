package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// outbox is a sink that keeps what it is given, also over a kill.
type outbox struct {
	mu      sync.Mutex
	open    map[string]*protocol.Body
	closed  []*protocol.Body
	refuses bool
	puts    int
}

var errFull = errors.New("disk is full")

func newOutbox() *outbox { return &outbox{open: map[string]*protocol.Body{}} }

func (s *outbox) PutOpen(key string, b *protocol.Body) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuses {
		return errFull
	}
	s.puts++
	s.open[key] = proto.CloneOf(b)
	return nil
}

func (s *outbox) CloseOpen(key string, b *protocol.Body) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuses {
		return errFull
	}
	delete(s.open, key)
	s.closed = append(s.closed, proto.CloneOf(b))
	return nil
}

// count is safe while an Observer runs.
func (s *outbox) count() (open, closed, puts int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), len(s.closed), s.puts
}

// reopen is what an outbox does after a kill: what was open is sent as it is.
func (s *outbox) reopen() {
	for k, b := range s.open {
		s.closed = append(s.closed, b)
		delete(s.open, k)
	}
}

type totals struct {
	rows, calls, failedRows, failedCalls uint64
	matched, unmatched, correct          uint64
}

func (s *outbox) totals() totals {
	var t totals
	for _, b := range s.closed {
		w, l := b.GetWindow(), b.GetLabels()
		t.rows += w.GetRows()
		t.calls += w.GetCalls()
		t.failedRows += w.GetFailedRows()
		t.failedCalls += w.GetFailedCalls()
		t.matched += l.GetMatched()
		t.unmatched += l.GetUnmatched()
		t.correct += l.GetCorrect()
	}
	return t
}

// boot is one start of an agent in simulated time.
type boot struct {
	id    byte
	start time.Time
	wall  int64 // of the device's clock at start
}

func newBoot(id byte) *boot { return &boot{id: id, start: time.Now(), wall: time.Now().UnixMilli()} }

func (b *boot) Stamp() *protocol.Stamp {
	id := make([]byte, protocol.BootSize)
	id[0] = b.id
	ms := time.Since(b.start).Milliseconds()
	return &protocol.Stamp{Boot: id, MonotonicMs: uint64(ms), WallMs: b.wall + ms}
}

var (
	one = release.Digest{1}
	two = release.Digest{2}
)

func manifest() *release.Manifest {
	return &release.Manifest{Model: "m", Schema: release.Schema{
		Inputs: []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 4}}},
		Outputs: []release.Tensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{-1}},
			{Name: "probabilities", Datatype: "FP32", Shape: []int64{-1, 3}},
		},
		Classes: []string{"cat", "dog", "fox"}, Label: "label", Scores: "probabilities",
	}}
}

func tensors(rng *rand.Rand, rows int) (in, out []infer.Tensor) {
	x, p, y := make([]float32, 4*rows), make([]float32, 3*rows), make([]int64, rows)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	for r := range rows {
		y[r] = int64(rng.IntN(3))
		p[3*r], p[3*r+1], p[3*r+2] = 0.1, 0.1, 0.1
		p[3*r+int(y[r])] = 0.8
	}
	return []infer.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{int64(rows), 4}, Data: x}},
		[]infer.Tensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{int64(rows)}, Data: y},
			{Name: "probabilities", Datatype: "FP32", Shape: []int64{int64(rows), 3}, Data: p},
		}
}

func baseline(tb testing.TB) *sketch.Baseline {
	tb.Helper()
	b, err := sketch.NewBuilder(&manifest().Schema)
	if err != nil {
		tb.Fatal(err)
	}
	in, out := tensors(rand.New(rand.NewPCG(1, 1)), 2000)
	if err := b.Add(Batch(&manifest().Schema, 2000, in, out)); err != nil {
		tb.Fatal(err)
	}
	base, err := b.Baseline()
	if err != nil {
		tb.Fatal(err)
	}
	return base
}

func start(tb testing.TB, dir string, sink Sink, b Boot, cfg Config) *Observer {
	tb.Helper()
	o := New(dir, sink, b, cfg)
	if err := o.SetRelease("m", one, infer.RolePrimary, manifest(), baseline(tb)); err != nil {
		tb.Fatal(err)
	}
	return o
}

func call(rng *rand.Rand, id string, rows int) *infer.Call {
	in, out := tensors(rng, rows)
	return &infer.Call{
		Model: "m", Release: one, Role: infer.RolePrimary, ID: id, Rows: rows, Inputs: in, Outputs: out,
		At: time.Now(), Latency: time.Millisecond,
	}
}

func classes(c *infer.Call) []int64 { return c.Outputs[0].Data.([]int64) }

func TestWindowsCloseOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink, rng := newOutbox(), rand.New(rand.NewPCG(1, 1))
		o := start(t, t.TempDir(), sink, newBoot(1), Config{Provider: func(_, _ string) string { return "CPU" }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- o.Run(ctx) }()
		o.Apply(&protocol.Settings{WindowMs: 60_000, SnapshotMs: 7_000})
		synctest.Wait()
		time.Sleep(time.Second)
		o.Served(call(rng, "a", 3))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if open, closed, _ := sink.count(); open != 1 || closed != 0 {
			t.Fatalf("after 11 s: %d open, %d closed; want the snapshot alone", open, closed)
		}
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if _, _, puts := sink.count(); puts != 1 {
			t.Errorf("snapshots of an unchanged window: got %d, want 1", puts)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if open, closed, _ := sink.count(); closed != 1 || open != 0 {
			t.Fatalf("after 61 s: %d closed, want 1", closed)
		}
		sink.mu.Lock()
		w := sink.closed[0].GetWindow()
		sink.mu.Unlock()
		if w.GetRows() != 3 || w.GetStartMonotonicMs() != 1000 || w.GetEndMonotonicMs() != 60_000 || w.GetProvider() != "CPU" || w.GetRole() != "primary" {
			t.Errorf("window: got %v", w)
		}
		if len(w.GetStreams()) != 7 || w.GetStreams()[0].GetMissing() != 0 {
			t.Errorf("streams: got %d", len(w.GetStreams()))
		}
		if d, err := sketch.DecodeDistinct(w.GetDistinct()); err != nil || d.Estimate() != 3 {
			t.Errorf("distinct rows: %v", err)
		}
		o.Served(call(rng, "b", 2))
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := sink.totals(); got.rows != 5 || len(sink.open) != 0 {
			t.Errorf("after stop: got %+v, want all 5 rows", got)
		}
		o.Close()
	})
}

// Whatever restarts and kills come, what is handed over is what was served, but
// for what a kill takes since the last snapshot.
func TestTotalsAreExact(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			exact(t, seed)
		})
	}
}

func exact(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	dir, sink := t.TempDir(), newOutbox()
	var served, safe totals // safe is what was written down by the last snapshot or close
	lost := totals{}
	id := 0
	for b := range byte(6) {
		o := start(t, dir, sink, newBoot(b+1), Config{})
		sink.reopen()
		for range 60 {
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
			switch rng.IntN(8) {
			case 0:
				if o.Snapshot() == nil {
					safe = served
				}
			case 1:
				if o.CloseWindows() == nil {
					safe = served
				}
			case 2:
				sink.refuses = !sink.refuses
			case 3:
				c := call(rng, "", 2)
				c.Err, c.Outputs = infer.ErrHung, nil
				o.Served(c)
				served.failedCalls++
				served.failedRows += 2
			default:
				id++
				c := call(rng, fmt.Sprint("p", id), 1+rng.IntN(4))
				o.Served(c)
				served.calls++
				served.rows += uint64(c.Rows)
				truth := classes(c)[0]
				if rng.IntN(3) == 0 {
					truth = (truth + 1) % 3
				} else {
					served.correct++
				}
				if ok, err := o.Feedback(t.Context(), "m", infer.RowID(c.ID, 0, c.Rows), strconv.FormatInt(truth, 10)); err != nil || !ok {
					t.Fatalf("seed %d: feedback: %v %v", seed, ok, err)
				}
				served.matched++
			}
		}
		sink.refuses = false
		if rng.IntN(2) == 0 { // a clean stop
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := o.Run(ctx); err != nil {
				t.Fatal(err)
			}
			safe = served
		}
		lost = plus(lost, minus(served, safe))
		served = safe
		o.Close() // the file is written through: closing it is no more than a kill does
	}
	sink.reopen()
	if got := sink.totals(); got != served {
		t.Errorf("seed %d: handed over %+v, served and safe %+v (a kill took %+v)", seed, got, served, lost)
	}
}

func plus(a, b totals) totals {
	return totals{
		a.rows + b.rows, a.calls + b.calls, a.failedRows + b.failedRows, a.failedCalls + b.failedCalls,
		a.matched + b.matched, a.unmatched + b.unmatched, a.correct + b.correct,
	}
}

func minus(a, b totals) totals {
	return totals{
		a.rows - b.rows, a.calls - b.calls, a.failedRows - b.failedRows, a.failedCalls - b.failedCalls,
		a.matched - b.matched, a.unmatched - b.unmatched, a.correct - b.correct,
	}
}

// Many workers serve while windows close and releases come and go.
func TestConcurrentServing(t *testing.T) {
	sink := newOutbox()
	o := start(t, t.TempDir(), sink, newBoot(1), Config{})
	const workers, calls = 4, 500
	var wg sync.WaitGroup
	for w := range uint64(workers) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(w, w))
			for i := range calls {
				c := call(rng, fmt.Sprint(w, "-", i), 2)
				if i%3 == 0 {
					c.Release = two // announced only later
				}
				o.Served(c)
			}
		})
	}
	stop := make(chan struct{})
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				o.CloseWindows()
				if i == 3 {
					o.SetRelease("m", two, infer.RolePrimary, manifest(), baseline(t))
				}
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-closed
	if err := o.CloseWindows(); err != nil {
		t.Fatal(err)
	}
	if got := sink.totals(); got.rows != 2*workers*calls || got.calls != workers*calls {
		t.Errorf("got %+v, want %d rows in %d calls", got, 2*workers*calls, workers*calls)
	}
	o.Close()
}

func TestIdleWindowsAreForgotten(t *testing.T) {
	sink := newOutbox()
	o := start(t, t.TempDir(), sink, newBoot(1), Config{})
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range byte(20) {
		c := call(rng, "", 1)
		c.Release = release.Digest{100 + i}
		o.Served(c)
		o.CloseWindows()
	}
	o.CloseWindows()
	if n := len(o.windows); n != 0 {
		t.Errorf("windows kept: got %d, want 0", n)
	}
	o.Served(call(rng, "", 1))
	o.CloseWindows()
	if w := sink.closed[len(sink.closed)-1].GetWindow(); len(w.GetStreams()) == 0 {
		t.Error("a release that was idle for a while is not counted into its bins any more")
	}
	o.Close()
}

func TestServedAllocatesNothing(t *testing.T) {
	o := start(t, t.TempDir(), newOutbox(), newBoot(1), Config{Predictions: 256})
	c := call(rand.New(rand.NewPCG(1, 1)), "prediction", 4)
	for range 300 { // the ring goes round
		o.Served(c)
	}
	if n := testing.AllocsPerRun(500, func() { o.Served(c) }); n != 0 {
		t.Errorf("allocations per call: got %v, want 0", n)
	}
	o.Close()
}

func BenchmarkServed(b *testing.B) {
	o := start(b, b.TempDir(), newOutbox(), newBoot(1), Config{})
	c := call(rand.New(rand.NewPCG(1, 1)), "prediction", 1)
	b.ReportAllocs()
	for b.Loop() {
		o.Served(c)
	}
	o.Close()
}

func TestDatatypes(t *testing.T) {
	schema := manifest().Schema
	for _, c := range []struct {
		name string
		data any
	}{
		{"FP64", []float64{1, 2, 3, 4}},
		{"INT64", []int64{1, 2, 3, 4}},
		{"INT32", []int32{1, 2, 3, 4}},
		{"UINT8", []uint8{1, 2, 3, 4}},
		{"FP32", []float32{1, 2, 3, 4}},
	} {
		b := Batch(&schema, 1, []infer.Tensor{{Name: "X", Datatype: c.name, Shape: []int64{1, 4}, Data: c.data}}, nil)
		if got := b.Inputs[0]; !slices.Equal(got.Data, []float32{1, 2, 3, 4}) || got.Width != 4 {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
	b := Batch(&schema, 2, []infer.Tensor{{Name: "X", Datatype: "BYTES", Shape: []int64{2, 1}, Data: []string{"a", "b"}}},
		[]infer.Tensor{{Name: "label", Datatype: "BYTES", Shape: []int64{2}, Data: []string{"fox", "cow"}}})
	if !slices.Equal(b.Class, []int64{2, -1}) || b.Inputs[0].Width != 1 {
		t.Errorf("class names: got %v", b.Class)
	}
}

// A folder that takes nothing costs labels their match after the next start:
// what is served now is counted and finds its labels, and somebody is told.
func TestFolderThatCannotBeUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "predictions")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cfg := Config{Predictions: 100, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	sink, rng := newOutbox(), rand.New(rand.NewPCG(8, 8))
	o := start(t, dir, sink, newBoot(1), cfg)
	for range 3 { // announcing a second model is no news of the first one
		if err := o.SetRelease("other", two, infer.RoleShadow, manifest(), nil); err != nil {
			t.Errorf("a release cannot be announced: %v", err)
		}
	}
	var c *infer.Call
	for i := range 250 {
		c = call(rng, strconv.Itoa(i), 1)
		o.Served(c)
	}
	if matched, err := o.Feedback(t.Context(), "m", "249", strconv.FormatInt(classes(c)[0], 10)); !matched || err != nil {
		t.Errorf("label of a prediction in memory: got %v %v, want a match", matched, err)
	}
	if matched, err := o.Feedback(t.Context(), "m", "249", "0"); matched || err != nil {
		t.Errorf("second label: got %v %v, want no match", matched, err)
	}
	if got := strings.Count(log.String(), "in memory only"); got != 2 { // the primary's and the shadow's
		t.Errorf("said %d times, want 2:\n%s", got, log.String())
	}
	stop(t, o)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	for boot := range byte(2) {
		o = start(t, dir, sink, newBoot(2+boot), cfg)
		if boot == 0 {
			o.Served(call(rng, "again", 1))
		} else if _, err := o.ring.find("m", "again"); err != nil {
			t.Errorf("prediction of the start before: %v", err)
		}
		stop(t, o)
	}
	if log.Len() > 0 {
		t.Errorf("folder that can be used: logged\n%s", log.String())
	}
}

func stop(t *testing.T, o *Observer) {
	t.Helper()
	ended, end := context.WithCancel(t.Context())
	end()
	if err := errors.Join(o.Run(ended), o.Close()); err != nil {
		t.Errorf("stop: %v", err)
	}
}
