package onnx

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// testRuntime opens the library of the checkout.
func testRuntime(tb testing.TB) *Runtime {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			tb.Fatal("no go.mod above this package")
		}
		dir = filepath.Dir(dir)
	}
	lib := filepath.Join(dir, "build", "onnxruntime", libraryFile)
	if _, err := os.Stat(lib); err != nil {
		tb.Fatalf("%v: run `make setup`", err)
	}
	rt, err := Open(lib)
	if err != nil {
		tb.Fatal(err)
	}
	return rt
}

// model is one of the real models with what scikit-learn answered.
type model struct {
	name     string
	features int
	classes  int
	rows     int
	x        []float32
	labels   []int64
	probs    []float64
}

var models = []string{"wine_lr", "bc_mlp", "bc_gbt", "digits_mlp"}

func readCSV(tb testing.TB, path string) [][]float64 {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	rows := make([][]float64, len(records)-1)
	for i, rec := range records[1:] {
		for _, field := range rec {
			v, err := strconv.ParseFloat(field, 64)
			if err != nil {
				tb.Fatal(err)
			}
			rows[i] = append(rows[i], v)
		}
	}
	return rows
}

func readModel(tb testing.TB, name string) *model {
	tb.Helper()
	in := readCSV(tb, filepath.Join("testdata", name+".input.csv"))
	want := readCSV(tb, filepath.Join("testdata", name+".expected.csv"))
	m := &model{name: name, features: len(in[0]), classes: len(want[0]) - 1, rows: len(in)}
	for i, row := range in {
		for _, v := range row {
			m.x = append(m.x, float32(v))
		}
		m.labels = append(m.labels, int64(want[i][0]))
		m.probs = append(m.probs, want[i][1:]...)
	}
	return m
}

func (m *model) schema() release.Schema {
	return release.Schema{
		Inputs: []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, int64(m.features)}}},
		Outputs: []release.Tensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{-1}},
			{Name: "probabilities", Datatype: "FP32", Shape: []int64{-1, int64(m.classes)}},
		},
	}
}

func (m *model) open(tb testing.TB, s release.Schema) *session {
	tb.Helper()
	testRuntime(tb)
	got, err := OpenGraph(filepath.Join("testdata", m.name+".onnx"), &s)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := got.Close(); err != nil {
			tb.Error(err)
		}
	})
	return got.(*session)
}

// batch is n input rows from row from on, starting over at the end.
func (m *model) batch(from, n int) infer.Tensor {
	data := make([]float32, 0, n*m.features)
	for i := range n {
		r := (from + i) % m.rows
		data = append(data, m.x[r*m.features:(r+1)*m.features]...)
	}
	return infer.Tensor{Name: "X", Datatype: "FP32", Shape: []int64{int64(n), int64(m.features)}, Data: data}
}

// check compares outputs of a batch with scikit-learn's.
func (m *model) check(from, n int, out []infer.Tensor) error {
	labels, ok := out[0].Data.([]int64)
	if !ok || len(labels) != n {
		return fmt.Errorf("label is %T of shape %v, want %d", out[0].Data, out[0].Shape, n)
	}
	probs, ok := out[1].Data.([]float32)
	if !ok || len(probs) != n*m.classes {
		return fmt.Errorf("probabilities is %T of shape %v, want %d×%d", out[1].Data, out[1].Shape, n, m.classes)
	}
	for i := range n {
		r := (from + i) % m.rows
		if labels[i] != m.labels[r] {
			return fmt.Errorf("row %d: label %d, want %d", r, labels[i], m.labels[r])
		}
		for k := range m.classes {
			got, want := float64(probs[i*m.classes+k]), m.probs[r*m.classes+k]
			if math.Abs(got-want) > 1e-5 {
				return fmt.Errorf("row %d class %d: %v, want %v", r, k, got, want)
			}
		}
	}
	return nil
}

func TestAgreesWithScikitLearn(t *testing.T) {
	for _, name := range models {
		t.Run(name, func(t *testing.T) {
			m := readModel(t, name)
			s := m.open(t, m.schema())
			if len(s.plans) != 1 || s.plans[0].learned {
				t.Fatal("the graph is not bound")
			}
			for _, n := range []int{1, 2, 7, 16, 17, 255, 256, 257, 1000, 1023, 1024, 1025, 2500, 3, 1} {
				out := make([]infer.Tensor, 2)
				if err := s.Run(t.Context(), n, []infer.Tensor{m.batch(n, n)}, out); err != nil {
					t.Fatalf("batch of %d: %v", n, err)
				}
				if err := m.check(n, n, out); err != nil {
					t.Errorf("batch of %d: %v", n, err)
				}
			}
		})
	}
}

