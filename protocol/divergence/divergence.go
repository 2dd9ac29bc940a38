// Package divergence says how far two samples over the bins of one baseline are
// apart, and which differences chance alone does not explain. The control plane
// judges windows with it, and a device the files that it scores, so that both
// say the same of the same rows. It is pure.
//
// Three statistics decide. PSI says whether a difference is large enough to
// matter. Two tests say whether chance explains it: without drift PSI is about
// (1/n + 1/m)·χ²(B−1) (Yurdakul & Naranjo 2020), and the χ² test of homogeneity,
// which takes the reference for the sample that it is, has the same degrees of
// freedom, those of the columns that are not empty. Each errs on its own side
// where bins are rare, so the larger p-value counts; Benjamini–Hochberg holds
// the share of false discoveries over the streams of a comparison. A stream is
// apart when its PSI is above the threshold and its p-value is discovered.
//
// Missing values and values that the baseline does not know are bins of that
// comparison. They are findings of their own too: two points more of missing
// values are a fault long before they are a large PSI. There Fisher's exact test
// decides, over its own family.
//
// The others are shown and decide nothing. The Jensen–Shannon distance lies
// between 0 and 1 whatever the bins are. The Kolmogorov–Smirnov distance of the
// values lies between KS and KSUp, for bins tell it at their edges alone; KSP is
// of the lower bound, so it is never below the p-value of the values. LInf is the
// largest change of one bin's share, the one to read of categories. Wasserstein's
// distance would need the values, and Hellinger's says what Jensen–Shannon's does.
package divergence

