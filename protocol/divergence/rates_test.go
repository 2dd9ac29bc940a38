package divergence

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/vedette-edge/vedette/protocol/sketch"
)

// long tells whether the tables are made with many trials: VEDETTE_FULL=1.
func long() bool { return os.Getenv("VEDETTE_FULL") != "" }

// trialsOf is how many samples stand behind one line of a table.
func trialsOf(short, full int) int {
	if long() {
		return full
	}
	return short
}

// normal are the shares of a normal value in bins that are even without a shift.
func normal(bins int, shift float64) []float64 {
	n, before := distuv.UnitNormal, 0.0
	shares := make([]float64, bins)
	for i := range shares {
		at := 1.0
		if i < bins-1 {
			at = n.CDF(n.Quantile(float64(i+1)/float64(bins)) - shift)
		}
		shares[i], before = at-before, at
	}
	return shares
}

// shapes are distributions over bins: those of a quantile baseline and those of
// categories, some of them rare.
var shapes = map[string][]float64{
	"even":   even(MaxBins - Reserved),
	"uneven": {0.55, 0.2, 0.1, 0.06, 0.04, 0.03, 0.01, 0.006, 0.003, 0.001},
}

// stream adds the bins of missing and other values, which hold nothing.
func stream(name string, p, q []float64) Stream {
	return Stream{Name: name, Side: sketch.Input, Ordered: true, P: append(p, 0, 0), Q: append(q, 0, 0)}
}

// tally counts findings over trials.
type tally struct {
	trials                      float64
	psi, chi2, both, ks         float64 // p-values at or below 5%
	tenth, fifth, apart, judged float64 // a fixed limit, and the rule with the defaults
}

func (y *tally) add(f FeatureScore) {
	count := func(to *float64, when bool) {
		if when {
			*to++
		}
	}
	y.trials++
	count(&y.psi, f.P <= 0.05)
	count(&y.chi2, f.Chi2P <= 0.05)
	count(&y.both, f.chance() <= 0.05)
	count(&y.ks, f.KSP <= 0.05)
	count(&y.tenth, f.PSI > 0.1)
	count(&y.fifth, f.PSI > 0.2)
	count(&y.apart, f.Apart)
	count(&y.judged, f.Enough)
}

// share writes a count as a part of all trials.
func (y *tally) share(n float64) string { return fmt.Sprintf("%.4f", n/y.trials) }

// ceiling is three standard errors above a rate.
func ceiling(rate, trials float64) float64 { return rate + 3*math.Sqrt(rate*(1-rate)/trials) }

// sizes of samples: those of a window on one device up to a fleet's day.
var sizes = []int{50, 100, 200, 500, 1000, 10_000, 100_000, 1_000_000}

// Without drift the tests that decide stay at or below their level at every size;
// the rule, which judges from 50 rows a bin on, finds nothing. A fixed limit of PSI, printed
// beside it, depends on the size of the sample alone.
func TestFalseAlarmsWithoutDrift(t *testing.T) {
	trials := trialsOf(1200, 100_000)
	var out strings.Builder
	fmt.Fprintf(&out, "%-7s %9s %9s | p ≤ 0.05 by: PSI     χ²   both     KS | fixed: PSI>0.1  PSI>0.2 | judged   rule\n", "bins", "reference", "rows")
	for _, name := range []string{"even", "uneven"} {
		for _, n := range []int{1000, 100_000} {
			for _, m := range sizes {
				y := falseAlarms(shapes[name], n, m, trials)
				fmt.Fprintf(&out, "%-7s %9d %9d |            %s %s %s %s |         %s   %s | %s %s\n", name, n, m, y.share(y.psi), y.share(y.chi2),
					y.share(y.both), y.share(y.ks), y.share(y.tenth), y.share(y.fifth), y.share(y.judged), y.share(y.apart))
				if got := y.both / y.trials; got > ceiling(0.05, y.trials) {
					t.Errorf("%s, n=%d, m=%d: alarms at a nominal 0.05: %.4f", name, n, m, got)
				}
				if got := y.ks / y.trials; got > ceiling(0.05, y.trials) {
					t.Errorf("%s, n=%d, m=%d: KS alarms at a nominal 0.05: %.4f", name, n, m, got)
				}
				if got := y.apart / y.trials; got > ceiling(DefaultAlpha, y.trials) {
					t.Errorf("%s, n=%d, m=%d: the rule alarms: %.4f, at most %v", name, n, m, got, DefaultAlpha)
				}
				if y.judged > 0 && y.both == 0 {
					t.Errorf("%s, n=%d, m=%d: nothing is ever found, so nothing was tested", name, n, m)
				}
			}
		}
	}
	t.Logf("no drift, %d samples a line\n%s", trials, &out)
}

