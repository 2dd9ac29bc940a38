package observe

import (
	"math"
	"slices"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// closeEnough is how far two releases may differ in a number that both predict
// and still agree: a share of the range in which the training data lie, without
// the outermost bins. A new version is not meant to repeat the digits of the old.
const closeEnough = 0.02

// compared is what a window of a shadow says of the primary release.
type compared struct {
	rows, agreed, skipped uint64
	worst                 float64
	latency               *sketch.Latency // of the primary release on these calls
}

// asleep says that there is nothing to tell. A nil one never has anything.
func (n *compared) asleep() bool { return n == nil || n.rows+n.skipped == 0 }

func newCompared() *compared { return &compared{latency: sketch.NewLatency()} }

func (n *compared) reset() {
	n.latency.Reset()
	*n = compared{latency: n.latency}
}

func (n *compared) absorb(o *compared) {
	n.rows += o.rows
	n.agreed += o.agreed
	n.skipped += o.skipped
	n.worst = max(n.worst, o.worst)
	_ = n.latency.Merge(o.latency) // of one mapping
}

func (n *compared) wire(primary release.Digest) *protocol.Comparison {
	c := &protocol.Comparison{Primary: primary.Bytes(), Rows: n.rows, Agreed: n.agreed, SkippedRows: n.skipped, Worst: n.worst}
	c.Latency, _ = n.latency.Encode() // fails for no content it can have
	return c
}

// judge compares the rows of one call. own and other are its outputs by the
// shadow and by the primary release; a nil other was not announced and agrees
// with nothing.
func (n *compared) judge(c *infer.Call, own *sketch.Batch, in *info, other *sketch.Batch, otherInfo *info) {
	n.rows += uint64(max(c.Rows, 0))
	n.latency.Add(c.Beside.Latency)
	if other == nil {
		return
	}
	for r := range c.Rows {
		n.worst = max(n.worst, distance(own, other, r))
		if agree(own, in, other, otherInfo, r) {
			n.agreed++
		}
	}
}

// agree says whether both predict the same for a row [P-8.4]: the same class, or, where
// there are no classes, numbers that are close.
func agree(own *sketch.Batch, in *info, other *sketch.Batch, otherInfo *info, r int) bool {
	if in.schema.Label == "" && in.schema.Scores == "" {
		return in.closeOutputs(own.Outputs, other.Outputs, r)
	}
	a, _ := Predicted(own, r)
	b, _ := Predicted(other, r)
	if a < 0 || b < 0 {
		return false
	}
	return in.className(int(a)) == otherInfo.className(int(b))
}

// className is the name of a class, its number where the schema names none.
func (in *info) className(i int) any {
	if i < len(in.schema.Classes) {
		return in.schema.Classes[i]
	}
	return i
}

// closeOutputs compares the outputs that the baseline watches, all of them when
// it watches none.
func (in *info) closeOutputs(own, other []sketch.Tensor, r int) bool {
	for i := range own {
		a, b := row(&own[i], r), rowOf(other, own[i].Name, r)
		if len(a) != len(b) {
			return false
		}
		limits := in.limits[own[i].Name]
		for k := range a {
			limit := 0.0
			if k < len(limits) {
				limit = limits[k]
			} else if len(in.limits) > 0 {
				continue // not watched
			}
			if diff := math.Abs(float64(a[k]) - float64(b[k])); !(diff <= limit) && !(isNaN(a[k]) && isNaN(b[k])) {
				return false
			}
		}
	}
	return len(own) > 0
}

func isNaN(v float32) bool { return v != v } //nolint:gocritic // the definition

// distance is the largest difference of a row's watched scores, 0 where they
// cannot be set side by side.
func distance(own, other *sketch.Batch, r int) (worst float64) {
	if own.Classes > 0 && own.Classes == other.Classes && (r+1)*own.Classes <= min(len(own.Scores), len(other.Scores)) {
		return furthest(own.Scores[r*own.Classes:(r+1)*own.Classes], other.Scores[r*own.Classes:(r+1)*own.Classes])
	}
	for i := range own.Outputs {
		a, b := row(&own.Outputs[i], r), rowOf(other.Outputs, own.Outputs[i].Name, r)
		if len(a) == len(b) {
			worst = max(worst, furthest(a, b))
		}
	}
	return worst
}

func furthest(a, b []float32) (worst float64) {
	for i := range a {
		if d := math.Abs(float64(a[i]) - float64(b[i])); d > worst && !math.IsInf(d, 0) {
			worst = d // a NaN is larger than nothing
		}
	}
	return worst
}

func row(t *sketch.Tensor, r int) []float32 {
	if t.Width <= 0 || (r+1)*t.Width > len(t.Data) {
		return nil
	}
	return t.Data[r*t.Width : (r+1)*t.Width]
}

func rowOf(ts []sketch.Tensor, name string, r int) []float32 {
	i := slices.IndexFunc(ts, func(t sketch.Tensor) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return row(&ts[i], r)
}

// limitsOf is how far each watched number of an output may be from another
// release's, by tensor. What the baseline does not watch may be anything.
func limitsOf(b *sketch.Baseline) map[string][]float64 {
	limits := map[string][]float64{}
	for i := range b.Streams {
		s := &b.Streams[i]
		if s.Side != sketch.Output || s.Source != sketch.Feature {
			continue
		}
		list := limits[s.Tensor]
		for len(list) <= s.Index {
			list = append(list, math.Inf(1)) // not watched: anything is close
		}
		list[s.Index] = closeEnough * span(s)
		limits[s.Tensor] = list
	}
	return limits
}

// span is the range of a stream's training data, without the outermost bins.
func span(s *sketch.Stream) float64 {
	at := s.Edges
	if len(at) == 0 {
		at = s.Values
	}
	if len(at) < 2 {
		return 0
	}
	return float64(at[len(at)-1]) - float64(at[0])
}