import (
	"cmp"
	"iter"
	"math"
	"slices"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Bins that are scored.
const (
	// MaxBins is the most bins a stream is scored on.
	MaxBins = 10
	// Reserved is how many of them are for missing and other values.
	Reserved = 2
)

// Defaults of Limits.
const (
	// DefaultThreshold is the usual limit between a moderate and a large PSI.
	DefaultThreshold = 0.2
	// DefaultAlpha is the share of false discoveries allowed in one comparison.
	// Threshold makes them rarer still.
	DefaultAlpha = 0.01
	// DefaultRowsPerBin keeps the χ² approximation of PSI honest: at ten rows a
	// bin it is exceeded 11% of the time at a nominal 5%.
	DefaultRowsPerBin = 50
	// DefaultShare is the smallest change of a share of missing or of new values
	// that matters: with five points PSI sees it as well.
	DefaultShare = 0.02
)

// Limits say when a difference is one.
type Limits struct {
	Threshold  float64 `json:"threshold"`    // PSI above which a difference matters
	Alpha      float64 `json:"alpha"`        // false discovery rate over the streams of one comparison
	RowsPerBin int     `json:"rows_per_bin"` // rows needed for each bin before a stream is judged
	Share      float64 `json:"share"`        // change of the share of missing or of new values that matters
}

// DefaultLimits are those of a fleet that sets none.
func DefaultLimits() Limits {
	return Limits{Threshold: DefaultThreshold, Alpha: DefaultAlpha, RowsPerBin: DefaultRowsPerBin, Share: DefaultShare}
}

// FeatureScore compares one stream of the baseline between two samples.
type FeatureScore struct {
	Name   string  `json:"name"`
	Side   string  `json:"side"` // input or output: an output that drifts is prediction drift
	PSI    float64 `json:"psi"`
	Noise  float64 `json:"noise"`  // PSI that the two sizes alone explain at 1−Alpha
	JS     float64 `json:"js"`     // Jensen–Shannon distance, base 2, 0 to 1
	KS     float64 `json:"ks"`     // lower bound of the Kolmogorov–Smirnov distance; 0 for categories
	KSUp   float64 `json:"ks_up"`  // its upper bound: KS + the largest bin
	KSP    float64 `json:"ks_p"`   // p-value of KS, 1 for categories: that of the values is no larger
	LInf   float64 `json:"l_inf"`  // largest difference of a bin's share
	P      float64 `json:"p"`      // of PSI under no drift
	Chi2P  float64 `json:"chi2_p"` // of the χ² test of homogeneity
	N      uint64  `json:"n"`      // effective rows of the reference
	M      uint64  `json:"m"`      // effective rows judged
	Bins   int     `json:"bins"`   // bins that hold anything in either sample
	Enough bool    `json:"enough"` // m is at least RowsPerBin·Bins
	Apart  bool    `json:"apart"`  // PSI above the threshold and above noise
	// Missing and New are the shares of missing values and of values that the
	// baseline does not know, nil when neither sample has any.
	Missing *Share `json:"missing,omitempty"`
	New     *Share `json:"new,omitempty"`
}

// Share is one part of the rows in both samples.
type Share struct {
	Before float64 `json:"before"` // in the reference
	After  float64 `json:"after"`
	P      float64 `json:"p"`     // of Fisher's exact test, two-sided
	Apart  bool    `json:"apart"` // changed by more than matters, and not by chance
}

// Comparison is one sample against one reference, over all streams.
type Comparison struct {
	Features []FeatureScore `json:"features"`
	MaxPSI   float64        `json:"max_psi"` // over the features with enough rows
	Apart    int            `json:"apart"`   // features found apart
	Missing  int            `json:"missing"` // features whose share of missing values changed
	New      int            `json:"new"`     // features whose share of unknown values changed
	Enough   bool           `json:"enough"`  // at least half of the features have enough rows
	M        uint64         `json:"m"`       // effective rows judged
	// Condition of the training data that is nearest, when the baseline knows several.
	Condition string `json:"condition,omitempty"`
}

// Stream is one watched quantity of two samples: counts on the same scored bins,
// then missing, then other, scaled to the samples' effective sizes.
type Stream struct {
	Name    string
	Side    sketch.Side
	Ordered bool // the bins before missing and other have an order, which KS needs
	P, Q    []float64
}

// Compare scores streams of a sample of m effective rows against a reference of
// n. Streams are apart when both the threshold and the noise of all of them
// together are exceeded.
func Compare(n, m uint64, limits Limits, streams iter.Seq[Stream]) Comparison {
	c := Comparison{M: m}
	var ps []float64
	for s := range streams {
		x := cells{p: s.P, q: s.Q, n: float64(n), m: float64(m)}
		if s.Ordered {
			x.ordered = len(s.P) - Reserved
		}
		f := x.score()
		f.Name, f.Side = s.Name, string(s.Side)
		bins := len(s.P) - Reserved
		f.Missing, f.New = x.share(bins), x.share(bins+1)
		f.Enough = min(f.M, f.N) >= uint64(limits.RowsPerBin*min(max(f.Bins, 2), MaxBins)) //nolint:gosec // small and positive
		if f.Enough {
			ps = append(ps, f.chance())
		}
		c.Features = append(c.Features, f)
	}
	c.judge(ps, limits)
	c.judgeShares(limits)
	return c
}

// chance is the p-value that decides: the larger one of both tests.
func (f *FeatureScore) chance() float64 { return max(f.P, f.Chi2P) }

func (c *Comparison) judge(ps []float64, limits Limits) {
	level := max(c.decide(ps, limits), limits.Alpha/float64(max(len(ps), 1)))
	quantiles := map[int]float64{} // by bins: they cost more than all the rest of a comparison
	for i := range c.Features {
		f := &c.Features[i]
		if f.Bins <= 1 || f.N == 0 || f.M == 0 {
			continue
		}
		q, known := quantiles[f.Bins]
		if !known {
			q = chi2Quantile(level, f.Bins-1)
			quantiles[f.Bins] = q
		}
		f.Noise = (1/float64(f.N) + 1/float64(f.M)) * q
	}
}

// decide finds the streams that are apart and returns the level at which a
// p-value is a discovery.
func (c *Comparison) decide(ps []float64, limits Limits) (level float64) {
	level = discoveries(ps, limits.Alpha)
	for i := range c.Features {
		f := &c.Features[i]
		if !f.Enough {
			continue
		}
		f.Apart = f.PSI > limits.Threshold && f.chance() <= level
		if f.Apart {
			c.Apart++
		}
		c.MaxPSI = max(c.MaxPSI, f.PSI)
	}
	c.Enough = len(ps) > 0 && 2*len(ps) >= len(c.Features)
	return level
}

// judgeShares finds the shares that changed. Their family is all that could
// have: two for each stream.
func (c *Comparison) judgeShares(limits Limits) {
	ps := make([]float64, 0, Reserved*len(c.Features))
	for i := range c.Features {
		ps = append(ps, c.Features[i].Missing.chance(), c.Features[i].New.chance())
	}
	level := discoveries(ps, limits.Alpha)
	for i := range c.Features {
		f := &c.Features[i]
		if f.Missing.judge(level, limits.Share) {
			c.Missing++
		}
		if f.New.judge(level, limits.Share) {
			c.New++
		}
	}
}

// chance is the share's p-value, 1 where there is none of it.
func (s *Share) chance() float64 {
	if s == nil {
		return 1
	}
	return s.P
}

func (s *Share) judge(level, matters float64) bool {
	if s == nil {
		return false
	}
	s.Apart = s.Moved() > matters && s.P <= level
	return s.Apart
}

// Moved is how far the share is from the reference's, either way.
func (s *Share) Moved() float64 { return math.Abs(s.After - s.Before) }

// ApartOn counts the streams of one side that were found apart: those of the
// inputs, or those of the predictions.
func (c *Comparison) ApartOn(side sketch.Side) (n int) {
	for i := range c.Features {
		if c.Features[i].Apart && c.Features[i].Side == string(side) {
			n++
		}
	}
	return n
}

// Nearest is the comparison with the least apart of n references, the first one
// where they are equal.
func Nearest(n int, compare func(i int) Comparison) Comparison {
	var best Comparison
	for i := range n {
		c := compare(i)
		if i == 0 || c.Apart < best.Apart || c.Apart == best.Apart && c.MaxPSI < best.MaxPSI {
			best = c
		}
	}
	return best
}

// Furthest are the streams found apart, largest PSI first, at most n.
func (c *Comparison) Furthest(n int) []FeatureScore {
	var fs []FeatureScore
	for _, f := range c.Features {
		if f.Apart {
			fs = append(fs, f)
		}
	}
	slices.SortStableFunc(fs, func(a, b FeatureScore) int { return cmp.Compare(b.PSI, a.PSI) })
	return fs[:min(n, len(fs))]
}

// Training compares rows counted over a baseline with the training rows that it
// was made of or, where they were taken under several conditions, with the
// nearest of those: a device sees one condition at a time. effective is rows,
// but no more than there are distinct ones. counts must be over the baseline's
// bins.
func Training(b *sketch.Baseline, counts []*protocol.Histogram, rows, effective uint64, limits Limits) Comparison {
	groups := make([][]uint8, len(b.Streams))
	bins := make([]int, len(b.Streams))
	for i := range b.Streams {
		groups[i], bins[i] = Coarsen(&b.Streams[i])
	}
	factor := float64(effective) / float64(max(rows, 1))
	against := func(n uint64, of func(i int) sketch.BinCounts) Comparison {
		return Compare(n, effective, limits, func(yield func(Stream) bool) {
			for i := range b.Streams {
				s, h, r := &b.Streams[i], counts[i], of(i)
				p := scaled(r.Counts, r.Missing, r.Other, groups[i], bins[i], 1)
				q := scaled(h.GetBins(), h.GetMissing(), h.GetOther(), groups[i], bins[i], factor)
				if !yield(Stream{Name: s.Name, Side: s.Side, Ordered: s.Kind != sketch.Categorical, P: p, Q: q}) {
					return
				}
			}
		})
	}
	return Nearest(1+len(b.Conditions), func(i int) Comparison {
		if i == 0 {
			return against(b.Rows, func(i int) sketch.BinCounts {
				s := &b.Streams[i]
				return sketch.BinCounts{Counts: s.Counts, Missing: s.Missing, Other: s.Other}
			})
		}
		k := &b.Conditions[i-1]
		c := against(k.Rows, func(i int) sketch.BinCounts { return k.Histograms[i] })
		c.Condition = k.Name
		return c
	})
}

// scaled puts counts on the scored bins, then missing, then other.
func scaled(counts []uint64, missing, other uint64, group []uint8, bins int, factor float64) []float64 {
	to := make([]float64, bins+Reserved)
	for i, n := range counts {
		if group != nil {
			i = int(group[i])
		}
		to[i] += float64(n) * factor
	}
	to[bins], to[bins+1] = float64(missing)*factor, float64(other)*factor
	return to
}
