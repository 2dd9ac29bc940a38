package infer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// runtime0 is a Runtime of the tests: it loads what sessions hands out.
type runtime0 struct {
	load func(r Release) (Session, error)
}

func (r *runtime0) Info() RuntimeInfo { return RuntimeInfo{Name: "test"} }
func (r *runtime0) Load(_ context.Context, rel Release) (Session, error) {
	return r.load(rel)
}

// session0 answers with the number of its release and knows when it is used
// after it was closed.
type session0 struct {
	answer  int64
	running atomic.Int64
	closed  atomic.Int64
	before  func(in []Tensor) error // called within every run
	misused atomic.Bool
}

func (s *session0) Provider() string { return "test" }

func (s *session0) Run(_ context.Context, rows int, in, out []Tensor) error {
	s.running.Add(1)
	defer s.running.Add(-1)
	if s.closed.Load() > 0 {
		s.misused.Store(true)
	}
	if s.before != nil {
		if err := s.before(in); err != nil {
			return err
		}
	}
	out[0].FitShape(rows)
	for i := range Fit[int64](&out[0], rows) {
		out[0].Data.([]int64)[i] = s.answer
	}
	return nil
}

func (s *session0) Close() error {
	if s.running.Load() > 0 {
		s.misused.Store(true)
	}
	s.closed.Add(1)
	return nil
}

func testRelease(n int) Release {
	m := &release.Manifest{
		Model: "m", Version: fmt.Sprintf("v%d", n), Variants: []release.Variant{{Name: "fp32"}},
		Schema: release.Schema{
			Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 2}}},
			Outputs: []release.Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{-1}}},
		},
	}
	return Release{Digest: release.DigestOf([]byte{byte(n)}), Manifest: m, Dir: "/nowhere"}
}

func rowsOf(n int) []Tensor {
	return []Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{int64(n), 2}, Data: make([]float32, 2*n)}}
}

// counts is an Observer that adds up.
type counts struct {
	mu                  sync.Mutex // guards all fields
	rows, failed, calls int
	last                Call
}

func (c *counts) Served(call *Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if call.Err != nil {
		c.failed += call.Rows
	} else {
		c.rows += call.Rows
	}
	c.last = *call
}

// one is an engine with one session.
func one(t *testing.T, s *session0, cfg Config) *Engine {
	t.Helper()
	e := New(&runtime0{load: func(Release) (Session, error) { return s, nil }}, cfg)
	if err := e.Activate(t.Context(), testRelease(1)); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSwapUnderLoad(t *testing.T) {
	var mu sync.Mutex
	var sessions []*session0
	rt := &runtime0{load: func(r Release) (Session, error) {
		var n int64
		fmt.Sscanf(r.Manifest.Version, "v%d", &n)
		s := &session0{answer: n}
		mu.Lock()
		defer mu.Unlock()
		sessions = append(sessions, s)
		return s, nil
	}}
	seen := &counts{}
	e := New(rt, Config{Observer: seen, Limits: Limits{Queue: 1000}})
	if err := e.Activate(t.Context(), testRelease(0)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var asked atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := e.Infer(context.Background(), &Request{Model: "m", Inputs: rowsOf(3)})
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				asked.Add(3)
				if got := fmt.Sprintf("v%d", resp.Outputs[0].Data.([]int64)[0]); got != resp.Version {
					t.Errorf("release %s answered for %s", got, resp.Version)
				}
			}
		})
	}
	for n := 1; n <= 200; n++ {
		if err := e.Activate(t.Context(), testRelease(n)); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(sessions) != 201 {
		t.Errorf("%d sessions, want 201", len(sessions))
	}
	for i, s := range sessions {
		if s.closed.Load() != 1 || s.misused.Load() {
			t.Errorf("session %d: closed %d times, used after or during close: %v", i, s.closed.Load(), s.misused.Load())
		}
	}
	if seen.rows != int(asked.Load()) || seen.failed != 0 {
		t.Errorf("observer saw %d rows and %d failed, callers %d", seen.rows, seen.failed, asked.Load())
	}
}

