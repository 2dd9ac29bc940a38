package rollout

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// decide answers a gate from a rise that should not be above the limit: fail
// when it surely is, pass when it surely is not.
func (c comparison) decide(rise, limit float64, g *GateResult) {
	switch {
	case math.IsNaN(c.se):
		g.Result = GateInconclusive
	case rise-c.margin(alphaFail) > limit:
		g.Result = GateFail
	case rise+c.margin(alphaPass) <= limit:
		g.Result = GatePass
	default:
		g.Result = GateInconclusive
	}
	if c.alone() {
		g.Text += "; too few devices to know how much they differ from each other"
	}
}

// errors compares the share of failed rows. It can answer for one device, too:
// the number of requests that fail there is certain, whatever other devices do.
func (j *judge) errors(spec GateSpec) GateResult {
	failed := func(e *Evidence) (metric, bool) {
		all := e.Rows + e.FailedRows
		if all == 0 || all < spec.Min {
			return metric{}, false
		}
		return share(e.FailedRows, all), true
	}
	g := GateResult{}
	for _, id := range j.sides().new {
		e := j.f.device(id).New
		g.Numerator += float64(e.FailedRows)
		g.Denominator += float64(e.Rows + e.FailedRows)
	}
	c := j.compare(failed)
	if c.with == withNothing && c.devices > 0 {
		c = j.absolute(failed)
	}
	if c.devices == 0 {
		return missing(g, spec, "predictions")
	}
	g.Value = c.diff
	g.Text = fmt.Sprintf("%.0f of %.0f predictions failed; share of failed ones %+.2f points, limit %.2f (%s)",
		g.Numerator, g.Denominator, 100*c.diff, 100*spec.limit(), c.describe())
	c.decide(c.diff, spec.limit(), &g)
	return g
}

// absolute takes the share itself where there is no old release to compare it
// with: a first release must not fail more often than the limit.
func (j *judge) absolute(m measure) comparison {
	var own []metric
	for _, v := range j.measured(j.sides().new, evidenceNew, m) {
		own = append(own, v)
	}
	c := comparison{with: withNothing, devices: len(own), diff: mean(own)}
	between, df := pooled(squares(own), len(own)-1, 1/float64(len(own)))
	c.spread(between, chance(own), df)
	return c
}

// missing is the answer of a gate without evidence.
func missing(g GateResult, spec GateSpec, of string) GateResult {
	g.Result = GateInconclusive
	g.Text = fmt.Sprintf("no device with the release has %d %s yet", max(spec.Min, 1), of)
	return g
}

// latency compares p95 latencies by their ratio. Differences of a ratio are
// differences of logarithms.
func (j *judge) latency(spec GateSpec) GateResult {
	p95 := func(e *Evidence) (metric, bool) {
		if e.P95US <= 0 || e.Rows < spec.Min {
			return metric{}, false
		}
		return metric{value: math.Log(e.P95US)}, true
	}
	c := j.compare(p95)
	g := GateResult{Numerator: float64(c.devices), Denominator: float64(j.tally.activated)}
	if c.devices == 0 {
		return missing(g, spec, "predictions")
	}
	if c.alone() || c.with == withNothing {
		c.se = math.NaN()
	}
	g.Value = math.Exp(c.diff) - 1
	g.Text = fmt.Sprintf("p95 latency %+.1f %%, limit %+.1f %% (%s)", 100*g.Value, 100*spec.limit(), c.describe())
	c.decide(c.diff, math.Log1p(spec.limit()), &g)
	return g
}

// accuracy compares the share of labels that the predictions met. One device
// cannot answer for the others.
func (j *judge) accuracy(spec GateSpec) GateResult {
	correct := func(e *Evidence) (metric, bool) {
		if e.Labels == 0 || e.Labels < spec.Min {
			return metric{}, false
		}
		return share(e.Correct, e.Labels), true
	}
	g := GateResult{}
	for _, id := range j.sides().new {
		e := j.f.device(id).New
		g.Numerator += float64(e.Correct)
		g.Denominator += float64(e.Labels)
	}
	c := j.compare(correct)
	if c.devices == 0 {
		return missing(g, spec, "labels")
	}
	if c.alone() || c.with == withNothing {
		c.se = math.NaN()
	}
	g.Value = -c.diff
	g.Text = fmt.Sprintf("accuracy %+.2f points, may fall by %.2f (%s)", 100*c.diff, 100*spec.limit(), c.describe())
	c.decide(-c.diff, spec.limit(), &g)
	return g
}

