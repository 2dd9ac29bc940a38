package rollout

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Detectable is the smallest regression that a gate would find in a wave in
// four of five cases, from how much devices differ now.
type Detectable struct {
	Gate  GateKind `json:"gate"`
	Limit float64  `json:"limit"`
	Least float64  `json:"least"` // 0 when nothing can be said
	Text  string   `json:"text"`
}

// planRows is how many predictions (and labels, as far as there were any) a
// device is taken to count in a wave: what is not known beforehand.
const planRows = 1000

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

// detectable says what the gates that compare devices could see once the newest
// wave is done, from how much devices with a past differ by chance.
func (t *turn) detectable() []Detectable {
	var out []Detectable
	alpha := t.alphaEach()
	for _, g := range t.Spec.Gates {
		if !t.compares(g) {
			continue
		}
		n, sd := t.spread(g)
		d := Detectable{Gate: g.Kind, Limit: g.limit()}
		least, ok := detect(g, n, planRows, sd, alpha)
		switch {
		case ok:
			d.Least, d.Text = least, fmt.Sprintf("%s or more would be seen, the limit is %s", g.inWords(least), g.inWords(g.limit()))
		case n == 0:
			d.Text = "not known: none of its devices has been measured on an old release"
		default:
			d.Text = fmt.Sprintf("it will be unproven: a regression is seen when %d devices are worse, and %d can be compared", devicesNeeded(1/alpha), n)
		}
		out = append(out, d)
	}
	return out
}

// devicesNeeded is how many devices have to be worse when all of them are.
func devicesNeeded(e float64) int {
	return sort.Search(1000, func(n int) bool { return signE(n, 0) >= e })
}

// inWords is a value of the gate's unit.
func (g GateSpec) inWords(v float64) string {
	switch g.Kind {
	case Latency:
		return fmt.Sprintf("%+.1f %%", 100*v)
	case Drift:
		return fmt.Sprintf("a PSI of %.2f", v)
	case Golden, Install, Crash, Errors, Shadow, Accuracy:
	}
	return fmt.Sprintf("%.2f points", 100*v)
}

// spread is how many devices that were placed can be compared with their past,
// and the standard deviation of their differences. For shares that is chance
// alone; how much devices' latencies differ from each other is more than they
// differ from themselves, so that what is said of it is careful.
func (t *turn) spread(g GateSpec) (n int, sd float64) {
	if g.Kind == Shadow {
		n = t.count(func(d *Device) bool {
			return d.Wave > 0 && !d.Already && d.State != DeviceRefused && d.State != DeviceSuperseded
		})
		return n, math.Sqrt(g.limit() * (1 - g.limit()) / planRows)
	}
	var values []float64
	for id, d := range t.Devices {
		if d.Wave == 0 || d.Already || d.State == DeviceRefused || d.State == DeviceSuperseded {
			continue
		}
		past := t.facts.device(id).Past
		if _, ok := changed(g, past, past); ok {
			values = append(values, g.unlike(past))
		}
	}
	slices.Sort(values) // sums of fractions depend on their order
	switch {
	case g.Kind == Latency && len(values) > 1:
		return len(values), stat.StdDev(values, nil)
	case g.Kind == Latency || len(values) == 0:
		return len(values), 0
	}
	return len(values), math.Sqrt(stat.Mean(values, nil))
}

// unlike is what the spread of a gate is made of: the variance of a share's
// difference by chance, or the logarithm of p95.
func (g GateSpec) unlike(past *Evidence) float64 {
	switch g.Kind {
	case Errors:
		return tries(past).chance()
	case Accuracy:
		return wrong(past).chance()
	case Latency:
		return math.Log(past.P95US)
	case Golden, Install, Crash, Drift, Shadow:
	}
	return 0
}

// chance is the variance of the difference between a share and the share of
// planRows more.
func (c counted) chance() float64 {
	p := (float64(c.bad) + 1) / (float64(c.all) + 2)
	return p * (1 - p) * (1/float64(c.all) + 1.0/planRows)
}
