package rollout

import (
	"math"
	"sort"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distuv"
)

// detectPower is the chance with which a plan wants a regression to be seen.
const detectPower = 0.8

// detect is the smallest regression that a gate sees in four of five cases when
// n devices with a past have run the release, in the unit of the gate's limit.
// sd is the standard deviation of the devices' own differences, chance inside
// them included: points of a share, or of the logarithm of p95. rows is what
// each of them predicts; only errors uses it, 0 for not known. alpha is the
// gate's part of Spec.Alpha. ok is false when no regression would be seen,
// however large.
func detect(g GateSpec, n int, rows uint64, sd, alpha float64) (least float64, ok bool) {
	bets := 1.0
	if g.Kind == Errors {
		bets = 2 // its e-value is the mean of two
	}
	least, ok = detectBySigns(g, n, sd, bets/alpha)
	if g.Kind != Errors {
		return least, ok
	}
	byRows, seen := detectByRows(g.limit(), n, rows, bets/alpha)
	switch {
	case !seen:
		return least, ok
	case !ok:
		return byRows, true
	}
	return min(least, byRows), true
}

// worseNeeded is how many of n devices must be worse for an e-value, more than n
// when all of them are too few.
func worseNeeded(n int, e float64) int {
	return sort.Search(n+1, func(k int) bool { return signE(k, n-k) >= e })
}

// detectBySigns asks by how much devices must differ in the middle so that
// enough of them are worse than the limit.
func detectBySigns(g GateSpec, n int, sd, e float64) (least float64, ok bool) {
	k := worseNeeded(n, e)
	if k > n || n == 0 {
		return 0, false
	}
	chance := mathext.InvRegIncBeta(float64(k), float64(n-k+1), detectPower)
	above := max(0, sd*distuv.UnitNormal.Quantile(chance))
	if g.Kind == Latency {
		return finite(math.Expm1(math.Log1p(g.limit()) + above)), true
	}
	return g.limit() + above, true
}

// detectByRows asks how many rows must fail on each device of a first wave, of
// a fleet that hardly failed before.
func detectByRows(limit float64, n int, rows uint64, e float64) (least float64, ok bool) {
	if n == 0 || rows == 0 {
		return 0, false
	}
	need := 2 * e // half of the weight is kept for the waves to come
	seen := func(share float64) bool {
		mean := share * float64(rows)
		few := mean - distuv.UnitNormal.Quantile(detectPower)*math.Sqrt(mean*(1-share))
		return few > 0 && moreE(uint64(few), rows, limit) >= need
	}
	const steps = 1000
	at := sort.Search(steps, func(i int) bool { return seen(limit + (1-limit)*float64(i+1)/steps) })
	if at == steps {
		return 0, false
	}
	return limit + (1-limit)*float64(at+1)/steps, true
}
