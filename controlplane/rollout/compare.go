package rollout

import (
	"fmt"
	"math"
	"slices"
)

// comparison is what a gate that compares devices rests on. Sums over devices
// are whole numbers, so that the order of devices makes no difference.
type comparison struct {
	gate   GateSpec
	worse  int     // devices by their sign
	fine   int     //
	signs  int     // worse, fine and even
	counts counted // rows or labels of the devices on the release
	rises  int64   // sum of the devices' changes, in 1/riseUnit
	rising int     // devices in rises

	profiles map[string]*signs // by firmware profile
}

// signs counts the devices of one firmware profile that are worse, and all.
type signs struct{ worse, all int }

// harm is an e-value against "no more devices are worse than fine": half of it
// bets on all of them together, the other half on one firmware profile, as much
// on each. A release that is bad for one kind of device shows in the second.
func (c *comparison) harm() float64 {
	e := signE(c.worse, c.signs-c.worse)
	if len(c.profiles) < 2 {
		return e
	}
	each := make([]float64, 0, len(c.profiles))
	for _, p := range c.profiles {
		each = append(each, signE(p.worse, p.all-p.worse)/float64(len(c.profiles)))
	}
	slices.Sort(each) // sums of fractions depend on their order
	one := 0.0
	for _, e := range each {
		one += e
	}
	return capE((e + one) / 2)
}

// riseUnit and largestRise keep the sum of a million changes inside an int64.
// Nobody becomes e⁶⁴ times slower.
const (
	riseUnit    = 1 << 30
	largestRise = 64
)

// mean is the mean change of devices.
func (c *comparison) mean() float64 {
	if c.rising == 0 {
		return 0
	}
	return float64(c.rises) / riseUnit / float64(c.rising)
}

func (c *comparison) rise(by float64) {
	c.rises += int64(math.Round(min(max(by, -largestRise), largestRise) * riseUnit))
	c.rising++
}

// add takes in what a device on the release showed; past says whether devices
// have one at all.
func (c *comparison) add(f *DeviceFacts, past bool) {
	var diff change
	var ok bool
	switch {
	case c.gate.Kind == Shadow:
		if f.Shadow != nil {
			c.counts.add(disagreed(f.Shadow))
		}
		diff, ok = differs(c.gate, f.Shadow)
	case f.New == nil:
		return
	case c.gate.Kind == Errors:
		now := tries(f.New)
		c.counts.add(now)
		diff, ok = firstRise(f.Past, now, past)
	default:
		if c.gate.Kind == Accuracy {
			c.counts.add(wrong(f.New))
		}
		diff, ok = changed(c.gate, f.Past, f.New)
	}
	if ok {
		c.rise(diff.rise)
	}
}

// firstRise is the change of errors from a device's first row on: one that fails
// all of them is not waited for. A device without a past is taken as it is where
// none has one, otherwise only when it fails most of its rows.
func firstRise(before *Evidence, now counted, past bool) (c change, ok bool) {
	c.rise = now.share()
	if before != nil && tries(before).all > 0 {
		c.rise -= tries(before).share()
	} else if past && c.rise <= unknownShare {
		return c, false
	}
	return c, now.all > 0
}

// addSigns counts signs.
func (c *comparison) addSigns(s *Signs, many int) {
	switch *s.of(c.gate.Kind) {
	case 0:
		return
	case Worse:
		c.worse += many
	case Fine:
		c.fine += many
	case Even:
	}
	c.signs += many
}

// addProfile counts the sign of one device for its firmware profile.
func (c *comparison) addProfile(d *Device) {
	sign := *d.Signs.of(c.gate.Kind)
	if sign == 0 {
		return
	}
	p := c.profiles[d.Profile]
	if p == nil {
		p = &signs{}
		c.profiles[d.Profile] = p
	}
	if p.all++; sign == Worse {
		p.worse++
	}
}

// watch goes over the devices once for all gates that compare them.
func (j *judge) watch(all []pair) {
	for _, g := range j.s.Spec.Gates {
		if !j.s.compares(g) {
			continue
		}
		j.comparisons = append(j.comparisons, &comparison{gate: g, profiles: map[string]*signs{}})
		if g.Kind == Errors {
			j.rows = j.newRows(g)
		}
		if g.Kind == Shadow {
			j.shadows = j.newShadows(g)
		}
	}
	j.s.each(func(d *Device, many int) {
		if d.State == DeviceSuperseded {
			return
		}
		for _, c := range j.comparisons {
			c.addSigns(&d.Signs, many)
		}
	})
	if len(j.comparisons) == 0 {
		return
	}
	for _, e := range all {
		if e.d == nil || e.d.State == DeviceSuperseded {
			continue
		}
		if e.d.Signs != (Signs{}) {
			for _, c := range j.comparisons {
				c.addProfile(e.d)
			}
		}
		if e.d.compared() && e.f != nil && !e.f.Revoked {
			j.see(e.d, e.f)
		}
	}
}

func (j *judge) see(d *Device, f *DeviceFacts) {
	for _, c := range j.comparisons {
		c.add(f, j.past)
	}
	if j.rows != nil {
		j.rows.add(d.Wave, f.Past, f.New)
	}
	if j.shadows != nil {
		j.shadows.addShadow(d.Wave, f.Shadow)
	}
}

// compared says that the device runs the release, or its shadow, because of this
// rollout.
func (d *Device) compared() bool {
	return !d.Already && d.State != DeviceSuperseded && (d.Order.Kind == Forward || d.Order.Kind == Beside)
}

