package tracking

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// Beyond its quota the store says so, whatever it held when it was opened, and is
// read as before.
func TestQuota(t *testing.T) {
	j := &memory{}
	open := func(most uint64) *Store {
		t.Helper()
		s, err := start(t.Context(), j, Config{MaxBytes: most})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(context.Background()) })
		return s
	}
	s := open(64 << 10)
	r, err := s.CreateRun(t.Context(), Run{})
	if err != nil {
		t.Fatal(err)
	}
	fill := func(s *Store) (n int, err error) {
		for n = 0; err == nil && n < 100; n++ {
			err = s.Log(t.Context(), r.ID, Batch{Tags: map[string]string{"x": strings.Repeat("x", 4000+n)}})
		}
		return n - 1, err
	}
	n, err := fill(s)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != Exhausted || !strings.Contains(e.Message, "65536 bytes") || n < 10 || n > 16 {
		t.Fatalf("after %d: got %v", n, err)
	}
	if used, err := j.bytes(t.Context()); err != nil || used > 64<<10 {
		t.Errorf("the journal has %d bytes, %v", used, err)
	}
	if got, err := s.Run(r.ID); err != nil || len(got.Tags["x"]) != 3999+n {
		t.Errorf("got %d characters, %v", len(got.Tags["x"]), err)
	}
	if n, err := fill(open(64 << 10)); n > 1 || err == nil {
		t.Errorf("opened again: %d more, %v", n, err)
	}
	if n, err := fill(open(128 << 10)); n < 10 || err == nil {
		t.Errorf("with more room: %d more, %v", n, err)
	}
}
