package drift

import (
	"math"

	"gonum.org/v1/gonum/mathext"

	"github.com/vedette-edge/vedette/protocol"
)

// What is kept and said of calibration.
const (
	// confidenceBins are those that devices count in: tenths of the confidence.
	confidenceBins = 10
	// maxRated bounds the spans of time that a device's calibration is kept by.
	maxRated = 6
	// minRated is how many labels a verdict on calibration needs.
	minRated = 50
	// calibrationNoise is the level of the noise of ECE, and of the intervals.
	calibrationNoise = 0.05
)

// Leaning is what confidences amount to beside labels.
type Leaning string

// Leanings.
const (
	Calibrated     Leaning = "calibrated"     // ECE is within its noise
	Overconfident  Leaning = "overconfident"  // right less often than it says
	Underconfident Leaning = "underconfident" // right more often than it says
	Unrated        Leaning = "insufficient"   // too few labels to say
)

// Calibration holds the confidence of predictions against their labels. Its
// intervals are for one look at a fixed span, unlike those of accuracy.
type Calibration struct {
	Labels     uint64  `json:"labels"`     // of predictions with a confidence
	Confidence float64 `json:"confidence"` // mean
	Accuracy   float64 `json:"accuracy"`   // of the same predictions
	// ECE is the expected calibration error over ten bins (Naeini et al. 2015). It
	// is never 0: Noise is what chance stays below in 95% of calibrated models.
	ECE   float64 `json:"ece"`
	Noise float64 `json:"noise"`
	// Brier is the mean squared distance of the confidence in the predicted class
	// from being right (Brier 1950).
	Brier      float64         `json:"brier"`
	BrierLower float64         `json:"brier_lower"`
	BrierUpper float64         `json:"brier_upper"`
	Leaning    Leaning         `json:"leaning"`
	Bins       []ConfidenceBin `json:"bins"` // those with labels
}

// ConfidenceBin is one tenth of the confidence.
type ConfidenceBin struct {
	From       float64 `json:"from"`
	To         float64 `json:"to"`
	Labels     uint64  `json:"labels"`
	Confidence float64 `json:"confidence"` // mean
	Accuracy   float64 `json:"accuracy"`
	Lower      float64 `json:"lower"` // 95% interval of accuracy
	Upper      float64 `json:"upper"`
}

// ratedBin adds up the labels of predictions with a confidence in one tenth.
type ratedBin struct {
	Count      uint64  `json:"n,omitempty"`
	Correct    uint64  `json:"k,omitempty"`
	Confidence float64 `json:"c,omitempty"` // sum
	Squared    float64 `json:"s,omitempty"` // sum of squares
	Hits       float64 `json:"h,omitempty"` // sum over correct ones
}

// whole tells whether squares were counted: agents before 2026-11-23 did not.
func (b *ratedBin) whole() bool { return b.Squared > 0 || b.Confidence == 0 }

func (b *ratedBin) add(o ratedBin) {
	b.Count += o.Count
	b.Correct += o.Correct
	b.Confidence += o.Confidence
	b.Squared += o.Squared
	b.Hits += o.Hits
}

// can tells whether such sums can come of confidences between 0 and 1: they are
// a device's, and a NaN among them would stay for ever.
func (b *ratedBin) can() bool {
	n, k := float64(b.Count), float64(b.Correct)
	const slack = 1e-6 // of adding up
	return k <= n && b.Confidence >= 0 && b.Confidence <= n*(1+slack) && b.Squared >= 0 && b.Squared <= b.Confidence*(1+slack) &&
		b.Hits >= 0 && b.Hits <= math.Min(k, b.Confidence)*(1+slack)
}

// rated is the calibration of one span of time.
type rated struct {
	Start int64      `json:"start"`
	End   int64      `json:"end"`
	Bins  []ratedBin `json:"bins"`
}

// ratedOf reads the calibration of labels, ok when they have a whole and
// possible one.
func ratedOf(l *protocol.Labels, start, end int64) (r rated, ok bool) {
	bins := l.GetCalibration()
	if len(bins) != confidenceBins {
		return r, false
	}
	r = rated{Start: start, End: end, Bins: make([]ratedBin, confidenceBins)}
	var n uint64
	for i, b := range bins {
		r.Bins[i] = ratedBin{b.GetCount(), b.GetCorrect(), b.GetConfidence(), b.GetSquared(), b.GetConfidenceCorrect()}
		if !r.Bins[i].can() || !r.Bins[i].whole() {
			return r, false
		}
		n += b.GetCount()
	}
	return r, n > 0 && n <= l.GetMatched()
}

