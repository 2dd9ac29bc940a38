package drift

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// tenths are calibration bins with n labels of one confidence in one bin.
func tenths(bin, n, correct int, confidence float64) []*protocol.CalibrationBin {
	out := make([]*protocol.CalibrationBin, confidenceBins)
	for i := range out {
		out[i] = &protocol.CalibrationBin{}
	}
	c, k := float64(n), float64(correct)
	out[bin] = &protocol.CalibrationBin{
		Count: uint64(n), Correct: uint64(correct), Confidence: c * confidence, Squared: c * confidence * confidence, ConfidenceCorrect: k * confidence,
	}
	return out
}

// predictions of a model that is right with probability c − off where it says c.
func predictions(rng *rand.Rand, n int, off float64) (bins []ratedBin, brier, ece float64) {
	bins = make([]ratedBin, confidenceBins)
	for range n {
		c := 0.4 + 0.59*math.Sqrt(rng.Float64())
		y := 0.0
		if rng.Float64() < c-off {
			y = 1
		}
		b := &bins[int(c*confidenceBins)]
		b.Count++
		b.Confidence += c
		b.Squared += c * c
		b.Correct += uint64(y)
		b.Hits += y * c
		brier += (c - y) * (c - y) / float64(n)
	}
	for _, b := range bins {
		ece += math.Abs(float64(b.Correct)-b.Confidence) / float64(n)
	}
	return bins, brier, ece
}

func TestCalibrationIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	bins, brier, ece := predictions(rng, 3000, 0.1)
	c := calibrationOf(bins, 0)
	if math.Abs(c.Brier-brier) > 1e-9 || math.Abs(c.ECE-ece) > 1e-9 || c.Labels != 3000 || c.Leaning != Overconfident {
		t.Errorf("got %+v, want a Brier score of %v and an ECE of %v", c, brier, ece)
	}
	if c.BrierLower >= brier || c.BrierUpper <= brier || len(c.Bins) != 6 || c.Bins[0].From != 0.4 || c.Bins[5].Lower >= c.Bins[5].Accuracy {
		t.Errorf("intervals: got %+v", c)
	}
	few := calibrationOf(bins, 30)
	if few.Leaning != Unrated || few.Noise < 9*c.Noise || few.Bins[5].Lower >= c.Bins[5].Lower {
		t.Errorf("3000 labels of 30 distinct rows: got %+v", few)
	}
	if none := calibrationOf(make([]ratedBin, confidenceBins), 0); none.Labels != 0 || none.Leaning != Unrated || none.BrierUpper != 1 {
		t.Errorf("no labels: got %+v", none)
	}
	modest, _, _ := predictions(rng, 3000, -0.2)
	if c := calibrationOf(modest, 0); c.Leaning != Underconfident {
		t.Errorf("right more often than it says: got %+v", c)
	}
}

// A calibrated model is called one in at least 95% of looks, and its Brier
// interval holds; ECE itself, which is never 0, says less the fewer labels there are.
func TestCalibrationNoise(t *testing.T) {
	trials := trialsOf(150, 20_000)
	var out strings.Builder
	fmt.Fprintf(&out, "%7s | mean ECE   noise | called calibrated when off by 0  0.05   0.10 | Brier interval misses\n", "labels")
	for _, n := range []int{50, 200, 1000, 10_000} {
		if n > 1000 && trials > 150 {
			trials = 2000
		}
		rng := rand.New(rand.NewPCG(7, uint64(n)))
		var ece, noise, missed float64
		called := map[float64]float64{}
		truth := 0.0
		for range 20 { // what the score of this model is, from many labels
			_, b, _ := predictions(rng, 10_000, 0)
			truth += b / 20
		}
		for range trials {
			for _, off := range []float64{0, 0.05, 0.1} {
				bins, _, _ := predictions(rng, n, off)
				c := calibrationOf(bins, 0)
				if c.Leaning == Calibrated {
					called[off] += 1 / float64(trials)
				}
				if off == 0 {
					ece, noise = ece+c.ECE/float64(trials), noise+c.Noise/float64(trials)
					if truth < c.BrierLower || truth > c.BrierUpper {
						missed += 1 / float64(trials)
					}
				}
			}
		}
		fmt.Fprintf(&out, "%7d | %8.3f %7.3f | %25.3f %6.3f %6.3f | %.3f\n", n, ece, noise, called[0], called[0.05], called[0.1], missed)
		ceiling := 0.05 + 3*math.Sqrt(0.05*0.95/float64(trials))
		if 1-called[0] > ceiling || missed > ceiling {
			t.Errorf("%d labels: a calibrated model is called something else in %.3f, its Brier interval misses in %.3f", n, 1-called[0], missed)
		}
		if n >= 1000 && called[0.1] > 0.05 {
			t.Errorf("%d labels: off by 0.1 and called calibrated in %.3f", n, called[0.1])
		}
	}
	t.Logf("%d models a line\n%s", trials, &out)
}

