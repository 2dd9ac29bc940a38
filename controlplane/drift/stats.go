package drift

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// interval is the confidence sequence for a probability after s successes and f
// failures: all p at which the beta-binomial mixture martingale with a uniform
// prior is below 1/alpha. It holds at every look at once.
func interval(s, f, alpha float64) (lower, upper float64) {
	if s+f == 0 {
		return 0, 1
	}
	mixture := mathext.Lbeta(1+s, 1+f)
	rejected := func(p float64) bool {
		return mixture-s*logOr0(p, s)-f*logOr0(1-p, f) >= -math.Log(alpha)
	}
	mean := s / (s + f)
	return boundary(0, mean, rejected), boundary(1, mean, rejected)
}

// logOr0 is log p, but 0 when nothing is multiplied with it.
func logOr0(p, times float64) float64 {
	if times == 0 {
		return 0
	}
	return math.Log(p)
}

// boundary bisects between an end that may be rejected and the mean, which is not.
func boundary(out, in float64, rejected func(float64) bool) float64 {
	if !rejected(out) {
		return out
	}
	for range 50 {
		if mid := (out + in) / 2; rejected(mid) {
			out = mid
		} else {
			in = mid
		}
	}
	return out
}
