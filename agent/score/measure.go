package score

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
)

// Rates says how fast the parts of a run are by themselves and together, in rows
// a second, one figure for each round. On a machine that does other things as
// well the rows a second of processor time say more.
type Rates struct {
	Threads int       `json:"threads"` // of everything; the parts have one
	Rows    int64     `json:"rows"`
	Parse   []float64 `json:"parse"` // reading and parsing alone
	Infer   []float64 `json:"infer"` // the model alone
	Score   []float64 `json:"score"` // everything, written to a file
	// The same by processor time, the system's for this process included; empty
	// where the system does not tell.
	ParseCPU []float64 `json:"parse_cpu,omitempty"`
	InferCPU []float64 `json:"infer_cpu,omitempty"`
	ScoreCPU []float64 `json:"score_cpu,omitempty"`
}

// Medians of the three figures.
func (r *Rates) Medians() (parse, infer, score float64) {
	return median(r.Parse), median(r.Infer), median(r.Score)
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(list))[len(list)/2]
}

// Measure runs the parts in turns, so that what else the machine does falls on
// all of them. open returns the job anew; its output is replaced every time.
func Measure(ctx context.Context, rounds int, open func() (Config, func() error, error)) (*Rates, error) {
	m := &Rates{}
	for range rounds {
		for _, part := range []struct {
			run     func(context.Context, *Config) (int64, error)
			to, cpu *[]float64
		}{{parseAlone, &m.Parse, &m.ParseCPU}, {m.inferAlone, &m.Infer, &m.InferCPU}, {m.all, &m.Score, &m.ScoreCPU}} {
			cfg, done, err := open()
			if err != nil {
				return nil, err
			}
			start, busy := time.Now(), processorTime()
			rows, err := part.run(ctx, &cfg)
			took, worked := time.Since(start), processorTime()-busy
			if err := errors.Join(err, done()); err != nil {
				return nil, err
			}
			*part.to = append(*part.to, float64(rows)/took.Seconds())
			if worked > 0 {
				*part.cpu = append(*part.cpu, float64(rows)/worked.Seconds())
			}
			m.Rows, m.Threads = max(m.Rows, rows), cfg.Threads
		}
	}
	return m, nil
}

func (r *Rates) all(ctx context.Context, cfg *Config) (int64, error) {
	s, err := Run(ctx, *cfg)
	if err != nil {
		return s.Rows, err
	}
	return s.Rows, errors.Join(os.Remove(cfg.Output), cfg.withDefaults())
}

// discarding is an encoder of nothing.
type discarding struct{ *textEncoder }

func (discarding) begin(io.Writer) error         { return nil }
func (discarding) write(io.Writer, *chunk) error { return nil }

// parseAlone is the pipeline without a model and without output.
func parseAlone(ctx context.Context, cfg *Config) (int64, error) {
	cfg.Output, cfg.Stdout, cfg.Threads = "-", io.Discard, 1
	if err := cfg.withDefaults(); err != nil {
		return 0, err
	}
	j, err := newJob(cfg, nil)
	if err != nil {
		return 0, err
	}
	j.finish = func(_ context.Context, p parser, c *chunk) error { return p.parse(c) }
	j.out.encoder = discarding{}
	err = j.run(ctx)
	return j.summary.Rows, errors.Join(err, j.table.close())
}

// inferAlone computes the first batch of the input over and over, as many rows as
// the input has.
func (r *Rates) inferAlone(ctx context.Context, cfg *Config) (int64, error) {
	in, err := NewReader(*cfg)
	if err != nil {
		return 0, err
	}
	rows, err := in.Next()
	if err != nil {
		return 0, err
	}
	out, done := make([]infer.Tensor, len(cfg.Schema.Outputs)), int64(0)
	for ; done+int64(rows.N) <= r.Rows; done += int64(rows.N) {
		if err := cfg.Model.Run(ctx, rows.N, rows.Tensors, out); err != nil {
			return done, err
		}
	}
	return done, nil
}
