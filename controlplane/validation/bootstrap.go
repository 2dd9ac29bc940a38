package validation

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Bounds of the bootstrap.
const (
	// replicates put the 5% quantile on 100 values: its Monte-Carlo error is
	// a tenth of the distance that it measures.
	replicates = 2000
	// maxUnits bounds the blocks that rows are put into when each is its own unit.
	maxUnits = 10_000
	// expandUpTo is the sample size up to which rows are drawn one by one.
	expandUpTo = 20_000
	// bootstrapSeed is fixed, so that the same evidence gives the same verdict.
	bootstrapSeed = 20261123
)

// sample is what a statistic is computed from: units, each as often as its
// count says. Rows that count alike are one unit, so a resample costs as much as
// there are different rows, not as there are rows.
type sample struct {
	counts []float64
	// stat must not keep counts.
	stat func(counts []float64) float64
}

func (s *sample) size() (n float64) {
	for _, c := range s.counts {
		n += c
	}
	return n
}

// interval is the bias-corrected and accelerated bootstrap interval (Efron
// 1987) that leaves out alpha on each side. It is deterministic.
func (s *sample) interval(alpha float64) (lower, upper float64) {
	estimate := s.stat(s.counts)
	values := s.resampled()
	below, same := 0.0, 0.0
	for _, v := range values {
		switch {
		case v < estimate:
			below++
		case v == estimate:
			same++
		}
	}
	share := (below + same/2) / float64(len(values))
	half := 0.5 / float64(len(values))
	z0 := quantile(min(max(share, half), 1-half))
	a := s.acceleration()
	at := func(p float64) float64 {
		z := quantile(p)
		adjusted := distuv.UnitNormal.CDF(z0 + (z0+z)/(1-a*(z0+z)))
		i := int(math.Floor(adjusted * float64(len(values)+1)))
		return values[min(max(i-1, 0), len(values)-1)]
	}
	return at(alpha), at(1 - alpha)
}

// resampled are the replicates of the statistic, sorted.
func (s *sample) resampled() []float64 {
	rng := rand.New(rand.NewPCG(bootstrapSeed, uint64(len(s.counts)))) //nolint:gosec // the verdict must be reproducible
	draw := s.draw(rng)
	drawn := make([]float64, len(s.counts))
	values := make([]float64, replicates)
	for i := range values {
		draw(drawn)
		values[i] = s.stat(drawn)
	}
	slices.Sort(values)
	return values
}

// draw returns a function that fills in the counts of one resample.
func (s *sample) draw(rng *rand.Rand) func(counts []float64) {
	n := s.size()
	if n <= expandUpTo {
		rows := make([]int32, 0, int(n))
		for i, c := range s.counts {
			for range int(c) {
				rows = append(rows, int32(i))
			}
		}
		return func(counts []float64) {
			clear(counts)
			for range rows {
				counts[rows[rng.IntN(len(rows))]]++
			}
		}
	}
	return func(counts []float64) {
		left, mass := n, n
		for i, c := range s.counts {
			counts[i] = binomial(left, c/mass, rng)
			left, mass = left-counts[i], mass-c
		}
	}
}

// binomial draws from Bin(n, p).
func binomial(n, p float64, rng *rand.Rand) float64 {
	switch {
	case n <= 0 || p <= 0:
		return 0
	case p >= 1:
		return n
	}
	return distuv.Binomial{N: n, P: p, Src: rng}.Rand()
}

// acceleration is how the standard error changes with the statistic, by leaving
// one out.
func (s *sample) acceleration() float64 {
	left := slices.Clone(s.counts)
	without := make([]float64, len(left))
	var mean, n float64
	for i, c := range s.counts {
		if c == 0 {
			continue
		}
		left[i]--
		without[i] = s.stat(left)
		left[i]++
		mean += c * without[i]
		n += c
	}
	mean /= n
	var square, cube float64
	for i, c := range s.counts {
		if c == 0 {
			continue
		}
		d := mean - without[i]
		square += c * d * d
		cube += c * d * d * d
	}
	if square == 0 {
		return 0
	}
	return cube / (6 * math.Pow(square, 1.5))
}
