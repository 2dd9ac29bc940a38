package drift

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// syntheticRows have continuous, skewed and tied features; shift moves the first.
func syntheticRows(rng *rand.Rand, k, rows int, shift float64) *sketch.Batch {
	b := &sketch.Batch{Rows: rows, Classes: 4, Inputs: []sketch.Tensor{{Name: "X", Shape: []int64{int64(k)}, Width: k}}}
	for range rows {
		for j := range k {
			v := rng.NormFloat64()
			if j == 0 {
				v += shift
			}
			switch j % 3 {
			case 1:
				v = math.Exp(v)
			case 2:
				v = math.Max(0, math.Round(2*v))
			}
			b.Inputs[0].Data = append(b.Inputs[0].Data, float32(v))
		}
		a, c := rng.Float32(), rng.Float32()
		b.Scores = append(b.Scores, a*c, a*(1-c), (1-a)*c, (1-a)*(1-c))
	}
	return b
}

func counterOf(t *testing.T, base *sketch.Baseline) *sketch.Counter {
	t.Helper()
	c, err := sketch.NewCounter(base)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sampleOf(t *testing.T, l *layout, c *sketch.Counter, b *sketch.Batch) *sample {
	t.Helper()
	c.Reset()
	c.Count(b)
	in, out, err := l.fold(c.Histograms())
	if err != nil {
		t.Fatal(err)
	}
	return &sample{in: in, out: out, rows: uint64(b.Rows), effective: uint64(b.Rows)}
}

// The share of evaluations with any false discovery stays at or below alpha,
// even without the threshold; with it there is none.
func TestFalseDiscoveryOverFeatures(t *testing.T) {
	const features = 15
	trials := trialsOf(160, 3200)
	for _, m := range []int{500, 2000} {
		rng := rand.New(rand.NewPCG(9, uint64(m)))
		wrong, withThreshold := 0, 0
		for range trials / 8 { // a few windows per training set
			s := &release.Schema{Inputs: []release.Tensor{{Name: "X", Shape: []int64{-1, features}}}, Scores: "p", Classes: []string{"0", "1", "2", "3"}}
			base := baselineOf(t, s, syntheticRows(rng, features, 2000, 0))
			l, c := newLayout(base), counterOf(t, base)
			for range 8 {
				x := sampleOf(t, l, c, syntheticRows(rng, features, m, 0))
				bare := Config{Alpha: 0.05, RowsPerBin: 50, Threshold: 1e-9}
				if training(l, x, &bare).Apart > 0 {
					wrong++
				}
				usual := Config{Alpha: 0.05, RowsPerBin: 50, Threshold: DefaultThreshold}
				if training(l, x, &usual).Apart > 0 {
					withThreshold++
				}
			}
		}
		// three standard errors: windows of one training set are not independent either
		if rate := float64(wrong) / float64(trials); rate > 0.05+3*math.Sqrt(0.05*0.95/float64(trials)) {
			t.Errorf("m=%d: %.3f of evaluations have a false discovery without threshold, want 0.05", m, rate)
		}
		if withThreshold > 0 {
			t.Errorf("m=%d: %d of %d evaluations alarm with the threshold, want none", m, withThreshold, trials)
		}
	}
}

func TestShiftOfOneFeatureIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	s := &release.Schema{Inputs: []release.Tensor{{Name: "X", Shape: []int64{-1, 30}}}, Scores: "p", Classes: []string{"0", "1", "2", "3"}}
	base := baselineOf(t, s, syntheticRows(rng, 30, 2000, 0))
	l, counter := newLayout(base), counterOf(t, base)
	cfg := Config{}.withDefaults()
	found := 0
	for range 50 {
		c := training(l, sampleOf(t, l, counter, syntheticRows(rng, 30, 500, 0.75)), &cfg)
		if c.Apart == 1 && c.Furthest(1)[0].Name == "X[0]" {
			found++
		}
	}
	if found < 48 {
		t.Errorf("shift by 0.75 sd in 500 rows: found alone in %d of 50, want nearly all", found)
	}
}

// The interval holds at every one of 2000 looks at once, in 95% of the runs.
func TestIntervalHoldsAtEveryLook(t *testing.T) {
	const runs, looks, p = 400, 2000, 0.9
	rng := rand.New(rand.NewPCG(5, 5))
	wrong := 0
	for range runs {
		var s, f float64
		for i := range looks {
			if rng.Float64() < p {
				s++
			} else {
				f++
			}
			if i%10 != 0 {
				continue
			}
			if lower, upper := interval(s, f, 0.05); p < lower || p > upper {
				wrong++
				break
			}
		}
	}
	if rate := float64(wrong) / runs; rate > 0.05 {
		t.Errorf("runs that ever missed: %.3f, want at most 0.05", rate)
	}
	lower, upper := interval(900, 100, 0.05)
	if lower < 0.86 || upper > 0.935 || lower > 0.9 || upper < 0.9 {
		t.Errorf("900 of 1000: got %.3f to %.3f, want a useful interval around 0.9", lower, upper)
	}
	if lower, upper := interval(0, 0, 0.05); lower != 0 || upper != 1 {
		t.Errorf("no labels: got %v to %v, want 0 to 1", lower, upper)
	}
	if lower, upper := interval(50, 0, 0.05); upper != 1 || lower < 0.8 {
		t.Errorf("50 of 50: got %v to %v, want an upper bound of 1", lower, upper)
	}
}

// A device that scores a file says of its rows what the fleet would.
func TestDevicesSayTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	s := &release.Schema{Inputs: []release.Tensor{{Name: "X", Shape: []int64{-1, 12}}}, Scores: "p", Classes: []string{"0", "1", "2", "3"}}
	base := baselineOf(t, s, syntheticRows(rng, 12, 2000, 0))
	c, err := sketch.NewCounter(base)
	if err != nil {
		t.Fatal(err)
	}
	c.Count(syntheticRows(rng, 12, 700, 1))
	l, cfg := newLayout(base), Config{}.withDefaults()
	in, out, err := l.fold(c.Histograms())
	if err != nil {
		t.Fatal(err)
	}
	want := training(l, &sample{in: in, out: out, rows: 700, effective: 700}, &cfg)
	got := divergence.Training(base, c.Histograms(), 700, 700, divergence.DefaultLimits())
	if want.Apart != 1 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
