package infer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// calls0 is an Observer that keeps counts by role and, of shadows, what was
// compared.
type calls0 struct {
	mu       sync.Mutex     // guards all fields
	rows     map[string]int // answered, by role
	failed   map[string]int
	skipped  int
	releases map[string]string // version that answered, by id
	compared []string          // id, primary's answer and the shadow's
}

func newCalls() *calls0 {
	return &calls0{rows: map[string]int{}, failed: map[string]int{}, releases: map[string]string{}}
}

func (c *calls0) Served(call *Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call.Beside != nil {
		c.skipped += call.Beside.Skipped
	}
	switch {
	case errors.Is(call.Err, ErrSkipped):
	case call.Err != nil:
		c.failed[call.Role] += call.Rows
	default:
		c.rows[call.Role] += call.Rows
	}
	if call.Beside != nil && call.Err == nil {
		primary, shadow := call.Beside.Outputs[0].Data.([]int64)[0], call.Outputs[0].Data.([]int64)[0]
		c.compared = append(c.compared, fmt.Sprintf("%s: %d %d of %s", call.ID, primary, shadow, call.Beside.Primary.Short()))
	}
}

func (c *calls0) seen() (rows, failed map[string]int, skipped int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.rows), maps.Clone(c.failed), c.skipped
}

// duel is an engine that serves v1 and has v2 beside it.
func duel(t *testing.T, role string, share int, first, second *session0, cfg Config) *Engine {
	t.Helper()
	e := New(&runtime0{load: func(r Release) (Session, error) {
		if r.Manifest.Version == "v1" {
			return first, nil
		}
		return second, nil
	}}, cfg)
	r := testRelease(2)
	r.Role, r.Share = role, share
	for _, r := range []Release{testRelease(1), r} {
		if err := e.Activate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func ask(t *testing.T, e *Engine, req Request) *Response {
	t.Helper()
	req.Model, req.Inputs = "m", rowsOf(2)
	resp, err := e.Infer(context.Background(), &req)
	if err != nil {
		t.Fatalf("a request failed: %v", err)
	}
	if got := fmt.Sprintf("v%d", resp.Outputs[0].Data.([]int64)[0]); got != resp.Version {
		t.Errorf("release %s answered for %s", got, resp.Version)
	}
	return resp
}

// The split follows the key alone: the same key has the same release always, on
// another engine too, and the share of the keys is that asked for.
func TestShareByKey(t *testing.T) {
	const keys = 20_000
	for _, share := range []int{1, 100, 300, 999, 1000} {
		seen := newCalls()
		e := duel(t, RoleShare, share, &session0{answer: 1}, &session0{answer: 2}, Config{Observer: seen})
		again := duel(t, RoleShare, share, &session0{answer: 1}, &session0{answer: 2}, Config{})
		got := 0
		for k := range keys {
			req := Request{ID: fmt.Sprintf("call-%d", k), Key: fmt.Sprintf("machine-%d", k)}
			resp := ask(t, e, req)
			if resp.Version == "v2" {
				got++
			}
			if k%100 == 0 {
				req.ID = "another"
				if other := ask(t, again, req); other.Version != resp.Version || other.Role != resp.Role {
					t.Fatalf("key %s has %s and %s", req.Key, resp.Version, other.Version)
				}
			}
		}
		p := float64(share) / MaxShare
		if sigma := math.Sqrt(keys * p * (1 - p)); math.Abs(float64(got)-keys*p) > 5*sigma {
			t.Errorf("%d of %d keys have the challenger, want %v ± %.0f", got, keys, keys*p, 5*sigma)
		}
		rows, failed, _ := seen.seen()
		if rows[RoleShare] != 2*got || rows[RolePrimary] != 2*(keys-got) || len(failed) != 0 {
			t.Errorf("observed %v and failed %v, want %d rows of the challenger", rows, failed, 2*got)
		}
	}
}

// What a call is split by when it has no key: its id, given or made.
func TestShareWithoutKey(t *testing.T) {
	e := duel(t, RoleShare, 500, &session0{answer: 1}, &session0{answer: 2}, Config{})
	byKey := ask(t, e, Request{Key: "a", ID: "x"}).Version
	if byID := ask(t, e, Request{ID: "a"}).Version; byID != byKey {
		t.Errorf("id a has %s, key a has %s", byID, byKey)
	}
	got := map[string]int{}
	for range 1000 {
		got[ask(t, e, Request{}).Version]++
	}
	if got["v2"] < 400 || got["v2"] > 600 {
		t.Errorf("generated ids are answered by %v", got)
	}
	if v := ask(t, e, Request{Version: "v1", Key: "b"}).Version; v != "v1" {
		t.Errorf("version v1 was asked for, %s answered", v)
	}
}

// The place of a key is part of the interface: whoever splits calls elsewhere
// must come to the same result.
func TestKeyIsFixed(t *testing.T) {
	for key, want := range map[string]int{"": 442, "machine-1": 771, "ünïcode": 698} {
		if got := Key("m", key); got != want {
			t.Errorf("key %q has place %d, want %d", key, got, want)
		}
	}
}

func TestShareFallsBack(t *testing.T) {
	broken := errors.New("broken")
	tests := map[string]func([]Tensor) error{
		"error": func([]Tensor) error { return broken },
		"panic": func([]Tensor) error { panic("at the disco") },
	}
	for name, before := range tests {
		t.Run(name, func(t *testing.T) {
			seen := newCalls()
			e := duel(t, RoleShare, 1000, &session0{answer: 1}, &session0{answer: 2}, Config{Observer: seen})
			swap(e, &session0{answer: 2, before: before})
			for range 10 {
				if resp := ask(t, e, Request{}); resp.Version != "v1" || resp.Held {
					t.Errorf("%s answered, held %t", resp.Version, resp.Held)
				}
			}
			rows, failed, _ := seen.seen()
			if rows[RolePrimary] != 20 || rows[RoleShare] != 0 || failed[RoleShare] != 20 {
				t.Errorf("observed %v, failed %v", rows, failed)
			}
			if got := e.Challengers()[0].Fallbacks; got != 10 {
				t.Errorf("%d fallbacks, want 10", got)
			}
		})
	}
}

// swap makes the challenger's session s, which could not have been warmed.
func swap(e *Engine, s *session0) {
	e.lane("m").challenger.Load().session = s
}

// A challenger that hangs is retired at its deadline: the caller is answered by
// the primary release, which nobody restarts.
func TestHungShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		var told atomic.Int64
		e := duel(t, RoleShare, 1000, &session0{answer: 1}, &session0{answer: 2}, Config{
			Hung:           func(string, release.Digest) { t.Error("the primary release is blamed") },
			ChallengerHung: func(string, release.Digest) { told.Add(1) },
		})
		swap(e, &session0{answer: 2, before: func([]Tensor) error { <-free; return nil }})
		start := time.Now()
		resp := ask(t, e, Request{})
		if took := time.Since(start); resp.Version != "v1" || !resp.Held || took != MinDeadline {
			t.Errorf("%s answered after %v, held %t", resp.Version, took, resp.Held)
		}
		if resp := ask(t, e, Request{}); resp.Version != "v1" || time.Since(start) != MinDeadline {
			t.Errorf("%s answered after %v", resp.Version, time.Since(start))
		}
		synctest.Wait()
		if n := told.Load(); n != 1 || len(e.Challengers()) != 0 {
			t.Errorf("told %d times, challengers %v", n, e.Challengers())
		}
		if err := e.Retire(t.Context(), "m"); err != nil {
			t.Error(err)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("a hung challenger holds up the stop: %v", err)
		}
		close(free)
	})
}