func (r *rated) bounds() (start, end int64) { return r.Start, r.End }

func (r *rated) join(o *rated) {
	r.Start, r.End = min(r.Start, o.Start), max(r.End, o.End)
	for i := range r.Bins {
		r.Bins[i].add(o.Bins[i])
	}
}

// calibrationSince sums what tracks have of predictions made since a moment;
// reach is how many distinct rows stand behind them, 0 when that is not known.
func calibrationSince(tracks []*track, since int64, reach uint64) Calibration {
	sum := make([]ratedBin, confidenceBins)
	for _, t := range tracks {
		for i := range t.state.Rated {
			if r := &t.state.Rated[i]; r.End >= since && len(r.Bins) == confidenceBins {
				for j := range sum {
					sum[j].add(r.Bins[j])
				}
			}
		}
	}
	return calibrationOf(sum, reach)
}

// calibrationOf scores bins. Labels of repeated rows tell nothing new, so that
// every interval takes no more labels than there are distinct rows.
func calibrationOf(bins []ratedBin, reach uint64) Calibration {
	c := Calibration{BrierUpper: 1, Leaning: Unrated}
	var all ratedBin
	for _, b := range bins {
		all.add(b)
	}
	if all.Count == 0 {
		return c
	}
	n := float64(all.Count)
	kept := 1.0
	if reach > 0 {
		kept = min(1, float64(reach)/n)
	}
	c.Labels, c.Confidence, c.Accuracy = all.Count, all.Confidence/n, float64(all.Correct)/n
	var variance float64
	for i := range bins {
		if b := &bins[i]; b.Count > 0 {
			c.ECE += math.Abs(float64(b.Correct)-b.Confidence) / n
			variance += b.variance()
			c.Bins = append(c.Bins, b.score(i, kept))
		}
	}
	c.Noise = eceNoise(variance, n, len(c.Bins), kept)
	c.brier(&all, n*kept)
	if n*kept >= minRated {
		c.Leaning = c.leaning()
	}
	return c
}

func (c *Calibration) leaning() Leaning {
	switch {
	case c.ECE <= c.Noise:
		return Calibrated
	case c.Confidence > c.Accuracy:
		return Overconfident
	default:
		return Underconfident
	}
}

// variance is that of the number of correct ones if the confidences are right:
// the sum of c(1−c).
func (b *ratedBin) variance() float64 { return math.Max(0, b.Confidence-b.Squared) }

// eceNoise bounds the ECE of a calibrated model. The sum of |d| over k bins is at
// most √(Σσ² · Σd²/σ²) (Cauchy–Schwarz), and the second sum is about χ² of k
// degrees of freedom.
func eceNoise(variance, n float64, k int, kept float64) float64 {
	return math.Sqrt(variance*2*mathext.GammaIncRegInv(float64(k)/2, 1-calibrationNoise)/kept) / n
}

// brier sets the score with its normal interval. What is averaged lies between
// 0 and 1, so its variance is at most B(1−B).
func (c *Calibration) brier(all *ratedBin, labels float64) {
	n := float64(all.Count)
	c.Brier = math.Max(0, (all.Squared-2*all.Hits+float64(all.Correct))/n)
	half := z95 * math.Sqrt(c.Brier*(1-c.Brier)/labels)
	c.BrierLower, c.BrierUpper = math.Max(0, c.Brier-half), math.Min(1, c.Brier+half)
}

func (b *ratedBin) score(i int, kept float64) ConfidenceBin {
	n := float64(b.Count)
	out := ConfidenceBin{
		From: float64(i) / confidenceBins, To: float64(i+1) / confidenceBins, Labels: b.Count,
		Confidence: b.Confidence / n, Accuracy: float64(b.Correct) / n,
	}
	out.Lower, out.Upper = wilson(out.Accuracy, n*kept)
	return out
}

// z95 is the normal quantile of a two-sided 95% interval.
const z95 = 1.959964

// wilson is the 95% score interval of a share p of n (Wilson 1927).
func wilson(p, n float64) (lower, upper float64) {
	middle := p + z95*z95/(2*n)
	half := z95 * math.Sqrt(p*(1-p)/n+z95*z95/(4*n*n))
	scale := 1 + z95*z95/n
	return math.Max(0, (middle-half)/scale), math.Min(1, (middle+half)/scale)
}