func falseAlarms(shares []float64, n, m, trials int) *tally {
	rng := rand.New(rand.NewPCG(uint64(n), uint64(m+len(shares))))
	y := new(tally)
	for range trials {
		s := stream("x", draw(rng, shares, n), draw(rng, shares, m))
		c := Compare(uint64(n), uint64(m), DefaultLimits(), func(yield func(Stream) bool) { yield(s) })
		y.add(c.Features[0])
	}
	return y
}

// Over the features of a model Benjamini–Hochberg keeps the rate of comparisons
// with any finding: also without the threshold, which makes findings rarer still.
func TestFalseAlarmsOverManyFeatures(t *testing.T) {
	const features = 30
	trials := trialsOf(250, 10_000)
	bare := Limits{Threshold: 1e-12, Alpha: 0.05, RowsPerBin: DefaultRowsPerBin, Share: DefaultShare}
	var out strings.Builder
	fmt.Fprintf(&out, "%9s | any of %d: BH at 0.05  the rule  fixed PSI>0.1  PSI>0.2  any p ≤ 0.05\n", "rows", features)
	for _, m := range []int{500, 1000, 10_000} {
		rng := rand.New(rand.NewPCG(3, uint64(m)))
		var found, rule, tenth, fifth, naive float64
		for range trials {
			var streams []Stream
			for i := range features {
				shares := shapes[[]string{"even", "uneven"}[i%2]]
				streams = append(streams, stream("x", draw(rng, shares, 5000), draw(rng, shares, m)))
			}
			all := func(yield func(Stream) bool) {
				for _, s := range streams {
					if !yield(s) {
						return
					}
				}
			}
			found += min(1, float64(Compare(5000, uint64(m), bare, all).Apart))
			c := Compare(5000, uint64(m), DefaultLimits(), all)
			rule += min(1, float64(c.Apart))
			var y tally
			for _, f := range c.Features {
				y.add(f)
			}
			tenth, fifth, naive = tenth+min(1, y.tenth), fifth+min(1, y.fifth), naive+min(1, y.both)
		}
		n := float64(trials)
		fmt.Fprintf(&out, "%9d | %19.4f %10.4f %14.4f %8.4f %13.4f\n", m, found/n, rule/n, tenth/n, fifth/n, naive/n)
		if found/n > ceiling(bare.Alpha, n) || rule > 0 {
			t.Errorf("m=%d: %.4f of comparisons find something at a nominal %v, %.0f by the rule", m, found/n, bare.Alpha, rule)
		}
	}
	t.Logf("no drift, %d comparisons a line\n%s", trials, &out)
}

