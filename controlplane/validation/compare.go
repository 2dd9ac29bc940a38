package validation

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vedette-edge/vedette/protocol/evaluation"
)

// estimate is a number with its bounds.
type estimate struct {
	value, lower, upper float64
	n                   uint64
	method              string
	note                string // more evidence, for people
}

// minPaired is how many rows a comparison needs at least: intervals of fewer
// have not the level they state.
const minPaired = 30

// measure estimates a metric with alpha left out on each side of its interval.
func measure(m metric, t *evaluation.Table, alpha float64) (estimate, error) {
	e := estimate{n: uint64(t.Len())} //nolint:gosec // a length
	switch m.name {
	case accuracy:
		right := agreed(t)
		e.value, e.method = right/float64(t.Len()), "Wilson"
		e.lower, e.upper = wilson(right, float64(t.Len()), quantile(1-alpha))
	case rocAUC:
		a, err := auc(m, t)
		if err != nil {
			return e, err
		}
		half := quantile(1-alpha) * spread(a.influence)
		e.value, e.lower, e.upper, e.method = a.mean, max(0, a.mean-half), min(1, a.mean+half), "DeLong"
	default:
		s := sampleOf(m, t, nil)
		e.value, e.method = s.stat(s.counts), fmt.Sprintf("BCa bootstrap of %d", replicates)
		e.lower, e.upper = s.interval(alpha)
	}
	return e, nil
}

func agreed(t *evaluation.Table) (right float64) {
	for i, truth := range t.Truth {
		if t.Predicted[i] == truth {
			right++
		}
	}
	return right
}

// sampleOf is the sample of a metric, of one version or of a difference.
func sampleOf(m metric, t, second *evaluation.Table) *sample {
	if m.task() == evaluation.Regression {
		if second == nil {
			return regressed(m, t, nil)
		}
		return regressed(m, t, second.Got)
	}
	if second == nil {
		return classified(m, t, nil, len(t.Labels))
	}
	return classified(m, t, second.Predicted, len(t.Labels))
}

// contrast estimates by how much the first version is better than the second,
// row by row, with a bound at alpha on one side.
func contrast(m metric, first, second *evaluation.Table, alpha float64) (estimate, error) {
	a, b, err := align(first, second)
	if err != nil {
		return estimate{}, err
	}
	if m.lessIsBetter() {
		a, b = b, a // how much more the second errs
	}
	e := estimate{n: uint64(a.Len())} //nolint:gosec // a length
	switch m.name {
	case accuracy:
		e.paired(a, b, alpha)
	case rocAUC:
		err = e.delong(m, a, b, alpha)
	default:
		s := sampleOf(m, a, b)
		e.value, e.method = s.stat(s.counts), fmt.Sprintf("BCa bootstrap of %d", replicates)
		e.lower, e.upper = s.interval(alpha)
	}
	return e, err
}

// paired compares two accuracies by the rows where one is right and the other
// is not.
func (e *estimate) paired(a, b *evaluation.Table, alpha float64) {
	var gained, lost float64
	for i, truth := range a.Truth {
		x, y := a.Predicted[i] == truth, b.Predicted[i] == truth
		switch {
		case x && !y:
			gained++
		case y && !x:
			lost++
		}
	}
	n := float64(a.Len())
	e.value, e.method = (gained-lost)/n, "Tango score"
	e.lower, e.upper = tango(gained, lost, n, quantile(1-alpha))
	e.note = fmt.Sprintf("; of the rows where one alone is right it is so on %.0f, the other on %.0f", gained, lost)
}

func (e *estimate) delong(m metric, a, b *evaluation.Table, alpha float64) error {
	if b.Scores == nil {
		return fmt.Errorf("%w: the version in production gives no scores", errMetric)
	}
	x, err := auc(m, a)
	if err != nil {
		return err
	}
	y, err := auc(m, b)
	if err != nil {
		return err
	}
	for i := range x.influence {
		x.influence[i] -= y.influence[i]
	}
	half := quantile(1-alpha) * spread(x.influence)
	e.value, e.method = x.mean-y.mean, "DeLong"
	e.lower, e.upper = e.value-half, e.value+half
	return nil
}

// errPairing says that two evaluations cannot be compared row by row.
var errPairing = errors.New("the two evaluations cannot be compared row by row")

// align brings two evaluations of the same file to the same rows and labels.
func align(first, second *evaluation.Table) (a, b *evaluation.Table, err error) {
	switch {
	case first.Header.Rows != second.Header.Rows:
		return nil, nil, fmt.Errorf("%w: they are of different rows", errPairing)
	case first.Header.Task != second.Header.Task || !slices.Equal(first.Header.Classes, second.Header.Classes):
		return nil, nil, fmt.Errorf("%w: the versions answer with different classes", errPairing)
	case !slices.Equal(first.Rows, second.Rows):
		return nil, nil, fmt.Errorf("%w: rows are missing in one of them", errPairing)
	case len(first.Rows) < minPaired:
		return nil, nil, fmt.Errorf("%w: %d rows are too few, at least %d are needed", errPairing, len(first.Rows), minPaired)
	case first.Header.Task == evaluation.Regression && !slices.Equal(first.Want, second.Want):
		return nil, nil, fmt.Errorf("%w: the truth differs; was it the same --truth?", errPairing)
	case first.Header.Task == evaluation.Regression:
		return first, second, nil
	}
	return relabel(first, second)
}

// relabel gives both tables one list of labels: truths that are no class of the
// model come in the order of the rows, predictions may add others.
func relabel(first, second *evaluation.Table) (a, b *evaluation.Table, err error) {
	x, y := *first, *second
	x.Labels = slices.Clone(first.Labels)
	to := make([]int32, len(second.Labels))
	for i, name := range second.Labels {
		at := slices.Index(x.Labels, name)
		if at < 0 {
			at = len(x.Labels)
			x.Labels = append(x.Labels, name)
		}
		to[i] = int32(at) //nolint:gosec // at most two lists of MaxLabels
	}
	y.Labels = x.Labels
	y.Truth, y.Predicted = mapped(second.Truth, to), mapped(second.Predicted, to)
	if !slices.Equal(x.Truth, y.Truth) {
		return nil, nil, fmt.Errorf("%w: the truth differs; was it the same --truth?", errPairing)
	}
	return &x, &y, nil
}

func mapped(list, to []int32) []int32 {
	out := make([]int32, len(list))
	for i, v := range list {
		out[i] = to[v]
	}
	return out
}
