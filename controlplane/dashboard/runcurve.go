package dashboard

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Size of a curve's picture in its own units, and of the area that is drawn in.
const (
	curveW, curveH      = 420, 190
	curveLeft, curveTop = 46, 10
	curveRight          = 10
	curveBottom         = 24
)

// curvePoints bounds the points of one line: more than the picture has pixels
// show nothing more.
const curvePoints = 400

// curve is one metric of one or several runs, over its steps.
type curve struct {
	Key   string
	W, H  int
	Lines []curveLine
	Marks []curveMark // of the scale at the left
	Steps []curveMark // of the scale below
	Unit  string      // of the scale below
	Top   int
	Foot  int
	Left  int
	Right int
}

// curveLine is one run's; values that are no numbers leave gaps.
type curveLine struct {
	Class string // c0, c1, …
	Name  string
	Path  string
	X, Y  float64 // of the newest value
	Last  string
}

type curveMark struct {
	At   float64
	Text string
}

// history is one run's values of a metric.
type history struct {
	name   string
	points []operator.MetricPoint
}

// drawCurve draws a metric of some runs in one picture. ok is false when there
// is no line to draw: at most one value of each.
func drawCurve(key string, runs []history) (c curve, ok bool) {
	at, unit := stepAt, "step"
	if !stepsRise(runs) {
		at, unit = secondsFrom(runs), "seconds"
	}
	box, ok := boundsOf(runs, at)
	if !ok {
		return c, false
	}
	c = curve{
		Key: key, W: curveW, H: curveH, Unit: unit,
		Top: curveTop, Foot: curveH - curveBottom, Left: curveLeft, Right: curveW - curveRight,
	}
	for _, v := range niceSteps(box.low, box.high, 4) {
		c.Marks = append(c.Marks, curveMark{box.y(v), formatNumber(v)})
	}
	for _, v := range niceSteps(box.from, box.to, 5) {
		c.Steps = append(c.Steps, curveMark{box.x(v), formatNumber(v)})
	}
	for i, h := range runs {
		if line, ok := box.line(&h, at); ok {
			line.Class = fmt.Sprint("c", i)
			c.Lines = append(c.Lines, line)
		}
	}
	return c, true
}

func stepAt(p *operator.MetricPoint) float64 { return float64(p.Step) }

// stepsRise says whether any run counted its steps.
func stepsRise(runs []history) bool {
	for _, h := range runs {
		for i := range h.points {
			if h.points[i].Step != h.points[0].Step {
				return true
			}
		}
	}
	return false
}

// secondsFrom places values by their time since each run's first.
func secondsFrom(runs []history) func(*operator.MetricPoint) float64 {
	first := map[*operator.MetricPoint]time.Time{}
	for _, h := range runs {
		for i := range h.points {
			first[&h.points[i]] = h.points[0].At
		}
	}
	return func(p *operator.MetricPoint) float64 { return p.At.Sub(first[p]).Seconds() }
}

// bounds are what a picture shows: from and to of the steps, low and high of the values.
type bounds struct{ from, to, low, high float64 }

func boundsOf(runs []history, at func(*operator.MetricPoint) float64) (b bounds, ok bool) {
	b = bounds{math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)}
	for _, h := range runs {
		for i := range h.points {
			p := &h.points[i]
			if p.Value == nil {
				continue
			}
			b.from, b.to = min(b.from, at(p)), max(b.to, at(p))
			b.low, b.high = min(b.low, *p.Value), max(b.high, *p.Value)
		}
	}
	if b.from >= b.to || math.IsInf(b.high-b.low, 0) {
		return b, false
	}
	if b.low == b.high {
		pad := cmp.Or(math.Abs(b.low)/10, 1)
		b.low, b.high = b.low-pad, b.high+pad
	}
	return b, true
}

func (b bounds) x(v float64) float64 {
	return curveLeft + (v-b.from)/(b.to-b.from)*(curveW-curveLeft-curveRight)
}

func (b bounds) y(v float64) float64 {
	return curveTop + (b.high-v)/(b.high-b.low)*(curveH-curveTop-curveBottom)
}

func (b bounds) line(h *history, at func(*operator.MetricPoint) float64) (l curveLine, ok bool) {
	l.Name = h.name
	var path strings.Builder
	pen := "M"
	for _, i := range evenly(len(h.points), curvePoints) {
		p := &h.points[i]
		if p.Value == nil {
			pen = "M"
			continue
		}
		l.X, l.Y, l.Last = b.x(at(p)), b.y(*p.Value), formatNumber(*p.Value)
		fmt.Fprintf(&path, "%s%.1f %.1f", pen, l.X, l.Y)
		pen, ok = "L", true
	}
	l.Path = path.String()
	return l, ok
}

// evenly are at most so many of n indices, the first and the last among them.
func evenly(n, most int) []int {
	out := make([]int, 0, min(n, most))
	for i := range cap(out) {
		if n <= most {
			out = append(out, i)
		} else {
			out = append(out, i*(n-1)/(most-1))
		}
	}
	return out
}

// niceSteps are round numbers between two others, about so many.
func niceSteps(low, high float64, about int) []float64 {
	raw := (high - low) / float64(about)
	step := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{5, 2} {
		if step*m <= raw {
			step *= m
			break
		}
	}
	var out []float64
	for i := math.Ceil(low / step); i*step <= high+step*1e-9 && len(out) <= 2*about; i++ {
		out = append(out, i*step)
	}
	return slices.Compact(out)
}
