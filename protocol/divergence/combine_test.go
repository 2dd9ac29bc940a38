package divergence

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/vedette-edge/vedette/protocol/sketch"
)

func one(name string, p, q []float64) Comparison {
	s := stream(name, p, q)
	return Compare(uint64(total(p)), uint64(total(q)), DefaultLimits(), func(yield func(Stream) bool) { yield(s) })
}

func TestCombineIsTheMeanByRows(t *testing.T) {
	a, b := one("x", []float64{500, 500}, []float64{150, 450}), one("x", []float64{5000, 5000}, []float64{600, 600})
	c := Combine([]Comparison{a, b, one("y", []float64{500, 500}, []float64{10, 10})}, DefaultLimits())
	if len(c.Features) != 2 || c.M != 1820 {
		t.Fatalf("got %+v, want x and y over 1820 rows", c)
	}
	x := c.Features[0]
	if want := (a.Features[0].PSI*600 + b.Features[0].PSI*1200) / 1800; math.Abs(x.PSI-want) > 1e-12 || x.M != 1800 || x.N != 11_000 {
		t.Errorf("got PSI %v over %d rows beside %d, want %v", x.PSI, x.M, x.N, want)
	}
	if want := 2 * a.Features[0].P; math.Abs(math.Log(x.P/want)) > 1e-9 {
		t.Errorf("p: got %v, want twice the least, %v", x.P, want)
	}
	if x.Apart || !x.Enough || c.Features[1].Enough {
		t.Errorf("a third of the rows left training by %.2f: got %+v", a.Features[0].PSI, c)
	}
	both := Combine([]Comparison{a, a}, DefaultLimits())
	if both.Apart != 1 || both.MaxPSI != a.MaxPSI {
		t.Errorf("two that left training: got %+v, want one stream apart", both)
	}
	if c := Combine(nil, DefaultLimits()); c.Enough || c.Apart != 0 {
		t.Errorf("nothing combined: got %+v", c)
	}
}

// Where shares differ the version without any counts with its rows.
func TestCombineShares(t *testing.T) {
	with := Compare(1000, 500, DefaultLimits(), func(yield func(Stream) bool) {
		yield(Stream{Name: "x", Side: sketch.Input, P: []float64{500, 500, 0, 0}, Q: []float64{200, 200, 100, 0}})
	})
	c := Combine([]Comparison{with, one("x", []float64{500, 500}, []float64{250, 250})}, DefaultLimits())
	s := c.Features[0].Missing
	if s == nil || math.Abs(s.After-0.1) > 1e-12 || s.Before != 0 || !s.Apart || c.Missing != 1 || c.Features[0].New != nil {
		t.Errorf("got %+v, want a tenth missing, found", s)
	}
}

// Versions that did not drift make a fleet that did not.
func TestCombineKeepsTheLevel(t *testing.T) {
	trials := trialsOf(1000, 50_000)
	rng := rand.New(rand.NewPCG(8, 8))
	low := 0.0
	for range trials {
		var cs []Comparison
		train := draw(rng, even(8), 2000) // of all versions: what they share makes them depend on each other
		for range 3 {
			cs = append(cs, one("x", train, draw(rng, even(8), 500)))
		}
		if c := Combine(cs, DefaultLimits()); c.Features[0].chance() <= 0.05 {
			low++
		}
	}
	if rate := low / float64(trials); rate > ceiling(0.05, float64(trials)) || rate == 0 {
		t.Errorf("p at or below 0.05: %.4f", rate)
	}
}
