package onnx

import (
	"fmt"
	"math"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

func tensor(name, datatype string, shape ...int64) release.Tensor {
	return release.Tensor{Name: name, Datatype: datatype, Shape: shape}
}

func openGraph(tb testing.TB, path string, s release.Schema) *session {
	tb.Helper()
	testRuntime(tb)
	got, err := OpenGraph(path, &s)
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

// halfOf is a binary16 number of simple values, by hand: sign, exponent and the
// upper bits of the fraction.
func halfOf(v float64) infer.Float16 {
	if v == 0 {
		return 0
	}
	fraction, exponent := math.Frexp(math.Abs(v))
	bits := uint16(exponent+14)<<10 | uint16((fraction*2-1)*1024)
	if v < 0 {
		bits |= 0x8000
	}
	return infer.Float16(bits)
}

// column is three values of every type, and those as numbers.
var columnsOf = []struct {
	datatype string
	values   any
	numbers  []float32
}{
	{"FP32", []float32{-1.5, 0, 3e38}, []float32{-1.5, 0, 3e38}},
	{"FP64", []float64{-1.5, 1e-3, 1 << 40}, []float32{-1.5, 1e-3, 1 << 40}},
	{"FP16", []infer.Float16{halfOf(-1.5), halfOf(0), halfOf(65504)}, []float32{-1.5, 0, 65504}},
	{"BF16", []infer.BFloat16{0xbfc0, 0, 0x4049}, []float32{-1.5, 0, 3.140625}},
	{"INT8", []int8{-128, 0, 127}, []float32{-128, 0, 127}},
	{"INT16", []int16{-32768, 0, 32767}, []float32{-32768, 0, 32767}},
	{"INT32", []int32{math.MinInt32, 0, 7}, []float32{-1 << 31, 0, 7}},
	{"INT64", []int64{math.MinInt64, 0, 7}, []float32{-1 << 63, 0, 7}},
	{"UINT8", []uint8{0, 1, 255}, []float32{0, 1, 255}},
	{"UINT16", []uint16{0, 1, 65535}, []float32{0, 1, 65535}},
	{"UINT32", []uint32{0, 1, 1 << 31}, []float32{0, 1, 1 << 31}},
	{"UINT64", []uint64{0, 1, 1 << 63}, []float32{0, 1, 1 << 63}},
	{"BOOL", []bool{true, false, true}, []float32{1, 0, 1}},
	{"BYTES", []string{"-1.5", "0", "2e3"}, []float32{-1.5, 0, 2000}},
}

// repeat is n rows of the same values.
func repeat(values any, n int) any {
	v := reflect.ValueOf(values)
	all := reflect.MakeSlice(v.Type(), 0, n*v.Len())
	for range n {
		all = reflect.AppendSlice(all, v)
	}
	return all.Interface()
}

// typeGraph gives X back as it came and cast to FP32, so that both what goes in
// and what comes out is seen.
func typeGraph(tb testing.TB, datatype string, free bool) (string, release.Schema) {
	tb.Helper()
	path := writeGraph(tb, input("X", datatype, -1, 3), output("same", datatype, -1, 3), output("number", "FP32", -1, 3),
		node("", "Identity", []string{"X"}, []string{"same"}),
		node("", "Cast", []string{"X"}, []string{"number"}, intAttribute("to", int64(elements["FP32"]))))
	width := int64(3)
	if free {
		width = -1
	}
	return path, release.Schema{
		Inputs:  []release.Tensor{tensor("X", datatype, -1, width)},
		Outputs: []release.Tensor{tensor("same", datatype, -1, 3), tensor("number", "FP32", -1, width)},
	}
}

// buckets of rows: those that buffers grow to, and some between.
var batches = []int{1, 2, 16, 100, 256, 1000, 1024, 3}

func TestEveryDatatype(t *testing.T) {
	for _, c := range columnsOf {
		for _, free := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/free=%v", c.datatype, free), func(t *testing.T) {
				path, schema := typeGraph(t, c.datatype, free)
				s := openGraph(t, path, schema)
				for _, n := range append(batches, 1025, 2500) {
					in := []infer.Tensor{{Name: "X", Datatype: c.datatype, Shape: []int64{int64(n), 3}, Data: repeat(c.values, n)}}
					out := make([]infer.Tensor, 2)
					if err := s.Run(t.Context(), n, in, out); err != nil {
						t.Fatalf("%d rows: %v", n, err)
					}
					for i, want := range []any{in[0].Data, repeat(c.numbers, n)} {
						if !reflect.DeepEqual(out[i].Data, want) || !slices.Equal(out[i].Shape, in[0].Shape) {
							t.Fatalf("%d rows: output %q is %v, want %v", n, out[i].Name, out[i], want)
						}
					}
				}
			})
		}
	}
}

