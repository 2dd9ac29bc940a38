package validation

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/evaluation"
)

// Metrics of a classification. A name with a colon is of one class.
const (
	accuracy       = "accuracy"
	macroF1        = "macro_f1"
	weightedF1     = "weighted_f1"
	macroPrecision = "macro_precision"
	macroRecall    = "macro_recall"
	rocAUC         = "roc_auc"
	f1Of           = "f1"
	precisionOf    = "precision"
	recallOf       = "recall"
)

// Metrics of a regression.
const (
	mae  = "mae"
	rmse = "rmse"
	r2   = "r2"
)

// metricNames are what a policy may name.
const metricNames = "accuracy, macro_f1, weighted_f1, macro_precision, macro_recall, f1:CLASS, precision:CLASS, recall:CLASS, " +
	"roc_auc, roc_auc:CLASS, mae, rmse, r2"

// errMetric says that a metric cannot be computed from an evaluation.
var errMetric = errors.New("the metric cannot be computed")

// metric is one number of an evaluation.
type metric struct {
	name  string // before the colon
	class string // after it; empty for all classes together
}

func parseMetric(text string) (metric, error) {
	name, class, one := strings.Cut(text, ":")
	m := metric{name, class}
	all := []string{accuracy, macroF1, weightedF1, macroPrecision, macroRecall, rocAUC, mae, rmse, r2}
	perClass := []string{f1Of, precisionOf, recallOf, rocAUC}
	if one && class != "" && slices.Contains(perClass, name) || !one && slices.Contains(all, name) {
		return m, nil
	}
	return m, fmt.Errorf("metric %q is none of %s", text, metricNames)
}

func (m metric) String() string {
	if m.class == "" {
		return m.name
	}
	return m.name + ":" + m.class
}

// lessIsBetter says that it measures errors.
func (m metric) lessIsBetter() bool { return m.name == mae || m.name == rmse }

// task is what the metric is a metric of.
func (m metric) task() string {
	if slices.Contains([]string{mae, rmse, r2}, m.name) {
		return evaluation.Regression
	}
	return evaluation.Classification
}

// fits says why the metric cannot be computed from a table.
func (m metric) fits(t *evaluation.Table) error {
	switch {
	case t.Header.Task != m.task():
		return fmt.Errorf("%w: %s is a metric of a %s, the evaluation is of a %s", errMetric, m, m.task(), t.Header.Task)
	case m.class != "" && !slices.Contains(t.Labels, m.class):
		return fmt.Errorf("%w: there is no class %q; there are %.10q", errMetric, m.class, t.Labels)
	case m.name == rocAUC && t.Scores == nil:
		return fmt.Errorf("%w: roc_auc needs a score of every class, the graph gives none", errMetric)
	}
	return nil
}

// pair is one unit of two classifications side by side.
type pair struct{ truth, first, second int32 }

// pairs counts rows with the same truth and predictions. second may be the
// first again.
func pairs(t *evaluation.Table, first, second []int32) ([]pair, []float64) {
	at := map[pair]int{}
	var units []pair
	var counts []float64
	for i, truth := range t.Truth {
		p := pair{truth, first[i], second[i]}
		k, known := at[p]
		if !known {
			k = len(units)
			at[p] = k
			units, counts = append(units, p), append(counts, 0)
		}
		counts[k]++
	}
	return units, counts
}

// tally is a confusion matrix by its margins, which is all that the metrics need.
type tally struct {
	n, right          float64
	hit, said, actual []float64 // by label
}

func newTally(labels int) *tally {
	return &tally{hit: make([]float64, labels), said: make([]float64, labels), actual: make([]float64, labels)}
}

func (c *tally) reset() {
	c.n, c.right = 0, 0
	clear(c.hit)
	clear(c.said)
	clear(c.actual)
}

func (c *tally) add(truth, predicted int32, times float64) {
	c.n += times
	c.actual[truth] += times
	c.said[predicted] += times
	if truth == predicted {
		c.right += times
		c.hit[truth] += times
	}
}

