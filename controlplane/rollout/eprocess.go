package rollout

import "math"

// An e-value is a bet against a hypothesis at fair odds: while the hypothesis
// is true its expectation is at most 1, at every moment, so it ever reaches
// 1/alpha with a chance of at most alpha (Ville 1939). It may be looked at after
// every report and the looking may stop at any time, which no p-value allows
// (Howard et al. 2021, Waudby-Smith and Ramdas 2024; for canaries Lindon et al.,
// arXiv 2205.14762). Which alternative holds is not known beforehand: mixtures
// over some of them are e-values, too.
//
// All of them depend on sums alone. In which order reports came makes no
// difference, and late ones are merged by adding them up.

// maxE bounds every e-value, so that sums and averages of them stay finite.
const maxE = 1e300

// signOdds are the alternatives of signE: the chances that a device is a hit.
var signOdds = []float64{0.6, 0.7, 0.85, 0.95}

// signE is an e-value against "a device is a hit with a chance of at most one
// half", from the number of devices that are and of those that are not.
func signE(hits, misses int) float64 {
	var bets mixture
	for _, p := range signOdds {
		bets.add(1, float64(hits)*math.Log(2*p)+float64(misses)*math.Log(2*(1-p)))
	}
	return bets.e()
}

// shareRatios are the alternatives of moreE and lessE: how many times the share
// is that of the hypothesis.
var shareRatios = []float64{1.1, 1.25, 1.5, 2, 3, 5, 10, 30, 100}

// certainShare is the largest alternative of moreE: beyond it there is little
// to gain, and a single good row would end the bet.
const certainShare = 0.99

// moreE is an e-value against "the share of bad rows is at most p0", from x bad
// ones of n. Rows may have chances of their own: what is tested is their mean.
func moreE(x, n uint64, p0 float64) float64 {
	bad, good := split(x, n)
	switch {
	case p0 >= certainShare || bad+good == 0:
		return 1
	case p0 <= 0 && bad > 0:
		return maxE
	case p0 <= 0:
		return 1
	}
	var bets mixture
	for _, r := range shareRatios {
		p1 := min(r*p0, certainShare)
		bets.add(1, bad*math.Log(p1/p0)+good*(math.Log1p(-p1)-math.Log1p(-p0)))
	}
	return bets.e()
}

// lessE is an e-value against "the share of bad rows is at least p0". Half of it
// bets on no bad row at all, which is what releases that work have most often.
func lessE(x, n uint64, p0 float64) float64 {
	bad, good := split(x, n)
	switch {
	case p0 <= 0 || bad+good == 0:
		return 1
	case p0 >= 1 && good > 0:
		return maxE
	case p0 >= 1:
		return 1
	}
	var bets mixture
	for _, r := range shareRatios {
		bets.add(1, -bad*math.Log(r)+good*(math.Log1p(-p0/r)-math.Log1p(-p0)))
	}
	none := float64(len(shareRatios))
	if bad == 0 {
		bets.add(none, -good*math.Log1p(-p0))
	} else {
		bets.weights += none // that half is lost
	}
	return bets.e()
}

// split is bad and good rows of all. Devices may count absurdly.
func split(x, n uint64) (bad, good float64) {
	x = min(x, n)
	return float64(x), float64(n - x)
}

// mixture is a weighted mean of bets, kept as logarithms.
type mixture struct {
	largest float64 // of the logarithms so far
	sum     float64 // of weights times bets, each divided by exp(largest)
	weights float64
}

func (m *mixture) add(weight, log float64) {
	if m.weights == 0 {
		m.largest = log
	}
	if log > m.largest {
		m.sum *= math.Exp(m.largest - log)
		m.largest = log
	}
	m.sum += weight * math.Exp(log-m.largest)
	m.weights += weight
}

func (m *mixture) e() float64 {
	return capE(math.Exp(min(m.largest+math.Log(m.sum/m.weights), 700)))
}

func capE(e float64) float64 { return min(max(e, 0), maxE) }

// mostShare is an upper bound of a share of which bad of all rows were seen,
// wrong with a chance of at most exp(-surprise): the q at which the relative entropy
// of what was seen to q, times the rows, is surprise (Chernoff 1952, Hoeffding 1963).
// Steps of Newton's method from above stay above, the entropy being convex.
func mostShare(bad, all, surprise float64) float64 {
	if all <= 0 || bad >= all {
		return 1
	}
	p, c := bad/all, surprise/all
	rare := p + c + math.Sqrt(c*c+2*p*c)
	often := 1 - (1-p)*math.Exp((plogp(p)-c)/(1-p))
	q := min(rare, often)
	for range 5 {
		if q <= p || q >= 1 {
			break
		}
		q -= (entropy(p, q) - c) * q * (1 - q) / (q - p)
	}
	return min(max(q, p), 1)
}

// entropy is that of a share p relative to q, in surprise.
func entropy(p, q float64) float64 {
	return plogp(p) - p*math.Log(q) + (1-p)*(math.Log1p(-p)-math.Log1p(-q))
}

func plogp(p float64) float64 {
	if p <= 0 {
		return 0
	}
	return p * math.Log(p)
}
