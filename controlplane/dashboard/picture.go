package dashboard

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Pictures are SVG made here: they need no script, and no style that the
// security policy would refuse.

// heat is a picture of many PSI values: an image when the features are its
// pixels, otherwise a strip.
type heat struct {
	Label string
	W, H  int
	Cells []heatCell
}

type heatCell struct {
	X, Y  int
	Class string // "h0" to "h8", "hx" without enough rows; "apart" too when it counts
	Title string
}

// heatSteps are the upper bounds of the classes. The usual threshold of 0.2 is
// one of them, and the colour changes its hue there.
var heatSteps = []float64{0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5}

func heatClass(psi float64) string {
	i, _ := slices.BinarySearch(heatSteps, psi)
	return fmt.Sprintf("h%d", i)
}

// reading is one value of a comparison, whichever it is.
type reading struct {
	psi, noise float64
	apart      bool
}

func againstTraining(c *operator.DriftCell) reading { return reading{c.PSI, c.Noise, c.Apart} }

func againstCohort(c *operator.DriftCell) reading {
	return reading{c.CohortPSI, c.CohortNoise, c.CohortApart}
}

// stripWidth is where strips of features that are no image break.
const stripWidth = 32

// inputHeat shows the inputs of a comparison.
func inputHeat(label string, cells []operator.DriftCell, of func(*operator.DriftCell) reading) heat {
	inputs := sideOf(cells, "input")
	out := heat{Label: label, W: gridSide(inputs)}
	if out.W == 0 {
		out.W = min(len(inputs), stripWidth)
	}
	for i := range inputs {
		out.Cells = append(out.Cells, heatCellOf(&inputs[i], of(&inputs[i]), i%out.W, i/out.W))
		out.H = i/out.W + 1
	}
	return out
}

func heatCellOf(c *operator.DriftCell, r reading, x, y int) heatCell {
	cell := heatCell{X: x, Y: y, Class: "hx", Title: c.Feature + ": too few rows"}
	if c.Enough {
		cell.Class = heatClass(r.psi)
		cell.Title = fmt.Sprintf("%s: PSI %s, noise %s", c.Feature, formatPSI(r.psi), formatPSI(r.noise))
	}
	if r.apart {
		cell.Class += " apart"
		cell.Title += ", apart"
	}
	return cell
}

func sideOf(cells []operator.DriftCell, side string) []operator.DriftCell {
	var out []operator.DriftCell
	for _, c := range cells {
		if c.Side == side {
			out = append(out, c)
		}
	}
	return out
}

// smallestGrid keeps four or nine ordinary columns from passing for an image.
const smallestGrid = 4

// gridSide is n when the features are the pixels of an n×n image: a square
// number of them, with names that differ in digits alone. Otherwise 0.
func gridSide(cells []operator.DriftCell) int {
	n := int(math.Sqrt(float64(len(cells))))
	if n < smallestGrid || n*n != len(cells) {
		return 0
	}
	stem := stemOf(cells[0].Feature)
	for i := range cells {
		if stemOf(cells[i].Feature) != stem || stem == cells[i].Feature {
			return 0
		}
	}
	return n
}

// stemOf is a name without its numbers.
func stemOf(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("0123456789_,.-[]", r) {
			return -1
		}
		return r
	}, name)
}

// part is one stretch of a bar of parts; the bar is 100 wide.
type part struct {
	X, W  float64
	N     int
	Name  string
	Class string
}

// bar lays parts side by side in the given order. Counts of names that are not
// in it come last.
func bar(counts map[string]int, order []string, class func(string) string) []part {
	names := slices.Clone(order)
	var others []string
	total := 0
	for name, n := range counts {
		total += n
		if !slices.Contains(order, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	var out []part
	x := 0.0
	for _, name := range append(names, others...) {
		n := counts[name]
		if n <= 0 {
			continue
		}
		w := 100 * float64(n) / float64(total)
		out = append(out, part{X: x, W: w, N: n, Name: name, Class: class(name)})
		x += w
	}
	return out
}

// spark is a small curve without axes.
type spark struct {
	Line  string // of an SVG path, in a box of sparkW×sparkH
	Floor float64
	Last  float64
	Label string
}

const (
	sparkW = 120
	sparkH = 28
	// sparkMost bounds how many points a curve shows, the newest ones.
	sparkMost = 60
)

// sparkOf draws values between low and high.
func sparkOf(values []float64, low, high float64) spark {
	if len(values) > sparkMost {
		values = values[len(values)-sparkMost:]
	}
	var s spark
	if len(values) < 2 || high <= low {
		return s
	}
	var b strings.Builder
	for i, v := range values {
		x := float64(i) / float64(len(values)-1) * sparkW
		fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(i, 1)], x, sparkY(v, low, high))
	}
	s.Line, s.Last = b.String(), values[len(values)-1]
	return s
}

func sparkY(v, low, high float64) float64 {
	share := (min(max(v, low), high) - low) / (high - low)
	return 1 + (1-share)*(sparkH-2)
}