// Missing and new values: Fisher's test stays below its level at any size, and
// two points more of missing values are found in a few hundred rows.
func TestSharesKeepTheLevelAndArePowerful(t *testing.T) {
	trials := trialsOf(2000, 100_000)
	var out strings.Builder
	fmt.Fprintf(&out, "%9s %9s | share   after | p ≤ 0.01   found\n", "reference", "rows")
	for _, c := range []struct {
		n, m          int
		before, after float64
		least         float64 // power
	}{
		{1000, 50, 0, 0, 0},
		{1000, 500, 0.01, 0.01, 0},
		{1000, 500, 0.3, 0.3, 0},
		{100_000, 10_000, 0.001, 0.001, 0},
		{1257, 540, 0.05, 0.05, 0},
		{1000, 500, 0, 0.03, 0.8},
		{1000, 500, 0.01, 0.06, 0.9},
		{100_000, 100_000, 0.01, 0.012, 0},
	} {
		rng := rand.New(rand.NewPCG(uint64(c.n), uint64(c.m)))
		var low, found float64
		for range trials {
			a, b := draw(rng, []float64{1 - c.before, c.before}, c.n), draw(rng, []float64{1 - c.after, c.after}, c.m)
			s := Stream{Name: "x", Side: sketch.Input, P: []float64{a[0], a[1], 0}, Q: []float64{b[0], b[1], 0}}
			f := Compare(uint64(c.n), uint64(c.m), DefaultLimits(), func(yield func(Stream) bool) { yield(s) })
			if m := f.Features[0].Missing; m.chance() <= 0.01 {
				low++
			}
			found += float64(f.Missing)
		}
		n := float64(trials)
		fmt.Fprintf(&out, "%9d %9d | %.3f   %.3f | %8.4f %7.4f\n", c.n, c.m, c.before, c.after, low/n, found/n)
		if c.before == c.after && low/n > ceiling(0.01, n) || found/n < c.least {
			t.Errorf("%+v: p ≤ 0.01 in %.4f, found in %.4f", c, low/n, found/n)
		}
		if c.after-c.before < DefaultShare && found/n > 0.01 {
			t.Errorf("%+v: found in %.4f though the change is too small to matter", c, found/n)
		}
	}
	t.Logf("shares of missing values, %d samples a line\n%s", trials, &out)
}

// The power of the rule beside that of a fixed limit, for shifts of a normal
// feature by parts of its standard deviation. A shift by s has a PSI of about s²
// (the bins lose a tenth of it), so the usual threshold of 0.2 asks for half a
// standard deviation; a fleet that minds less sets a lower one.
func TestPower(t *testing.T) {
	trials := trialsOf(250, 20_000)
	low := DefaultLimits()
	low.Threshold = 0.05
	var out strings.Builder
	fmt.Fprintf(&out, "%9s %6s | rule at 0.2  rule at 0.05 | fixed: PSI>0.1  PSI>0.2 | p ≤ 0.05\n", "rows", "shift")
	for _, m := range []int{500, 1000, 10_000, 1_000_000} {
		for _, shift := range []float64{0, 0.1, 0.25, 0.5, 0.75, 1} {
			rng := rand.New(rand.NewPCG(uint64(m), uint64(100*shift)))
			var y tally
			var sensitive float64
			for range trials {
				s := stream("x", draw(rng, normal(8, 0), 5000), draw(rng, normal(8, shift), m))
				one := func(yield func(Stream) bool) { yield(s) }
				c := Compare(5000, uint64(m), DefaultLimits(), one)
				sensitive += float64(Compare(5000, uint64(m), low, one).Apart)
				y.add(c.Features[0])
			}
			fmt.Fprintf(&out, "%9d %6.2f | %11s %13s | %14s %8s | %8s\n", m, shift, y.share(y.apart), y.share(sensitive), y.share(y.tenth), y.share(y.fifth), y.share(y.both))
			if rate := y.apart / y.trials; shift >= 0.75 && rate < 0.99 || shift <= 0.25 && rate > 0.01 {
				t.Errorf("m=%d: a shift by %v sd is found in %.3f", m, shift, rate)
			}
			if rate := sensitive / y.trials; shift >= 0.5 && rate < 0.99 || shift == 0 && rate > 0.01 {
				t.Errorf("m=%d: a threshold of 0.05 finds a shift by %v sd in %.3f", m, shift, rate)
			}
		}
	}
	t.Logf("one normal feature on eight bins, 5000 training rows, %d samples a line\n%s", trials, &out)
}
