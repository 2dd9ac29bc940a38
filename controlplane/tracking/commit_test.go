package tracking

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// unsure is a journal whose answers can be lost.
type unsure struct {
	memory

	fail  bool // the next append answers with an error
	store bool // and stores nevertheless
	late  bool // after it was asked what it holds
	held  []byte
}

var errLost = errors.New("no answer")

func (u *unsure) append(ctx context.Context, after uint64, message []byte) error {
	if u.held != nil {
		held := u.held
		u.held = nil
		last, err := u.last(ctx)
		if err == nil {
			err = u.memory.append(ctx, last, held)
		}
		if err != nil {
			return err
		}
	}
	if !u.fail {
		return u.memory.append(ctx, after, message)
	}
	u.fail = false
	if u.late {
		u.held = message
	} else if u.store {
		if err := u.memory.append(ctx, after, message); err != nil {
			return err
		}
	}
	return errLost
}

func tagsOf(x map[string]string) map[string]string {
	delete(x, tagRunName)
	return x
}

// An answer that is lost on the way says nothing of whether a change was stored:
// the store finds out, and never shows what the journal does not have.
func TestLostAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		store, late bool
		fails       bool // the caller is told so
	}{
		"not stored":   {fails: true},
		"stored":       {store: true},
		"stored later": {late: true, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			j := &unsure{}
			s, err := start(t.Context(), j, Config{})
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.CreateRun(t.Context(), Run{})
			if err != nil {
				t.Fatal(err)
			}
			j.fail, j.store, j.late = true, tc.store, tc.late
			if err := s.Log(t.Context(), r.ID, Batch{Tags: map[string]string{"first": "x"}}); (err != nil) != tc.fails {
				t.Errorf("first: got %v, want an error: %v", err, tc.fails)
			}
			if err := s.Log(t.Context(), r.ID, Batch{Tags: map[string]string{"second": "x"}}); err != nil {
				t.Errorf("second: %v", err)
			}
			live, err := s.Run(r.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			again, err := start(t.Context(), &j.memory, Config{})
			if err != nil {
				t.Fatal(err)
			}
			stored, err := again.Run(r.ID)
			if err != nil {
				t.Fatal(err)
			}
			want := 1
			if tc.store || tc.late {
				want = 2
			}
			if a, b := tagsOf(live.Tags), tagsOf(stored.Tags); len(a) != want || len(b) != want {
				t.Errorf("got %v in the store and %v in the journal, want %d", a, b, want)
			}
			if err := again.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := again.Log(t.Context(), r.ID, Batch{Tags: map[string]string{"third": "x"}}); !errors.Is(err, ErrClosed) {
				t.Errorf("after the end: got %v, want ErrClosed", err)
			}
		})
	}
}

// Whatever the distances, the ranges of a history cover each message of it and
// nothing beyond the end; its size is bounded.
func TestPositions(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, step := range []uint64{1, 3, 100, 1 << 20} {
		var p positions
		var all []uint64
		seq := uint64(0)
		for len(all) < 120_000 {
			seq += 1 + rng.Uint64N(step)
			p = p.add(seq)
			all = append(all, seq)
		}
		if len(p.Raw) > maxPositions+10 {
			t.Errorf("step %d: %d bytes, at most %d", step, len(p.Raw), maxPositions)
		}
		for _, from := range []uint64{0, all[17], all[len(all)/2] + 1, seq} {
			left, before := all, uint64(0)
			at, _ := slices.BinarySearch(all, from)
			left = left[at:]
			for first, last := range p.ranges(from, seq) {
				if first <= before || last < first || last > seq || first < from {
					t.Fatalf("step %d: range %d to %d after %d", step, first, last, before)
				}
				before = last
				for len(left) > 0 && left[0] >= first && left[0] <= last {
					left = left[1:]
				}
			}
			if len(left) > 0 {
				t.Errorf("step %d from %d: %d positions are not covered, the first is %d", step, from, len(left), left[0])
			}
		}
	}
}

// A message is read as it was written, and a history without what is of others.
func TestMessages(t *testing.T) {
	message := []byte{formatVersion}
	for _, id := range []string{"a", "b", "a"} {
		raw, err := encode(&record{Change: &change{ID: id, Metrics: []Metric{{Key: id}}}})
		if err != nil {
			t.Fatal(err)
		}
		message = append(message, raw...)
	}
	for only, want := range map[string][]int{"": {0, 1, 2}, "a": {0, 2}, "c": nil} {
		var got []int
		err := decode(message, only, func(nth int, _ *record) error {
			got = append(got, nth)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("of %q: got %v, %v, want %v", only, got, err, want)
		}
	}
	for n := range message {
		short := message[:n]
		_ = decode(short, "", func(int, *record) error { return nil }) // must not panic
	}
	if err := decode([]byte{formatVersion + 1}, "", nil); !errors.Is(err, errFormat) {
		t.Errorf("a newer format: got %v", err)
	}
}
