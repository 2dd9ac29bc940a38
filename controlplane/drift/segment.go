package drift

import (
	"bytes"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// What is kept of one device on one release.
const (
	maxSegments = 24
	// spareSamples is how many times the rows of a verdict newer segments must
	// hold before an older one may forget its inputs.
	spareSamples = 4
)

// segment is what windows counted between two moments.
type segment struct {
	Start       int64  `json:"start"` // Unix milliseconds, server time
	End         int64  `json:"end"`
	Rows        uint64 `json:"rows"`
	FailedRows  uint64 `json:"failed_rows,omitempty"`
	Calls       uint64 `json:"calls,omitempty"`
	FailedCalls uint64 `json:"failed_calls,omitempty"`
	Latency     []byte `json:"latency,omitempty"`
	Distinct    []byte `json:"distinct,omitempty"`
	In          cells  `json:"in,omitempty"`  // nil when forgotten or not scorable
	Out         cells  `json:"out,omitempty"` // nil when not scorable
}

func newSegment(w *protocol.Window, l *layout, start, end int64) segment {
	g := segment{
		Start: start, End: end, Rows: w.GetRows(), FailedRows: w.GetFailedRows(), Calls: w.GetCalls(), FailedCalls: w.GetFailedCalls(),
	}
	if _, err := sketch.DecodeLatency(w.GetLatency()); err == nil {
		g.Latency = bytes.Clone(w.GetLatency())
	}
	if l == nil {
		return g
	}
	in, out, err := l.fold(w.GetStreams())
	if err != nil {
		return g // counted over other bins: it still counts in rates and totals
	}
	g.In, g.Out = packCells(in), packCells(out)
	if _, err := sketch.DecodeDistinct(w.GetDistinct()); err == nil {
		g.Distinct = bytes.Clone(w.GetDistinct())
	}
	return g
}

func (g *segment) bounds() (start, end int64) { return g.Start, g.End }

func (g *segment) join(o *segment) {
	g.Start, g.End = min(g.Start, o.Start), max(g.End, o.End)
	g.Latency = joinLatency(g.Latency, o.Latency)
	g.Distinct = joinDistinct(g, o)
	g.In, g.Out = joinCells(g.In, o.In), joinCells(g.Out, o.Out)
	g.Rows += o.Rows
	g.FailedRows += o.FailedRows
	g.Calls += o.Calls
	g.FailedCalls += o.FailedCalls
}

func joinLatency(a, b []byte) []byte {
	x, err := sketch.DecodeLatency(a)
	if err != nil {
		return b
	}
	y, err := sketch.DecodeLatency(b)
	if err != nil {
		return a
	}
	if err := x.Merge(y); err != nil {
		return a
	}
	out, err := x.Encode()
	if err != nil {
		return a
	}
	return out
}

// joinDistinct is nothing, which means not known, when one that has rows has none.
func joinDistinct(a, b *segment) []byte {
	switch {
	case a.Rows == 0:
		return b.Distinct
	case b.Rows == 0:
		return a.Distinct
	case len(a.Distinct) == 0 || len(b.Distinct) == 0:
		return nil
	}
	x, err := sketch.DecodeDistinct(a.Distinct)
	if err != nil {
		return nil
	}
	y, err := sketch.DecodeDistinct(b.Distinct)
	if err != nil {
		return nil
	}
	if err := x.Merge(y); err != nil {
		return nil
	}
	out, err := x.Encode()
	if err != nil {
		return nil
	}
	return out
}

// forget drops the inputs of segments that newer ones make unnecessary: a
// verdict never reaches back to them.
func forget(gs []segment, need uint64) {
	var newer uint64
	for i := len(gs) - 1; i >= 0; i-- {
		if newer >= spareSamples*need {
			gs[i].In, gs[i].Distinct = nil, nil
		}
		newer += gs[i].Rows
	}
}

// recent gathers the newest segments until there is evidence for a verdict,
// going back no further than oldest. It is nil when there is nothing to judge.
func recent(gs []segment, l *layout, need uint64, oldest int64) *sample {
	x := newSample(l)
	for i := len(gs) - 1; i >= 0; i-- {
		g := &gs[i]
		if g.End < oldest || g.In.len() != l.in || g.Out.len() != l.out {
			break
		}
		x.add(g)
		if x.rows >= need && x.settle().effective >= need {
			return x
		}
	}
	if x.rows == 0 {
		return nil
	}
	return x.settle()
}

// span counts labels between two moments.
type span struct {
	Start   int64  `json:"start"`
	End     int64  `json:"end"`
	Matched uint64 `json:"matched"`
	Correct uint64 `json:"correct"`
}

func (s *span) bounds() (start, end int64) { return s.Start, s.End }

func (s *span) join(o *span) {
	s.Start, s.End = min(s.Start, o.Start), max(s.End, o.End)
	s.Matched += o.Matched
	s.Correct += o.Correct
}
