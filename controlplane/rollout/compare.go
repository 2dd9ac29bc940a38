package rollout

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Error rates of the gates that compare devices. The harm test is looked at
// again and again while a wave runs, so each look gets a thousandth: fifty
// looks stop a harmless rollout in at most one of twenty cases. The pass test
// counts once, when the wave closes.
const (
	alphaFail = 0.001
	alphaPass = 0.05
)

// pairing says what the devices on the release are compared with.
type pairing string

const (
	withControl pairing = "devices of the same profile on the old release, over the same time"
	withPast    pairing = "the same devices before, on the old release"
	withNothing pairing = "nothing: no device ran an old release"
)

// metric is one number of one device with what it rests on.
type metric struct {
	value    float64
	variance float64 // of value by chance inside the device, 0 for unknown
}

// measure takes a metric from evidence; ok is false when there is too little.
type measure func(e *Evidence) (m metric, ok bool)

// groups are the devices that a gate compares.
type groups struct {
	new     []string // on the release through this rollout
	control []string // not touched by it yet
}

func (j *judge) sides() *groups {
	if j.groups != nil {
		return j.groups
	}
	g := &groups{}
	for _, id := range slices.Sorted(maps.Keys(j.f.Devices)) {
		d, known := j.s.Device(id)
		f := j.f.device(id)
		switch {
		case f.Revoked || d.Already:
		case known && d.Order.Kind == Forward && d.State != DeviceSuperseded:
			if f.New != nil {
				g.new = append(g.new, id)
			}
		case f.Selected && f.Old != nil && d.Tries == 0:
			g.control = append(g.control, id)
		}
	}
	j.groups = g
	return g
}

// comparison is the mean difference, new minus old, over devices.
type comparison struct {
	with    pairing
	devices int     // on the release, that had enough evidence
	against int     // compared with
	diff    float64 //
	se      float64 // standard error of diff; NaN when it cannot be known
	df      float64 // degrees of freedom; +Inf when se is from inside one device
}

// compare takes the difference of a metric. While devices of the same profile
// still run the old release, they are the reference, profile by profile, at the
// same time. Afterwards each device is compared with its own past. The unit is
// the device: predictions of one device are not independent of each other.
func (j *judge) compare(m measure) comparison {
	if c, ok := j.againstControl(m); ok {
		return c
	}
	if c, ok := j.againstPast(m); ok {
		return c
	}
	return comparison{with: withNothing, devices: len(j.measured(j.sides().new, evidenceNew, m)), se: math.NaN()}
}

// Which evidence of a device is meant.
func evidenceNew(f DeviceFacts) *Evidence  { return f.New }
func evidenceOld(f DeviceFacts) *Evidence  { return f.Old }
func evidencePast(f DeviceFacts) *Evidence { return f.Past }

func (j *judge) measured(ids []string, which func(DeviceFacts) *Evidence, m measure) map[string]metric {
	out := map[string]metric{}
	for _, id := range ids {
		if e := which(j.f.device(id)); e != nil {
			if v, ok := m(e); ok {
				out[id] = v
			}
		}
	}
	return out
}

// againstControl is a difference of means within each profile, weighted by the
// devices on the release. Profiles without a control device say nothing.
func (j *judge) againstControl(m measure) (comparison, bool) {
	treated := j.byProfile(j.measured(j.sides().new, evidenceNew, m))
	control := j.byProfile(j.measured(j.sides().control, evidenceOld, m))
	c := comparison{with: withControl}
	strata := 0
	for _, profile := range slices.Sorted(maps.Keys(treated)) {
		if t, k := treated[profile], control[profile]; len(k) > 0 {
			strata++
			c.devices += len(t)
			c.against += len(k)
		}
	}
	if c.devices == 0 {
		return c, false
	}
	var inside, squaresT, squaresC, weightT, weightC float64
	for _, profile := range slices.Sorted(maps.Keys(treated)) {
		t, k := treated[profile], control[profile]
		if len(k) == 0 {
			continue
		}
		w := float64(len(t)) / float64(c.devices)
		c.diff += w * (mean(t) - mean(k))
		squaresT += squares(t)
		squaresC += squares(k)
		weightT += w * w / float64(len(t))
		weightC += w * w / float64(len(k))
		inside += w * w * (chance(t) + chance(k))
	}
	between, df := pooled(squaresT, c.devices-strata, weightT)
	betweenC, dfC := pooled(squaresC, c.against-strata, weightC)
	c.spread(between+betweenC, inside, min(df, dfC))
	return c, true
}

