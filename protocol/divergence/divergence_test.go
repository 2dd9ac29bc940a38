package divergence

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/vedette-edge/vedette/protocol/sketch"
)

// draw is one multinomial sample.
func draw(rng *rand.Rand, shares []float64, n int) []float64 {
	out := make([]float64, len(shares))
	left, rest := float64(n), 1.0
	for i, s := range shares {
		out[i] = left
		if p := s / rest; p < 1-1e-9 && left > 0 {
			out[i] = distuv.Binomial{N: left, P: p, Src: rng}.Rand()
		}
		left -= out[i]
		rest -= s
	}
	return out
}

func even(bins int) []float64 {
	s := make([]float64, bins)
	for i := range s {
		s[i] = 1 / float64(bins)
	}
	return s
}

func TestKnownDistances(t *testing.T) {
	s := cells{p: []float64{500, 500}, q: []float64{250, 750}, ordered: 2, n: 1000, m: 1000}.score()
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"PSI", s.PSI, 0.25 * math.Log(3)}, // 0.25·ln(0.75/0.5) − 0.25·ln(0.25/0.5), pseudo-counts aside
		{"JS", s.JS, math.Sqrt(0.048795)},  // entropy of (3/8, 5/8) less the mean of both entropies, in bits
		{"KS", s.KS, 0.25},
		{"KS up", s.KSUp, 1},
		{"L-infinity", s.LInf, 0.25},
	} {
		if math.Abs(c.got-c.want) > 2e-3 {
			t.Errorf("%s: got %.5f, want %.5f", c.name, c.got, c.want)
		}
	}
	// 2×2 homogeneity: 133.33 on one degree of freedom
	if want := (distuv.ChiSquared{K: 1}).Survival(133.333); math.Abs(math.Log(s.Chi2P/want)) > 0.01 {
		t.Errorf("chi-square p: got %g, want %g", s.Chi2P, want)
	}
}

// Under no drift PSI is (1/n+1/m)·χ²(B−1), and the tests keep their level.
func TestNoDriftKeepsTheLevel(t *testing.T) {
	const trials = 2000
	for _, c := range []struct{ n, m, bins int }{
		{1257, 500, 10}, {1257, 540, 8}, {5000, 500, 10}, {1000, 1000, 10}, {100_000, 10_000, 10}, {1257, 400, 2},
	} {
		rng := rand.New(rand.NewPCG(uint64(c.n), uint64(c.m)))
		var mean, psi, chi float64
		for range trials {
			s := cells{p: draw(rng, even(c.bins), c.n), q: draw(rng, even(c.bins), c.m), n: float64(c.n), m: float64(c.m), ordered: c.bins}.score()
			mean += s.PSI / trials
			if s.P < 0.05 {
				psi++
			}
			if s.Chi2P < 0.05 {
				chi++
			}
		}
		want := (1/float64(c.n) + 1/float64(c.m)) * float64(c.bins-1)
		if math.Abs(mean/want-1) > 0.06 {
			t.Errorf("n=%d m=%d B=%d: mean PSI %.4f, want %.4f within 6%%", c.n, c.m, c.bins, mean, want)
		}
		// three standard errors above the nominal level are 6.5%
		if psi/trials > 0.067 || chi/trials > 0.065 {
			t.Errorf("n=%d m=%d B=%d: alarms at a nominal 5%%: PSI %.3f, χ² %.3f", c.n, c.m, c.bins, psi/trials, chi/trials)
		}
		if psi/trials < 0.03 || chi/trials < 0.03 {
			t.Errorf("n=%d m=%d B=%d: the test has no power left: PSI %.3f, χ² %.3f at a nominal 5%%", c.n, c.m, c.bins, psi/trials, chi/trials)
		}
	}
}

func TestBenjaminiHochberg(t *testing.T) {
	// the example of the paper: 15 p-values at 0.05 give four discoveries
	ps := []float64{
		0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1,
	}
	level := discoveries(slices.Clone(ps), 0.05)
	n := 0
	for _, p := range ps {
		if p <= level {
			n++
		}
	}
	if n != 4 {
		t.Errorf("discoveries: got %d at level %.4f, want 4", n, level)
	}
	if level := discoveries([]float64{0.2, 0.9}, 0.05); level != 0 {
		t.Errorf("nothing to discover: got level %v, want 0", level)
	}
}

// KS from bins is below the true distance, and within the largest bin of it.
func TestKSBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	a, b := make([]float64, 4000), make([]float64, 3000)
	for i := range a {
		a[i] = rng.NormFloat64()
	}
	for i := range b {
		b[i] = rng.NormFloat64()*1.2 + 0.3
	}
	slices.Sort(a)
	slices.Sort(b)
	truth := 0.0
	for i := range a {
		below, _ := slices.BinarySearch(b, a[i])
		truth = math.Max(truth, math.Abs(float64(i+1)/4000-float64(below)/3000))
	}
	p, q := make([]float64, 8), make([]float64, 8)
	for i := range a {
		p[i*8/4000]++
	}
	for _, v := range b {
		rank, _ := slices.BinarySearch(a, v)
		q[min(rank*8/4000, 7)]++
	}
	s := cells{p: p, q: q, ordered: 8, n: 4000, m: 3000}.score()
	if s.KS > truth+1e-3 || s.KSUp < truth-1e-3 {
		t.Errorf("bounds %.4f to %.4f do not hold the true distance %.4f", s.KS, s.KSUp, truth)
	}
}

func TestCoarsening(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts []uint64
		groups int
	}{
		{"even", []uint64{10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10}, 8},
		{"few", []uint64{1, 2, 3}, 3},
		{"one heavy", append([]uint64{10_000}, make([]uint64, 20)...), 1},
		{"heavy and light", []uint64{900, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 85}, 8},
	} {
		group, n := Coarsen(&sketch.Stream{Kind: sketch.Continuous, Counts: c.counts})
		if n > MaxBins-Reserved || c.name == "even" && n != c.groups || c.name == "few" && n != c.groups {
			t.Errorf("%s: got %d groups, want %d", c.name, n, c.groups)
		}
		for i := 1; i < len(group); i++ {
			if d := int(group[i]) - int(group[i-1]); d < 0 || d > 1 || int(group[i]) >= n {
				t.Errorf("%s: groups %v are not neighbours", c.name, group)
			}
		}
	}
	group, n := coarsenCategories([]uint64{5, 900, 3, 100, 1, 1, 1, 1, 1, 1, 1, 80})
	if n != MaxBins || group[1] != 0 || group[3] != 1 || group[11] != 2 {
		t.Errorf("categories: got %v", group)
	}
}
