package rollout

import (
	"math"
	"math/rand/v2"
	"testing"
)

// binomials are the chances of 0 to n hits.
func binomials(n int, p float64) []float64 {
	out := make([]float64, n+1)
	lg := func(v int) float64 { l, _ := math.Lgamma(float64(v + 1)); return l }
	for k := range out {
		out[k] = math.Exp(lg(n) - lg(k) - lg(n-k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	}
	return out
}

// The expectation of an e-value is at most 1 while the hypothesis is true, 1 at
// its boundary, and larger when it is false. Here it is summed, not sampled.
func TestEValuesHaveAnExpectationOfOne(t *testing.T) {
	for _, n := range []int{1, 2, 7, 40, 300} {
		mean := func(p float64, e func(x int) float64) float64 {
			sum := 0.0
			for x, chance := range binomials(n, p) {
				sum += chance * e(x)
			}
			return sum
		}
		sign := func(x int) float64 { return signE(x, n-x) }
		if got := mean(0.5, sign); math.Abs(got-1) > 1e-9 {
			t.Errorf("signE of %d: mean %v at one half, want 1", n, got)
		}
		if got := mean(0.4, sign); got > 1 {
			t.Errorf("signE of %d: mean %v below one half, want at most 1", n, got)
		}
		for _, p0 := range []float64{0.001, 0.01, 0.2, 0.7, 0.98} {
			more := func(x int) float64 { return moreE(uint64(x), uint64(n), p0) }
			less := func(x int) float64 { return lessE(uint64(x), uint64(n), p0) }
			least := 1 - 1e-9
			if n == 300 {
				least = 0 // the cap cuts off what hardly ever happens
			}
			if got := mean(p0, more); got > 1+1e-9 || got < least {
				t.Errorf("moreE of %d at %v: mean %v, want 1", n, p0, got)
			}
			if got := mean(p0, less); got > 1+1e-9 || got < least {
				t.Errorf("lessE of %d at %v: mean %v, want 1", n, p0, got)
			}
			if got := mean(p0/2, more); got > 1 {
				t.Errorf("moreE of %d: mean %v where the share is half of %v, want at most 1", n, got, p0)
			}
			if got := mean((1+p0)/2, less); got > 1 {
				t.Errorf("lessE of %d: mean %v where the share is above %v, want at most 1", n, got, p0)
			}
		}
	}
}

// Rows may have chances of their own, as long as their mean obeys.
func TestEValuesOfUnlikeRows(t *testing.T) {
	chances := []float64{0, 0.3, 0.1, 0, 0.05, 0.15} // mean 0.1
	var more, less float64
	for outcome := range 1 << len(chances) {
		chance, bad := 1.0, uint64(0)
		for i, p := range chances {
			if outcome>>i&1 == 1 {
				chance, bad = chance*p, bad+1
			} else {
				chance *= 1 - p
			}
		}
		more += chance * moreE(bad, uint64(len(chances)), 0.1)
		less += chance * lessE(bad, uint64(len(chances)), 0.1)
	}
	if more > 1+1e-9 || less > 1+1e-9 {
		t.Errorf("means %v and %v, want at most 1", more, less)
	}
}

// What is absurd, empty or huge gives a number that the ledger can hold.
func TestEValuesStayFinite(t *testing.T) {
	counts := []uint64{0, 1, 20, 1 << 40, math.MaxUint64}
	shares := []float64{0, 1e-300, 0.01, 0.5, 0.99, 1}
	check := func(name string, e float64) {
		t.Helper()
		if math.IsNaN(e) || e < 0 || e > maxE {
			t.Errorf("%s is %v", name, e)
		}
	}
	for _, x := range counts {
		for _, n := range counts {
			for _, p := range shares {
				check("moreE", moreE(x, n, p))
				check("lessE", lessE(x, n, p))
			}
			check("mostShare", mostShare(float64(min(x, n)), float64(n), 7))
			check("signE", signE(int(x>>2), int(n>>2)))
		}
	}
	for name, c := range map[string][2]float64{
		"nothing seen, signs":       {signE(0, 0), 1},
		"nothing seen, more":        {moreE(0, 0, 0.1), 1},
		"nothing seen, less":        {lessE(0, 0, 0.1), 1},
		"no row may be bad, one is": {moreE(1, 9, 0), maxE},
		"no limit to break":         {moreE(9, 9, 1), 1},
		"nothing can be below zero": {lessE(0, 9, 0), 1},
		"all bad would be allowed":  {lessE(0, 9, 1), maxE},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: got %v, want %v", name, c[0], c[1])
		}
	}
}

// The bound holds as often as it says, and is not much wider than it must be.
func TestMostShare(t *testing.T) {
	const surprise = 3 // wrong in at most 5 % of the cases
	for _, n := range []int{1, 20, 300} {
		for _, p := range []float64{0.002, 0.05, 0.5, 0.95} {
			wrong := 0.0
			for x, chance := range binomials(n, p) {
				if mostShare(float64(x), float64(n), surprise) < p {
					wrong += chance
				}
			}
			if wrong > math.Exp(-surprise) {
				t.Errorf("%v of %d rows: the bound is below in %.3f of the cases, want at most %.3f", p, n, wrong, math.Exp(-surprise))
			}
		}
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		n := float64(1 + rnd.IntN(5000))
		x := math.Floor(n * rnd.Float64() * rnd.Float64())
		q := mostShare(x, n, surprise)
		if q == 1 || x >= n {
			continue
		}
		if at := n * entropy(x/n, q); at < surprise-1e-6 || at > surprise+0.2 {
			t.Errorf("%v of %v rows: bound %v has %v surprise, want 3", x, n, q, at)
		}
	}
}
