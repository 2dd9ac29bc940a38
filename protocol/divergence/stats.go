package divergence

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
)

// pseudo is added to every cell, as Jeffreys' prior does, so that an empty one
// has a logarithm.
const pseudo = 0.5

// cells is one stream of two samples on the same bins, scaled to their
// effective sizes n and m. Cells empty in both are left out of every sum. The
// first ordered ones have an order, which KS needs.
type cells struct {
	p, q    []float64 // counts
	ordered int
	n, m    float64
}

// score compares the two samples of a stream.
func (c cells) score() FeatureScore {
	k := c.used()
	s := FeatureScore{Bins: k, N: uint64(c.n), M: uint64(c.m), P: 1, Chi2P: 1, KSP: 1}
	if c.n == 0 || c.m == 0 || k < 2 {
		return s
	}
	var psi, js, chi2, widest float64
	for i, a := range c.p {
		b := c.q[i]
		if a+b == 0 {
			continue
		}
		p, q := (a+pseudo)/(c.n+pseudo*float64(k)), (b+pseudo)/(c.m+pseudo*float64(k))
		psi += (q - p) * math.Log(q/p)
		p, q = a/c.n, b/c.m
		js += halfKL(p, (p+q)/2) + halfKL(q, (p+q)/2)
		s.LInf = math.Max(s.LInf, math.Abs(p-q))
		chi2 += homogeneity(a, b, c.n, c.m)
		if i < c.ordered {
			widest = math.Max(widest, math.Max(p, q))
		}
	}
	s.PSI = psi
	s.JS = math.Sqrt(math.Min(1, math.Max(0, js)))
	s.KS = c.ks()
	if c.ordered > 0 {
		s.KSUp = math.Min(1, s.KS+widest)
		s.KSP = kolmogorov(s.KS * math.Sqrt(c.n*c.m/(c.n+c.m)))
	}
	s.P = chi2Survival(psi/(1/c.n+1/c.m), k-1)
	s.Chi2P = chi2Survival(chi2, k-1)
	return s
}

// used counts the cells that hold anything in either sample.
func (c cells) used() int {
	k := 0
	for i := range c.p {
		if c.p[i]+c.q[i] > 0 {
			k++
		}
	}
	return k
}

// ks is the largest difference of the cumulated shares at a bin's edge.
func (c cells) ks() float64 {
	var at, most float64
	for i := range c.ordered {
		at += c.p[i]/c.n - c.q[i]/c.m
		most = math.Max(most, math.Abs(at))
	}
	return most
}

// kolmogorov is the probability that the scaled distance of two samples of one
// distribution is above x (Kolmogorov 1933, Smirnov 1948): of the two series, the
// one that converges at x.
func kolmogorov(x float64) float64 {
	if x < 0.2 {
		return 1 // less than 1e-11 is missing
	}
	sum := 0.0
	if x < 1.18 {
		for k := 1.0; k <= 7; k += 2 {
			sum += math.Exp(-k * k * math.Pi * math.Pi / (8 * x * x))
		}
		return 1 - math.Sqrt(2*math.Pi)/x*sum
	}
	for k := 1.0; k <= 5; k++ {
		sum += math.Pow(-1, k-1) * math.Exp(-2*k*k*x*x)
	}
	return 2 * sum
}

// share compares cell i with all others, nil when it is empty in both samples.
func (c cells) share(i int) *Share {
	if c.n == 0 || c.m == 0 || c.p[i]+c.q[i] == 0 {
		return nil
	}
	return &Share{Before: c.p[i] / c.n, After: c.q[i] / c.m, P: fisher(c.p[i], c.q[i], c.n, c.m)}
}

// fisher is the exact test of a in n rows beside b in m rows, two-sided by
// doubling the smaller tail. Counts scaled to effective rows are rounded.
func fisher(a, b, n, m float64) float64 {
	a, b, n, m = math.Round(a), math.Round(b), math.Round(n), math.Round(m)
	a, b = min(a, n), min(b, m)
	return min(1, 2*min(upperTail(b, a+b, n, m), upperTail(a, a+b, m, n)))
}

// upperTail is the probability that of k marked rows among n + m at least b fall
// into the m. The terms of a hypergeometric distribution fall faster than a
// geometric series beyond its middle; before it the tail is no small one.
func upperTail(b, k, n, m float64) float64 {
	if b*(n+m) <= k*m {
		return 1
	}
	term := math.Exp(logChoose(m, b) + logChoose(n, k-b) - logChoose(n+m, k))
	sum := 0.0
	for term > sum*1e-16 {
		sum += term
		term *= (m - b) * (k - b) / ((b + 1) * (n - k + b + 1))
		b++
	}
	return min(1, sum)
}

// logChoose is the logarithm of n over k.
func logChoose(n, k float64) float64 {
	return -math.Log(n+1) - mathext.Lbeta(k+1, n-k+1)
}

// halfKL is p·log2(p/m)/2.
func halfKL(p, m float64) float64 {
	if p == 0 {
		return 0
	}
	return p * math.Log2(p/m) / 2
}

// homogeneity is one column of the χ² statistic with both rows expected from
// the pooled margins: the reference is a sample too.
func homogeneity(a, b, n, m float64) float64 {
	ea, eb := (a+b)*n/(n+m), (a+b)*m/(n+m)
	return (a-ea)*(a-ea)/ea + (b-eb)*(b-eb)/eb
}

func chi2Survival(x float64, df int) float64 {
	if x <= 0 {
		return 1
	}
	return mathext.GammaIncRegComp(float64(df)/2, x/2)
}

// chi2Quantile is what chance alone stays below with probability 1−alpha.
func chi2Quantile(alpha float64, df int) float64 {
	return 2 * mathext.GammaIncRegInv(float64(df)/2, 1-alpha)
}

// discoveries is the step-up procedure of Benjamini and Hochberg (1995): the
// level at or below which a p-value is a discovery, 0 for none.
func discoveries(ps []float64, alpha float64) float64 {
	slices.SortFunc(ps, cmp.Compare[float64])
	for i, p := range slices.Backward(ps) {
		if level := alpha * float64(i+1) / float64(len(ps)); p <= level {
			return level
		}
	}
	return 0
}
