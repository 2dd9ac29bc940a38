package sketch

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/vedette-edge/vedette/protocol/release"
)

// What a Builder keeps.
const (
	// MaxFeatures is how many numbers of a row are watched one by one. An input
	// tensor that goes beyond is watched through derived scalars.
	MaxFeatures = 256
	// MaxTrainingRows bounds the memory of a Builder. Of more rows a uniform
	// sample is kept, always the same one for the same rows.
	MaxTrainingRows = 200_000
	// discreteRows is how often a value must occur on average before few
	// distinct values are taken for a discrete quantity.
	discreteRows = 8
)

// ErrNoRows says that a baseline was asked for before any row.
var ErrNoRows = errors.New("no training rows")

// Builder makes a baseline from training rows and the model's answers to them.
type Builder struct {
	classes    []string
	streams    []Stream
	columns    [][]float32 // by stream; of the class stream its index
	conditions []string    // names, in order of appearance
	condition  []uint8     // by row kept
	seen       uint64
	random     *rand.Rand
	row        []float32
}

// NewBuilder decides from the schema what is watched.
func NewBuilder(schema *release.Schema) (*Builder, error) {
	b := &Builder{classes: schema.Classes, random: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // a sample, not a secret
	left := MaxFeatures
	for i := range schema.Inputs {
		left -= b.input(&schema.Inputs[i], left)
	}
	if schema.Label != "" || schema.Scores != "" {
		b.classOutputs(schema)
	} else {
		for i := range schema.Outputs {
			b.values(&schema.Outputs[i], Output, MaxBins)
		}
	}
	if len(b.streams) == 0 {
		return nil, fmt.Errorf("%w: the schema has nothing that could be watched", ErrBaseline)
	}
	if len(b.streams) > MaxStreams {
		return nil, fmt.Errorf("%w: %d streams, at most %d", ErrBaseline, len(b.streams), MaxStreams)
	}
	b.columns = make([][]float32, len(b.streams))
	b.row = make([]float32, len(b.streams))
	return b, nil
}

// input adds a tensor's streams and returns how many features it used up.
func (b *Builder) input(t *release.Tensor, left int) int {
	if used := b.values(t, Input, left); used > 0 || t.Datatype == "BYTES" {
		return used
	}
	for _, d := range derivations {
		if d == DeriveGradient && !isImage(t.Shape) {
			continue
		}
		b.streams = append(b.streams, Stream{
			Name: t.Name + "." + d, Side: Input, Kind: Continuous, Source: Scalar, Tensor: t.Name, Derive: d,
		})
	}
	return 0
}

func isImage(shape []int64) bool {
	rest := slices.Clone(shape[min(1, len(shape)):])
	for i, d := range rest {
		if d < 0 {
			rest[i] = math.MaxInt16 // free, and an image's sides may well be
		}
	}
	_, _, _, _, ok := plane(rest) //nolint:dogsled // only whether it is one
	return ok
}

// values adds one stream per number of a row, or none when there are more than left.
func (b *Builder) values(t *release.Tensor, side Side, left int) int {
	width, fixed := rowWidth(t.Shape)
	if !fixed || width == 0 || width > left || t.Datatype == "BYTES" {
		return 0
	}
	for i := range width {
		name := fmt.Sprintf("%s[%d]", t.Name, i)
		if i < len(t.Features) && t.Features[i].Name != "" {
			name = t.Features[i].Name
		}
		b.streams = append(b.streams, Stream{Name: b.unique(name), Side: side, Kind: Continuous, Source: Feature, Tensor: t.Name, Index: i})
	}
	return width
}

// unique keeps two tensors' features of one name apart.
func (b *Builder) unique(name string) string {
	taken := func(n string) bool {
		return slices.ContainsFunc(b.streams, func(s Stream) bool { return s.Name == n })
	}
	if !taken(name) {
		return name
	}
	for i := 2; ; i++ {
		if n := fmt.Sprintf("%s#%d", name, i); !taken(n) {
			return n
		}
	}
}

func (b *Builder) classOutputs(schema *release.Schema) {
	if len(schema.Classes) > 0 && len(schema.Classes) <= MaxClasses {
		b.streams = append(b.streams, Stream{
			Name: b.unique("class"), Side: Output, Kind: Categorical, Source: Class, Labels: slices.Clone(schema.Classes),
		})
	}
	if schema.Scores == "" {
		return
	}
	b.streams = append(b.streams,
		Stream{Name: b.unique("confidence"), Side: Output, Kind: Continuous, Source: Confidence},
		Stream{Name: b.unique("entropy"), Side: Output, Kind: Continuous, Source: Entropy})
}

// Add takes training rows with the model's outputs for them.
func (b *Builder) Add(batch *Batch) error {
	for i := range b.streams {
		if err := b.check(&b.streams[i], batch); err != nil {
			return err
		}
	}
	condition, err := b.conditionOf(batch.Condition)
	if err != nil {
		return err
	}
	for r := range batch.Rows {
		b.read(batch, r)
		b.keep(condition)
	}
	return nil
}

// check refuses training rows without a watched quantity: a device would report
// it as missing for ever.
func (b *Builder) check(s *Stream, batch *Batch) error {
	switch s.Source {
	case Feature, Scalar:
		side := batch.Inputs
		if s.Side == Output {
			side = batch.Outputs
		}
		t := find(side, s.Tensor)
		if t == nil || t.Width == 0 || len(t.Data) < batch.Rows*t.Width || s.Index >= t.Width {
			return fmt.Errorf("training rows lack %q, which %q is taken from", s.Tensor, s.Name)
		}
	case Class:
		if len(batch.Class) < batch.Rows && (batch.Classes == 0 || len(batch.Scores) < batch.Rows*batch.Classes) {
			return errors.New("training rows lack the predicted class")
		}
	case Confidence, Entropy:
		if batch.Classes == 0 || len(batch.Scores) < batch.Rows*batch.Classes {
			return errors.New("training rows lack the scores")
		}
	}
	return nil
}

func (b *Builder) conditionOf(name string) (uint8, error) {
	i := slices.Index(b.conditions, name)
	if i >= 0 {
		return uint8(i), nil //nolint:gosec // below MaxConditions
	}
	if len(b.conditions) >= MaxConditions {
		return 0, fmt.Errorf("training rows name more than %d conditions", MaxConditions)
	}
	if len(b.conditions) > 0 && (name == "" || b.conditions[0] == "") {
		return 0, errors.New("only some training rows name their condition")
	}
	b.conditions = append(b.conditions, name)
	return uint8(len(b.conditions) - 1), nil //nolint:gosec // at most MaxConditions
}

// read fills b.row with the value of every stream.
func (b *Builder) read(batch *Batch, r int) {
	o := batch.outputs(r)
	var scalar string
	var derived scalars
	for i := range b.streams {
		s := &b.streams[i]
		switch s.Source {
		case Feature:
			side := batch.Inputs
			if s.Side == Output {
				side = batch.Outputs
			}
			b.row[i] = find(side, s.Tensor).row(r)[s.Index]
		case Scalar:
			if scalar != s.Tensor {
				t := find(batch.Inputs, s.Tensor)
				scalar, derived = s.Tensor, derive(t.row(r), t.Shape)
			}
			b.row[i] = derived[derivation(s.Derive)]
		case Class:
			b.row[i] = float32(o.class)
		case Confidence:
			b.row[i] = o.confidence
		case Entropy:
			b.row[i] = o.entropy
		}
	}
}

// keep is Vitter's algorithm R.
func (b *Builder) keep(condition uint8) {
	b.seen++
	if len(b.condition) < MaxTrainingRows {
		b.condition = append(b.condition, condition)
		for i, v := range b.row {
			b.columns[i] = append(b.columns[i], v+0) // + 0 makes a negative zero positive
		}
		return
	}
	at := b.random.Uint64N(b.seen)
	if at >= MaxTrainingRows {
		return
	}
	b.condition[at] = condition
	for i, v := range b.row {
		b.columns[i][at] = v + 0
	}
}

// Baseline makes the baseline of all rows added.
func (b *Builder) Baseline() (*Baseline, error) {
	rows := len(b.condition)
	if rows == 0 {
		return nil, ErrNoRows
	}
	out := &Baseline{Format: BaselineFormat, Rows: uint64(rows), Streams: slices.Clone(b.streams)}
	for i := range out.Streams {
		if s := &out.Streams[i]; s.Kind != Categorical {
			s.cut(b.columns[i])
		}
	}
	counts := make([][]tally, len(b.conditions))
	for c := range counts {
		counts[c] = emptyTallies(out.Streams)
	}
	tables := newPlan(out).tables
	for i, column := range b.columns {
		for r, v := range column {
			count(&out.Streams[i], tables[i], &counts[b.condition[r]][i], v)
		}
	}
	out.fill(b.conditions, b.condition, counts)
	if err := out.Validate(); err != nil {
		return nil, fmt.Errorf("training rows make no baseline: %w", err)
	}
	return out, nil
}

// cut decides the bins: one per value when there are few, else on quantiles,
// where ties collapse.
func (s *Stream) cut(column []float32) {
	sorted := make([]float32, 0, len(column))
	for _, v := range column {
		if v == v && !math.IsInf(float64(v), 0) {
			sorted = append(sorted, v)
		}
	}
	slices.Sort(sorted)
	if values := distinctValues(sorted); len(values) > 0 && len(values) <= MaxBins && len(sorted) >= discreteRows*len(values) {
		s.Kind, s.Values = Discrete, values
		return
	}
	s.Kind, s.Edges = Continuous, quantiles(sorted)
}

// distinctValues returns the values of a sorted slice, or more than MaxBins of them.
func distinctValues(sorted []float32) []float32 {
	var values []float32
	for i, v := range sorted {
		if i == 0 || v != sorted[i-1] {
			if values = append(values, v); len(values) > MaxBins {
				break
			}
		}
	}
	return values
}

// quantiles are the inner edges of MaxBins bins of equal mass. An edge at the
// maximum would leave the last bin empty.
func quantiles(sorted []float32) []float32 {
	var edges []float32
	n := len(sorted)
	for i := 1; i < MaxBins && n > 0; i++ {
		e := sorted[(i*n+MaxBins-1)/MaxBins-1]
		if e < sorted[n-1] && (len(edges) == 0 || e > edges[len(edges)-1]) {
			edges = append(edges, e)
		}
	}
	return edges
}

func emptyTallies(streams []Stream) []tally {
	ts := make([]tally, len(streams))
	for i := range streams {
		ts[i].bins = make([]uint64, streams[i].bins())
	}
	return ts
}

func (s *Stream) bins() int {
	switch s.Kind {
	case Continuous:
		return len(s.Edges) + 1
	case Discrete:
		return len(s.Values)
	case Categorical:
		return len(s.Labels)
	}
	return 0
}

func count(s *Stream, table *bins, t *tally, v float32) {
	switch s.Kind {
	case Continuous:
		t.continuous(table, v)
	case Discrete:
		t.discrete(table, v)
	case Categorical:
		t.category(int64(v))
	}
}

// fill writes the counts, of all rows and by condition when there are several.
func (b *Baseline) fill(names []string, condition []uint8, counts [][]tally) {
	rows := make([]uint64, len(names))
	for _, c := range condition {
		rows[c]++
	}
	for i := range b.Streams {
		b.Streams[i].Counts = make([]uint64, b.Streams[i].bins())
	}
	for c, name := range names {
		part := Condition{Name: name, Rows: rows[c]}
		for i, t := range counts[c] {
			s := &b.Streams[i]
			for j, n := range t.bins {
				s.Counts[j] += n
			}
			s.Missing += t.missing
			s.Other += t.other
			part.Histograms = append(part.Histograms, BinCounts{Counts: t.bins, Missing: t.missing, Other: t.other})
		}
		if part.Rows > 0 { // a sample may have kept none of it
			b.Conditions = append(b.Conditions, part)
		}
	}
	if len(b.Conditions) < 2 {
		b.Conditions = nil
	}
}
