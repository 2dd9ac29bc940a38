package score

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/observe"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Report says how the rows that were scored differ from the training data: what
// the fleet would say of them, with its default limits.
type Report struct {
	Rows     uint64            `json:"rows"`     // scored
	Distinct uint64            `json:"distinct"` // of them, about: a repeated row tells nothing new
	Limits   divergence.Limits `json:"limits"`
	divergence.Comparison
}

// Save writes the report to path, indented for people, in one step.
func (r *Report) Save(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := writeFile(path, append(raw, '\n')); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// drift counts what is scored over the bins of the baseline. A nil one counts
// nothing. The goroutine that writes uses it.
type drift struct {
	base  *sketch.Baseline
	twin  *sketch.Counter // to make counters of
	total *counts
	older *protocol.Window // what interrupted runs have counted; nil for none
}

// counts are those of one chunk, or of all.
type counts struct {
	counter  *sketch.Counter
	distinct *sketch.Distinct
	hasher   sketch.Hasher
}

func newDrift(cfg *Config, cp *checkpoint) (*drift, error) {
	if cfg.Baseline == nil {
		return nil, nil //nolint:nilnil // nil counts nothing
	}
	c, err := sketch.NewCounter(cfg.Baseline)
	if err != nil {
		return nil, err
	}
	d := &drift{base: cfg.Baseline, twin: c}
	d.total = d.counts()
	if cp != nil {
		d.older = &protocol.Window{}
		if err := proto.Unmarshal(cp.Counts, d.older); err != nil {
			return nil, fmt.Errorf("%w: read counts: %w", ErrCheckpoint, err)
		}
	}
	return d, nil
}

// counts makes empty ones.
func (d *drift) counts() *counts {
	if d == nil {
		return nil
	}
	return &counts{counter: d.twin.Twin(), distinct: sketch.NewDistinct()}
}

// count counts the rows of a chunk alone, as an agent that serves them does.
func (c *counts) count(schema *release.Schema, of *chunk) error {
	if c == nil {
		return nil
	}
	c.counter.Reset()
	c.distinct.Reset()
	if of.rows == 0 {
		return nil
	}
	in, err := firstRows(of.in, of.rows, of.capacity())
	if err != nil {
		return err
	}
	ran := of.rows
	if fixedBatch(schema) > 0 {
		ran = of.capacity()
	}
	out, err := firstRows(of.out, of.rows, ran)
	if err != nil {
		return err
	}
	b := observe.Batch(schema, of.rows, in, out)
	c.counter.Count(b)
	for r := range b.Rows {
		c.distinct.Add(c.hasher.Row(b.Inputs, r))
	}
	return nil
}

// merge adds the counts of a chunk that was written.
func (d *drift) merge(c *counts) error {
	if d == nil {
		return nil
	}
	if err := d.total.counter.Merge(c.counter); err != nil {
		return err
	}
	return d.total.distinct.Merge(c.distinct)
}

// window is everything counted so far, by interrupted runs too.
func (d *drift) window() (*protocol.Window, error) {
	distinct, err := d.total.distinct.Encode()
	if err != nil {
		return nil, err
	}
	w := &protocol.Window{Rows: d.total.counter.Rows(), Streams: d.total.counter.Histograms(), Distinct: distinct}
	if d.older == nil {
		return w, nil
	}
	if err := sketch.MergeWindow(w, d.older); err != nil {
		return nil, fmt.Errorf("%w: add counts: %w", ErrCheckpoint, err)
	}
	return w, nil
}

// encode is the counts for a checkpoint.
func (d *drift) encode() ([]byte, error) {
	if d == nil {
		return nil, nil
	}
	w, err := d.window()
	if err != nil {
		return nil, err
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("encode counts: %w", err)
	}
	return raw, nil
}

// report compares what was counted with training, nil when nothing was.
func (d *drift) report() (*Report, error) {
	if d == nil {
		return nil, nil //nolint:nilnil // nobody asked for one
	}
	w, err := d.window()
	if err != nil {
		return nil, err
	}
	distinct, err := sketch.DecodeDistinct(w.GetDistinct())
	if err != nil {
		return nil, fmt.Errorf("count distinct rows: %w", err)
	}
	r := &Report{Rows: w.GetRows(), Distinct: min(distinct.Estimate(), w.GetRows()), Limits: divergence.DefaultLimits()}
	r.Comparison = divergence.Training(d.base, w.GetStreams(), r.Rows, r.Distinct, r.Limits)
	return r, nil
}
