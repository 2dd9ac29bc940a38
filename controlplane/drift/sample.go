package drift

import (
	"cmp"
	"slices"

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
	x.counts(g.In, g.Out, g.Rows, g.Start, g.End)
	if len(g.Distinct) == 0 && g.Rows > 0 {
		x.registers = nil
	}
	if x.registers != nil && sketch.MaxRegisters(x.registers, g.Distinct) != nil {
		x.registers = nil
	}
}

// join takes another sample in.
func (x *sample) join(o *sample) {
	x.counts(o.in, o.out, o.rows, o.from, o.to)
	if o.registers == nil {
		x.registers = nil
	}
	for i := range x.registers {
		x.registers[i] = max(x.registers[i], o.registers[i])
	}
}

func (x *sample) counts(in, out []uint64, rows uint64, from, to int64) {
	addTo(x.in, in)
	addTo(x.out, out)
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

// compare scores every stream of cur against ref. Streams are apart when both
// the threshold and the noise of all of them together are exceeded.
func compare(l *layout, ref, cur *sample, cfg *Config) Comparison {
	c := Comparison{M: cur.effective, Features: make([]FeatureScore, len(l.streams))}
	var p, q [MaxBins + 2]float64
	var ps []float64
	for i := range l.streams {
		s := &l.streams[i]
		k := s.scored + 2
		s.scale(p[:k], ref)
		s.scale(q[:k], cur)
		x := cells{p: p[:k], q: q[:k], n: float64(ref.effective), m: float64(cur.effective)}
		if s.ordered {
			x.ordered = s.scored
		}
		f := x.score()
		f.Name, f.Side = s.name, side(s)
		f.Enough = min(f.M, f.N) >= uint64(cfg.RowsPerBin*min(max(f.Bins, 2), MaxBins)) //nolint:gosec // small and positive
		if f.Enough {
			ps = append(ps, f.P)
		}
		c.Features[i] = f
	}
	c.judge(ps, cfg)
	return c
}

func side(s *stream) string {
	if s.output {
		return string(sketch.Output)
	}
	return string(sketch.Input)
}

func (c *Comparison) judge(ps []float64, cfg *Config) {
	level := discoveries(ps, cfg.Alpha)
	for i := range c.Features {
		f := &c.Features[i]
		if f.Bins > 1 {
			f.Noise = noise(float64(f.N), float64(f.M), f.Bins-1, max(level, cfg.Alpha/float64(max(len(ps), 1))))
		}
		if !f.Enough {
			continue
		}
		f.Apart = f.PSI > cfg.Threshold && f.P <= level
		if f.Apart {
			c.Apart++
		}
		c.MaxPSI = max(c.MaxPSI, f.PSI)
	}
	c.Enough = len(ps) > 0 && 2*len(ps) >= len(c.Features)
}

// training compares with all training rows or, where they were taken under
// several conditions, with those that are nearest: a device sees one condition
// at a time.
func training(l *layout, cur *sample, cfg *Config) Comparison {
	var best Comparison
	for i := range l.refs {
		c := compare(l, &l.refs[i].sample, cur, cfg)
		c.Condition = l.refs[i].condition
		if i == 0 || nearer(&c, &best) {
			best = c
		}
	}
	return best
}

func nearer(a, b *Comparison) bool {
	return a.Apart < b.Apart || a.Apart == b.Apart && a.MaxPSI < b.MaxPSI
}

// furthest are the features found apart, largest PSI first, at most n.
func (c *Comparison) furthest(n int) []FeatureScore {
	var fs []FeatureScore
	for _, f := range c.Features {
		if f.Apart {
			fs = append(fs, f)
		}
	}
	slices.SortStableFunc(fs, func(a, b FeatureScore) int { return cmp.Compare(b.PSI, a.PSI) })
	return fs[:min(n, len(fs))]
}