// Where every shape is known, a call takes nothing of the heap, whatever the
// type, at every size of batch.
func TestNoDatatypeAllocates(t *testing.T) {
	for _, c := range columnsOf {
		if c.datatype == "BYTES" {
			continue // the library keeps copies of strings
		}
		for _, free := range []bool{false, true} {
			path, schema := typeGraph(t, c.datatype, free)
			s := openGraph(t, path, schema)
			for _, n := range batches {
				in := []infer.Tensor{{Name: "X", Datatype: c.datatype, Shape: []int64{int64(n), 3}, Data: repeat(c.values, n)}}
				out := make([]infer.Tensor, 2)
				run := func() {
					if err := s.Run(t.Context(), n, in, out); err != nil {
						t.Fatal(err)
					}
				}
				run() // learns the plan of a free shape
				if got := testing.AllocsPerRun(20, run); got != 0 {
					t.Errorf("%s, free %v, %d rows: %v allocations a run, want 0", c.datatype, free, n, got)
				}
			}
		}
	}
}

func TestSeveralInputsAndOutputs(t *testing.T) {
	path := writeGraph(t, input("a", "FP32", -1, 2), input("b", "INT64", -1, 2), input("pick", "BOOL", -1, 1),
		output("picked", "FP32", -1, 2), output("above", "BOOL", -1, 2), output("twice", "INT64", -1, 2),
		node("", "Cast", []string{"b"}, []string{"b32"}, intAttribute("to", int64(elements["FP32"]))),
		node("", "Where", []string{"pick", "a", "b32"}, []string{"picked"}),
		node("", "Greater", []string{"a", "b32"}, []string{"above"}),
		node("", "Add", []string{"b", "b"}, []string{"twice"}))
	s := openGraph(t, path, release.Schema{
		// In another order than the graph's.
		Inputs:  []release.Tensor{tensor("pick", "BOOL", -1, 1), tensor("b", "INT64", -1, 2), tensor("a", "FP32", -1, 2)},
		Outputs: []release.Tensor{tensor("twice", "INT64", -1, 2), tensor("picked", "FP32", -1, 2), tensor("above", "BOOL", -1, 2)},
	})
	out := make([]infer.Tensor, 3)
	err := s.Run(t.Context(), 2, []infer.Tensor{
		{Shape: []int64{2, 1}, Data: []bool{true, false}},
		{Shape: []int64{2, 2}, Data: []int64{1, 2, 3, 1 << 40}},
		{Shape: []int64{2, 2}, Data: []float32{1.5, -2, 4, 5}},
	}, out)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []any{[]int64{2, 4, 6, 1 << 41}, []float32{1.5, -2, 3, 1 << 40}, []bool{true, false, true, false}} {
		if !reflect.DeepEqual(out[i].Data, want) {
			t.Errorf("output %q is %v, want %v", out[i].Name, out[i].Data, want)
		}
	}
}

// lengths doubles rows of any length and adds them up.
func lengths(tb testing.TB) *session {
	tb.Helper()
	path := writeGraph(tb, input("X", "FP32", -1, -1), output("doubled", "FP32", -1, -1), output("total", "FP32", -1, 1),
		constant("axis", []int64{1}, 1),
		node("", "Add", []string{"X", "X"}, []string{"doubled"}),
		node("", "ReduceSum", []string{"X", "axis"}, []string{"total"}))
	return openGraph(tb, path, release.Schema{
		Inputs:  []release.Tensor{tensor("X", "FP32", -1, -1)},
		Outputs: []release.Tensor{tensor("doubled", "FP32", -1, -1), tensor("total", "FP32", -1, 1)},
	})
}

func ramp(rows, length int) (in []infer.Tensor, doubled, total []float32) {
	data := make([]float32, rows*length)
	total = make([]float32, rows)
	for i := range data {
		data[i] = float32(i % 17)
		doubled = append(doubled, 2*data[i])
		total[i/length] += data[i]
	}
	return []infer.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{int64(rows), int64(length)}, Data: data}}, doubled, total
}

