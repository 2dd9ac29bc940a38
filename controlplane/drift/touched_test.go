package drift

import (
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// One device's evidence is that of Evidence, by release; who was touched is told once.
func TestTouchedDevices(t *testing.T) {
	x := fresh(t)
	x.Apply(1, hello(1, 60_000, start.UnixMilli()))
	if got := x.Touched(); len(got) > 0 {
		t.Errorf("touched by a hello, which counts nothing: got %v", got)
	}
	x.Apply(2, windowOf(1, 61_000, 65_500, &protocol.Window{Model: "m", Release: digest[:], Rows: 10, Calls: 10}))
	select {
	case <-x.Counted():
	default:
		t.Error("nobody is told that something was counted")
	}
	if got, want := x.Touched(), []string{"dev-0"}; !slices.Equal(got, want) {
		t.Errorf("touched: got %v, want %v", got, want)
	}
	if got := x.Touched(); len(got) > 0 {
		t.Errorf("touched again: got %v", got)
	}
	whole := x.Evidence("m", digest, time.Time{}, time.Time{})["dev-0"]
	got := x.EvidenceOf("dev-0", "m", time.Time{}, time.Time{})
	if e := got[digest]; len(got) != 1 || e.Rows != whole.Rows || e.Rows == 0 || e.P95 != whole.P95 {
		t.Errorf("evidence: got %+v, want %+v alone", got, whole)
	}
	for name, none := range map[string]int{
		"another model":  len(x.EvidenceOf("dev-0", "other", time.Time{}, time.Time{})),
		"another device": len(x.EvidenceOf("dev-1", "m", time.Time{}, time.Time{})),
		"later":          len(x.EvidenceOf("dev-0", "m", start.Add(time.Hour), time.Time{})),
		"before":         len(x.EvidenceOf("dev-0", "m", time.Time{}, start.Add(-time.Hour))),
	} {
		if none != 0 {
			t.Errorf("%s: got evidence of %d releases, want none", name, none)
		}
	}
	x.Forget("dev-0")
	if got, want := x.Touched(), []string{"dev-0"}; !slices.Equal(got, want) {
		t.Errorf("touched by forgetting: got %v, want %v", got, want)
	}
}
