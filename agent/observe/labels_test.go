package observe

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
)

func (s *outbox) labels() *protocol.Labels {
	for _, b := range s.closed {
		if l := b.GetLabels(); l != nil {
			return l
		}
	}
	return nil
}

func TestFeedback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newOutbox()
		o := start(t, t.TempDir(), sink, newBoot(1), Config{})
		c := call(rand.New(rand.NewPCG(3, 3)), "batch", 3)
		time.Sleep(2 * time.Second)
		c.At = time.Now()
		o.Served(c)
		time.Sleep(time.Minute)
		names := manifest().Schema.Classes
		y := classes(c)
		for _, f := range []struct {
			id, label string
			matched   bool
			err       error
		}{
			{"batch/0", names[y[0]], true, nil},                       // right, by name
			{"batch/1", strconv.FormatInt((y[1]+1)%3, 10), true, nil}, // wrong, by index
			{"batch/1", strconv.FormatInt(y[1], 10), false, nil},      // has its label
			{"batch/3", "cat", false, nil},                            // no such row
			{"batch", "cat", false, nil},                              // the call is no prediction
			{"batch/2", "cow", false, ErrLabel},
			{"batch/2", "3", false, ErrLabel},
			{"never", "-1", false, ErrLabel},
		} {
			matched, err := o.Feedback(t.Context(), "m", f.id, f.label)
			if matched != f.matched || !errors.Is(err, f.err) {
				t.Errorf("%s %s: got %v %v, want %v %v", f.id, f.label, matched, err, f.matched, f.err)
			}
		}
		if _, err := o.Feedback(t.Context(), "n", "batch/0", "cat"); !errors.Is(err, ErrUnknownModel) {
			t.Errorf("unknown model: got %v", err)
		}
		if err := o.CloseWindows(); err != nil {
			t.Fatal(err)
		}
		l := sink.labels()
		if l.GetMatched() != 2 || l.GetCorrect() != 1 || l.GetUnmatched() != 3 {
			t.Errorf("got %v", l)
		}
		if l.GetStartMonotonicMs() != 2000 || l.GetEndMonotonicMs() != 2000 {
			t.Errorf("span: got %d to %d, want the time of the predictions", l.GetStartMonotonicMs(), l.GetEndMonotonicMs())
		}
		var pairs uint64
		for _, n := range l.GetConfusion() {
			pairs += n
		}
		if pairs != 2 || l.GetConfusion()[3*((y[1]+1)%3)+y[1]] != 1 {
			t.Errorf("confusion: got %v", l.GetConfusion())
		}
		b := l.GetCalibration()[8]
		near := func(got, want float64) bool { return math.Abs(got-want) < 1e-6 }
		if b.GetCount() != 2 || b.GetCorrect() != 1 || !near(b.GetSquared(), 1.28) || !near(b.GetConfidenceCorrect(), 0.8) {
			t.Errorf("calibration of 0.8: got %v, want two of 0.8, one of them correct", b)
		}
		o.Close()
	})
}