// What cannot have been counted is left out: a NaN would stay for ever.
func TestImpossibleCalibration(t *testing.T) {
	for name, spoil := range map[string]func(b *protocol.CalibrationBin){
		"not a number":                      func(b *protocol.CalibrationBin) { b.Confidence = math.NaN() },
		"infinite":                          func(b *protocol.CalibrationBin) { b.Squared = math.Inf(1) },
		"negative":                          func(b *protocol.CalibrationBin) { b.ConfidenceCorrect = -1 },
		"surer than sure":                   func(b *protocol.CalibrationBin) { b.Confidence = 5 },
		"more right than counted":           func(b *protocol.CalibrationBin) { b.Correct = 5 },
		"squares above what they are of":    func(b *protocol.CalibrationBin) { b.Squared = 3.5 },
		"no squares, from an older agent":   func(b *protocol.CalibrationBin) { b.Squared = 0 },
		"more labels than joined":           func(b *protocol.CalibrationBin) { b.Count = 9 },
		"nothing wrong (the test of tests)": nil,
	} {
		bins := tenths(7, 4, 3, 0.75)
		if spoil != nil {
			spoil(bins[7])
		}
		if _, ok := ratedOf(&protocol.Labels{Matched: 4, Correct: 3, Calibration: bins}, 1, 2); ok != (spoil == nil) {
			t.Errorf("%s: taken %v", name, ok)
		}
	}
	if _, ok := ratedOf(&protocol.Labels{Matched: 4, Calibration: tenths(7, 4, 3, 0.75)[:9]}, 1, 2); ok {
		t.Error("nine bins were taken")
	}
}

// Labels reach the calibration of a group, and the points of their own time.
func TestLabelsGiveCalibration(t *testing.T) {
	s := newSite(t, 1, 2)
	x := &teller{t: t, m: s.m}
	x.tell(nil)
	s.m.SetLabels("cam-1", map[string]string{"site": "a"})
	s.pass(3, nil)
	var w protocol.Window
	w.Release, w.Rows = digest[:], 1
	x.window(&w)
	for range 3 * maxRated {
		x.labels(&protocol.Labels{Release: digest[:], Matched: 10, Correct: 5, Calibration: tenths(9, 10, 5, 0.95)})
	}
	s.m.Evaluate(start.Add(time.Minute))
	for _, by := range []Level{LevelCohort, LevelSite, LevelVersion, LevelFleet} {
		gs := s.m.Groups("m", by)
		if len(gs) != 1 || gs[0].Calibration.Labels != 30*maxRated || gs[0].Calibration.Leaning != Overconfident || gs[0].Calibration.Accuracy != 0.5 {
			t.Errorf("%s: got %+v", by, gs)
		}
	}
	if n := len(s.m.devices["cam-1"].tracks[digest].state.Rated); n != maxRated {
		t.Errorf("kept %d spans, want %d", n, maxRated)
	}
	var n uint64
	for _, p := range s.m.Series("m")[0].Points {
		n += p.Rated
		if b, ok := p.Brier(); p.Rated > 0 && (!ok || math.Abs(b-(0.9025-0.95+0.5)) > 1e-9) {
			t.Errorf("Brier score of the point %+v is %v", p, b)
		}
	}
	if n != 30*maxRated {
		t.Errorf("points hold %d labels", n)
	}
}
