package ingest

import (
	"math"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol"
)

// What no shadow counts is refused, so that a lying device cannot break a fold.
func TestComparisonsThatCannotBe(t *testing.T) {
	good := func() *protocol.Window {
		return &protocol.Window{Model: "m", Release: make([]byte, 32), Role: "shadow", Rows: 10, Comparison: &protocol.Comparison{
			Primary: make([]byte, 32), Rows: 9, Agreed: 9, SkippedRows: 1, Worst: 0.5,
		}}
	}
	if err := checkWindow(good()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*protocol.Window){
		"another role":           func(w *protocol.Window) { w.Role = "share" },
		"no primary":             func(w *protocol.Window) { w.Comparison.Primary = nil },
		"more agreed than rows":  func(w *protocol.Window) { w.Comparison.Agreed = 10 },
		"more compared than run": func(w *protocol.Window) { w.Rows = 8 },
		"NaN":                    func(w *protocol.Window) { w.Comparison.Worst = math.NaN() },
		"infinity":               func(w *protocol.Window) { w.Comparison.Worst = math.Inf(1) },
		"negative":               func(w *protocol.Window) { w.Comparison.Worst = -1 },
		"huge":                   func(w *protocol.Window) { w.Comparison.SkippedRows = 1 << 60 },
		"huge sketch":            func(w *protocol.Window) { w.Comparison.Latency = make([]byte, maxSketch+1) },
	} {
		w := good()
		change(w)
		if checkWindow(w) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestReportedChallengersThatCannotBe(t *testing.T) {
	report := func(c *protocol.Challenger) *protocol.Report {
		return &protocol.Report{Models: []*protocol.ModelState{{Model: "m", Challenger: c}}}
	}
	if err := checkReport(report(&protocol.Challenger{Role: "share", Share: 1000, State: &protocol.ModelState{Model: "m"}})); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*protocol.Challenger{
		"another model": {State: &protocol.ModelState{Model: "n"}},
		"nested":        {State: &protocol.ModelState{Model: "m", Challenger: &protocol.Challenger{}}},
		"digest":        {State: &protocol.ModelState{Model: "m", Active: []byte{1}}},
		"share":         {Share: 1001, State: &protocol.ModelState{Model: "m"}},
		"role":          {Role: strings.Repeat("x", 1000), State: &protocol.ModelState{Model: "m"}},
	} {
		if checkReport(report(c)) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
