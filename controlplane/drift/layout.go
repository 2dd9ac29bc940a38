package drift

import (
	"fmt"
	"slices"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// layout says where the counts of a release's streams lie in flat slices and on
// which bins they are scored. Inputs are kept on the scored bins alone: there
// are many. Outputs are kept on the bins of the baseline: rollouts look at them.
type layout struct {
	streams []stream
	in, out int // cells of inputs and of outputs
	bins    int // most bins that any stream is scored on, missing and other apart
	refs    []reference
}

// stream is one watched quantity. Its cells are n kept bins, missing, other.
type stream struct {
	name    string
	output  bool
	class   bool
	ordered bool
	fine    int      // bins of the baseline
	keep    []uint8  // fine bin → kept bin, nil for the same
	group   []uint8  // kept bin → scored bin, nil for the same
	n       int      // kept bins
	scored  int      // scored bins
	labels  []string // of the scored bins
	at      int      // first cell
}

// reference is the training data, all of it or the part taken under one condition.
type reference struct {
	condition string
	sample    sample
}

func newLayout(b *sketch.Baseline) *layout {
	l := &layout{}
	for i := range b.Streams {
		l.add(&b.Streams[i])
	}
	l.refs = append(l.refs, l.reference("", b.Rows, func(i int) sketch.BinCounts {
		s := &b.Streams[i]
		return sketch.BinCounts{Counts: s.Counts, Missing: s.Missing, Other: s.Other}
	}))
	for _, c := range b.Conditions {
		l.refs = append(l.refs, l.reference(c.Name, c.Rows, func(i int) sketch.BinCounts { return c.Histograms[i] }))
	}
	return l
}

func (l *layout) add(s *sketch.Stream) {
	out := stream{
		name: s.Name, output: s.Side == sketch.Output, class: s.Source == sketch.Class,
		ordered: s.Kind != sketch.Categorical, fine: len(s.Counts),
	}
	groups, scored := divergence.Coarsen(s)
	out.scored, out.labels = scored, binLabels(s, groups, scored)
	if out.output {
		out.n, out.group, out.at = out.fine, groups, l.out
		l.out += out.n + 2
	} else {
		out.n, out.keep, out.at = scored, groups, l.in
		l.in += out.n + 2
	}
	l.bins = max(l.bins, scored)
	l.streams = append(l.streams, out)
}

func (l *layout) reference(name string, rows uint64, of func(i int) sketch.BinCounts) reference {
	s := sample{in: make([]uint64, l.in), out: make([]uint64, l.out), rows: rows, effective: rows}
	for i := range l.streams {
		c := of(i)
		l.streams[i].count(&s, c.Counts, c.Missing, c.Other)
	}
	return reference{name, s}
}

// fold adds a window's histograms to fresh counts. It fails when they are not
// over the bins of the baseline.
func (l *layout) fold(hs []*protocol.Histogram) (in, out []uint64, err error) {
	if len(hs) != len(l.streams) {
		return nil, nil, fmt.Errorf("%d streams, the baseline has %d: %w", len(hs), len(l.streams), sketch.ErrMismatch)
	}
	for i, h := range hs {
		if len(h.GetBins()) != l.streams[i].fine {
			return nil, nil, fmt.Errorf("stream %s has %d bins, the baseline %d: %w", l.streams[i].name, len(h.GetBins()), l.streams[i].fine, sketch.ErrMismatch)
		}
	}
	s := sample{in: make([]uint64, l.in), out: make([]uint64, l.out)}
	for i, h := range hs {
		l.streams[i].count(&s, h.GetBins(), h.GetMissing(), h.GetOther())
	}
	return s.in, s.out, nil
}

// of returns the stream's cells in a sample.
func (s *stream) of(x *sample) []uint64 {
	if s.output {
		return x.out[s.at : s.at+s.n+2]
	}
	return x.in[s.at : s.at+s.n+2]
}

func (s *stream) count(x *sample, fine []uint64, missing, other uint64) {
	kept := s.of(x)
	for i, n := range fine {
		if s.keep != nil {
			i = int(s.keep[i])
		}
		kept[i] += n
	}
	kept[s.n] += missing
	kept[s.n+1] += other
}

// scale writes the stream's counts on the scored bins, then missing and other,
// as if the sample had only its effective rows.
func (s *stream) scale(dst []float64, x *sample) {
	clear(dst)
	kept := s.of(x)
	factor := 0.0
	if x.rows > 0 {
		factor = float64(x.effective) / float64(x.rows)
	}
	for i, n := range kept[:s.n] {
		if s.group != nil {
			i = int(s.group[i])
		}
		dst[i] += float64(n) * factor
	}
	dst[s.scored] = float64(kept[s.n]) * factor
	dst[s.scored+1] = float64(kept[s.n+1]) * factor
}

// binLabels names the scored bins of a stream for people.
func binLabels(s *sketch.Stream, group []uint8, scored int) []string {
	first, last := make([]int, scored), make([]int, scored)
	size := make([]int, scored)
	for i := range s.Counts {
		g := i
		if group != nil {
			g = int(group[i])
		}
		if size[g] == 0 {
			first[g] = i
		}
		last[g] = i
		size[g]++
	}
	out := make([]string, scored)
	for g := range out {
		out[g] = binLabel(s, first[g], last[g], size[g])
	}
	return out
}

// binLabel names the fine bins first to last as one.
func binLabel(s *sketch.Stream, first, last, size int) string {
	switch {
	case s.Kind == sketch.Categorical && size > 1:
		return fmt.Sprintf("%d others", size)
	case s.Kind == sketch.Categorical:
		return s.Labels[first]
	case s.Kind == sketch.Discrete && size > 1:
		return fmt.Sprintf("%.4g – %.4g", s.Values[first], s.Values[last])
	case s.Kind == sketch.Discrete:
		return fmt.Sprintf("%.4g", s.Values[first])
	case len(s.Edges) == 0:
		return "all"
	case first == 0:
		return fmt.Sprintf("≤ %.4g", s.Edges[last])
	case last >= len(s.Edges):
		return fmt.Sprintf("> %.4g", s.Edges[first-1])
	default:
		return fmt.Sprintf("%.4g – %.4g", s.Edges[first-1], s.Edges[last])
	}
}

// describe adds the shares of every bin to the features of a comparison with
// the training data of a condition.
func (l *layout) describe(fs []FeatureDetail, x *sample, condition string) {
	ref := &l.refs[0].sample
	for i := range l.refs {
		if l.refs[i].condition == condition {
			ref = &l.refs[i].sample
		}
	}
	for i := range l.streams {
		if i < len(fs) {
			fs[i].Bins = l.streams[i].shares(ref, x)
		}
	}
}

// shares of the rows of two samples by bin. Bins of missing and new values come
// last, where there are any.
func (s *stream) shares(before, after *sample) []BinShare {
	k := s.scored + divergence.Reserved
	p, q := make([]float64, k), make([]float64, k)
	s.scale(p, before)
	s.scale(q, after)
	labels := append(slices.Clone(s.labels), "missing", "new")
	out := make([]BinShare, 0, k)
	for i, name := range labels {
		if i >= s.scored && p[i]+q[i] == 0 {
			continue
		}
		out = append(out, BinShare{name, p[i] / max(1, float64(before.effective)), q[i] / max(1, float64(after.effective))})
	}
	return out
}