// A shadow sees the rows as they were, although the caller goes on at once and
// writes over them, and gives no answer.
func TestShadowSeesTheSameRows(t *testing.T) {
	seen := newCalls()
	var mu sync.Mutex
	var got []float32
	second := &session0{answer: 2, before: func(in []Tensor) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, in[0].Data.([]float32)[0])
		return nil
	}}
	e := duel(t, RoleShadow, 0, &session0{answer: 1}, second, Config{Observer: seen})
	var want []float32
	resp := &Response{}
	data := make([]float32, 2)
	for i := range 10 {
		data[0] = float32(i)
		req := &Request{Model: "m", ID: strconv.Itoa(i), Inputs: []Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{1, 2}, Data: data}}}
		if err := e.InferInto(t.Context(), req, resp); err != nil || resp.Version != "v1" || resp.Role != RolePrimary {
			t.Fatalf("%s answered as %q: %v", resp.Version, resp.Role, err)
		}
		data[0] = -1
		want = append(want, float32(i))
	}
	for rows, _, skipped := seen.seen(); rows[RoleShadow]+skipped < 10; rows, _, skipped = seen.seen() {
		time.Sleep(time.Millisecond) // the shadow's thread is in no bubble
	}
	if err := e.Retire(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got[1:]) != fmt.Sprint(want) { // the first is its warming
		t.Errorf("the shadow saw %v, want %v", got[1:], want)
	}
	if first := "0: 1 2 of " + testRelease(1).Digest.Short(); len(seen.compared) != 10 || seen.compared[0] != first {
		t.Errorf("compared %q, want %q first", seen.compared, first)
	}
	if second.closed.Load() != 1 || second.misused.Load() {
		t.Error("the shadow's session was not closed once, after its last run")
	}
}

