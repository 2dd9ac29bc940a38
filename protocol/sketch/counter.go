package sketch

import (
	"errors"
	"fmt"

	"github.com/vedette-edge/vedette/protocol"
)

// ErrMismatch says that two summaries are not over the same bins.
var ErrMismatch = errors.New("summaries are not over the same bins")

// Counter counts rows into the bins of a baseline. Counting allocates nothing.
// One goroutine uses it at a time.
type Counter struct {
	base    *Baseline
	plan    *plan
	rows    uint64
	streams []tally
}

type tally struct {
	bins           []uint64
	missing, other uint64
}

// NewCounter makes an empty counter over a valid baseline.
func NewCounter(b *Baseline) (*Counter, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return newCounter(b, newPlan(b)), nil
}

func newCounter(b *Baseline, p *plan) *Counter {
	c := &Counter{base: b, plan: p, streams: make([]tally, len(b.Streams))}
	for i := range c.streams {
		c.streams[i].bins = make([]uint64, len(b.Streams[i].Counts))
	}
	return c
}

// Twin makes another empty counter over the same baseline, sharing its tables.
func (c *Counter) Twin() *Counter { return newCounter(c.base, c.plan) }

// Rows counted since the last Reset.
func (c *Counter) Rows() uint64 { return c.rows }

// Reset sets all counts to zero.
func (c *Counter) Reset() {
	c.rows = 0
	for i := range c.streams {
		clear(c.streams[i].bins)
		c.streams[i].missing, c.streams[i].other = 0, 0
	}
}

// Merge adds the counts of a twin.
func (c *Counter) Merge(o *Counter) error {
	if len(c.streams) != len(o.streams) {
		return ErrMismatch
	}
	for i := range c.streams {
		if len(c.streams[i].bins) != len(o.streams[i].bins) {
			return fmt.Errorf("stream %d: %w", i, ErrMismatch)
		}
	}
	c.rows += o.rows
	for i := range c.streams {
		t, u := &c.streams[i], &o.streams[i]
		for j, n := range u.bins {
			t.bins[j] += n
		}
		t.missing += u.missing
		t.other += u.other
	}
	return nil
}

// Histograms copies the counts, one per stream of the baseline.
func (c *Counter) Histograms() []*protocol.Histogram {
	hs := make([]*protocol.Histogram, len(c.streams))
	for i := range c.streams {
		t := &c.streams[i]
		hs[i] = &protocol.Histogram{Bins: append([]uint64(nil), t.bins...), Missing: t.missing, Other: t.other}
	}
	return hs
}

// Count adds the rows of a batch. What the batch lacks is counted as missing.
func (c *Counter) Count(b *Batch) {
	c.rows += uint64(max(b.Rows, 0))
	for _, i := range c.plan.features {
		c.countFeature(i, b)
	}
	for k := range c.plan.scalars {
		c.countScalars(&c.plan.scalars[k], b)
	}
	if len(c.plan.outputs) == 0 {
		return
	}
	for r := range b.Rows {
		o := b.outputs(r)
		for _, i := range c.plan.outputs {
			c.countOutput(i, o)
		}
	}
}

func (c *Counter) countFeature(i int, b *Batch) {
	s, t, table := &c.base.Streams[i], &c.streams[i], c.plan.tables[i]
	side := b.Inputs
	if s.Side == Output {
		side = b.Outputs
	}
	x := find(side, s.Tensor)
	if x == nil || s.Index >= x.Width || len(x.Data) < b.Rows*x.Width {
		t.missing += uint64(max(b.Rows, 0))
		return
	}
	if s.Kind == Discrete {
		for r := range b.Rows {
			t.discrete(table, x.Data[r*x.Width+s.Index])
		}
		return
	}
	for r := range b.Rows {
		t.continuous(table, x.Data[r*x.Width+s.Index])
	}
}

func (c *Counter) countScalars(p *scalarPlan, b *Batch) {
	x := find(b.Inputs, p.tensor)
	for r := range b.Rows {
		var row []float32
		if x != nil {
			row = x.row(r)
		}
		if len(row) == 0 {
			for _, w := range p.wanted {
				c.streams[w.stream].missing++
			}
			continue
		}
		values := derive(row, x.Shape)
		for _, w := range p.wanted {
			c.value(w.stream, values[w.scalar])
		}
	}
}

func (c *Counter) countOutput(i int, o output) {
	switch c.base.Streams[i].Source {
	case Class:
		c.streams[i].category(o.class)
	case Confidence:
		c.value(i, o.confidence)
	case Entropy:
		c.value(i, o.entropy)
	case Feature, Scalar: // not in the plan's outputs
	}
}

func (c *Counter) value(i int, v float32) {
	if c.base.Streams[i].Kind == Discrete {
		c.streams[i].discrete(c.plan.tables[i], v)
		return
	}
	c.streams[i].continuous(c.plan.tables[i], v)
}

func (t *tally) continuous(b *bins, v float32) {
	if v != v {
		t.missing++
		return
	}
	t.bins[b.of(v)]++
}

func (t *tally) discrete(b *bins, v float32) {
	if v != v {
		t.missing++
		return
	}
	if i := b.of(v); i < len(t.bins) && b.edges[i] == v {
		t.bins[i]++
		return
	}
	t.other++
}

func (t *tally) category(class int64) {
	switch {
	case class < 0:
		t.missing++
	case class < int64(len(t.bins)):
		t.bins[class]++
	default:
		t.other++
	}
}

// plan is what is looked up once per baseline instead of once per value.
type plan struct {
	tables   []*bins // by stream; nil for categories
	features []int
	scalars  []scalarPlan
	outputs  []int
}

type scalarPlan struct {
	tensor string
	wanted []wantedScalar
}

type wantedScalar struct{ stream, scalar int }

func newPlan(b *Baseline) *plan {
	p := &plan{tables: make([]*bins, len(b.Streams))}
	for i := range b.Streams {
		s := &b.Streams[i]
		switch s.Kind {
		case Continuous:
			p.tables[i] = newBins(s.Edges)
		case Discrete:
			p.tables[i] = newBins(s.Values)
		case Categorical:
		}
		switch s.Source {
		case Feature:
			p.features = append(p.features, i)
		case Scalar:
			p.scalar(s.Tensor, wantedScalar{i, derivation(s.Derive)})
		case Class, Confidence, Entropy:
			p.outputs = append(p.outputs, i)
		}
	}
	return p
}

func (p *plan) scalar(tensor string, w wantedScalar) {
	for i := range p.scalars {
		if p.scalars[i].tensor == tensor {
			p.scalars[i].wanted = append(p.scalars[i].wanted, w)
			return
		}
	}
	p.scalars = append(p.scalars, scalarPlan{tensor, []wantedScalar{w}})
}