// drift compares the predicted classes of the devices on the release with those
// of the devices still on the old one (when there are none left, with their own
// past) by the population stability index. Cameras differ from each other
// without any drift, so it fails only when the difference is also larger than
// that of any single control device from the rest of them.
func (j *judge) drift(spec GateSpec) GateResult {
	sides := j.sides()
	now, before := j.classes(sides.new, evidenceNew), j.classes(sides.control, evidenceOld)
	with, others := withControl, sides.control
	if total(before) < total(now)/10 || total(before) == 0 {
		before, with, others = j.classes(sides.new, evidencePast), withPast, nil
	}
	g := GateResult{Numerator: float64(total(now)), Denominator: float64(total(before))}
	if total(now) < spec.Min || len(now) == 0 {
		return missing(g, spec, "predictions with classes")
	}
	if len(now) != len(before) || total(before) < spec.Min {
		g.Result, g.Text = GateInconclusive, "no old release with the same classes to compare with"
		return g
	}
	value, noise := psi(before, now)
	spread := j.spreadOf(others)
	g.Value = value
	g.Text = fmt.Sprintf("PSI of predicted classes %.3f, limit %.2f, by chance up to %.3f, between single devices up to %.3f (%d devices against %s)",
		value, spec.limit(), noise, spread, len(sides.new), with)
	switch {
	case value > spec.limit() && value > noise && value > spread && with == withControl && len(others) >= minSpread:
		g.Result = GateFail
	case value <= spec.limit() && noise <= spec.limit():
		g.Result = GatePass
	default:
		g.Result = GateInconclusive
	}
	return g
}

// minSpread is how many control devices are needed to know how much devices
// differ from each other.
const minSpread = 3

func (j *judge) classes(ids []string, which func(DeviceFacts) *Evidence) []uint64 {
	var sum []uint64
	for _, id := range ids {
		e := which(j.f.device(id))
		if e == nil || len(e.Classes) == 0 || sum != nil && len(e.Classes) != len(sum) {
			continue
		}
		if sum == nil {
			sum = make([]uint64, len(e.Classes))
		}
		for i, n := range e.Classes {
			sum[i] += n
		}
	}
	return sum
}

// spreadOf is the largest PSI of one control device from the rest of them.
func (j *judge) spreadOf(ids []string) float64 {
	if len(ids) < minSpread {
		return 0
	}
	all, largest := j.classes(ids, evidenceOld), 0.0
	for _, id := range ids {
		own := j.classes([]string{id}, evidenceOld)
		if len(own) != len(all) || total(own) == 0 {
			continue
		}
		rest := make([]uint64, len(all))
		for i := range all {
			rest[i] = all[i] - own[i]
		}
		value, _ := psi(rest, own)
		largest = max(largest, value)
	}
	return largest
}

func total(counts []uint64) uint64 {
	var sum uint64
	for _, n := range counts {
		sum += n
	}
	return sum
}

// psi is the population stability index of two histograms over the same bins,
// empty cells at half a count, and the value it stays below by chance at
// alphaFail: without drift it is about (1/n + 1/m)·χ²(bins − 1) (Yurdakul and
// Naranjo 2020).
func psi(a, b []uint64) (value, noise float64) {
	n, m, bins := float64(total(a)), float64(total(b)), 0.0
	if n == 0 || m == 0 {
		return 0, math.Inf(1)
	}
	for i := range a {
		if a[i] == 0 && b[i] == 0 {
			continue
		}
		bins++
		p, q := max(float64(a[i]), 0.5)/n, max(float64(b[i]), 0.5)/m
		value += (q - p) * math.Log(q/p)
	}
	if bins < 2 {
		return value, 0
	}
	return value, (1/n + 1/m) * distuv.ChiSquared{K: bins - 1}.Quantile(1-alphaFail)
}
