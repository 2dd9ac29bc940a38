package sketch

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

// edgesOf makes valid edges of any bytes.
func edgesOf(data []byte) []float32 {
	var edges []float32
	for ; len(data) >= 4 && len(edges) < MaxBins; data = data[4:] {
		v := math.Float32frombits(binary.LittleEndian.Uint32(data))
		if f := float64(v); !math.IsNaN(f) && !math.IsInf(f, 0) {
			edges = append(edges, v+0)
		}
	}
	slices.Sort(edges)
	return slices.Compact(edges)
}

func bySearch(edges []float32, v float32) int {
	return sort.Search(len(edges), func(i int) bool { return v <= edges[i] })
}

func FuzzBins(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 0, 64}, uint32(0x3f800000))
	f.Add([]byte{0, 0, 0, 0}, uint32(0x80000000))
	f.Add([]byte{1, 0, 0, 0, 2, 0, 0, 0, 255, 255, 127, 127, 255, 255, 127, 255}, uint32(2))
	f.Fuzz(func(t *testing.T, data []byte, bits uint32) {
		edges := edgesOf(data)
		if err := rising(edges); err != nil {
			t.Fatal(err)
		}
		b := newBins(edges)
		probe := []float32{math.Float32frombits(bits), float32(math.Inf(1)), float32(math.Inf(-1)), 0, float32(math.Copysign(0, -1))}
		for _, e := range edges {
			probe = append(probe, e, math.Nextafter32(e, 3e38), math.Nextafter32(e, -3e38))
		}
		for _, v := range probe {
			if v != v {
				continue
			}
			if got, want := b.of(v), bySearch(edges, v); got != want {
				t.Errorf("bin of %v in %v: got %d, want %d", v, edges, got, want)
			}
		}
	})
}

func TestBinsOnQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for name, draw := range map[string]func() float32{
		"lognormal": func() float32 { return float32(math.Exp(rng.NormFloat64())) },
		"normal":    func() float32 { return float32(rng.NormFloat64()) },
		"offset":    func() float32 { return float32(1e6 + rng.NormFloat64()) },
		"subnormal": func() float32 { return float32(rng.NormFloat64() * 1e-40) },
	} {
		sample := make([]float32, 20_000)
		for i := range sample {
			sample[i] = draw()
		}
		sorted := slices.Sorted(slices.Values(sample))
		edges := quantiles(sorted)
		b := newBins(edges)
		for _, v := range sample {
			if got, want := b.of(v), bySearch(edges, v); got != want {
				t.Fatalf("%s: bin of %v: got %d, want %d", name, v, got, want)
			}
		}
	}
}

func BenchmarkBins(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	sample := make([]float32, 1<<16)
	for i := range sample {
		sample[i] = float32(math.Exp(rng.NormFloat64()))
	}
	edges := quantiles(slices.Sorted(slices.Values(sample)))
	table := newBins(edges)
	counts := make([]uint64, MaxBins+1)
	b.Run("table", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			counts[table.of(sample[i&(len(sample)-1)])]++
			i++
		}
	})
	b.Run("search", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			counts[bySearch(edges, sample[i&(len(sample)-1)])]++
			i++
		}
	})
}

// BenchmarkCount is one prediction of 30 features, three outputs and the hash
// of its row: budget 1 µs.
func BenchmarkCount(b *testing.B) {
	builder, err := NewBuilder(tabular(30))
	if err != nil {
		b.Fatal(err)
	}
	batch := randomBatch(rand.New(rand.NewPCG(1, 1)), 4096, 30)
	if err := builder.Add(batch); err != nil {
		b.Fatal(err)
	}
	base, err := builder.Baseline()
	if err != nil {
		b.Fatal(err)
	}
	c, err := NewCounter(base)
	if err != nil {
		b.Fatal(err)
	}
	var h Hasher
	d := NewDistinct()
	one := &Batch{Rows: 1, Inputs: []Tensor{{Name: "X", Width: 30}}, Classes: 3}
	b.ReportAllocs()
	r := 0
	for b.Loop() {
		r = (r + 1) % batch.Rows
		one.Inputs[0].Data = batch.Inputs[0].row(r)
		one.Scores = batch.Scores[3*r : 3*r+3]
		c.Count(one)
		d.Add(h.Row(one.Inputs, 0))
	}
}
