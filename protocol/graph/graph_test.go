package graph

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/vedette-edge/vedette/protocol/release"
)

// msg, text and num write protobuf fields, to build models that no exporter
// would write.
func msg(n protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), bytes.Join(parts, nil))
}

func text(n protowire.Number, s string) []byte { return msg(n, []byte(s)) }

func num(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

// value is a ValueInfoProto in field n; dims below zero are written as names.
func value(n protowire.Number, name string, elem uint64, dims ...int64) []byte {
	var shape [][]byte
	for _, d := range dims {
		if d < 0 {
			shape = append(shape, msg(1, text(2, "N")))
			continue
		}
		shape = append(shape, msg(1, num(1, uint64(d))))
	}
	if len(dims) == 0 {
		return msg(n, text(1, name), msg(2, msg(1, num(1, elem)))) // shape not said
	}
	return msg(n, text(1, name), msg(2, msg(1, num(1, elem), msg(2, shape...))))
}

func input(name string, elem uint64, dims ...int64) []byte { return value(11, name, elem, dims...) }

func output(name string, elem uint64, dims ...int64) []byte { return value(12, name, elem, dims...) }

// model is a ModelProto with the given GraphProto fields.
func model(parts ...[]byte) []byte {
	return slices.Concat(num(1, 8), text(2, "hand"), msg(8, num(2, 15)), msg(7, parts...))
}

func read(b []byte) (*Graph, error) { return Read(bytes.NewReader(b), int64(len(b))) }

func TestRealModels(t *testing.T) {
	tests := []struct{ file, inputs, outputs, opsets string }{
		{"wine_lr", "[X FP32 [-1 13]]", "[label INT64 [-1] probabilities FP32 [-1 3]]", "map[:15 ai.onnx.ml:1]"},
		{"bc_mlp", "[X FP32 [-1 30]]", "[label INT64 [-1] probabilities FP32 [-1 2]]", "map[:14 ai.onnx.ml:1]"},
		{"bc_gbt", "[X FP32 [-1 30]]", "[label INT64 [-1] probabilities FP32 [-1 2]]", "map[:15 ai.onnx.ml:1]"},
		{"digits_mlp", "[X FP32 [-1 64]]", "[label INT64 [-1] probabilities FP32 [-1 10]]", "map[:14 ai.onnx.ml:1]"},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", tt.file+".onnx"))
			if err != nil {
				t.Fatal(err)
			}
			g, err := read(b)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{fmt.Sprint(g.Inputs), fmt.Sprint(g.Outputs), fmt.Sprint(g.Opsets), g.Producer}
			want := []string{tt.inputs, tt.outputs, tt.opsets, "skl2onnx"}
			if !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			if len(g.CustomDomains)+len(g.External) > 0 || g.Nodes == 0 {
				t.Errorf("got %+v", g)
			}
		})
	}
}

// TestTruncatedAnywhere cuts a real model at every byte. All cuts must be
// refused: the fields after the graph are small, so most fall inside it.
func TestTruncatedAnywhere(t *testing.T) {
	b, err := os.ReadFile("testdata/wine_lr.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if g, err := read(b[:n]); err == nil && len(g.Opsets) == 2 {
			t.Errorf("cut at %d of %d: read as %v", n, len(b), g)
		} else if err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("cut at %d of %d: got %v, want %v", n, len(b), err, ErrFormat)
		}
	}
}