// TestUnknownOutputShape takes the path on which the library allocates.
func TestUnknownOutputShape(t *testing.T) {
	for _, name := range models {
		t.Run(name, func(t *testing.T) {
			m := readModel(t, name)
			schema := m.schema()
			schema.Outputs[1].Shape = []int64{-1, -1}
			s := m.open(t, schema)
			if len(s.plans) != 0 {
				t.Fatal("the graph is bound, its outputs are not known")
			}
			out := make([]infer.Tensor, 2)
			out[0].Datatype, out[1].Datatype = "INT64", "FP32"
			for _, n := range []int{1, 33} {
				if err := s.Run(t.Context(), n, []infer.Tensor{m.batch(0, n)}, out); err != nil {
					t.Fatal(err)
				}
				if err := m.check(0, n, out); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestManyCallersAtOnce(t *testing.T) {
	m := readModel(t, "digits_mlp")
	s := m.open(t, m.schema())
	var wg sync.WaitGroup
	for caller := range 8 {
		wg.Go(func() {
			out := make([]infer.Tensor, 2)
			for i := range 300 {
				n := 1 + (i*7+caller)%40
				err := s.Run(t.Context(), n, []infer.Tensor{m.batch(i, n)}, out)
				if err == nil {
					err = m.check(i, n, out)
				}
				if err != nil {
					t.Errorf("caller %d run %d: %v", caller, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.plans[0].free); n > 8 {
		t.Errorf("%d workers for 8 callers", n)
	}
}

func TestWrongSchemaFailsTheRun(t *testing.T) {
	m := readModel(t, "digits_mlp")
	cases := map[string]func(*release.Schema){
		"input name":       func(s *release.Schema) { s.Inputs[0].Name = "Y" },
		"input width":      func(s *release.Schema) { s.Inputs[0].Shape[1] = 63 },
		"output name":      func(s *release.Schema) { s.Outputs[0].Name = "class" },
		"output width":     func(s *release.Schema) { s.Outputs[1].Shape[1] = 9 },
		"output datatype":  func(s *release.Schema) { s.Outputs[1].Datatype = "FP64" },
		"output dimension": func(s *release.Schema) { s.Outputs[0].Shape = []int64{-1, 1} },
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			schema := m.schema()
			damage(&schema)
			s := m.open(t, schema)
			in := m.batch(0, 1)
			if schema.Inputs[0].Shape[1] == 63 {
				in.Data = in.Data.([]float32)[:63]
			}
			out := make([]infer.Tensor, 2)
			err := s.Run(t.Context(), 1, []infer.Tensor{in}, out)
			if err == nil {
				t.Fatal("the run succeeded")
			}
			if !strings.HasPrefix(err.Error(), "run graph") && !strings.HasPrefix(err.Error(), "bind") {
				t.Errorf("error %q does not say what failed", err)
			}
		})
	}
}

func TestDamagedGraphIsRefused(t *testing.T) {
	testRuntime(t)
	raw, err := os.ReadFile("testdata/digits_mlp.onnx")
	if err != nil {
		t.Fatal(err)
	}
	m := readModel(t, "digits_mlp")
	schema := m.schema()
	for name, content := range map[string][]byte{"empty": {}, "half": raw[:len(raw)/2], "text": []byte("not a graph")} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenGraph(path, &schema); err == nil {
			t.Errorf("%s: the graph was loaded", name)
		}
	}
	if _, err := OpenGraph(filepath.Join(t.TempDir(), "none"), &schema); err == nil {
		t.Error("a graph that does not exist was loaded")
	}
}

func TestLoadChoosesVariant(t *testing.T) {
	rt := testRuntime(t)
	raw, err := os.ReadFile("testdata/wine_lr.onnx")
	if err != nil {
		t.Fatal(err)
	}
	m := readModel(t, "wine_lr")
	dir, digest := t.TempDir(), release.DigestOf(raw)
	if err := os.WriteFile(filepath.Join(dir, digest.String()), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	graph := release.File{Name: "model.onnx", Digest: digest, Size: int64(len(raw))}
	manifest := &release.Manifest{Model: "wine", Version: "1", Schema: m.schema(), Variants: []release.Variant{
		{Name: "fp32", Graph: graph},
		{Name: "gpu", Graph: graph, Providers: []string{"CUDAExecutionProvider"}},
		{Name: "other", Graph: graph, Arch: []string{"pdp11"}},
	}}
	for variant, want := range map[string]error{"": nil, "fp32": nil, "gpu": ErrProvider, "other": ErrProvider} {
		s, err := rt.Load(t.Context(), infer.Release{Manifest: manifest, Dir: dir, Variant: variant})
		if !errors.Is(err, want) {
			t.Errorf("variant %q: error %v, want %v", variant, err, want)
		}
		if s != nil {
			if got := s.Provider(); got != cpuProvider {
				t.Errorf("provider %q, want %q", got, cpuProvider)
			}
			s.Close()
		}
	}
}

// TestNothingStaysPinned ends sessions in every way a session can end. Memory
// that is still pinned when the collector finds it ends the process.
func TestNothingStaysPinned(t *testing.T) {
	m := readModel(t, "wine_lr")
	unknown := m.schema()
	unknown.Outputs[1].Shape = []int64{-1, -1}
	wrong := m.schema()
	wrong.Outputs[1].Name = "scores"
	narrow := m.schema()
	narrow.Inputs[0].Shape = []int64{-1, int64(m.features) - 1}
	for name, schema := range map[string]release.Schema{"bound": m.schema(), "free": unknown, "wrong name": wrong, "wrong shape": narrow} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", m.name+".onnx")
			testRuntime(t)
			s, err := OpenGraph(path, &schema)
			if err != nil {
				t.Fatal(err)
			}
			for _, rows := range []int{1, 20, 3} { // the second one needs larger buffers
				err := s.Run(t.Context(), rows, []infer.Tensor{m.batch(0, rows)}, make([]infer.Tensor, 2))
				if fails := strings.HasPrefix(name, "wrong"); (err != nil) != fails {
					t.Errorf("run of %d rows: error %v", rows, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := s.Run(t.Context(), 1, []infer.Tensor{m.batch(0, 1)}, make([]infer.Tensor, 2)); !errors.Is(err, ErrClosed) {
				t.Errorf("run after Close: error %v, want %v", err, ErrClosed)
			}
		})
		for range 2 { // finalizers run one after the other: after this one, those of its cycle have run
			finalized := make(chan struct{})
			runtime.SetFinalizer(&struct{ _ *int }{}, func(*struct{ _ *int }) { close(finalized) })
			runtime.GC()
			<-finalized
		}
	}
}

// TestNoGrowth runs long enough for a leak of 100 bytes a run to show, on the
// bound path with changing batch sizes and on the free one.
func TestNoGrowth(t *testing.T) {
	m := readModel(t, "digits_mlp")
	unknown := m.schema()
	unknown.Outputs[1].Shape = []int64{-1, -1}
	for name, s := range map[string]*session{"bound": m.open(t, m.schema()), "free": m.open(t, unknown)} {
		t.Run(name, func(t *testing.T) {
			inputs := make([][]infer.Tensor, 20)
			for i := range inputs {
				inputs[i] = []infer.Tensor{m.batch(i, 1+i)}
			}
			out := make([]infer.Tensor, 2)
			out[0].Datatype, out[1].Datatype = "INT64", "FP32"
			runs := func(n int) {
				for i := range n {
					k := i % len(inputs)
					if err := s.Run(t.Context(), k+1, inputs[k], out); err != nil {
						t.Fatal(err)
					}
				}
				runtime.GC()
			}
			const each = 10_000
			runs(each)
			before := rss(t)
			runs(each)
			runs(each)
			// An output that is not freed costs about 500 bytes a run, 10 MB here;
			// allocators take memory in steps of 2 MiB.
			if grown := rss(t) - before; grown > 6<<20 {
				t.Errorf("%d more resident bytes after %d runs", grown, 2*each)
			}
		})
	}
}

func rss(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(raw))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestRunAllocatesNothing(t *testing.T) {
	m := readModel(t, "digits_mlp")
	s := m.open(t, m.schema())
	for _, n := range []int{1, 100} {
		in, out := []infer.Tensor{m.batch(0, n)}, make([]infer.Tensor, 2)
		got := testing.AllocsPerRun(100, func() {
			if err := s.Run(t.Context(), n, in, out); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("batch of %d: %v allocations a run, want 0", n, got)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	for _, name := range models {
		m := readModel(b, name)
		for _, n := range []int{1, 16, 256, 1024} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				s := m.open(b, m.schema())
				in, out := []infer.Tensor{m.batch(0, n)}, make([]infer.Tensor, 2)
				b.ReportAllocs()
				for b.Loop() {
					if err := s.Run(b.Context(), n, in, out); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// BenchmarkBinding is what a batch size costs that is not bound yet.
func BenchmarkBinding(b *testing.B) {
	m := readModel(b, "wine_lr")
	s := m.open(b, m.schema())
	p, w, err := s.acquire([]infer.Tensor{m.batch(0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.put(p, w)
	if _, err := w.binding(s.graph, p, 16); err != nil {
		b.Fatal(err)
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		if _, err := w.binding(s.graph, p, 1+i%(maxBindings+1)); err != nil {
			b.Fatal(err)
		}
	}
}