// of computes a metric of one class or over classes. Classes that are neither
// true of a row nor predicted for one are left out; a class never predicted has
// precision 0.
func (c *tally) of(m metric, class int) float64 {
	switch m.name {
	case accuracy:
		return ratio(c.right, c.n)
	case f1Of:
		return ratio(2*c.hit[class], c.said[class]+c.actual[class])
	case precisionOf:
		return ratio(c.hit[class], c.said[class])
	case recallOf:
		return ratio(c.hit[class], c.actual[class])
	}
	var sum, weights float64
	for k := range c.hit {
		if c.said[k]+c.actual[k] == 0 {
			continue
		}
		var v float64
		w := 1.0
		switch m.name {
		case macroPrecision:
			v = ratio(c.hit[k], c.said[k])
		case macroRecall:
			v = ratio(c.hit[k], c.actual[k])
		case weightedF1:
			w = c.actual[k]
			fallthrough
		default:
			v = ratio(2*c.hit[k], c.said[k]+c.actual[k])
		}
		sum, weights = sum+w*v, weights+w
	}
	return ratio(sum, weights)
}

// ratio is a/b, and 0 of nothing.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// classIndex is where the metric's class stands, 0 for none.
func (m metric) classIndex(t *evaluation.Table) int { return max(0, slices.Index(t.Labels, m.class)) }

// classified is a sample whose statistic is the metric of one version, or the
// first's minus the second's when paired.
func classified(m metric, t *evaluation.Table, second []int32, labels int) *sample {
	paired := second != nil
	if !paired {
		second = t.Predicted
	}
	units, counts := pairs(t, t.Predicted, second)
	class := m.classIndex(t)
	a, b := newTally(labels), newTally(labels)
	return &sample{counts: counts, stat: func(counts []float64) float64 {
		a.reset()
		b.reset()
		for i, u := range units {
			if counts[i] > 0 {
				a.add(u.truth, u.first, counts[i])
				b.add(u.truth, u.second, counts[i])
			}
		}
		if paired {
			return a.of(m, class) - b.of(m, class)
		}
		return a.of(m, class)
	}}
}

// block is a few rows of a regression: what their errors add up to.
type block struct {
	n                  float64
	abs, square        [2]float64 // of the first and the second version
	want, wantOfSquare float64
}

// regressed is a sample of blocks of rows. Rows are dealt out in turn, so blocks
// are alike; what is lost is the spread within one.
func regressed(m metric, t *evaluation.Table, second []float64) *sample {
	paired := second != nil
	if !paired {
		second = t.Got
	}
	blocks := make([]block, min(len(t.Want), maxUnits))
	for i, want := range t.Want {
		k := &blocks[i%len(blocks)]
		k.n++
		k.want += want
		k.wantOfSquare += want * want
		for v, got := range [2]float64{t.Got[i], second[i]} {
			k.abs[v] += math.Abs(got - want)
			k.square[v] += (got - want) * (got - want)
		}
	}
	counts := make([]float64, len(blocks))
	for i := range counts {
		counts[i] = 1
	}
	return &sample{counts: counts, stat: func(counts []float64) float64 {
		var sum block
		for i, c := range counts {
			if c > 0 {
				sum.add(&blocks[i], c)
			}
		}
		if paired {
			return sum.of(m, 0) - sum.of(m, 1)
		}
		return sum.of(m, 0)
	}}
}

func (b *block) add(o *block, times float64) {
	b.n += times * o.n
	b.want += times * o.want
	b.wantOfSquare += times * o.wantOfSquare
	for v := range b.abs {
		b.abs[v] += times * o.abs[v]
		b.square[v] += times * o.square[v]
	}
}

func (b *block) of(m metric, version int) float64 {
	switch m.name {
	case mae:
		return ratio(b.abs[version], b.n)
	case rmse:
		return math.Sqrt(ratio(b.square[version], b.n))
	}
	spread := b.wantOfSquare - b.want*b.want/max(b.n, 1)
	return 1 - ratio(b.square[version], spread)
}
