package drift

import (
	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// sample is the counts that a comparison takes from one side.
type sample struct {
	in, out   []uint64
	rows      uint64
	effective uint64 // rows, but no more than there are distinct ones
	registers []byte // of the distinct sketch, nil when a part had none
	from, to  int64  // Unix milliseconds
}

// newSample is empty. It has registers until a part without them is added.
func newSample(l *layout) *sample {
	return &sample{in: make([]uint64, l.in), out: make([]uint64, l.out), registers: make([]byte, sketch.NumRegisters)}
}

// add takes a segment in.
func (x *sample) add(g *segment) {
	g.In.addTo(x.in)
	g.Out.addTo(x.out)
	x.span(g.Rows, g.Start, g.End)
	if len(g.Distinct) == 0 && g.Rows > 0 {
		x.registers = nil
	}
	if x.registers != nil && sketch.MaxRegisters(x.registers, g.Distinct) != nil {
		x.registers = nil
	}
}

// join takes another sample in.
func (x *sample) join(o *sample) {
	addTo(x.in, o.in)
	addTo(x.out, o.out)
	x.span(o.rows, o.from, o.to)
	if o.registers == nil {
		x.registers = nil
	}
	for i := range x.registers {
		x.registers[i] = max(x.registers[i], o.registers[i])
	}
}

func (x *sample) span(rows uint64, from, to int64) {
	if x.rows == 0 || from < x.from {
		x.from = from
	}
	x.to = max(x.to, to)
	x.rows += rows
}

// settle works out the effective rows.
func (x *sample) settle() *sample {
	x.effective = x.rows
	if x.registers == nil {
		return x
	}
	if d, err := sketch.DistinctOf(x.registers); err == nil {
		x.effective = min(x.rows, d.Estimate())
	}
	return x
}

func addTo(dst, src []uint64) {
	for i, n := range src {
		dst[i] += n
	}
}

// compare scores every stream of cur against ref.
func compare(l *layout, ref, cur *sample, cfg *Config) Comparison {
	var p, q [MaxBins + divergence.Reserved]float64
	return divergence.Compare(ref.effective, cur.effective, cfg.limits(), func(yield func(divergence.Stream) bool) {
		for i := range l.streams {
			s := &l.streams[i]
			k := s.scored + divergence.Reserved
			s.scale(p[:k], ref)
			s.scale(q[:k], cur)
			if !yield(divergence.Stream{Name: s.name, Side: s.side(), Ordered: s.ordered, P: p[:k], Q: q[:k]}) {
				return
			}
		}
	})
}

func (s *stream) side() sketch.Side {
	if s.output {
		return sketch.Output
	}
	return sketch.Input
}

func (c *Config) limits() divergence.Limits {
	return divergence.Limits{Threshold: c.Threshold, Alpha: c.Alpha, RowsPerBin: c.RowsPerBin, Share: c.Share}
}

// training compares with all training rows or, where they were taken under
// several conditions, with those that are nearest: a device sees one condition
// at a time.
func training(l *layout, cur *sample, cfg *Config) Comparison {
	return divergence.Nearest(len(l.refs), func(i int) Comparison {
		c := compare(l, &l.refs[i].sample, cur, cfg)
		c.Condition = l.refs[i].condition
		return c
	})
}