func runLengths(t *testing.T, s *session, rows, length int, out []infer.Tensor) {
	t.Helper()
	in, doubled, total := ramp(rows, length)
	if err := s.Run(t.Context(), rows, in, out); err != nil {
		t.Errorf("%d rows of %d: %v", rows, length, err)
		return
	}
	if !reflect.DeepEqual(out[0].Data, doubled) || !reflect.DeepEqual(out[1].Data, total) ||
		!slices.Equal(out[0].Shape, in[0].Shape) || !slices.Equal(out[1].Shape, []int64{int64(rows), 1}) {
		t.Errorf("%d rows of %d: wrong", rows, length)
	}
}

// Rows of any length: more lengths than plans, at once and in turns.
func TestDynamicAxes(t *testing.T) {
	s := lengths(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			out := make([]infer.Tensor, 2)
			for i := range 200 {
				runLengths(t, s, 1+(i+g)%5, 1+(i*7+g)%(2*maxPlans), out)
			}
		})
	}
	wg.Wait()
	if n := len(s.plans); n < 1 || n > maxPlans {
		t.Errorf("%d plans are kept, want 1 to %d", n, maxPlans)
	}
	out := make([]infer.Tensor, 2)
	runLengths(t, s, 16, 33, out)
	in, _, _ := ramp(16, 33)
	if got := testing.AllocsPerRun(50, func() {
		if err := s.Run(t.Context(), 16, in, out); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations a run of a length seen before, want 0", got)
	}
}

// A plan that the values of a call refute must not answer it.
func TestShapesThatFollowFromValues(t *testing.T) {
	path := writeGraph(t, input("X", "FP32", -1, 4), input("keep", "BOOL", -1, 4), output("kept", "FP32", -1, -1),
		constant("first", []int64{1}, 0), constant("shape", []int64{1}, 4),
		node("", "Gather", []string{"keep", "first"}, []string{"row"}, intAttribute("axis", 0)),
		node("", "Reshape", []string{"row", "shape"}, []string{"columns"}),
		node("", "Compress", []string{"X", "columns"}, []string{"kept"}, intAttribute("axis", 1)))
	s := openGraph(t, path, release.Schema{
		Inputs:  []release.Tensor{tensor("X", "FP32", -1, 4), tensor("keep", "BOOL", -1, 4)},
		Outputs: []release.Tensor{tensor("kept", "FP32", -1, -1)},
	})
	for _, tt := range []struct {
		keep []bool
		want []float32
	}{
		{[]bool{true, false, true, false}, []float32{1, 3}},
		{[]bool{false, true, false, true}, []float32{2, 4}}, // the plan holds
		{[]bool{true, true, true, false}, []float32{1, 2, 3}},
		{[]bool{true, false, false, false}, []float32{1}},
		{[]bool{true, true, true, true}, []float32{1, 2, 3, 4}},
	} {
		out := make([]infer.Tensor, 1)
		err := s.Run(t.Context(), 1, []infer.Tensor{
			{Shape: []int64{1, 4}, Data: []float32{1, 2, 3, 4}}, {Shape: []int64{1, 4}, Data: tt.keep},
		}, out)
		if err != nil || !reflect.DeepEqual(out[0].Data, tt.want) {
			t.Errorf("keep %v: got %v, %v, want %v", tt.keep, out[0].Data, err, tt.want)
		}
	}
}

func TestStringsToClasses(t *testing.T) {
	path := writeGraph(t, input("word", "BYTES", -1), output("class", "INT64", -1),
		node("ai.onnx.ml", "LabelEncoder", []string{"word"}, []string{"class"},
			stringsAttribute("keys_strings", "hot", "cold", ""), intsAttribute("values_int64s", 7, -3, 1), intAttribute("default_int64", 99)))
	s := openGraph(t, path, release.Schema{
		Inputs: []release.Tensor{tensor("word", "BYTES", -1)}, Outputs: []release.Tensor{tensor("class", "INT64", -1)},
	})
	out := make([]infer.Tensor, 1)
	in := []infer.Tensor{{Shape: []int64{4}, Data: []string{"cold", "", "hot", "né"}}}
	if err := s.Run(t.Context(), 4, in, out); err != nil {
		t.Fatal(err)
	}
	if want := []int64{-3, 1, 7, 99}; !reflect.DeepEqual(out[0].Data, want) {
		t.Errorf("got %v, want %v", out[0].Data, want)
	}
}

