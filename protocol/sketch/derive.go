package sketch

import "math"

// Names of derived scalars, in the order scalars holds them.
const (
	DeriveMean     = "mean"
	DeriveStddev   = "stddev"
	DeriveMin      = "min"
	DeriveMax      = "max"
	DeriveZeros    = "zeros"    // share of elements that are exactly zero
	DeriveGradient = "gradient" // mean squared step to the right and lower neighbour: sharpness of an image
)

var derivations = [...]string{DeriveMean, DeriveStddev, DeriveMin, DeriveMax, DeriveZeros, DeriveGradient}

// scalars are the derived values of one row of one tensor.
type scalars [len(derivations)]float32

func derivation(name string) int {
	for i, d := range derivations {
		if d == name {
			return i
		}
	}
	return -1
}

// derive computes all scalars of a row. An element that is NaN makes them NaN,
// which is counted as missing.
func derive(row []float32, shape []int64) scalars {
	var sum, squares float64
	low, high := math.Inf(1), math.Inf(-1)
	var zeros int
	for _, f := range row {
		v := float64(f)
		sum += v
		squares += v * v
		low, high = math.Min(low, v), math.Max(high, v)
		if f == 0 {
			zeros++
		}
	}
	n := float64(len(row))
	mean := sum / n
	return scalars{
		float32(mean),
		float32(math.Sqrt(math.Max(0, squares/n-mean*mean))),
		float32(low),
		float32(high),
		float32(float64(zeros) / n),
		gradient(row, shape),
	}
}

// maxChannels tells colour channels from image columns.
const maxChannels = 4

// plane finds height, width and the distance of neighbouring pixels in a row of
// shape [H W], [C H W] or [H W C]. ok is false when the row is no image.
func plane(shape []int64) (planes, height, width, stride int, ok bool) {
	switch n := len(shape); {
	case n == 2:
		planes, height, width, stride = 1, int(shape[0]), int(shape[1]), 1
	case n == 3 && shape[2] <= maxChannels && shape[0] > maxChannels:
		planes, height, width, stride = 1, int(shape[0]), int(shape[1]), int(shape[2])
	case n == 3:
		planes, height, width, stride = int(shape[0]), int(shape[1]), int(shape[2]), 1
	}
	return planes, height, width, stride, height > 1 && width > 1 && planes > 0
}

// gradient is the mean squared difference between neighbouring pixels, NaN when
// the row is no image.
func gradient(row []float32, shape []int64) float32 {
	planes, height, width, stride, ok := plane(shape)
	if !ok || planes*height*width*stride != len(row) {
		return float32(math.NaN())
	}
	var sum float64
	line := width * stride
	for p := range planes {
		image := row[p*height*line : (p+1)*height*line]
		for i, v := range image {
			if i%line+stride < line {
				d := float64(image[i+stride] - v)
				sum += d * d
			}
			if i+line < len(image) {
				d := float64(image[i+line] - v)
				sum += d * d
			}
		}
	}
	return float32(sum / float64(len(row)))
}

// output is what is derived from the outputs of one row.
type output struct {
	class      int64 // −1 when not known
	confidence float32
	entropy    float32
}

var nan32 = float32(math.NaN())

// outputs derives the watched quantities of row r.
func (b *Batch) outputs(r int) output {
	o := output{class: -1, confidence: nan32, entropy: nan32}
	if r < len(b.Class) {
		o.class = b.Class[r]
	}
	if b.Classes <= 0 || (r+1)*b.Classes > len(b.Scores) {
		return o
	}
	best, confidence, entropy := summarise(b.Scores[r*b.Classes : (r+1)*b.Classes])
	o.confidence, o.entropy = confidence, entropy
	if b.Class == nil {
		o.class = int64(best)
	}
	return o
}

// summarise returns the best class, its probability and the entropy in nats of
// one row of scores. A single score is the probability of class 1 of two.
// Scores that are no probabilities are taken as logits.
func summarise(scores []float32) (best int, confidence, entropy float32) {
	if len(scores) == 1 {
		p := float64(scores[0])
		if p >= 0.5 {
			best = 1
		}
		return best, float32(math.Max(p, 1-p)), float32(plogp(p) + plogp(1-p))
	}
	var sum, low float64
	for i, s := range scores {
		sum += float64(s)
		low = math.Min(low, float64(s))
		if s > scores[best] {
			best = i
		}
	}
	if low >= 0 && math.Abs(sum-1) < 0.02 {
		var h float64
		for _, s := range scores {
			h += plogp(float64(s))
		}
		return best, scores[best], float32(h)
	}
	return best, softmaxTop(scores, best), softmaxEntropy(scores, best)
}

func plogp(p float64) float64 {
	if p == 0 {
		return 0
	}
	return -p * math.Log(p)
}

func softmaxTop(logits []float32, best int) float32 {
	var z float64
	for _, l := range logits {
		z += math.Exp(float64(l - logits[best]))
	}
	return float32(1 / z)
}

// softmaxEntropy is log Z − Σ p·l with logits relative to the best one.
func softmaxEntropy(logits []float32, best int) float32 {
	var z, s float64
	for _, l := range logits {
		d := float64(l - logits[best])
		e := math.Exp(d)
		z += e
		if e > 0 {
			s += e * d
		}
	}
	return float32(math.Log(z) - s/z)
}

// Predicted returns the best class and its probability for one row of scores,
// as the streams of a baseline see them.
func Predicted(scores []float32) (class int, probability float32) {
	if len(scores) == 0 {
		return -1, nan32
	}
	class, probability, _ = summarise(scores)
	return class, probability
}
