package validation

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/vedette-edge/vedette/protocol/evaluation"
)

// full asks for the long variant of a simulation.
func full() bool { return os.Getenv("VEDETTE_FULL") != "" }

// A version that is better by exactly the margin must pass at most as often as
// the level says: 5%, and what chance makes of so many trials.
func TestChampionBoundKeepsItsLevel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	trials := 4000
	if full() {
		trials = 100_000
	}
	for _, c := range []struct {
		name       string
		n          int
		gain, lose float64 // probabilities that one alone is right
	}{
		{"equal, few rows", 100, 0.05, 0.05},
		{"equal, rarely apart", 500, 0.005, 0.005},
		{"better by a point", 1000, 0.04, 0.03},
		{"better by two", 300, 0.05, 0.03},
		{"worse by a point", 1000, 0.02, 0.03},
	} {
		wrong := 0
		for range trials {
			var b, l float64
			for range c.n {
				switch u := rng.Float64(); {
				case u < c.gain:
					b++
				case u < c.gain+c.lose:
					l++
				}
			}
			if lower, _ := tango(b, l, float64(c.n), quantile(0.95)); lower >= c.gain-c.lose {
				wrong++
			}
		}
		share := float64(wrong) / float64(trials)
		t.Logf("%-20s n %4d: passes wrongly %.4f of the time, nominal 0.05", c.name, c.n, share)
		if share > 0.062 {
			t.Errorf("%s: a version passes wrongly %.4f of the time, nominal 0.05", c.name, share)
		}
	}
}

// The same for the bootstrap of macro F1, where no closed form is known.
func TestBootstrapBoundKeepsItsLevel(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	trials, n := 50, 200
	if full() {
		trials = 4000
	}
	said := func(truth int32) int32 {
		if rng.Float64() < 0.85 {
			return truth
		}
		return rng.Int32N(3)
	}
	labels := []string{"a", "b", "c"}
	wrong := 0
	for range trials {
		a := &evaluation.Table{Header: evaluation.Header{Task: evaluation.Classification, Classes: labels}, Labels: labels, Rows: make([]int64, n)}
		b := *a
		for range n {
			truth := rng.Int32N(3)
			a.Truth = append(a.Truth, truth)
			a.Predicted, b.Predicted = append(a.Predicted, said(truth)), append(b.Predicted, said(truth))
		}
		b.Truth = a.Truth
		e, err := contrast(metric{name: macroF1}, a, &b, 0.05)
		if err != nil {
			t.Fatal(err)
		}
		if e.lower >= 0 {
			wrong++
		}
	}
	share := float64(wrong) / float64(trials)
	t.Logf("macro F1, n %d: passes wrongly %.4f of the time, nominal 0.05", n, share)
	if limit := map[bool]float64{false: 0.12, true: 0.065}[full()]; share > limit {
		t.Errorf("two equal versions: one passes wrongly %.4f of the time, nominal 0.05", share)
	}
}

// A difference that point estimates would wave through is not enough.
func TestLuckDoesNotPass(t *testing.T) {
	lower, _ := tango(6, 2, 1000, quantile(0.95)) // four rows of a thousand better
	if lower >= 0 {
		t.Errorf("bound %.5f of four lucky rows is not below 0", lower)
	}
	if lower, _ = tango(60, 20, 1000, quantile(0.95)); lower < 0.02 {
		t.Errorf("bound %.5f of forty rows better is below 0.02", lower)
	}
}
