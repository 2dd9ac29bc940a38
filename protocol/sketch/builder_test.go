package sketch

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

func tabular(features int) *release.Schema {
	return &release.Schema{
		Inputs: []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, int64(features)}}},
		Outputs: []release.Tensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{-1}},
			{Name: "probabilities", Datatype: "FP32", Shape: []int64{-1, 3}},
		},
		Classes: []string{"a", "b", "c"}, Label: "label", Scores: "probabilities",
	}
}

// randomBatch has lognormal features, a small integer as the first of them, and
// scores that are probabilities.
func randomBatch(rng *rand.Rand, rows, features int) *Batch {
	b := &Batch{Rows: rows, Classes: 3, Inputs: []Tensor{{Name: "X", Shape: []int64{int64(features)}, Width: features}}}
	for range rows {
		b.Inputs[0].Data = append(b.Inputs[0].Data, float32(rng.IntN(5)))
		for range features - 1 {
			b.Inputs[0].Data = append(b.Inputs[0].Data, float32(math.Exp(rng.NormFloat64())))
		}
		p, q := rng.Float32(), rng.Float32()
		b.Scores = append(b.Scores, p*q, p*(1-q), 1-p)
	}
	return b
}

func build(tb testing.TB, schema *release.Schema, batches ...*Batch) *Baseline {
	tb.Helper()
	b, err := NewBuilder(schema)
	if err != nil {
		tb.Fatal(err)
	}
	for _, batch := range batches {
		if err := b.Add(batch); err != nil {
			tb.Fatal(err)
		}
	}
	base, err := b.Baseline()
	if err != nil {
		tb.Fatal(err)
	}
	return base
}

// What was counted into the baseline is what a device counts for the same rows.
func TestCounterAgreesWithBaseline(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	batch := randomBatch(rng, 3000, 6)
	for i := range 40 { // some values missing, some infinite
		batch.Inputs[0].Data[6*i+2] = float32(math.NaN())
		batch.Inputs[0].Data[6*i+3] = float32(math.Inf(1 - 2*(i%2)))
	}
	base := build(t, tabular(6), batch)
	if base.Streams[0].Kind != Discrete || len(base.Streams[0].Values) != 5 {
		t.Errorf("integer feature: got %s with %d bins, want discrete with 5", base.Streams[0].Kind, len(base.Streams[0].Counts))
	}
	if base.Streams[1].Kind != Continuous || len(base.Streams[1].Counts) != MaxBins {
		t.Errorf("real feature: got %s with %d bins, want continuous with %d", base.Streams[1].Kind, len(base.Streams[1].Counts), MaxBins)
	}
	c, err := NewCounter(base)
	if err != nil {
		t.Fatal(err)
	}
	for r := range batch.Rows { // row by row here, all at once there
		c.Count(&Batch{
			Rows: 1, Classes: 3, Scores: batch.Scores[3*r : 3*r+3],
			Inputs: []Tensor{{Name: "X", Shape: []int64{6}, Width: 6, Data: batch.Inputs[0].row(r)}},
		})
	}
	for i, h := range c.Histograms() {
		s := &base.Streams[i]
		if !slices.Equal(h.GetBins(), s.Counts) || h.GetMissing() != s.Missing || h.GetOther() != s.Other {
			t.Errorf("stream %s: got %v, want counts %v missing %d other %d", s.Name, h, s.Counts, s.Missing, s.Other)
		}
	}
	if got := base.Streams[2].Missing; got != 40 {
		t.Errorf("missing of a feature with 40 NaN: got %d", got)
	}
}

func TestTiesCollapse(t *testing.T) {
	batch := &Batch{Rows: 1000, Inputs: []Tensor{{Name: "X", Shape: []int64{2}, Width: 2}}, Classes: 3}
	for i := range 1000 {
		spiky := float32(0)
		if i%10 == 0 {
			spiky = float32(i + 1)
		}
		batch.Inputs[0].Data = append(batch.Inputs[0].Data, spiky, 7)
		batch.Scores = append(batch.Scores, 0.2, 0.3, 0.5)
	}
	base := build(t, tabular(2), batch)
	spiky, constant := base.Streams[0], base.Streams[1]
	if spiky.Kind != Continuous || spiky.Edges[0] != 0 || spiky.Counts[0] != 900 {
		t.Errorf("nine in ten zero: got %s, edges %v, counts %v; want the zeros in one bin", spiky.Kind, spiky.Edges, spiky.Counts)
	}
	if constant.Kind != Discrete || !slices.Equal(constant.Values, []float32{7}) {
		t.Errorf("constant: got %s %v, want discrete [7]", constant.Kind, constant.Values)
	}
	c, _ := NewCounter(base)
	c.Count(&Batch{Rows: 1, Inputs: []Tensor{{Name: "X", Width: 2, Data: []float32{0, 7.5}}}, Classes: 3, Scores: []float32{1, 0, 0}})
	if h := c.Histograms()[1]; h.GetOther() != 1 {
		t.Errorf("new value of a constant: got %v, want it in other", h)
	}
}

