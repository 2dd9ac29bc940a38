package validation

import (
	"fmt"
	"math"
	"slices"

	"github.com/vedette-edge/vedette/protocol/evaluation"
)

// areas are the areas under the ROC curves of an evaluation, each class against
// the rest and their mean, with each row's influence on the mean (DeLong,
// DeLong and Clarke-Pearson 1988): the variance of the mean is the influences'
// sum of squares, and that of a difference of two versions on the same rows the
// sum of squares of theirs.
type areas struct {
	mean      float64
	influence []float64
}

// auc computes the area of one class, or the mean over those classes that some
// rows are of and some are not. With two classes that is the area of either.
func auc(m metric, t *evaluation.Table) (areas, error) {
	var classes []int
	for k, name := range t.Header.Classes {
		if (m.class == "" || m.class == name) && slices.Contains(t.Truth, int32(k)) && slices.ContainsFunc(t.Truth, func(x int32) bool { return x != int32(k) }) { //nolint:gosec // at most MaxLabels
			classes = append(classes, k)
		}
	}
	if len(classes) == 0 {
		return areas{}, fmt.Errorf("%w: %s needs rows that are of the class and rows that are not", errMetric, m)
	}
	if m.class == "" && len(t.Header.Classes) == 2 {
		classes = classes[len(classes)-1:]
	}
	out := areas{influence: make([]float64, t.Len())}
	order := make([]uint64, t.Len())
	for _, k := range classes {
		out.mean += curve{t}.area(k, order, out.influence, len(classes)) / float64(len(classes))
	}
	return out, nil
}

// area is the area under the curve of class k against the rest, ties counted
// half. It adds each row's influence on the mean over so many classes.
func (t curve) area(k int, order []uint64, influence []float64, classes int) float64 {
	t.sort(k, order)
	score := func(at int) uint32 { return uint32(order[at] >> 32) }
	var inside, outside float64
	for _, truth := range t.Truth {
		if int(truth) == k {
			inside++
		} else {
			outside++
		}
	}
	// place is the share of the other side that a row is on the right side of.
	place := make([]float64, len(order))
	var below [2]float64 // rows so far that are not, and that are of the class
	for from := 0; from < len(order); {
		to, tied := from, [2]float64{}
		for ; to < len(order) && score(to) == score(from); to++ {
			tied[t.side(rowOf(order[to]), k)]++
		}
		for _, key := range order[from:to] {
			row := rowOf(key)
			if t.side(row, k) == 1 {
				place[row] = (below[0] + tied[0]/2) / outside
			} else {
				place[row] = 1 - (below[1]+tied[1]/2)/inside
			}
		}
		below[0], below[1], from = below[0]+tied[0], below[1]+tied[1], to
	}
	var mean float64
	for row, truth := range t.Truth {
		if int(truth) == k {
			mean += place[row] / inside
		}
	}
	for row, truth := range t.Truth {
		n := outside
		if int(truth) == k {
			n = inside
		}
		influence[row] += (place[row] - mean) / math.Sqrt(n*max(n-1, 1)) / float64(classes)
	}
	return mean
}

// sort fills in the rows by their score of class k: the score in the upper half
// of a key, as bits that rise with it, the row in the lower. Sorting numbers is
// several times faster than sorting rows by their scores.
func (t curve) sort(k int, order []uint64) {
	width := len(t.Header.Classes)
	for row := range order {
		v := t.Scores[row*width+k] + 0 // −0 is 0
		bits := math.Float32bits(v)
		if bits>>31 == 1 {
			bits = ^bits
		} else {
			bits |= 1 << 31
		}
		order[row] = uint64(bits)<<32 | uint64(row)
	}
	slices.Sort(order)
}

// rowOf is the row of a key.
func rowOf(key uint64) uint32 { return uint32(key & math.MaxUint32) }

// side is 1 for a row of class k and 0 for one of the rest.
func (t curve) side(row uint32, k int) int {
	if int(t.Truth[row]) == k {
		return 1
	}
	return 0
}

// curve is an evaluation with scores.
type curve struct{ *evaluation.Table }

// spread is the standard error that influences stand for.
func spread(influence []float64) float64 {
	var sum float64
	for _, v := range influence {
		sum += v * v
	}
	return math.Sqrt(sum)
}