// A label finds its prediction after a restart, and after the release was
// replaced; its record then has no monotonic time.
func TestLateLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, sink, rng := t.TempDir(), newOutbox(), rand.New(rand.NewPCG(3, 3))
		o := start(t, dir, sink, newBoot(1), Config{Keep: time.Hour})
		early, c := call(rng, "early", 1), call(rng, "late", 1)
		o.Served(early)
		time.Sleep(30 * time.Minute)
		c.At = time.Now()
		o.Served(c)
		served := time.Now().UnixMilli()
		o.Close()
		time.Sleep(40 * time.Minute)

		o = New(dir, sink, newBoot(2), Config{Keep: time.Hour})
		if err := o.SetRelease("m", two, infer.RolePrimary, manifest(), nil); err != nil {
			t.Fatal(err)
		}
		if matched, err := o.Feedback(t.Context(), "m", "late", strconv.FormatInt(classes(c)[0], 10)); !matched || err != nil {
			t.Errorf("after 40 minutes: got %v %v, want a match", matched, err)
		}
		if matched, err := o.Feedback(t.Context(), "m", "early", "cat"); matched || err != nil {
			t.Errorf("after 70 minutes: got %v %v, want no match", matched, err)
		}
		if err := o.CloseWindows(); err != nil {
			t.Fatal(err)
		}
		for _, b := range sink.closed {
			l := b.GetLabels()
			switch {
			case l.GetMatched() == 1:
				if l.GetEndMonotonicMs() != 0 || l.GetStartWallMs() != served || [32]byte(l.GetRelease()) != one || l.GetCorrect() != 1 {
					t.Errorf("late label: got %v", l)
				}
			case l.GetUnmatched() == 1:
				if [32]byte(l.GetRelease()) != two {
					t.Errorf("unmatched label counted for %x, want the newest release", l.GetRelease()[:2])
				}
			default:
				t.Errorf("got %v", b)
			}
		}
		o.Close()
	})
}

func TestRingGoesRound(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(5, 5))
	o := start(t, dir, newOutbox(), newBoot(1), Config{Predictions: 100})
	var calls []*infer.Call
	for i := range 70 {
		c := call(rng, fmt.Sprint("c", i), 1+rng.IntN(5))
		o.Served(c)
		calls = append(calls, c)
	}
	huge := call(rng, "huge", 64)
	o.Served(huge)
	calls = append(calls, huge)
	o.Close()
	o = start(t, dir, newOutbox(), newBoot(1), Config{Predictions: 100}) // and is read back
	left := 100
	for _, c := range slices.Backward(calls) {
		for r := c.Rows - 1; r >= 0; r-- {
			matched, err := o.Feedback(t.Context(), "m", infer.RowID(c.ID, r, c.Rows), "cat")
			if err != nil {
				t.Fatal(err)
			}
			if want := left > 0; matched != want {
				t.Fatalf("%s row %d, %d from the newest: matched %v, want %v", c.ID, r, 100-left, matched, want)
			}
			left--
		}
	}
	o.Close()
}

// A kill costs the labels of what was gathered since the newest snapshot.
func TestRingAfterAKill(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(8, 8))
	killed := start(t, dir, newOutbox(), newBoot(1), Config{Predictions: 1000})
	const noted, served = 300, 500
	for i := range served {
		killed.Served(call(rng, fmt.Sprint("p", i), 1))
		if i == noted-1 {
			if err := killed.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	o := start(t, dir, newOutbox(), newBoot(2), Config{Predictions: 1000})
	for i := range served {
		matched, err := o.Feedback(t.Context(), "m", fmt.Sprint("p", i), "cat")
		if err != nil {
			t.Fatal(err)
		}
		if written := i < noted || i < served-gather; written && !matched {
			t.Errorf("prediction %d of %d, %d of them before a snapshot, was not found", i, served, noted)
		}
	}
	killed.Close()
	o.Close()
}

func TestSameIDAgain(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	dir := t.TempDir()
	o := start(t, dir, newOutbox(), newBoot(1), Config{Predictions: 8})
	for i := range 20 {
		o.Served(call(rng, "same", 1))
		if matched, _ := o.Feedback(t.Context(), "m", "same", "cat"); !matched {
			t.Errorf("time %d: the newest prediction of the id was not found", i)
		}
	}
	for range 8 {
		o.Served(call(rng, "other", 1))
	}
	if matched, _ := o.Feedback(t.Context(), "m", "same", "cat"); matched {
		t.Error("an overwritten prediction was found")
	}
	o.Close()
}

// Torn and flipped slots are skipped; the rest is still found.
func TestDamagedRing(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(7, 7))
	o := start(t, dir, newOutbox(), newBoot(1), Config{Predictions: 64})
	for i := range 50 {
		o.Served(call(rng, fmt.Sprint("p", i), 1))
	}
	o.Close()
	path := filepath.Join(dir, ringFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[10*slotSize+20] ^= 4
	clear(data[20*slotSize+30 : 21*slotSize])
	for i := range 64 {
		data[30*slotSize+i] = byte(rng.Uint32())
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, tableFile), []byte(`[{"model":`), 0o600); err != nil {
		t.Fatal(err)
	}
	o = start(t, dir, newOutbox(), newBoot(2), Config{Predictions: 64})
	for i := range 50 {
		matched, err := o.Feedback(t.Context(), "m", fmt.Sprint("p", i), "cat")
		if want := i != 10 && i != 20 && i != 30; err != nil || matched != want {
			t.Errorf("prediction %d: got %v %v, want %v", i, matched, err, want)
		}
	}
	o.Close()
	o = start(t, dir, newOutbox(), newBoot(3), Config{Predictions: 32}) // another size starts over
	if matched, err := o.Feedback(t.Context(), "m", "p1", "cat"); matched || err != nil {
		t.Errorf("after resizing: got %v %v", matched, err)
	}
	o.Close()
}