// Classic classifiers answer with a map from class to score for each row.
func TestScoreMaps(t *testing.T) {
	for name, tt := range map[string]struct {
		key     string
		labels  []byte
		classes []string // of the schema: another order than the graph's
		want    []float32
	}{
		"numbers": {"INT64", intsAttribute("classlabels_int64s", 30, -1, 20), []string{"-1", "20", "30"}, []float32{0.2, 0.7, 0.1, 0.5, 0, 0.5}},
		"texts":   {"BYTES", stringsAttribute("classlabels_strings", "wet", "dry", "new"), []string{"new", "wet", "dry"}, []float32{0.7, 0.1, 0.2, 0, 0.5, 0.5}},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeGraph(t, input("X", "FP32", -1, 3), scoreMaps("scores", tt.key), output("best", "INT64", -1),
				node("", "ArgMax", []string{"X"}, []string{"best"}, intAttribute("axis", 1), intAttribute("keepdims", 0)),
				node("ai.onnx.ml", "ZipMap", []string{"X"}, []string{"scores"}, tt.labels))
			schema := release.Schema{
				Inputs:  []release.Tensor{tensor("X", "FP32", -1, 3)},
				Outputs: []release.Tensor{tensor("scores", "FP32", -1, 3), tensor("best", "INT64", -1)},
				Classes: tt.classes,
			}
			in := []infer.Tensor{{Shape: []int64{2, 3}, Data: []float32{0.1, 0.2, 0.7, 0.5, 0.5, 0}}}
			s, out := openGraph(t, path, schema), make([]infer.Tensor, 2)
			for range 2 {
				if err := s.Run(t.Context(), 2, in, out); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(out[0].Data, tt.want) || !slices.Equal(out[0].Shape, []int64{2, 3}) || out[0].Datatype != "FP32" {
					t.Errorf("got %v, want %v", out[0], tt.want)
				}
				if !reflect.DeepEqual(out[1].Data, []int64{2, 0}) {
					t.Errorf("best is %v", out[1].Data)
				}
			}
			schema.Classes = append(slices.Clone(tt.classes[:2]), "unknown")
			if err := openGraph(t, path, schema).Run(t.Context(), 2, in, make([]infer.Tensor, 2)); err == nil || !strings.Contains(err.Error(), "does not name") {
				t.Errorf("a class that the schema does not name: error %v", err)
			}
		})
	}
}

// TestScoreMapsDoNotGrow runs long enough for maps that are not freed to show:
// each is over 200 bytes, 16 MB here. Allocators take some MB in steps.
func TestScoreMapsDoNotGrow(t *testing.T) {
	path := writeGraph(t, input("X", "FP32", -1, 3), scoreMaps("scores", "INT64"),
		node("ai.onnx.ml", "ZipMap", []string{"X"}, []string{"scores"}, intsAttribute("classlabels_int64s", 0, 1, 2)))
	s := openGraph(t, path, release.Schema{
		Inputs: []release.Tensor{tensor("X", "FP32", -1, 3)}, Outputs: []release.Tensor{tensor("scores", "FP32", -1, 3)},
		Classes: []string{"0", "1", "2"},
	})
	in, out := []infer.Tensor{{Shape: []int64{4, 3}, Data: make([]float32, 12)}}, make([]infer.Tensor, 1)
	runs := func() {
		for range 10_000 {
			if err := s.Run(t.Context(), 4, in, out); err != nil {
				t.Fatal(err)
			}
		}
		debug.FreeOSMemory()
	}
	runs()
	before := rss(t)
	runs()
	runs()
	if grown := rss(t) - before; grown > 12<<20 {
		t.Errorf("%d more resident bytes after 20,000 runs", grown)
	}
}

func TestHalfOutputOfUnknownShape(t *testing.T) {
	path, schema := typeGraph(t, "FP16", false)
	schema.Outputs[0].Shape[1] = -1
	testRuntime(t)
	if _, err := OpenGraph(path, &schema); err == nil || !strings.Contains(err.Error(), "in the schema") {
		t.Errorf("error %v does not say what to do", err)
	}
}
