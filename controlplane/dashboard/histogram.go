package dashboard

import (
	"fmt"
	"math"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// histogram draws what training had beside what is there now: for each bin an
// outline and a bar within it.
type histogram struct {
	Label string
	W     int
	Bins  []histogramBin
}

type histogramBin struct {
	X             int
	Before, After float64 // heights
	YB, YA        float64 // tops
	Odd           bool    // of missing or new values: no part of the scale
	Title         string
}

const (
	histogramH = 40
	binW       = 10
)

func histogramOf(name string, bins []operator.FeatureBin) histogram {
	h := histogram{Label: name + ", training beside now", W: binW * len(bins)}
	most := 0.0
	for _, b := range bins {
		most = max(most, b.Before, b.After)
	}
	for i, b := range bins {
		before, after := histogramH*b.Before/max(most, 1e-9), histogramH*b.After/max(most, 1e-9)
		h.Bins = append(h.Bins, histogramBin{
			X: binW * i, Before: before, After: after, YB: histogramH - before, YA: histogramH - after,
			Odd: b.Label == "missing" || b.Label == "new", Title: fmt.Sprintf("%s: %s in training, %s now", b.Label, formatPercent(b.Before), formatPercent(b.After)),
		})
	}
	return h
}

// diagram is a reliability diagram: how often predictions of one confidence were
// right, in a box of 100 by 100. On the diagonal they are right as often as they say.
type diagram struct {
	Label  string
	Points []reliability
}

type reliability struct {
	X, Y, Low, High float64 // the mean confidence, the share that was right, and its interval, from the top
	Side            float64 // of the square that stands for the number of labels
	Half            float64
	Off             bool // the diagonal lies outside the interval
	Title           string
}

// A diagram's squares, from the fewest labels to the most.
const smallestSquare, largestSquare = 2.5, 7

func diagramOf(c *operator.Calibration) diagram {
	d := diagram{Label: fmt.Sprintf("calibration: %s, expected error %.3f", words(c.Leaning), c.ECE)}
	var most uint64
	for _, b := range c.Bins {
		most = max(most, b.Labels)
	}
	for _, b := range c.Bins {
		side := smallestSquare + (largestSquare-smallestSquare)*math.Sqrt(float64(b.Labels)/float64(max(most, 1)))
		d.Points = append(d.Points, reliability{
			X: 100 * b.Confidence, Y: 100 * (1 - b.Accuracy), Low: 100 * (1 - b.Lower), High: 100 * (1 - b.Upper), Side: side, Half: side / 2,
			Off: b.Confidence < b.Lower || b.Confidence > b.Upper,
			Title: fmt.Sprintf("says %s on average, right in %s (%s to %s) of %d", formatPercent(b.Confidence), formatPercent(b.Accuracy),
				formatPercent(b.Lower), formatPercent(b.Upper), b.Labels),
		})
	}
	return d
}

// interval draws an accuracy with its confidence sequence and its floor, on a
// scale that ends at 1; places are in parts of a hundred.
type interval struct {
	From            string // of the scale
	X, W, At, Floor float64
	HasFloor, Below bool
	Label           string
}

func intervalOf(a *operator.Accuracy) interval {
	if a.Labels == 0 {
		return interval{}
	}
	from := a.Lower
	if a.Floor > 0 {
		from = min(from, a.Floor)
	}
	from = math.Floor(10*max(0, from-0.02)) / 10
	place := func(v float64) float64 { return 100 * (v - from) / (1 - from) }
	out := interval{
		From: formatPercent(from), X: place(a.Lower), W: place(a.Upper) - place(a.Lower), At: place(a.Accuracy), Below: a.Verdict == operator.VerdictBreach,
		Label: fmt.Sprintf("accuracy %s, between %s and %s", formatPercent(a.Accuracy), formatPercent(a.Lower), formatPercent(a.Upper)),
	}
	if a.Floor > 0 {
		out.HasFloor, out.Floor = true, place(a.Floor)
		out.Label += ", floor " + formatPercent(a.Floor)
	}
	return out
}
