package trial

import (
	"testing"
	"time"
)

// Another provider has to be clearly faster than the CPU.
func TestBest(t *testing.T) {
	verdict := func(provider string, p95 time.Duration) Verdict {
		return Verdict{OK: p95 > 0, Provider: provider, P95: p95}
	}
	for name, tt := range map[string]struct {
		verdicts []Verdict
		want     int // index, −1 for none
	}{
		"nothing passed":             {[]Verdict{verdict("CPU", 0), verdict("GPU", 0)}, -1},
		"the CPU alone":              {[]Verdict{verdict("GPU", 0), verdict("CPU", 90)}, 1},
		"another alone":              {[]Verdict{verdict("CPU", 0), verdict("GPU", 900)}, 1},
		"clearly faster":             {[]Verdict{verdict("CPU", 1000), verdict("GPU", 899)}, 1},
		"hardly faster":              {[]Verdict{verdict("CPU", 1000), verdict("GPU", 901)}, 0},
		"the quicker variant counts": {[]Verdict{verdict("CPU", 1000), verdict("CPU", 500), verdict("GPU", 800)}, 1},
		"the quickest of others":     {[]Verdict{verdict("CPUExecutionProvider", 1000), verdict("GPU", 800), verdict("NPU", 700)}, 2},
		"of equals the first":        {[]Verdict{verdict("CPU", 500), verdict("", 500)}, 0},
	} {
		got := (&board{verdicts: tt.verdicts}).best()
		switch {
		case tt.want < 0 && got != nil:
			t.Errorf("%s: got %v, want none", name, *got)
		case tt.want >= 0 && got != &tt.verdicts[tt.want]:
			t.Errorf("%s: got %v, want %v", name, got, tt.verdicts[tt.want])
		}
	}
}
