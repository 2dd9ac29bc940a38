package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// What a trial measured on every provider is kept, as much of it as fits.
func TestTried(t *testing.T) {
	m := &protocol.ModelState{Model: "digits", Trial: &protocol.Trial{Tried: []*protocol.Tried{
		{Variant: "fp32", Provider: "CPUExecutionProvider", P95Us: 40, PeakBytes: 5, GoldenWorst: 1e-7, Chosen: true},
		{Variant: "fp32", Provider: "CUDAExecutionProvider", Code: "crash", Message: strings.Repeat("é", 200)},
	}}}
	got := modelOf(m, time.Now()).Trial.Tried
	if len(got) != 2 || got[0] != (Tried{Variant: "fp32", Provider: "CPUExecutionProvider", P95US: 40, PeakBytes: 5, GoldenWorst: 1e-7, Chosen: true}) {
		t.Fatalf("got %+v", got)
	}
	if got[1].Code != "crash" || len(got[1].Message) != maxMessage+len("…") || !strings.HasSuffix(got[1].Message, "é…") {
		t.Errorf("got %+v, want a shorter message", got[1])
	}
	for range 100 {
		m.Trial.Tried = append(m.Trial.Tried, m.Trial.Tried[0])
	}
	if got = modelOf(m, time.Now()).Trial.Tried; len(got) != maxTried {
		t.Errorf("%d of 102 are kept, want %d", len(got), maxTried)
	}
}
