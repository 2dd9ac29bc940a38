package challenger

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// arm is bad ones of all, of one version on one device.
type arm struct{ bad, of float64 }

func armOf(bad, of uint64) arm {
	return arm{float64(min(bad, of)), float64(of)}
}

// pair is one device: the challenger and what serves beside it.
type pair struct{ challenger, serving arm }

// Alternatives that evidence bets on: how many times the rate of what serves.
var (
	harmRatios = []float64{1.1, 1.25, 1.5, 2, 3, 5, 10, 30, 100}
	rareRatios = []float64{0.5, 0.2, 0.05, 0} // of a tolerable rate
)

func fineRatios(margin float64) []float64 { return []float64{0.9, 1, 1 + margin/2} }

// bets is a uniform mixture of bets, as logarithms.
type bets []float64

func (b bets) mean() float64 {
	most := math.Inf(-1)
	for _, l := range b {
		most = max(most, l)
	}
	if math.IsInf(most, -1) {
		return most
	}
	sum := 0.0
	for _, l := range b {
		sum += math.Exp(l - most)
	}
	return most + math.Log(sum/float64(len(b)))
}

// ratioLog is the logarithm of the evidence against "the challenger's rate is r0
// times the other's": a bad row is the challenger's with the chance
// r·s/(r·s + 1 − s), where s is the challenger's part of the device's rows,
// whatever the rate of the device. Of a shadow both have the same rows: there,
// rows that both got wrong only take from the evidence, and what is left is the
// test of McNemar (1947) on the rows that one of them got wrong.
func ratioLog(pairs []pair, r0 float64, ratios []float64) float64 {
	out := make(bets, len(ratios))
	for _, p := range pairs {
		s := p.challenger.of / (p.challenger.of + p.serving.of)
		if s <= 0 || s >= 1 || math.IsNaN(s) {
			continue
		}
		p0 := share(r0, s)
		for i, r := range ratios {
			p1 := share(r, s)
			out[i] += p.challenger.bad*math.Log(p1/p0) + p.serving.bad*(math.Log1p(-p1)-math.Log1p(-p0))
		}
	}
	return out.mean()
}

func share(ratio, s float64) float64 { return ratio * s / (ratio*s + 1 - s) }

// rateLog is the logarithm of the evidence against "the challenger's rate is p0",
// betting on rates that are p0 times the ratios.
func rateLog(pairs []pair, p0 float64, ratios []float64) float64 {
	out := make(bets, len(ratios))
	for i, r := range ratios {
		p1 := min(r*p0, (1+p0)/2)
		for _, p := range pairs {
			if p.challenger.bad > 0 {
				out[i] += p.challenger.bad * math.Log(p1/p0)
			}
			out[i] += (p.challenger.of - p.challenger.bad) * (math.Log1p(-p1) - math.Log1p(-p0))
		}
	}
	return out.mean()
}

// expected fills in how many bad rows the challenger has on each device if the
// ratio of all of them together holds on each, and with what variance.
type expected func(p pair) (mean, variance float64)

// surely is how often the dispersion is not taken for less than it is: of few
// devices it is known badly.
const surely = 0.8

// unseen is the variance, over the degrees of freedom, of what keys may do to a
// version on one device without it showing among few: devices whose ratios differ
// by a fifth or less look alike for long, and whoever looks often promotes then.
// Without it 8 to 13% were promoted wrongly among three to six such devices.
const unseen = 0.04

// dispersion is Pearson's χ² over devices by what it exceeds with a chance of
// surely where chance alone is at work, and at least what cannot be seen of so
// few devices.
func dispersion(pairs []pair, of expected) float64 {
	var sum, all, squares float64
	devices := 0
	for _, p := range pairs {
		mean, variance := of(p)
		if variance <= 0 {
			continue
		}
		d := p.challenger.bad - mean
		sum += d * d / variance
		all, squares = all+variance, squares+variance*variance
		devices++
	}
	if devices < 2 {
		return 1
	}
	free := float64(devices - 1)
	least := 1 + unseen/free*squares/all
	if sum <= free {
		return least
	}
	return max(least, sum/distuv.ChiSquared{K: free}.Quantile(1-surely))
}

// ofRatio expects the ratio that all devices have together.
func ofRatio(pairs []pair) expected {
	var bad float64
	for _, p := range pairs {
		bad += p.challenger.bad
	}
	ratio := fitRatio(pairs, bad)
	return func(p pair) (float64, float64) {
		n := p.challenger.bad + p.serving.bad
		s := p.challenger.of / max(p.challenger.of+p.serving.of, 1)
		q := share(ratio, s)
		return n * q, n * q * (1 - q)
	}
}

// fitRatio is the ratio under which the devices together have as many bad rows
// of the challenger as they do. More of it gives more of them, so it is halved in.
func fitRatio(pairs []pair, bad float64) float64 {
	low, high := -14.0, 14.0 // logarithms
	for range 40 {
		middle, sum := (low+high)/2, 0.0
		for _, p := range pairs {
			s := p.challenger.of / max(p.challenger.of+p.serving.of, 1)
			sum += (p.challenger.bad + p.serving.bad) * share(math.Exp(middle), s)
		}
		if sum < bad {
			low = middle
		} else {
			high = middle
		}
	}
	return math.Exp((low + high) / 2)
}

// ofRate expects the rate that all devices have together.
func ofRate(pairs []pair) expected {
	var all arm
	for _, p := range pairs {
		all.bad += p.challenger.bad
		all.of += p.challenger.of
	}
	q := all.bad / max(all.of, 1)
	return func(p pair) (float64, float64) { return p.challenger.of * q, p.challenger.of * q * (1 - q) }
}

// maxE bounds every e-value, so that means of them stay finite and can be written.
const maxE = 1e12

// eValue weighs a logarithm of evidence by the dispersion.
func eValue(log, dispersion float64) float64 {
	return min(math.Exp(min(log/dispersion, 300)), maxE)
}
