package infer

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// TestAbandonedRun hangs a run on its caller's goroutine: everybody else is told
// at the deadline, once, and the caller when the run ends after all.
func TestAbandonedRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, hung, seen := make(chan struct{}), make(chan string, 10), &counts{}
		s := &session0{answer: 1}
		e := one(t, s, Config{
			Limits: Limits{Concurrency: 1}, Observer: seen,
			Hung: func(model string, d release.Digest) { hung <- model + " " + d.Short() },
		})
		s.before = func([]Tensor) error { <-gate; return nil }
		start, abandoned := time.Now(), make(chan time.Duration, 10)
		req := &Request{Model: "m", Inputs: rowsOf(4), Abandon: func() { abandoned <- time.Since(start) }}
		ended := make(chan error, 1)
		go func() { ended <- e.InferInto(t.Context(), req, &Response{}) }()
		if took := <-abandoned; took != MinDeadline {
			t.Errorf("abandoned after %v, want %v", took, MinDeadline)
		}
		if got, want := <-hung, "m "+testRelease(1).Digest.Short(); got != want {
			t.Errorf("hook was told %q, want %q", got, want)
		}
		synctest.Wait()
		if st := e.Status()[0]; st.Hung != 1 || st.Running != 1 || st.Failed != 1 || seen.failed != 4 {
			t.Errorf("status %+v, observer saw %d failed rows", st, seen.failed)
		}
		if err := e.InferInto(t.Context(), &Request{Model: "m", Inputs: rowsOf(1)}, &Response{}); !errors.Is(err, ErrBusy) {
			t.Errorf("the next call: %v, want %v", err, ErrBusy)
		}
		close(gate)
		if err := <-ended; !errors.Is(err, ErrHung) {
			t.Errorf("the caller: %v, want %v", err, ErrHung)
		}
		s.before = nil
		if err := e.InferInto(t.Context(), req, &Response{}); err != nil {
			t.Errorf("after the run ended: %v", err)
		}
		if st := e.Status()[0]; st.Hung != 0 || st.Running != 0 || st.Failed != 2 || st.Calls != 1 || len(abandoned) != 0 || len(hung) != 0 {
			t.Errorf("status %+v, abandoned %d more times, told %d", st, len(abandoned), len(hung))
		}
		if err := e.Close(t.Context()); err != nil || s.closed.Load() != 1 || s.misused.Load() {
			t.Errorf("close: %v; session closed %d times, misused %v", err, s.closed.Load(), s.misused.Load())
		}
	})
}

// TestNoRunIsAbandonedInVain runs many calls that end just around the deadline
// of another: each is answered or abandoned, never both, never neither.
func TestNoRunIsAbandonedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &session0{answer: 1}
		e := one(t, s, Config{Limits: Limits{Concurrency: 1}})
		for i := range 30 {
			took := MinDeadline + time.Duration(i%3-1)*time.Nanosecond
			s.before = func([]Tensor) error { time.Sleep(took); return nil }
			abandoned := 0
			err := e.InferInto(t.Context(), &Request{Model: "m", Inputs: rowsOf(1), Abandon: func() { abandoned++ }}, &Response{})
			if (err != nil) != (abandoned == 1) || abandoned > 1 || took < MinDeadline && err != nil || took > MinDeadline && err == nil {
				t.Errorf("a run of %v: %v, abandoned %d times", took, err, abandoned)
			}
		}
		if st := e.Status()[0]; st.Hung != 0 || st.Calls+st.Failed != 30 {
			t.Errorf("status %+v", st)
		}
		e.Close(t.Context())
	})
}

// BenchmarkInferInto is the engine's own cost of a call.
func BenchmarkInferInto(b *testing.B) {
	e := New(&runtime0{load: func(Release) (Session, error) { return &session0{}, nil }}, Config{})
	if err := e.Activate(b.Context(), testRelease(1)); err != nil {
		b.Fatal(err)
	}
	for name, abandon := range map[string]func(){"another goroutine": nil, "same goroutine": func() {}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			req, resp := &Request{Model: "m", ID: "i", Inputs: rowsOf(1), Abandon: abandon}, &Response{}
			for b.Loop() {
				if err := e.InferInto(b.Context(), req, resp); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if err := e.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
