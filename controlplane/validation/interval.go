package validation

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// quantile is the standard normal quantile.
func quantile(p float64) float64 { return distuv.UnitNormal.Quantile(p) }

// wilson is the score interval of a proportion (Wilson 1927), both ends at the
// same z.
func wilson(part, of, z float64) (lower, upper float64) {
	if of == 0 {
		return 0, 1
	}
	p := part / of
	middle := p + z*z/(2*of)
	half := z * math.Sqrt(p*(1-p)/of+z*z/(4*of*of))
	scale := 1 + z*z/of
	return max(0, (middle-half)/scale), min(1, (middle+half)/scale)
}

// newcombe is the hybrid score interval of the difference a/n − b/m of two
// independent proportions (Newcombe 1998, method 10).
func newcombe(a, n, b, m, z float64) (lower, upper float64) {
	p, q := a/n, b/m
	pl, pu := wilson(a, n, z)
	ql, qu := wilson(b, m, z)
	return p - q - math.Hypot(p-pl, qu-q), p - q + math.Hypot(pu-p, q-ql)
}

// tango is the score interval of the difference (b − c)/n of two paired
// proportions (Tango 1998): b pairs where only the first is right, c where only
// the second is, of n. It inverts McNemar's test for every difference, and keeps
// its level also when few pairs differ, where Wald's interval has width 0.
func tango(b, c, n, z float64) (lower, upper float64) {
	return tangoRoot(b, c, n, z), tangoRoot(b, c, n, -z)
}

// tangoRoot is the difference at which the score statistic is z.
func tangoRoot(b, c, n, z float64) float64 {
	lo, hi := -1.0, 1.0
	for range 60 { // to below the spacing of float64 at 1
		mid := (lo + hi) / 2
		if tangoScore(b, c, n, mid) > z {
			lo = mid
		} else {
			hi = mid
		}
	}
	return (lo + hi) / 2
}

// tangoScore falls in delta.
func tangoScore(b, c, n, delta float64) float64 {
	qb := -b - c + (2*n-b+c)*delta
	qc := -c * delta * (1 - delta)
	q := (math.Sqrt(max(0, qb*qb-8*n*qc)) - qb) / (4 * n)
	variance := n * (2*q + delta*(1-delta))
	diff := b - c - n*delta
	switch {
	case diff == 0:
		return 0
	case variance <= 0:
		return math.Copysign(math.Inf(1), diff)
	}
	return diff / math.Sqrt(variance)
}