func TestFailedActivationKeepsTheOld(t *testing.T) {
	broken := errors.New("broken")
	good := &session0{answer: 1}
	bad := &session0{before: func([]Tensor) error { return broken }}
	rt := &runtime0{load: func(r Release) (Session, error) {
		switch r.Manifest.Version {
		case "v1":
			return good, nil
		case "v2":
			return nil, broken
		}
		return bad, nil
	}}
	e := New(rt, Config{})
	defer e.Close(t.Context())
	if err := e.Activate(t.Context(), testRelease(1)); err != nil {
		t.Fatal(err)
	}
	none := testRelease(4)
	none.Manifest = nil
	wrongVariant := testRelease(5)
	wrongVariant.Variant = "int8"
	for name, r := range map[string]Release{"load": testRelease(2), "warm": testRelease(3), "manifest": none, "variant": wrongVariant} {
		if err := e.Activate(t.Context(), r); err == nil {
			t.Errorf("%s: activated", name)
		}
	}
	if bad.closed.Load() != 1 {
		t.Errorf("the session that could not be warmed was closed %d times", bad.closed.Load())
	}
	resp, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)})
	if err != nil || resp.Version != "v1" {
		t.Errorf("after failed activations: %+v, %v", resp, err)
	}
}

// A load that hangs takes nothing else with it: its model and others can be
// activated, and the session that comes in the end never serves.
func TestHungLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late, release := &session0{answer: 1}, make(chan struct{})
		e := New(&runtime0{load: func(r Release) (Session, error) {
			if r.Digest == testRelease(1).Digest {
				<-release
				return late, nil
			}
			return &session0{answer: 2}, nil
		}}, Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- e.Activate(ctx, testRelease(1)) }()
		synctest.Wait()
		other := testRelease(3)
		other.Manifest.Model = "other"
		if err := e.Activate(t.Context(), other); err != nil {
			t.Errorf("another model beside the hung load: %v", err)
		}
		if err := <-ended; !errors.Is(err, ErrLoading) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want ErrLoading and the deadline", err)
		}
		if err := e.Activate(t.Context(), testRelease(2)); err != nil {
			t.Errorf("another release of the model beside the hung load: %v", err)
		}
		closing, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := e.Close(closing); err == nil {
			t.Error("the engine closed although the library is still loading")
		}
		close(release)
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if late.closed.Load() != 1 || late.misused.Load() {
			t.Errorf("the late session was closed %d times", late.closed.Load())
		}
	})
}

func TestActivateTwiceIsOnce(t *testing.T) {
	loads := 0
	e := New(&runtime0{load: func(Release) (Session, error) { loads++; return &session0{}, nil }}, Config{})
	defer e.Close(t.Context())
	for range 3 {
		if err := e.Activate(t.Context(), testRelease(1)); err != nil {
			t.Fatal(err)
		}
	}
	if loads != 1 {
		t.Errorf("loaded %d times", loads)
	}
}

func TestHungRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release1 := make(chan struct{})
		s := &session0{answer: 1}
		hung := make(chan string, 10)
		seen := &counts{}
		e := one(t, s, Config{
			Limits: Limits{Concurrency: 1}, Observer: seen,
			Hung: func(model string, d release.Digest) { hung <- model + " " + d.Short() },
		})
		s.before = func([]Tensor) error { <-release1; return nil }
		start := time.Now()
		if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(4)}); !errors.Is(err, ErrHung) {
			t.Errorf("error %v, want %v", err, ErrHung)
		}
		if took := time.Since(start); took != MinDeadline {
			t.Errorf("answered after %v, want %v", took, MinDeadline)
		}
		if got, want := <-hung, "m "+testRelease(1).Digest.Short(); got != want {
			t.Errorf("hook was told %q, want %q", got, want)
		}
		if seen.failed != 4 || seen.calls != 1 {
			t.Errorf("observer saw %d failed rows in %d calls, want 4 in 1", seen.failed, seen.calls)
		}
		if st := e.Status()[0]; st.Hung != 1 || st.Running != 1 || st.Failed != 1 {
			t.Errorf("status %+v", st)
		}
		// The only place is taken: the next call waits and is turned away.
		if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)}); !errors.Is(err, ErrBusy) {
			t.Errorf("error %v, want %v", err, ErrBusy)
		}
		close(release1)
		synctest.Wait()
		if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)}); err != nil {
			t.Errorf("after the run ended: %v", err)
		}
		if st := e.Status()[0]; st.Hung != 0 || st.Running != 0 {
			t.Errorf("status %+v", st)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.closed.Load() != 1 || s.misused.Load() {
			t.Errorf("closed %d times, misused %v", s.closed.Load(), s.misused.Load())
		}
	})
}

