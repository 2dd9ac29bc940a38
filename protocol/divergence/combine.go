package divergence

import "math"

// Combine is one comparison made of several with references of their own, such
// as the versions of a model, whose bins differ. Each stream is the mean by rows
// of those with its name and side that were judged. Its p-value is Bonferroni's,
// which holds however they depend on each other; Benjamini–Hochberg goes over
// the streams as in any comparison.
func Combine(cs []Comparison, limits Limits) Comparison {
	var out Comparison
	at := map[[2]string]int{}
	var parts [][]*FeatureScore
	for i := range cs {
		out.M += cs[i].M
		for j := range cs[i].Features {
			f := &cs[i].Features[j]
			key := [2]string{f.Side, f.Name}
			n, known := at[key]
			if !known {
				n = len(parts)
				at[key] = n
				parts = append(parts, nil)
			}
			parts[n] = append(parts[n], f)
		}
	}
	var ps []float64
	for _, p := range parts {
		f := combine(p)
		if f.Enough {
			ps = append(ps, f.chance())
		}
		out.Features = append(out.Features, f)
	}
	out.decide(ps, limits)
	out.judgeShares(limits)
	return out
}

// combine is one stream of several comparisons.
func combine(parts []*FeatureScore) FeatureScore {
	out := FeatureScore{Name: parts[0].Name, Side: parts[0].Side, P: 1, Chi2P: 1, KSP: 1}
	for _, f := range parts {
		out.Enough = out.Enough || f.Enough
	}
	k := 0.0
	for _, f := range parts {
		if f.Enough == out.Enough {
			k++
			out.take(f)
		}
	}
	out.P, out.Chi2P, out.KSP = min(1, k*out.P), min(1, k*out.Chi2P), min(1, k*out.KSP)
	for _, s := range []*Share{out.Missing, out.New} {
		if s != nil {
			s.P = min(1, k*s.P)
		}
	}
	return out
}

// take makes f part of a mean by rows; p-values become the least.
func (s *FeatureScore) take(f *FeatureScore) {
	w := 0.0
	if s.M+f.M > 0 {
		w = float64(f.M) / float64(s.M+f.M)
	}
	for _, x := range [][2]*float64{{&s.PSI, &f.PSI}, {&s.Noise, &f.Noise}, {&s.JS, &f.JS}, {&s.KS, &f.KS}, {&s.KSUp, &f.KSUp}, {&s.LInf, &f.LInf}} {
		*x[0] += w * (*x[1] - *x[0])
	}
	s.P, s.Chi2P, s.KSP = min(s.P, f.P), min(s.Chi2P, f.Chi2P), min(s.KSP, f.KSP)
	s.Missing, s.New = s.Missing.mix(f.Missing, w), s.New.mix(f.New, w)
	s.N, s.M, s.Bins = s.N+f.N, s.M+f.M, max(s.Bins, f.Bins)
}

// mix is the mean of two shares, nil when there is none of either.
func (s *Share) mix(o *Share, w float64) *Share {
	if s == nil && o == nil {
		return nil
	}
	a, b := Share{P: 1}, Share{P: 1}
	if s != nil {
		a = *s
	}
	if o != nil {
		b = *o
	}
	return &Share{Before: a.Before + w*(b.Before-a.Before), After: a.After + w*(b.After-a.After), P: math.Min(a.P, b.P)}
}
