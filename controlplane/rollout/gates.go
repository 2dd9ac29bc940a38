package rollout

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Judge answers every gate of a rollout from the facts, over all devices that
// were offered the release so far. It is what a wave rests on when it closes
// and what stops a rollout at any moment before.
func Judge(s *State, f *Facts, now time.Time) []GateResult {
	return judgeAll(s, f, roll(s, f), now)
}

// gates are the answers as the turn stands.
func (t *turn) gates() []GateResult { return judgeAll(t.State, t.facts, t.roll(), t.now) }

func judgeAll(s *State, f *Facts, all []pair, now time.Time) []GateResult {
	j := newJudge(s, f, all)
	var out []GateResult
	for _, spec := range s.Spec.Gates {
		if spec.Off || spec.Kind == Shadow && s.Spec.Shadow == nil {
			continue
		}
		g := j.answer(spec)
		g.Gate, g.Limit, g.From, g.To = spec.Kind, spec.limit(), s.Header.Started, Moment(now)
		for _, v := range []*float64{&g.Value, &g.EHarm, &g.EFine, &g.EControl} {
			*v = stated(*v)
		}
		if g.Result == GateFail && s.waived(g) {
			g.Result = GateWaived
		}
		out = append(out, g)
	}
	return out
}

// finite keeps what devices report absurdly out of the ledger, whose JSON has no
// infinities.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// statedDigits are the significant digits of what is worked out with logarithms.
const statedDigits = 6

// stated is a number as decisions state it. Processors differ in the last digits
// of logarithms and in whether they round between a multiplication and an
// addition; a ledger must replay on all of them.
func stated(v float64) float64 {
	short, err := strconv.ParseFloat(strconv.FormatFloat(finite(v), 'g', statedDigits, 64), 64)
	if err != nil {
		return 0 // cannot be: it was written a moment ago
	}
	return short
}

// judge is what the gates of one moment share.
type judge struct {
	s           *State
	f           *Facts
	tally       tally
	world       *worldwide
	past        bool    // some device served an old release before
	alpha       float64 // error rate of each gate that compares devices: stops a harmless release
	beta        float64 // and: passes a harmful one
	comparisons []*comparison
	rows        *rows // nil without the gate of errors
	shadows     *rows // nil without a shadow phase
}

func newJudge(s *State, f *Facts, all []pair) *judge {
	j := &judge{
		s: s, f: f, tally: s.tally(), world: newWorldwide(s, all), past: f.past(),
		alpha: s.alphaEach(), beta: s.beta(),
	}
	j.watch(all)
	return j
}

func (j *judge) answer(spec GateSpec) GateResult {
	switch spec.Kind {
	case Golden:
		return j.tally.golden(spec)
	case Install:
		return j.tally.install(spec)
	case Crash:
		return j.tally.crash(spec)
	case Errors, Latency, Drift, Shadow, Accuracy:
	}
	for _, c := range j.comparisons {
		if c.gate.Kind == spec.Kind {
			return j.compare(c)
		}
	}
	return GateResult{Result: GateInconclusive, Text: "unknown gate"}
}

// waived says that a person resumed over this failure: for a gate that counts
// devices as long as no more fail, for a comparison until the wave ends.
func (s *State) waived(g GateResult) bool {
	for _, w := range s.Header.Waived {
		if w.Gate != g.Gate {
			continue
		}
		if g.Gate == Golden || g.Gate == Install || g.Gate == Crash {
			return g.Numerator <= w.Failed
		}
		return w.Wave == s.Header.Wave
	}
	return false
}

// tally counts devices by how far they got. Devices that cannot run the
// release, left the rollout or were already on it are in none of the counts.
type tally struct {
	open      int // offered and not late: they may still try
	trying    int // seen at work
	activated int // seen to serve it, later reverted ones too
	failed    int // did not get that far
	wrong     int // of failed: golden vectors disagreed
	fellBack  int // of activated: no longer on it
}

func (s *State) tally() tally {
	var c tally
	s.each(func(d *Device, many int) {
		if !d.Already && d.Tries > 0 {
			c.add(*d, many)
		}
	})
	return c
}

func (c *tally) add(d Device, many int) {
	switch d.State {
	case DeviceShadowing, DeviceOffered:
		if !d.Late {
			c.open += many
		}
	case DeviceDownloading, DeviceVerifying, DeviceTrialing:
		c.trying += many
	case DeviceActive, DeviceHealthy:
		c.activated += many
	case DeviceReverted:
		c.activated += many
		if d.Code != CodeRolledBack {
			c.fellBack += many
		}
	case DeviceFailed:
		c.failed += many
		if d.Code == CodeGolden {
			c.wrong += many
		}
	case DeviceWaiting, DeviceRefused, DeviceSuperseded:
	}
}

// ended is how many devices tried and came to an end.
func (c tally) ended() int { return c.activated + c.failed }

// tried is how many devices began.
func (c tally) tried() int { return c.ended() + c.trying }

// count answers a gate over devices. It fails as soon as more devices are bad
// than the limit allows of those that tried or may still try, so that the first
// failure of many does not stop a wave whose limit allows some. It passes on
// those that came to an end.
func count(spec GateSpec, bad, ended, possible int, what string) GateResult {
	g := GateResult{Numerator: float64(bad), Denominator: float64(ended)}
	if ended > 0 {
		g.Value = g.Numerator / g.Denominator
	}
	allowed := spec.limit() * float64(possible)
	g.Text = fmt.Sprintf("%d of %d devices %s (%.1f %%, limit %.1f %%)", bad, ended, what, 100*g.Value, 100*spec.limit())
	switch {
	case float64(bad) > allowed+1e-9:
		g.Result = GateFail
	case ended == 0:
		g.Result, g.Text = GateInconclusive, "no device has tried yet"
	case g.Value <= spec.limit():
		g.Result = GatePass
	default:
		g.Result = GateInconclusive
		g.Text += fmt.Sprintf("; more than %d of %d would stop the rollout", int(allowed), possible)
	}
	return g
}

func (c tally) golden(spec GateSpec) GateResult {
	c.open = 0 // a wrong answer on one device is about the release, not about that device
	return count(spec, c.wrong, c.ended(), c.tried(), "compute other outputs than the training framework")
}

func (c tally) install(spec GateSpec) GateResult {
	return count(spec, c.failed, c.ended(), c.tried()+c.open, "failed to install it")
}

func (c tally) crash(spec GateSpec) GateResult {
	g := count(spec, c.fellBack, c.activated, c.activated+c.trying+c.open, "fell back after activation")
	if c.activated == 0 && g.Result != GateFail {
		g.Text = "no device has activated it yet"
	}
	return g
}
