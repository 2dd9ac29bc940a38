package trial

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// prove runs the golden vectors twice: in the largest batch the schema allows,
// and row by row as most calls come. A graph may be right in one and wrong in
// the other.
func (e *exam) prove(ctx context.Context) error {
	for _, batch := range e.batches() {
		got, err := e.compute(ctx, batch)
		if err != nil {
			return err
		}
		c, err := e.golden.Compare(got)
		if err != nil {
			return verdict(CodeSchema, "%v", err)
		}
		e.result.Rows = c.Rows
		e.result.Worst = max(e.result.Worst, finite(c.WorstAbs))
		e.result.Wrong = max(e.result.Wrong, c.Wrong)
		if !c.OK() {
			return verdict(CodeGolden, "with %d rows a call, %s; the expected values are from %s", batch, c, source(e.golden))
		}
	}
	return nil
}

func source(g *release.Golden) string {
	if g.Source == "" {
		return "the training framework"
	}
	return g.Source
}

// finite is x as JSON can carry it.
func finite(x float64) float64 {
	if math.IsInf(x, 0) || math.IsNaN(x) {
		return math.MaxFloat64
	}
	return x
}

// batches are the sizes to run, in rows a call. A schema with a fixed batch
// leaves no choice.
func (e *exam) batches() []int {
	if n := e.fixed(); n > 0 {
		return []int{n}
	}
	if e.golden.Rows == 1 {
		return []int{1}
	}
	return []int{e.golden.Rows, 1}
}

// fixed is the batch that the schema prescribes, 0 for none.
func (e *exam) fixed() int {
	for _, t := range e.release.Manifest.Schema.Inputs {
		if len(t.Shape) > 0 && t.Shape[0] > 0 {
			return int(t.Shape[0])
		}
	}
	return 0
}

// compute runs all golden rows, batch at a time, and returns their outputs as
// one tensor each.
func (e *exam) compute(ctx context.Context, batch int) ([]release.Values, error) {
	schema := &e.release.Manifest.Schema
	all := make([]release.Values, len(schema.Outputs))
	out := make([]infer.Tensor, len(schema.Outputs))
	if e.golden.Rows%batch != 0 {
		return nil, verdict(CodeSchema, "%d golden rows do not fill batches of %d, the schema's first dimension", e.golden.Rows, batch)
	}
	for from := 0; from < e.golden.Rows; from += batch {
		if err := e.call(ctx, from, batch, out); err != nil {
			return nil, err
		}
		for i := range out {
			if err := fitsSchema(&schema.Outputs[i], &out[i], batch); err != nil {
				return nil, err
			}
			all[i] = joined(all[i], out[i].Values(), e.golden.Rows)
		}
	}
	return all, nil
}

// call runs rows [from, from+batch) of the golden inputs.
func (e *exam) call(ctx context.Context, from, batch int, out []infer.Tensor) error {
	in, err := e.rows(from, batch)
	if err != nil {
		return err
	}
	if err := e.session.Run(ctx, batch, in, out); err != nil {
		return verdict(CodeLoad, "the graph loads but does not run: %v", err)
	}
	return nil
}

func (e *exam) rows(from, batch int) ([]infer.Tensor, error) {
	in := make([]infer.Tensor, len(e.inputs))
	for i, t := range e.inputs {
		var err error
		if in[i], err = t.Slice(from, from+batch, e.golden.Rows); err != nil {
			return nil, fmt.Errorf("cut golden rows: %w", err)
		}
	}
	return in, nil
}

// fitsSchema says whether an output is what the schema promises.
func fitsSchema(want *release.Tensor, got *infer.Tensor, rows int) error {
	fits := len(got.Shape) == len(want.Shape) && got.Datatype == want.Datatype
	for i := 0; fits && i < len(want.Shape); i++ {
		fits = want.Shape[i] < 0 || got.Shape[i] == want.Shape[i]
	}
	if !fits || len(got.Shape) == 0 || got.Shape[0] != int64(rows) {
		return verdict(CodeSchema, "output %q is %s %v for %d rows, the schema says %s %v", want.Name, got.Datatype, got.Shape, rows, want.Datatype, want.Shape)
	}
	return nil
}

// joined appends the rows of more to v. The data is copied: sessions write into
// the same memory again.
func joined(v, more release.Values, rows int) release.Values {
	v.Name = more.Name
	v.Shape = slices.Clone(more.Shape)
	v.Shape[0] = int64(rows)
	v.Data = append(v.Data, more.Data...)
	v.Strings = append(v.Strings, more.Strings...)
	return v
}

// clock measures the warm latency of one row, or of one fixed batch.
func (e *exam) clock(ctx context.Context) error {
	batch := max(e.fixed(), 1)
	in, err := e.rows(0, batch)
	if err != nil {
		return err
	}
	out := make([]infer.Tensor, len(e.release.Manifest.Schema.Outputs))
	for range warmRuns {
		if err := e.session.Run(ctx, batch, in, out); err != nil {
			return verdict(CodeLoad, "the graph ran and then did not: %v", err)
		}
	}
	limit := time.Duration(e.release.Manifest.Limits.P95)
	for range rounds {
		p95, err := e.round(ctx, batch, in, out)
		if err != nil {
			return err
		}
		if e.result.P95 == 0 || int64(p95) < e.result.P95 {
			e.result.P95 = int64(p95)
		}
		if limit == 0 || p95 <= limit {
			return nil
		}
	}
	return nil
}

func (e *exam) round(ctx context.Context, batch int, in, out []infer.Tensor) (time.Duration, error) {
	took := make([]time.Duration, 0, timedRuns)
	for begin := time.Now(); len(took) < timedRuns && (len(took) < leastRuns || time.Since(begin) < timedFor); {
		start := time.Now()
		if err := e.session.Run(ctx, batch, in, out); err != nil {
			return 0, verdict(CodeLoad, "the graph ran and then did not: %v", err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)*95/100], nil
}
