package rollout

import (
	"math"
	"slices"
)

// comparing are the gates that compare devices, in order.
var comparing = [...]GateKind{Errors, Latency, Drift, Shadow, Accuracy}

// of is where the sign of a gate is kept.
func (s *Signs) of(kind GateKind) *Sign {
	switch kind {
	case Errors:
		return &s.Errors
	case Latency:
		return &s.Latency
	case Drift:
		return &s.Drift
	case Shadow:
		return &s.Shadow
	case Accuracy:
		return &s.Accuracy
	case Golden, Install, Crash:
	}
	return new(Sign)
}

// change is how one device differs from itself before, in points of a share or
// in the logarithm of p95. Above zero is worse. The truth is at least least in
// at least half of the cases, and in at least half at most most: so a release
// that changes nothing gives no more bad signs than a coin, however few rows
// there were, and one that is worse than the limit no more good ones.
type change struct {
	rise, least, most float64
}

// sign compares a change with the limit. What happened to everybody excuses a
// device, and what got better for everybody is not to the release's credit.
func (c change) sign(limit float64, world shift) Sign {
	switch {
	case c.least > limit+world.up:
		return Worse
	case c.most <= limit+world.down:
		return Fine
	}
	return Even
}

// changed says how a device that counted before and now has changed, for all
// gates but shadow. ok is false while it has too little evidence. Whether it has
// enough depends on how much was counted, never on what came out now.
func changed(g GateSpec, before, now *Evidence) (c change, ok bool) {
	if before == nil || now == nil {
		return change{}, false
	}
	switch g.Kind {
	case Errors:
		return shares(g, tries(before), tries(now))
	case Accuracy:
		return shares(g, wrong(before), wrong(now))
	case Latency:
		return slower(g, before, now)
	case Drift:
		return drifted(g, before, now)
	case Golden, Install, Crash, Shadow:
	}
	return change{}, false
}

// counted are bad ones of all.
type counted struct{ bad, all uint64 }

func tries(e *Evidence) counted {
	return counted{e.FailedRows, plusCapped(e.Rows, e.FailedRows)}
}

func wrong(e *Evidence) counted { return counted{e.Labels - min(e.Correct, e.Labels), e.Labels} }

// disagreed takes rows that the shadow could not compute as disagreements.
func disagreed(a *Agreement) counted {
	return counted{plusCapped(a.Rows-min(a.Agreed, a.Rows), a.Failed), plusCapped(a.Rows, a.Failed)}
}

func (c counted) share() float64 {
	if c.all == 0 {
		return 0
	}
	return float64(min(c.bad, c.all)) / float64(c.all)
}

// The true share is as likely below as above these, to a good approximation
// (Benard and Bos-Levenbach 1953).
func (c counted) low() float64 { return c.rank(-0.3) }

func (c counted) high() float64 { return c.rank(0.7) }

func (c counted) rank(shift float64) float64 {
	return min(max(0, (float64(c.bad)+shift)/(float64(c.all)+0.4)), 1)
}

// mostRows bounds the rows that a sign of a share waits for.
const mostRows = 1000

// need is how many rows a device must have before its share can be found fine:
// with fewer, none at all bad would be likely even at the limit.
func need(g GateSpec, before float64) uint64 {
	return max(g.Min, 1, uint64(math.Ceil(min(mostRows, 0.7/(g.limit()+before)))))
}

func shares(g GateSpec, before, now counted) (c change, ok bool) {
	if before.all < max(g.Min, 1) || now.all < need(g, before.low()) {
		return change{}, false
	}
	return change{
		rise:  now.share() - before.share(),
		least: now.low() - before.rank(0.5),
		most:  now.high() - before.rank(-0.1),
	}, true
}

// differs says how often the shadow disagreed with the release that answers.
func differs(g GateSpec, a *Agreement) (c change, ok bool) {
	if a == nil {
		return change{}, false
	}
	n := disagreed(a)
	if n.all < need(g, 0) {
		return change{}, false
	}
	return change{rise: n.share(), least: n.low(), most: n.high()}, true
}