// alphaEach is the chance of each comparing gate to stop a harmless release.
func (s *State) alphaEach() float64 {
	n := 0
	for _, g := range s.Spec.Gates {
		if s.compares(g) {
			n++
		}
	}
	return s.beta() / float64(max(n, 1))
}

// beta is the chance to find a release fine that is worse than the limit. It is
// not split: a gate that lets one pass says nothing for the others.
func (s *State) beta() float64 {
	if s.Spec.Alpha == nil {
		return DefaultAlpha // of a chain that is older than the field
	}
	return *s.Spec.Alpha
}

// compare weighs the devices of a gate against the error rates.
func (j *judge) compare(c *comparison) GateResult {
	excused, controls := j.world.control(c.gate)
	r := GateResult{
		Worse: c.worse, Fine: c.fine, Alpha: j.alpha,
		EHarm: c.harm(), EFine: signE(c.fine, c.signs-c.fine), EControl: signE(excused, controls-excused),
		Numerator: float64(c.worse), Denominator: float64(c.signs), Value: c.mean(),
	}
	switch c.gate.Kind {
	case Errors:
		j.errors(c, &r)
	case Shadow:
		j.agreement(c, &r)
	case Accuracy:
		r.Numerator, r.Denominator = float64(c.counts.all-c.counts.bad), float64(c.counts.all)
	case Latency:
		r.Value = math.Expm1(r.Value)
	case Golden, Install, Crash, Drift:
	}
	j.conclude(c, &r)
	r.Text = j.missing(c)
	if r.Text == "" {
		r.Text = c.sentence(&r) + "; " + j.reason(c, &r)
	}
	return r
}

// conclude answers the gate. Most devices are worse where signs speak of harm;
// for errors and shadows single rows speak, too, and one device of many with a
// fault of its own must not stop a release that is within the limit in the mean.
func (j *judge) conclude(c *comparison, r *GateResult) {
	above := c.gate.Kind != Errors && c.gate.Kind != Shadow || r.Value > c.gate.limit()
	switch {
	case r.EHarm >= 1/j.alpha && above && r.EControl < 1/j.alpha:
		r.Result = GateFail
	case r.EHarm < 1/j.alpha && r.EFine >= 1/j.beta && r.Value <= c.gate.limit():
		r.Result = GatePass // not while the mean is over the limit: a few may be very much worse
	default:
		r.Result = GateInconclusive
	}
}

// sentence says what was counted.
func (c *comparison) sentence(r *GateResult) string {
	limit := 100 * c.gate.limit()
	switch c.gate.Kind {
	case Errors:
		return fmt.Sprintf("%.0f of %.0f predictions failed; share of failed ones %+.2f points, limit %.2f", r.Numerator, r.Denominator, 100*r.Value, limit)
	case Latency:
		return fmt.Sprintf("p95 latency %+.1f %%, limit %+.1f %%", 100*r.Value, limit)
	case Drift:
		return fmt.Sprintf("PSI of predicted classes %.3f beyond chance, limit %.2f", r.Value, c.gate.limit())
	case Shadow:
		return fmt.Sprintf("%.0f of %.0f rows differ in shadow, %.2f %% of a device's rows, limit %.2f", r.Numerator, r.Denominator, 100*r.Value, limit)
	case Accuracy:
		return fmt.Sprintf("%.0f of %.0f labels met; accuracy %+.2f points, may fall by %.2f", r.Numerator, r.Denominator, 0-100*r.Value, limit)
	case Golden, Install, Crash:
	}
	return ""
}

// missing says what there is nothing of yet, or nothing.
func (j *judge) missing(c *comparison) string {
	switch {
	case c.signs > 0 || c.rising > 0:
		return ""
	case !j.past && c.gate.Kind != Shadow && c.gate.Kind != Errors:
		return "no device served an old release before: there is nothing to compare with"
	}
	return fmt.Sprintf("no device with the release has %d %s yet", max(c.gate.Min, 1), c.unit())
}

// reason says why the answer is what it is, and what another would take.
func (j *judge) reason(c *comparison, r *GateResult) string {
	harm := fmt.Sprintf("e-value of harm %s of %s needed", number(r.EHarm), number(1/j.alpha))
	fine := fmt.Sprintf("of no harm %s of %s", number(r.EFine), number(1/j.beta))
	devices := fmt.Sprintf("of %d devices %d are worse than before and %d fine", c.signs, c.worse, c.fine)
	switch {
	case !j.past && c.gate.Kind == Errors:
		devices = "no device served an old release before to compare with"
	case c.signs == 0:
		devices = "no device is through its soak time with enough of them"
	}
	switch {
	case r.EHarm >= 1/j.alpha && r.EControl >= 1/j.alpha:
		return fmt.Sprintf("%s; %s, but the control group changed as well (%s): the world, not the release", devices, harm, number(r.EControl))
	case r.Result == GateFail:
		return devices + "; " + harm
	}
	return devices + "; " + harm + ", " + fine
}

// unit is what a device must have Min of.
func (c *comparison) unit() string {
	switch c.gate.Kind {
	case Accuracy:
		return "labels"
	case Drift:
		return "predictions with classes"
	case Shadow:
		return "rows in shadow"
	case Golden, Install, Crash, Errors, Latency:
	}
	return "predictions"
}

// number is an e-value as people read it.
func number(e float64) string {
	switch {
	case e > 1e6:
		return "over a million"
	case e >= 10:
		return fmt.Sprintf("%.0f", math.Floor(e))
	}
	return fmt.Sprintf("%.2g", e)
}
