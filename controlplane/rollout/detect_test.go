package rollout

import (
	"math"
	"testing"
)

// The figures follow from the mixture: with 1/alpha = 80, nine devices that are
// all worse are worth 0.25·1.9⁹ + … ≥ 80, eight are not.
func TestDetect(t *testing.T) {
	const alpha = 0.0125
	latency := GateSpec{Kind: Latency, Limit: new(0.5)}
	if _, ok := detect(latency, 8, 1000, 0.1, alpha); ok {
		t.Error("eight devices see a rise of latency, want nine to be needed")
	}
	nine, ok := detect(latency, 9, 1000, 0.1, alpha)
	many, _ := detect(latency, 1000, 1000, 0.1, alpha)
	// All of nine with a chance of 0.8: each with 0.9755, which is 1.969 sd above the limit.
	if want := math.Exp(math.Log(1.5)+0.1969) - 1; !ok || math.Abs(nine-want) > 1e-3 {
		t.Errorf("nine devices see %v, want %v", nine, want)
	}
	if many < 0.5 || many > 0.54 {
		t.Errorf("1000 devices see %v, want hardly more than the limit 0.5", many)
	}
	accuracy := GateSpec{Kind: Accuracy, Limit: new(0.02)}
	if got, ok := detect(accuracy, 100, 0, 0, alpha); !ok || got != 0.02 {
		t.Errorf("devices that do not differ see %v, want the limit", got)
	}
}

// One device answers for its own errors, and only with rows.
func TestDetectErrorsByRows(t *testing.T) {
	g := GateSpec{Kind: Errors, Limit: new(0.01)}
	if _, ok := detect(g, 1, 0, 0, 0.0125); ok {
		t.Error("one device without rows sees something")
	}
	few, ok := detect(g, 1, 100, 0, 0.0125)
	if !ok || few < 0.05 || few > 0.2 {
		t.Errorf("100 rows see a share of %v, want about a tenth", few)
	}
	if more, _ := detect(g, 1, 10_000, 0, 0.0125); more >= few/3 || more < 0.01 {
		t.Errorf("10,000 rows see %v, want much less than %v", more, few)
	}
}