func TestInitializersAreNoInputs(t *testing.T) {
	for name, weights := range map[string][]byte{
		"dense":  msg(5, num(2, 1), text(8, "W")),
		"sparse": msg(15, msg(1, text(8, "W")), msg(2, text(8, "W.indices"))),
	} {
		g, err := read(model(weights, input("X", 1, -1, 4), input("W", 1, 4, 2), output("Y", 1, -1, 2)))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(g.Inputs), "[X FP32 [-1 4]]"; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestHiddenThings(t *testing.T) {
	external := msg(5, text(8, "W"), msg(13, text(1, "location"), text(2, "../../etc/shadow")), num(14, 1))
	tensor := bytes.Clone(external)
	inSubgraph := msg(1, text(4, "If"), msg(5, text(1, "then_branch"), msg(6, external)))
	inConstant := msg(1, text(4, "Constant"), msg(5, text(1, "value"), retag(5, tensor)))
	tests := []struct {
		name    string
		part    []byte
		extra   []byte
		want    error
		mention string
	}{
		{"external weights", external, nil, ErrExternalData, "../../etc/shadow"},
		{"external weights without a name", msg(5, text(8, "W"), num(14, 1)), nil, ErrExternalData, "not named"},
		{"external weights in a branch", inSubgraph, nil, ErrExternalData, "../../etc/shadow"},
		{"external weights in a constant", inConstant, nil, ErrExternalData, "../../etc/shadow"},
		{"custom operator", msg(1, text(4, "Backdoor"), text(7, "evil.ops")), nil, ErrCustomOps, "evil.ops"},
		{"custom operator in a branch", msg(1, text(4, "If"), msg(5, msg(6, msg(1, text(7, "evil.ops"))))), nil, ErrCustomOps, "evil.ops"},
		{"custom operator in a function", nil, msg(25, text(10, "mine"), msg(7, text(7, "evil.ops"))), ErrCustomOps, "evil.ops"},
		{"function of the model itself", msg(1, text(7, "mine")), msg(25, text(10, "mine"), msg(7, text(4, "Add"))), nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := append(model(tt.part, input("X", 1, -1, 4), output("Y", 1, -1)), tt.extra...)
			g, err := read(b)
			if err != nil {
				t.Fatal(err)
			}
			err = Check(g, &release.Schema{
				Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 4}}},
				Outputs: []release.Tensor{{Name: "Y", Datatype: "FP32", Shape: []int64{-1}}},
			})
			if !errors.Is(err, tt.want) || (err != nil && !strings.Contains(err.Error(), tt.mention)) {
				t.Errorf("got %v, want %v naming %q", err, tt.want, tt.mention)
			}
		})
	}
}

// retag gives a field another number.
func retag(n protowire.Number, field []byte) []byte {
	_, _, tag := protowire.ConsumeTag(field)
	body, _ := protowire.ConsumeBytes(field[tag:])
	return msg(n, body)
}

func TestRefused(t *testing.T) {
	deep := output("Y", 1)
	for range MaxDepth + 2 {
		deep = msg(1, msg(5, msg(6, deep)))
	}
	tests := []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", nil, ErrFormat},
		{"zeros", make([]byte, 4096), ErrFormat},
		{"HTML of a captive portal", []byte("<!DOCTYPE html><html><body>Welcome</body></html>"), ErrFormat},
		{"no graph", num(1, 8), ErrFormat},
		{"no outputs", model(input("X", 1, -1, 4)), ErrFormat},
		{"two graphs", append(model(output("Y", 1)), msg(7, output("Z", 1))...), ErrFormat},
		{"graph that is a number", num(7, 7), ErrFormat},
		{"group", protowire.AppendTag(nil, 7, protowire.StartGroupType), ErrFormat},
		{"field longer than the file", append(protowire.AppendTag(nil, 7, protowire.BytesType), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), ErrFormat},
		{"field longer than its message", model(append(protowire.AppendTag(nil, 11, protowire.BytesType), 100)), ErrFormat},
		{"name that is not UTF-8", model(output("\xff", 1)), ErrFormat},
		{"endless name", model(output(strings.Repeat("Y", MaxText+1), 1)), ErrBounds},
		{"endless inputs", model(bytes.Repeat(input("X", 1), MaxValues+1), output("Y", 1)), ErrBounds},
		{"endless dimensions", model(output("Y", 1, make([]int64, MaxDims+1)...)), ErrBounds},
		{"graphs inside graphs", model(deep, output("Y", 1)), ErrBounds},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if g, err := read(tt.b); !errors.Is(err, tt.want) {
				t.Errorf("got %v, %v, want %v", g, err, tt.want)
			}
		})
	}
}

// vast is a file that is mostly weights, none of which exist. It counts what is
// read of it.
type vast struct {
	head, tail []byte
	size       int64
	read       int64
}

func (v *vast) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < v.size {
		switch {
		case off < int64(len(v.head)):
			p[n] = v.head[off]
		case off >= v.size-int64(len(v.tail)):
			p[n] = v.tail[off-(v.size-int64(len(v.tail)))]
		default:
			p[n] = 0xff
		}
		n, off = n+1, off+1
	}
	v.read += int64(n)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// TestWeightsAreSteppedOver reads a model of 8 GiB by touching a few pages.