func slower(g GateSpec, before, now *Evidence) (c change, ok bool) {
	for _, e := range []*Evidence{before, now} {
		if !(e.P95US > 0) || math.IsInf(e.P95US, 1) || e.Rows < max(g.Min, 1) {
			return change{}, false
		}
	}
	rise := math.Log(now.P95US / before.P95US)
	margin := tailError * math.Sqrt(1/float64(before.Rows)+1/float64(now.Rows))
	return change{rise, rise - margin, rise + margin}, true
}

// tailError is the standard error of the logarithm of p95 of one call: of
// exponential latencies sqrt(0.95·0.05)/(0.05·ln 20). Few calls also show too
// low a p95; that is less than this.
const tailError = 1.5

// drifted takes the population stability index less what chance adds to it. A
// device has enough rows when that is at most half of the limit.
func drifted(g GateSpec, before, now *Evidence) (c change, ok bool) {
	if len(now.Classes) != len(before.Classes) || total(now.Classes) < max(g.Min, 1) || total(before.Classes) < max(g.Min, 1) {
		return change{}, false
	}
	value, noise := psi(before.Classes, now.Classes)
	if noise > g.limit()/2 {
		return change{}, false
	}
	return change{value - noise, value - noise, value}, true
}

func total(counts []uint64) uint64 {
	var sum uint64
	for _, n := range counts {
		sum = plusCapped(sum, n)
	}
	return sum
}

// psi is the population stability index of two histograms over the same bins,
// empty cells at half a count, and its expectation without any drift: about
// (1/n + 1/m)·(bins − 1) (Yurdakul and Naranjo 2020).
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
	return value, (1/n + 1/m) * max(0, bins-1)
}

// takeSigns takes the signs that devices have become ready for. Each is taken
// once: what is added up by a test valid at any time must not change its mind.
func (t *turn) takeSigns() {
	if t.Header.Wave == 0 || t.Header.Status.Final() && !t.watched() {
		return
	}
	w := &lazyWorld{s: t.State, all: t.roll()}
	t.remember(w)
	gates := t.comparing()
	for _, e := range t.roll() {
		if e.d == nil || !e.d.compared() || !t.owes(e.d, gates) || e.f == nil || e.f.Revoked {
			continue
		}
		if signs := t.signs(e.d, e.f, gates, w); signs != e.d.Signs {
			next := *e.d
			next.Signs = signs
			t.put(e.id, next)
		}
	}
}

// owes says whether a device is ready for a sign that it has not given.
func (s *State) owes(d *Device, gates []GateSpec) bool {
	for i := range gates {
		if kind := gates[i].Kind; *d.Signs.of(kind) == 0 && ready(kind, d) {
			return true
		}
	}
	return false
}

// signs are those of a device with the ones it has become ready for.
func (s *State) signs(d *Device, f *DeviceFacts, gates []GateSpec, w *lazyWorld) Signs {
	out := d.Signs
	for _, g := range gates {
		if sign := out.of(g.Kind); *sign == 0 && ready(g.Kind, d) {
			if c, ok := s.compared(g, d, f); ok {
				*sign = c.sign(g.bar(), w.get().of(g, d.Wave))
			}
		}
	}
	return out
}

// ready says that a device is through what a sign of the gate is taken after:
// its soak time, or its shadow phase.
func ready(kind GateKind, d *Device) bool {
	return kind == Shadow || d.Order.Kind == Forward && d.State == DeviceHealthy
}

// compared is the change that a sign is taken from.
func (s *State) compared(g GateSpec, d *Device, f *DeviceFacts) (c change, ok bool) {
	if g.Kind != Shadow {
		return changed(g, f.Past, f.New)
	}
	if f.Shadow == nil || d.State == DeviceShadowing && f.Shadow.Rows < s.Spec.Shadow.Rows {
		return change{}, false
	}
	return differs(g, f.Shadow)
}

// comparing are the gates that are on and compare devices.
func (s *State) comparing() []GateSpec {
	var out []GateSpec
	for _, g := range s.Spec.Gates {
		if s.compares(g) {
			out = append(out, g)
		}
	}
	return out
}

// compares says whether a gate is on and compares devices.
func (s *State) compares(g GateSpec) bool {
	return !g.Off && slices.Contains(comparing[:], g.Kind) && (g.Kind != Shadow || s.Spec.Shadow != nil)
}

// bar is the limit in the unit of a change.
func (g GateSpec) bar() float64 {
	if g.Kind == Latency {
		return math.Log1p(g.limit())
	}
	return g.limit()
}
