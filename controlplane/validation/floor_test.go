package validation

import "testing"

func TestAccuracyFloorOfGates(t *testing.T) {
	for text, want := range map[string]float64{
		"gates:\n- {kind: metric, metric: accuracy, at_least: 0.9}\n":                                                                       0.9,
		"gates:\n- {name: a, kind: metric, metric: accuracy, at_least: 0.8}\n- {name: b, kind: metric, metric: accuracy, at_least: 0.85}\n": 0.85,
		"gates:\n- {kind: metric, metric: macro_f1, at_least: 0.9}\n- {kind: smoke}\n":                                                      0,
	} {
		p, err := ParsePolicy([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := p.accuracyFloor(); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}