func TestWeightsAreSteppedOver(t *testing.T) {
	const raw = 8 << 30
	rawTag := protowire.AppendVarint(protowire.AppendTag(nil, 9, protowire.BytesType), raw)
	name := text(8, "W")
	tensor := protowire.AppendVarint(protowire.AppendTag(nil, 5, protowire.BytesType), uint64(len(name)+len(rawTag)+raw))
	tail := slices.Concat(input("X", 1, -1, 4), output("Y", 1, -1))
	graph := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.BytesType), uint64(len(tensor)+len(name)+len(rawTag)+raw+len(tail)))
	v := &vast{head: slices.Concat(graph, tensor, name, rawTag), tail: tail}
	v.size = int64(len(v.head)+len(v.tail)) + raw
	g, err := Read(v, v.size)
	if err != nil {
		t.Fatal(err)
	}
	if g.Initializers != 1 || len(g.Inputs) != 1 {
		t.Errorf("got %+v", g)
	}
	if limit := int64(8 * page); v.read > limit {
		t.Errorf("read %d bytes, want at most %d", v.read, limit)
	}
}

func TestReadError(t *testing.T) {
	broken := errors.New("bad sector")
	if _, err := Read(failing{broken}, 100); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Errorf("got %v, want only %v", err, broken)
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func TestCheck(t *testing.T) {
	g, err := read(model(input("X", 1, -1, 64), output("label", 7, -1), output("probabilities", 1), msg(12, text(1, "map"), msg(2, msg(4)))))
	if err != nil {
		t.Fatal(err)
	}
	tensor := func(name, datatype string, shape ...int64) release.Tensor {
		return release.Tensor{Name: name, Datatype: datatype, Shape: shape}
	}
	x, label := tensor("X", "FP32", -1, 64), tensor("label", "INT64", -1)
	tests := []struct {
		name            string
		inputs, outputs []release.Tensor
		mention         string // empty: fits
	}{
		{"same", []release.Tensor{x}, []release.Tensor{label, tensor("probabilities", "FP32", -1, 10)}, ""},
		{"fewer outputs", []release.Tensor{x}, []release.Tensor{label}, ""},
		{"smaller batch than the graph takes", []release.Tensor{tensor("X", "FP32", 1, 64)}, []release.Tensor{label}, ""},
		{"wrong name", []release.Tensor{tensor("x", "FP32", -1, 64)}, []release.Tensor{label}, `input "x" is not in the graph`},
		{"wrong datatype", []release.Tensor{tensor("X", "FP64", -1, 64)}, []release.Tensor{label}, "is FP32 in the graph and FP64"},
		{"wrong width", []release.Tensor{tensor("X", "FP32", -1, 63)}, []release.Tensor{label}, "[-1 64] in the graph and [-1 63]"},
		{"free width", []release.Tensor{tensor("X", "FP32", -1, -1)}, []release.Tensor{label}, "[-1 64] in the graph and [-1 -1]"},
		{"wrong rank", []release.Tensor{tensor("X", "FP32", -1)}, []release.Tensor{label}, "[-1 64] in the graph and [-1]"},
		{"missing output", []release.Tensor{x}, []release.Tensor{tensor("score", "FP32", -1)}, `output "score" is not in the graph`},
		{"missing input", []release.Tensor{}, []release.Tensor{label}, "the graph needs input X FP32 [-1 64]"},
		{"output that is no tensor", []release.Tensor{x}, []release.Tensor{tensor("map", "FP32", -1)}, "not a tensor nor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(g, &release.Schema{Inputs: tt.inputs, Outputs: tt.outputs})
			if tt.mention == "" {
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				return
			}
			if !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), tt.mention) {
				t.Errorf("got %v, want %v with %q", err, ErrSchema, tt.mention)
			}
		})
	}
}