// againstPast is the mean of each device's own difference.
func (j *judge) againstPast(m measure) (comparison, bool) {
	now := j.measured(j.sides().new, evidenceNew, m)
	before := j.measured(j.sides().new, evidencePast, m)
	var own []metric
	for _, id := range slices.Sorted(maps.Keys(now)) {
		if b, ok := before[id]; ok {
			own = append(own, metric{now[id].value - b.value, now[id].variance + b.variance})
		}
	}
	if len(own) == 0 {
		return comparison{}, false
	}
	n := len(own)
	c := comparison{with: withPast, devices: n, against: n, diff: mean(own)}
	between, df := pooled(squares(own), n-1, 1/float64(n))
	c.spread(between, chance(own), df)
	return c, true
}

// pooled is the variance of a mean from its sum of squares, with its degrees
// of freedom; infinite when there are none.
func pooled(squares float64, df int, weight float64) (variance, freedom float64) {
	if df < 1 {
		return math.Inf(1), 0
	}
	return squares / float64(df) * weight, float64(df)
}

// spread sets the standard error: the larger of what devices differ by and what
// chance inside them makes them differ. When devices cannot be compared with
// each other because there is one, only the second is known.
func (c *comparison) spread(between, inside, df float64) {
	if math.IsInf(between, 1) {
		c.se, c.df = math.Sqrt(inside), math.Inf(1)
		return
	}
	c.se, c.df = math.Sqrt(max(between, inside)), df
}

// alone says that differences between devices could not be taken into account.
func (c comparison) alone() bool { return math.IsInf(c.df, 1) }

// margin is how far diff may lie from the truth, one-sided.
func (c comparison) margin(alpha float64) float64 {
	if c.alone() {
		return c.se * distuv.UnitNormal.Quantile(1-alpha)
	}
	return c.se * distuv.StudentsT{Mu: 0, Sigma: 1, Nu: c.df}.Quantile(1-alpha)
}

func (j *judge) byProfile(in map[string]metric) map[string][]metric {
	out := map[string][]metric{}
	for _, id := range slices.Sorted(maps.Keys(in)) {
		profile := j.f.device(id).Profile
		out[profile] = append(out[profile], in[id])
	}
	return out
}

func mean(of []metric) float64 {
	sum := 0.0
	for _, m := range of {
		sum += m.value
	}
	return sum / float64(len(of))
}

// squares is the sum of squared deviations from the mean.
func squares(of []metric) float64 {
	center, sum := mean(of), 0.0
	for _, m := range of {
		sum += (m.value - center) * (m.value - center)
	}
	return sum
}

// chance is the variance of the mean by chance inside the devices.
func chance(of []metric) float64 {
	sum := 0.0
	for _, m := range of {
		sum += m.variance
	}
	return sum / float64(len(of)*len(of))
}

// share is the metric of bad out of all. The variance is that of a share with
// one more of each, so that none of few does not look certain.
func share(bad, all uint64) metric {
	p := (float64(bad) + 1) / (float64(all) + 2)
	return metric{value: float64(bad) / float64(all), variance: p * (1 - p) / float64(all)}
}

func (c comparison) describe() string {
	return fmt.Sprintf("%d devices against %s", c.devices, c.with)
}
