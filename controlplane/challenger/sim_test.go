package challenger

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"
)

// world is a fleet in which each device has an error rate of its own.
type world struct {
	devices int
	base    float64 // median rate of what serves
	between float64 // sd of the logarithm of devices' rates
	within  float64 // sd of the logarithm of what keys do to each version on a device
	ratio   float64 // of the challenger
	share   float64 // of the calls
	rows    int     // in one look, of all devices
	looks   int
	rules   Rules
}

// run looks after every step until a verdict, and tells how many rows the
// challenger had computed then.
func (w world) run(seed uint64) (Finding, uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	normal := func(sd float64) float64 { return math.Exp(sd*rng.NormFloat64() - sd*sd/2) }
	counts, rates := map[string]Counts{}, make([][2]float64, w.devices)
	for i := range rates {
		rate := w.base * math.Exp(w.between*rng.NormFloat64())
		rates[i] = [2]float64{min(rate*w.ratio*normal(w.within), 0.9), min(rate*normal(w.within), 0.9)}
	}
	draw := func(n, p float64) uint64 {
		if n == 0 {
			return 0
		}
		return uint64(distuv.Binomial{N: n, P: p, Src: rng}.Rand())
	}
	var f Finding
	for range w.looks {
		for i, r := range rates {
			name := fmt.Sprintf("cam-%02d", i)
			n := float64(w.rows / w.devices)
			c, mine := counts[name], draw(n, w.share)
			c = c.add(Counts{
				Challenger: Sums{Rows: mine, Failed: draw(float64(mine), r[0])},
				Serving:    Sums{Rows: uint64(n) - mine, Failed: draw(n-float64(mine), r[1])},
			})
			counts[name] = c
		}
		if f = Decide(Share, w.rules, counts, 0); f.Verdict != Going {
			break
		}
	}
	return f, f.Rows
}

// verdicts runs a world many times.
func (w world) verdicts(times int) (promoted, aborted float64, rows uint64) {
	var needed []uint64
	for seed := range uint64(times) {
		f, n := w.run(seed)
		switch f.Verdict {
		case Promote:
			promoted++
			needed = append(needed, n)
		case Abort:
			aborted++
			needed = append(needed, n)
		case Going, Undecided:
		}
	}
	if slices.Sort(needed); len(needed) > 0 {
		rows = needed[len(needed)/2]
	}
	return promoted / float64(times), aborted / float64(times), rows
}

func times(quick int) int {
	if os.Getenv("VEDETTE_FULL") != "" {
		return 60 * quick
	}
	return quick
}

// However often it is looked at, and however much devices differ, no more than
// beta are promoted that are worse by the margin and no more than alpha aborted
// that are as good. Two and a half standard errors are left for chance.
func TestBothErrorsStayBelowTheirRates(t *testing.T) {
	n := times(50)
	most := DefaultBeta + 2.5*math.Sqrt(DefaultBeta*(1-DefaultBeta)/float64(n))
	for _, c := range []struct {
		name            string
		between, within float64
		devices         int
	}{
		{"all alike", 0, 0, 12},
		{"devices differ", 1, 0, 12},
		{"keys differ too", 1, 0.4, 30},
		{"few devices", 1, 0.2, 4},
	} {
		w := world{devices: c.devices, base: 0.05, between: c.between, within: c.within, share: 0.1, rows: 16_000, looks: 15}
		w.ratio = 1 + DefaultMargin
		wrong, _, _ := w.verdicts(n)
		w.ratio = 1
		right, harmless, rows := w.verdicts(n)
		t.Logf("%-16s wrongly promoted %.3f, wrongly aborted %.3f; rightly promoted %.2f after %d rows", c.name, wrong, harmless, right, rows)
		if wrong > most || harmless > most {
			t.Errorf("%s: wrongly promoted %.3f, wrongly aborted %.3f, want at most %.3f", c.name, wrong, harmless, most)
		}
	}
}

// Few devices on which keys do a little to each version look alike for long:
// whoever looks after every few rows must not promote the worse one then.
func TestFewDevicesLookedAtOften(t *testing.T) {
	n := times(120)
	most := DefaultBeta + 2.5*math.Sqrt(DefaultBeta*(1-DefaultBeta)/float64(n))
	w := world{devices: 3, base: 0.05, between: 1, within: 0.2, share: 0.1, rows: 800, looks: 150, ratio: 1 + DefaultMargin}
	if wrong, _, _ := w.verdicts(n); wrong > most {
		t.Errorf("wrongly promoted %.3f, want at most %.3f", wrong, most)
	}
}

// A challenger that is as good is promoted, one that is twice as bad aborted.
func TestPower(t *testing.T) {
	w := world{devices: 12, base: 0.05, between: 1, share: 0.1, rows: 20_000, looks: 40, ratio: 1}
	if promoted, _, _ := w.verdicts(times(20)); promoted < 0.8 {
		t.Errorf("as good: promoted %.2f, want at least 0.8", promoted)
	}
	w.ratio = 2
	if _, aborted, rows := w.verdicts(times(20)); aborted < 0.95 || rows > 20_000 {
		t.Errorf("twice as bad: aborted %.2f after %d rows, want at least 0.95 within 20000", aborted, rows)
	}
}

// How many rows of the challenger it takes to promote one that is as good, with
// a share of 10%, beside the figures of a plain e-process on pooled rows.
func TestRowsToPromote(t *testing.T) {
	for _, c := range []struct {
		base, margin float64
		pooled       uint64
	}{{0.01, 0.25, 11_600}, {0.01, 0.5, 3400}, {0.01, 1, 1200}, {0.05, 0.25, 2600}, {0.05, 0.5, 800}, {0.05, 1, 400}} {
		w := world{
			devices: 12, base: c.base, share: 0.1, rows: int(c.pooled), looks: 120, ratio: 1,
			rules: Rules{Margin: c.margin, Rows: 1, Tolerable: 1e-6},
		}
		_, _, rows := w.verdicts(times(9))
		t.Logf("base %2.0f%%, margin %.2f: %6d rows of the challenger, pooled %6d", 100*c.base, c.margin, rows, c.pooled)
		if rows == 0 || rows > 4*c.pooled {
			t.Errorf("base %v, margin %v: got %d rows, want at most four times the %d of pooled rows", c.base, c.margin, rows, c.pooled)
		}
	}
}