// TestHungRunOfReplacedRelease swaps while a run hangs: the old session must
// stay open until the run ends.
func TestHungRunOfReplacedRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		old, next := &session0{answer: 1}, &session0{answer: 2}
		e := New(&runtime0{load: func(r Release) (Session, error) {
			if r.Manifest.Version == "v1" {
				return old, nil
			}
			return next, nil
		}}, Config{Limits: Limits{Concurrency: 2}})
		if err := e.Activate(t.Context(), testRelease(1)); err != nil {
			t.Fatal(err)
		}
		old.before = func([]Tensor) error { <-end; return nil }
		if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)}); !errors.Is(err, ErrHung) {
			t.Fatalf("error %v, want %v", err, ErrHung)
		}
		if err := e.Activate(t.Context(), testRelease(2)); err != nil {
			t.Fatal(err)
		}
		resp, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)})
		if err != nil || resp.Version != "v2" {
			t.Errorf("after the swap: %+v, %v", resp, err)
		}
		if old.closed.Load() != 0 {
			t.Error("a session was closed under a run")
		}
		close(end)
		synctest.Wait()
		if old.closed.Load() != 1 || old.misused.Load() {
			t.Errorf("closed %d times, misused %v", old.closed.Load(), old.misused.Load())
		}
		e.Close(t.Context())
	})
}

func TestDeadlineFollowsTrial(t *testing.T) {
	for _, c := range []struct {
		p95  time.Duration
		rows int
		want time.Duration
	}{{0, 1, MinDeadline}, {time.Millisecond, 1, MinDeadline}, {time.Second, 1, 20 * time.Second}, {time.Second, 3, time.Minute}} {
		s := &served{release: Release{P95: c.p95}}
		if got := s.deadline(c.rows); got != c.want {
			t.Errorf("p95 %v, %d rows: %v, want %v", c.p95, c.rows, got, c.want)
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &session0{}
		seen := &counts{}
		e := one(t, s, Config{Limits: Limits{Concurrency: 1, Queue: 3}, Observer: seen})
		s.before = func([]Tensor) error { <-gate; return nil }
		answers := make(chan error, 10)
		for range 6 {
			go func() {
				_, err := e.Infer(context.Background(), &Request{Model: "m", Inputs: rowsOf(2)})
				answers <- err
			}()
		}
		synctest.Wait()
		if st := e.Status()[0]; st.Running != 1 || st.Waiting != 3 {
			t.Errorf("running %d, waiting %d; want 1 and 3", st.Running, st.Waiting)
		}
		for range 2 {
			if err := <-answers; !errors.Is(err, ErrBusy) {
				t.Errorf("error %v, want %v", err, ErrBusy)
			}
		}
		close(gate)
		for range 4 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if seen.rows != 8 || seen.failed != 4 {
			t.Errorf("observer saw %d rows and %d failed, want 8 and 4", seen.rows, seen.failed)
		}
		e.Close(t.Context())
	})
}

// TestRefusedRequestIsNoEvidence asks for what does not fit: whatever such a
// request claims of itself, nothing of it counts against the release.
func TestRefusedRequestIsNoEvidence(t *testing.T) {
	seen := &counts{}
	e := one(t, &session0{}, Config{Observer: seen})
	defer e.Close(t.Context())
	empty := []Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{8192, 0}, Data: []float32{}}}
	for name, req := range map[string]*Request{
		"claimed rows": {Model: "m", Inputs: empty},
		"no input":     {Model: "m"},
		"no such one":  {Model: "m", Inputs: rowsOf(3), Outputs: []string{"score"}},
		"long id":      {Model: "m", Inputs: rowsOf(3), ID: strings.Repeat("i", MaxID+1)},
	} {
		if _, err := e.Infer(t.Context(), req); err == nil {
			t.Errorf("%s: answered", name)
		}
	}
	if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(3)}); err != nil {
		t.Fatal(err)
	}
	if seen.calls != 1 || seen.rows != 3 || seen.failed != 0 {
		t.Errorf("observer saw %d calls, %d rows and %d failed, want 1, 3 and 0", seen.calls, seen.rows, seen.failed)
	}
	if st := e.Status()[0]; st.Refused != 4 || st.Failed != 0 || st.Calls != 1 {
		t.Errorf("status has %d refused, %d failed and %d answered, want 4, 0 and 1", st.Refused, st.Failed, st.Calls)
	}
	if err := e.Remove(t.Context(), "m"); err != nil { // every call gave its reference back
		t.Error(err)
	}
}

func TestCallerGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &session0{}
		e := one(t, s, Config{Limits: Limits{Concurrency: 1}})
		s.before = func([]Tensor) error { <-gate; return nil }
		go e.Infer(context.Background(), &Request{Model: "m", Inputs: rowsOf(1)})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Infer(ctx, &Request{Model: "m", Inputs: rowsOf(1)}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		close(gate)
		e.Close(t.Context())
	})
}

func TestPanicIsAnError(t *testing.T) {
	s := &session0{}
	e := one(t, s, Config{Limits: Limits{Concurrency: 1}})
	defer e.Close(t.Context())
	s.before = func([]Tensor) error { panic("index out of range") }
	if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)}); !errors.Is(err, errPanic) {
		t.Errorf("error %v, want %v", err, errPanic)
	}
	s.before = nil
	if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestRemoveWaitsForTheLastCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &session0{}
		e := one(t, s, Config{})
		s.before = func([]Tensor) error { <-gate; return nil }
		answer := make(chan error, 1)
		go func() {
			_, err := e.Infer(context.Background(), &Request{Model: "m", Inputs: rowsOf(1)})
			answer <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := e.Remove(ctx, "m"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("remove under a call: %v", err)
		}
		if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)}); !errors.Is(err, ErrUnknownModel) {
			t.Errorf("call of a removed model: %v", err)
		}
		close(gate)
		if err := <-answer; err != nil {
			t.Errorf("the call in progress: %v", err)
		}
		synctest.Wait()
		if s.closed.Load() != 1 {
			t.Error("the session was not closed")
		}
		if err := e.Remove(t.Context(), "m"); err != nil {
			t.Errorf("remove again: %v", err)
		}
		if err := e.Activate(t.Context(), testRelease(2)); err != nil {
			t.Errorf("activate after remove: %v", err)
		}
		e.Close(t.Context())
	})
}

func TestClosedEngine(t *testing.T) {
	e := one(t, &session0{}, Config{})
	for range 2 {
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Activate(t.Context(), testRelease(2)); !errors.Is(err, ErrClosed) {
		t.Errorf("activate: %v, want %v", err, ErrClosed)
	}
	if _, err := e.Infer(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)}); err == nil {
		t.Error("a closed engine answered")
	}
	if st := e.Status(); len(st) != 0 {
		t.Errorf("status %+v", st)
	}
}

// TestWarmsWithGoldenRow checks that the first run sees real values.
func TestWarmsWithGoldenRow(t *testing.T) {
	g := &release.Golden{
		Rows:    2,
		Inputs:  []release.Values{{Name: "X", Shape: []int64{2, 2}, Data: []float64{7, 8, 9, 10}}},
		Outputs: []release.Expected{{Values: release.Values{Name: "label", Shape: []int64{2}, Data: []float64{0, 1}}}},
	}
	raw, err := g.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r := testRelease(1)
	r.Dir = t.TempDir()
	r.Manifest.Golden = release.File{Name: "golden.json", Digest: release.DigestOf(raw), Size: int64(len(raw))}
	if err := os.WriteFile(filepath.Join(r.Dir, r.Manifest.Golden.Digest.String()), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	var got []Tensor
	s := &session0{before: func(in []Tensor) error { got = in; return nil }}
	e := New(&runtime0{load: func(Release) (Session, error) { return s, nil }}, Config{})
	defer e.Close(t.Context())
	if err := e.Activate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if want := "[{X FP32 [1 2] [7 8]}]"; fmt.Sprint(got) != want {
		t.Errorf("warmed with %v, want %s", got, want)
	}
}