func TestFewRowsAreNotDiscrete(t *testing.T) {
	batch := randomBatch(rand.New(rand.NewPCG(2, 2)), 20, 3)
	if s := build(t, tabular(3), batch).Streams[1]; s.Kind != Continuous {
		t.Errorf("20 different values in 20 rows: got %s, want continuous", s.Kind)
	}
}

func TestImagesAreWatchedThroughScalars(t *testing.T) {
	schema := tabular(1)
	schema.Inputs[0].Shape = []int64{-1, 1, 32, 32}
	rng := rand.New(rand.NewPCG(1, 1))
	batch := &Batch{Rows: 64, Classes: 3, Inputs: []Tensor{{Name: "X", Shape: []int64{1, 32, 32}, Width: 1024}}}
	for range 64 {
		for range 1024 {
			batch.Inputs[0].Data = append(batch.Inputs[0].Data, rng.Float32())
		}
		batch.Scores = append(batch.Scores, 0.2, 0.3, 0.5)
	}
	base := build(t, schema, batch)
	var names []string
	for _, s := range base.Streams {
		names = append(names, s.Name)
	}
	want := []string{"X.mean", "X.stddev", "X.min", "X.max", "X.zeros", "X.gradient", "class", "confidence", "entropy"}
	if !slices.Equal(names, want) {
		t.Errorf("streams of an image model: got %v, want %v", names, want)
	}
	if err := base.Fits(schema); err != nil {
		t.Error(err)
	}
	if err := base.Fits(&release.Schema{Inputs: []release.Tensor{{Name: "Y"}}}); !errors.Is(err, ErrBaseline) {
		t.Errorf("another schema: got %v, want ErrBaseline", err)
	}
}

func TestDerivedScalars(t *testing.T) {
	got := derive([]float32{0, 2, 4, 6}, []int64{2, 2})
	// mean 3, stddev √5, steps 2, 2 across and 4, 4 down: (4+4+16+16)/4
	want := scalars{3, float32(math.Sqrt(5)), 0, 6, 0.25, 10}
	if got != want {
		t.Errorf("derived: got %v, want %v", got, want)
	}
	interleaved := []float32{0, 9, 9, 2, 9, 9, 4, 9, 9, 6, 9, 9, 0, 9, 9, 2, 9, 9, 4, 9, 9, 6, 9, 9, 0, 9, 9}
	if _, _, _, stride, ok := plane([]int64{9, 1, 3}); ok {
		t.Errorf("one column is no image: stride %d", stride)
	}
	if p, h, w, stride, ok := plane([]int64{32, 16, 3}); !ok || p != 1 || h != 32 || w != 16 || stride != 3 {
		t.Errorf("channels last: got %d %d %d %d %v", p, h, w, stride, ok)
	}
	if g := gradient(interleaved, []int64{2, 2}); !math.IsNaN(float64(g)) {
		t.Errorf("shape that does not fit: got %v, want NaN", g)
	}
}

func TestOutputs(t *testing.T) {
	for _, c := range []struct {
		name       string
		scores     []float32
		class      int
		confidence float64
		entropy    float64
	}{
		{"probabilities", []float32{0.1, 0.7, 0.2}, 1, 0.7, 0.8018},
		{"certain", []float32{1, 0, 0}, 0, 1, 0},
		{"logits", []float32{-1, 2, 0}, 1, 0.8438, 0.5251},
		{"huge logits", []float32{-2000, 2000}, 1, 1, 0},
		{"one score, class 1", []float32{0.9}, 1, 0.9, 0.3251},
		{"one score, class 0", []float32{0.2}, 0, 0.8, 0.5004},
	} {
		class, confidence, entropy := summarise(c.scores)
		if class != c.class || math.Abs(float64(confidence)-c.confidence) > 1e-3 || math.Abs(float64(entropy)-c.entropy) > 1e-3 {
			t.Errorf("%s: got %d %.4f %.4f, want %d %.4f %.4f", c.name, class, confidence, entropy, c.class, c.confidence, c.entropy)
		}
	}
}

func TestConditions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	day, night := randomBatch(rng, 500, 3), randomBatch(rng, 300, 3)
	day.Condition, night.Condition = "day", "night"
	base := build(t, tabular(3), day, night)
	if len(base.Conditions) != 2 || base.Conditions[0].Rows != 500 || base.Conditions[1].Rows != 300 {
		t.Fatalf("conditions: got %d, want day with 500 rows and night with 300", len(base.Conditions))
	}
	for i, s := range base.Streams {
		for j, n := range s.Counts {
			if sum := base.Conditions[0].Histograms[i].Counts[j] + base.Conditions[1].Histograms[i].Counts[j]; sum != n {
				t.Errorf("stream %s bin %d: conditions hold %d, all rows %d", s.Name, j, sum, n)
			}
		}
	}
	b, _ := NewBuilder(tabular(3))
	if err := b.Add(day); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(randomBatch(rng, 1, 3)); err == nil {
		t.Error("rows without a condition after rows with one were taken")
	}
}