// The index behaves as a map would.
func TestIndex(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	const slots = 64
	ids, x, want := make([]uint64, slots), newIndex(slots), map[uint64]int{}
	for i := range 20_000 {
		slot := i % slots
		x.remove(ids, slot)
		if want[ids[slot]] == slot {
			delete(want, ids[slot])
		}
		ids[slot] = 1 + rng.Uint64N(90) // some twice, many in one place of the table
		x.put(ids, slot)
		want[ids[slot]] = slot
		for id := range uint64(92) {
			got, ok := x.get(ids, id)
			if w, there := want[id]; ok != there || ok && got != w {
				t.Fatalf("step %d, id %d: got %d %v, want %d %v", i, id, got, ok, w, there)
			}
		}
	}
}

func FuzzSlot(f *testing.F) {
	b := make([]byte, slotSize)
	(&prediction{number: 3, id: 4, class: -1, labelled: true}).write(b)
	f.Add(b)
	f.Add(make([]byte, slotSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) != slotSize {
			return
		}
		p, ok := parse(data)
		if !ok {
			return
		}
		again := make([]byte, slotSize)
		p.write(again)
		if q, ok := parse(again); !ok || q.number != p.number || q.id != p.id || q.class != p.class {
			t.Errorf("got %+v, want %+v", q, p)
		}
	})
}

// Truths that come again count nothing, and what matched nothing counts when the
// caller says so.
func TestTruthsThatComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newOutbox()
		o := start(t, t.TempDir(), sink, newBoot(1), Config{})
		o.Served(call(rand.New(rand.NewPCG(3, 3)), "a", 1))
		for _, tt := range []struct {
			model, id, label string
			want             Joined
			err              error
		}{
			{"m", "a", "cat", Matched, nil},
			{"m", "a", "cat", Repeated, nil},
			{"m", "a", "dog", Repeated, nil},
			{"m", "b", "cat", Unmatched, nil},
			{"m", "b", "cow", Unmatched, ErrLabel},
			{"n", "a", "cat", Unmatched, ErrUnknownModel},
		} {
			if got, err := o.Truth(t.Context(), tt.model, tt.id, tt.label); got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%s %s %s: got %v, %v, want %v, %v", tt.model, tt.id, tt.label, got, err, tt.want, tt.err)
			}
		}
		if err := errors.Join(o.CountUnmatched("m", 5), o.CountUnmatched("m", 0)); err != nil {
			t.Fatal(err)
		}
		if err := o.CountUnmatched("n", 1); !errors.Is(err, ErrUnknownModel) {
			t.Errorf("unknown model: got %v", err)
		}
		if err := o.CloseWindows(); err != nil {
			t.Fatal(err)
		}
		if got := sink.totals(); got.matched != 1 || got.unmatched != 5 {
			t.Errorf("got %+v, want 1 matched and 5 unmatched", got)
		}
	})
}