// zipped is a classifier as skl2onnx exports it unless told otherwise: its
// scores come as a sequence of maps.
func zipped(labels ...[]byte) []byte {
	key := uint64(7)
	if bytes.Contains(bytes.Join(labels, nil), []byte("classlabels_strings")) {
		key = 8
	}
	scores := msg(2, msg(4, msg(1, msg(5, num(1, key), msg(2, msg(1, num(1, 1)))))))
	zip := msg(1, text(1, "p"), text(2, "scores"), text(4, "ZipMap"), msg(5, labels...), text(7, "ai.onnx.ml"))
	return model(zip, input("X", 1, -1, 4), output("label", 7, -1), msg(12, text(1, "scores"), scores))
}

func TestScoresInMaps(t *testing.T) {
	packed := protowire.AppendVarint(protowire.AppendVarint(nil, 3), 1)
	for name, tt := range map[string]struct {
		file    []byte
		key     string
		classes []string
	}{
		"numbers":        {zipped(text(1, "classlabels_int64s"), num(8, 3), num(8, ^uint64(0))), "INT64", []string{"3", "-1"}},
		"packed numbers": {zipped(text(1, "classlabels_int64s"), msg(8, packed)), "INT64", []string{"3", "1"}},
		"texts":          {zipped(text(1, "classlabels_strings"), text(9, "b"), text(9, "a")), "BYTES", []string{"b", "a"}},
		"not said":       {zipped(), "INT64", nil},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := read(tt.file)
			if err != nil {
				t.Fatal(err)
			}
			got := g.Outputs[1]
			if !got.IsScores() || got.Key != tt.key || !slices.Equal(got.Classes, tt.classes) {
				t.Fatalf("got %+v, want key %s and classes %q", got, tt.key, tt.classes)
			}
		})
	}
}

func TestCheckScoresInMaps(t *testing.T) {
	g, err := read(zipped(text(1, "classlabels_strings"), text(9, "b"), text(9, "a")))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		datatype string
		width    int64
		classes  []string
		mention  string // empty: fits
	}{
		"same":           {"FP32", 2, []string{"b", "a"}, ""},
		"another order":  {"FP32", 2, []string{"a", "b"}, ""},
		"no classes":     {"FP32", 2, nil, "the schema must name the classes and describe it as FP32 [-1 2]"},
		"other classes":  {"FP32", 2, []string{"a", "c"}, `for the classes ["b" "a"]`},
		"class too many": {"FP32", 3, []string{"a", "b", "c"}, `for the classes ["b" "a"]`},
		"width":          {"FP32", 3, []string{"b", "a"}, "FP32 [-1 2], not as FP32 [-1 3]"},
		"free width":     {"FP32", -1, []string{"b", "a"}, "FP32 [-1 2]"},
		"datatype":       {"FP64", 2, []string{"b", "a"}, "FP32 [-1 2], not as FP64"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(g, &release.Schema{
				Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 4}}},
				Outputs: []release.Tensor{{Name: "scores", Datatype: tt.datatype, Shape: []int64{-1, tt.width}}},
				Classes: tt.classes,
			})
			if tt.mention == "" {
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				return
			}
			if !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), tt.mention) {
				t.Errorf("got %v, want %v with %q", err, ErrSchema, tt.mention)
			}
		})
	}
}

func TestTooManyClasses(t *testing.T) {
	if _, err := read(zipped(text(1, "classlabels_int64s"), msg(8, make([]byte, MaxClasses+1)))); !errors.Is(err, ErrBounds) {
		t.Errorf("got %v, want %v", err, ErrBounds)
	}
}

// FuzzRead looks for panics and for reads that depend on how bytes arrive: a
// file in which everything must be fetched again must read the same.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"wine_lr", "bc_mlp"} {
		b, err := os.ReadFile(filepath.Join("testdata", name+".onnx"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(zipped(text(1, "classlabels_strings"), text(9, "b"), text(9, "a")))
	f.Add(model(msg(1, msg(5, msg(6, msg(5, msg(13, text(1, "location"), text(2, "x")))))), output("Y", 1, -1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := read(b)
		padded := append(msg(200, make([]byte, page-5)), b...) // steps over a page, so pages fall elsewhere
		again, err2 := read(padded)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("%v alone, %v behind other bytes", err, err2)
		}
		if err == nil && fmt.Sprintf("%+v", g) != fmt.Sprintf("%+v", again) {
			t.Errorf("%+v alone, %+v behind other bytes", g, again)
		}
	})
}