// Every row is compared, failed or skipped, and counted once, however slow the
// shadow is; the primary release never waits.
func TestBusyShadowSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := newCalls()
		second := &session0{answer: 2, before: func([]Tensor) error { time.Sleep(time.Second); return nil }}
		e := duel(t, RoleShadow, 0, &session0{answer: 1}, second, Config{Observer: seen})
		start := time.Now()
		for range 100 {
			ask(t, e, Request{})
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the primary waited %v for its shadow", took)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if err := errors.Join(e.Retire(t.Context(), "m"), e.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		rows, failed, skipped := seen.seen()
		if rows[RolePrimary] != 200 || rows[RoleShadow]+skipped != 200 || rows[RoleShadow] < 10 || len(failed) != 0 {
			t.Errorf("observed %v, failed %v, skipped %d of 200 rows", rows, failed, skipped)
		}
	})
}

func TestHungShadow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		var told atomic.Int64
		e := duel(t, RoleShadow, 0, &session0{answer: 1}, &session0{answer: 2}, Config{
			Hung:           func(string, release.Digest) { t.Error("the primary release is blamed") },
			ChallengerHung: func(string, release.Digest) { told.Add(1) },
		})
		swap(e, &session0{answer: 2, before: func([]Tensor) error { <-free; return nil }})
		for range 30 {
			ask(t, e, Request{})
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := told.Load(); n != 1 || len(e.Challengers()) != 0 {
			t.Errorf("told %d times, challengers %v", n, e.Challengers())
		}
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("a hung shadow holds up the stop: %v", err)
		}
		close(free)
	})
}

// A shadow with a share of the calls takes those whose key is in it.
func TestShadowShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := newCalls()
		e := duel(t, RoleShadow, 200, &session0{answer: 1}, &session0{answer: 2}, Config{Observer: seen})
		want := 0
		for i := range 500 {
			req := Request{Key: strconv.Itoa(i)}
			if Key("m", req.Key) < 200 {
				want += 2
			}
			ask(t, e, req)
			synctest.Wait()
		}
		if rows, _, skipped := seen.seen(); rows[RoleShadow] != want || skipped != 0 {
			t.Errorf("the shadow had %d rows and skipped %d, want %d", rows[RoleShadow], skipped, want)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Another share is taken over without a new session, another role with one, and
// the primary release can be replaced and removed beside its challenger.
func TestChallengerChanges(t *testing.T) {
	loads := map[string]int{}
	e := New(&runtime0{load: func(r Release) (Session, error) {
		loads[r.Manifest.Version]++
		var n int64
		fmt.Sscanf(r.Manifest.Version, "v%d", &n)
		return &session0{answer: n}, nil
	}}, Config{})
	do := func(version int, role string, share int) {
		t.Helper()
		r := testRelease(version)
		r.Role, r.Share = role, share
		if err := e.Activate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	do(2, RoleShare, 1000)
	if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)}); !errors.Is(err, ErrUnknownModel) {
		t.Errorf("a challenger answers for a model that does not serve: %v", err)
	}
	do(1, RolePrimary, 0)
	do(2, RoleShare, 1)
	do(2, RoleShare, 1000)
	if v := ask(t, e, Request{}).Version; v != "v2" || loads["v2"] != 1 {
		t.Errorf("%s answers after %d loads", v, loads["v2"])
	}
	do(3, RolePrimary, 0)
	do(2, RoleShadow, 0)
	if v := ask(t, e, Request{}).Version; v != "v3" || loads["v2"] != 2 {
		t.Errorf("%s answers after %d loads", v, loads["v2"])
	}
	if st := e.Challengers(); len(st) != 1 || st[0].Role != RoleShadow || st[0].Share != MaxShare || st[0].Version != "v2" {
		t.Errorf("challengers %+v", st)
	}
	if err := errors.Join(e.Retire(t.Context(), "m"), e.Retire(t.Context(), "m"), e.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// Without a challenger a call costs what it did, with one it still allocates
// nothing more than the copies.
func BenchmarkBesideAChallenger(b *testing.B) {
	for _, role := range []string{"none", RoleShare, RoleShadow} {
		b.Run(role, func(b *testing.B) {
			e := New(&runtime0{load: func(Release) (Session, error) { return &session0{answer: 1}, nil }}, Config{})
			r := testRelease(2)
			r.Role, r.Share = role, 500
			releases := []Release{testRelease(1), r}
			if role == "none" {
				releases = releases[:1]
			}
			for _, r := range releases {
				if err := e.Activate(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
			req, resp := &Request{Model: "m", ID: "x", Inputs: rowsOf(1)}, &Response{}
			b.ReportAllocs()
			for b.Loop() {
				if err := e.InferInto(b.Context(), req, resp); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