func TestSampleOfManyRows(t *testing.T) {
	b, _ := NewBuilder(tabular(2))
	rng := rand.New(rand.NewPCG(3, 3))
	for range MaxTrainingRows/10_000 + 10 {
		if err := b.Add(randomBatch(rng, 10_000, 2)); err != nil {
			t.Fatal(err)
		}
	}
	base, err := b.Baseline()
	if err != nil {
		t.Fatal(err)
	}
	if base.Rows != MaxTrainingRows {
		t.Errorf("rows kept: got %d, want %d", base.Rows, MaxTrainingRows)
	}
}

func TestBuilderRefusesRowsWithoutWhatIsWatched(t *testing.T) {
	good := func() *Batch { return randomBatch(rand.New(rand.NewPCG(1, 1)), 4, 3) }
	for name, spoil := range map[string]func(*Batch){
		"no input":     func(b *Batch) { b.Inputs = nil },
		"short input":  func(b *Batch) { b.Inputs[0].Data = b.Inputs[0].Data[1:] },
		"no scores":    func(b *Batch) { b.Scores = nil },
		"short scores": func(b *Batch) { b.Scores = b.Scores[1:] },
	} {
		b, _ := NewBuilder(tabular(3))
		batch := good()
		spoil(batch)
		if err := b.Add(batch); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	b, _ := NewBuilder(tabular(3))
	if _, err := b.Baseline(); !errors.Is(err, ErrNoRows) {
		t.Errorf("no rows: got %v, want ErrNoRows", err)
	}
}

func FuzzDecodeBaseline(f *testing.F) {
	for _, base := range []*Baseline{
		build(f, tabular(3), randomBatch(rand.New(rand.NewPCG(1, 1)), 100, 3)),
		{Format: BaselineFormat, Rows: 1, Streams: []Stream{{Name: "class", Side: Output, Kind: Categorical, Source: Class, Labels: []string{"a"}, Counts: []uint64{1}}}},
	} {
		data, err := base.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"format":1,"rows":18446744073709551615,"streams":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Decode(data)
		if err != nil {
			return
		}
		first, err := b.Encode()
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("encoded but not decoded: %v", err)
		}
		second, _ := again.Encode()
		if !bytes.Equal(first, second) {
			t.Errorf("encoding changed: %s then %s", first, second)
		}
		c, err := NewCounter(b)
		if err != nil {
			t.Fatal(err)
		}
		c.Count(&Batch{Rows: 2, Inputs: []Tensor{{Name: "X", Shape: []int64{3}, Width: 3, Data: []float32{1, 2, 3, 4, 5, 6}}}, Class: []int64{0, 99}})
		for i, h := range c.Histograms() {
			if sum(h) != 2 {
				t.Errorf("stream %d counted %d of 2 rows", i, sum(h))
			}
		}
	})
}

func sum(h *protocol.Histogram) uint64 {
	n := h.GetMissing() + h.GetOther()
	for _, c := range h.GetBins() {
		n += c
	}
	return n
}

func TestValidateRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Baseline){
		"other format":         func(b *Baseline) { b.Format = 2 },
		"no rows":              func(b *Baseline) { b.Rows = 0 },
		"counts off by one":    func(b *Baseline) { b.Streams[0].Counts[0]++ },
		"counts that overflow": func(b *Baseline) { b.Streams[0].Missing = math.MaxUint64; b.Streams[0].Counts[0]++ },
		"edge not rising":      func(b *Baseline) { b.Streams[1].Edges[3] = b.Streams[1].Edges[2] },
		"edge NaN":             func(b *Baseline) { b.Streams[1].Edges[3] = float32(math.NaN()) },
		"negative zero":        func(b *Baseline) { b.Streams[0].Values[0] = float32(math.Copysign(0, -1)) },
		"bin too few":          func(b *Baseline) { b.Streams[1].Edges = b.Streams[1].Edges[1:] },
		"same name":            func(b *Baseline) { b.Streams[1].Name = b.Streams[0].Name },
		"unknown source":       func(b *Baseline) { b.Streams[0].Source = "guess" },
		"unknown kind":         func(b *Baseline) { b.Streams[0].Kind = "fuzzy" },
		"unknown side":         func(b *Baseline) { b.Streams[0].Side = "inside" },
		"index negative":       func(b *Baseline) { b.Streams[0].Index = -1 },
		"one condition":        func(b *Baseline) { b.Conditions = make([]Condition, 1) },
		"unknown derivation":   func(b *Baseline) { b.Streams[0].Source, b.Streams[0].Derive = Scalar, "median" },
	} {
		b := build(t, tabular(3), randomBatch(rand.New(rand.NewPCG(1, 1)), 400, 3))
		spoil(b)
		if err := b.Validate(); !errors.Is(err, ErrBaseline) {
			t.Errorf("%s: got %v, want ErrBaseline", name, err)
		}
	}
}
