package onnx

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/vedette-edge/vedette/agent/infer"
)

// The graphs of these tests are written here, field by field (onnx.proto), so
// that no exporter is needed and every one says what it computes.

// elements are ONNX's element types by the names of the Open Inference Protocol.
var elements = map[string]uint64{
	"FP32": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BYTES": 8,
	"BOOL": 9, "FP16": 10, "FP64": 11, "UINT32": 12, "UINT64": 13, "BF16": 16,
}

func msg(n protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), bytes.Join(parts, nil))
}

func text(n protowire.Number, s string) []byte { return msg(n, []byte(s)) }

func num(n protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), uint64(v))
}

// tensorType is a TypeProto; a dimension below zero is free.
func tensorType(n protowire.Number, datatype string, dims ...int64) []byte {
	var shape [][]byte
	for i, d := range dims {
		if d < 0 {
			shape = append(shape, msg(1, text(2, string(rune('N'+i)))))
			continue
		}
		shape = append(shape, msg(1, num(1, d)))
	}
	return msg(n, msg(1, num(1, int64(elements[datatype])), msg(2, shape...)))
}

func input(name, datatype string, dims ...int64) []byte {
	return msg(11, text(1, name), tensorType(2, datatype, dims...))
}

func output(name, datatype string, dims ...int64) []byte {
	return msg(12, text(1, name), tensorType(2, datatype, dims...))
}

// scoreMaps is an output that is a sequence of maps from key to FP32.
func scoreMaps(name, key string) []byte {
	return msg(12, text(1, name), msg(2, msg(4, msg(1, msg(5, num(1, int64(elements[key])), tensorType(2, "FP32"))))))
}

// node is a NodeProto; attributes come as msg(5, …).
func node(domain, op string, in, out []string, attributes ...[]byte) []byte {
	var b [][]byte
	for _, name := range in {
		b = append(b, text(1, name))
	}
	for _, name := range out {
		b = append(b, text(2, name))
	}
	b = append(b, text(4, op))
	b = append(b, attributes...)
	return msg(1, append(b, text(7, domain))...)
}

func intAttribute(name string, v int64) []byte {
	return msg(5, text(1, name), num(3, v), num(20, 2))
}

func intsAttribute(name string, vs ...int64) []byte {
	b := [][]byte{text(1, name)}
	for _, v := range vs {
		b = append(b, num(8, v))
	}
	return msg(5, append(b, num(20, 7))...)
}

func stringsAttribute(name string, vs ...string) []byte {
	b := [][]byte{text(1, name)}
	for _, v := range vs {
		b = append(b, text(9, v))
	}
	return msg(5, append(b, num(20, 8))...)
}

// constant is an initializer of INT64.
func constant(name string, dims []int64, values ...int64) []byte {
	var b [][]byte
	for _, d := range dims {
		b = append(b, num(1, d))
	}
	b = append(b, num(2, int64(elements["INT64"])))
	for _, v := range values {
		b = append(b, num(7, v))
	}
	return msg(5, append(b, text(8, name))...)
}

// writeGraph writes a model of the parts of its graph and returns its file.
func writeGraph(tb testing.TB, parts ...[]byte) string {
	tb.Helper()
	b := bytes.Join([][]byte{
		num(1, 8), msg(8, num(2, 17)), msg(8, text(1, "ai.onnx.ml"), num(2, 2)),
		msg(7, append(parts, text(2, "test"))...),
	}, nil)
	path := filepath.Join(tb.TempDir(), "graph.onnx")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

var update = flag.Bool("update", false, "write the graphs in testdata that are made of others anew")

// zipped is a model whose scores come as maps from class to score, as skl2onnx
// exports classifiers unless told otherwise: the output called scores becomes
// the input of a ZipMap (ai.onnx.ml).
func zipped(tb testing.TB, model []byte, scores string, labels []byte) []byte {
	tb.Helper()
	var out []byte
	each(tb, model, func(n protowire.Number, field, body []byte) {
		if n != 7 { // graph
			out = append(out, field...)
			return
		}
		var graph []byte
		each(tb, body, func(n protowire.Number, field, body []byte) {
			if n != 12 || !bytes.HasPrefix(body, text(1, scores)) {
				graph = append(graph, field...)
			}
		})
		graph = append(graph, node("ai.onnx.ml", "ZipMap", []string{scores}, []string{"output_probability"}, labels)...)
		out = append(out, msg(7, graph, scoreMaps("output_probability", "INT64"))...)
	})
	return out
}

// each calls fn with every field of a message, whole and its body alone.
func each(tb testing.TB, b []byte, fn func(n protowire.Number, field, body []byte)) {
	tb.Helper()
	for len(b) > 0 {
		n, typ, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			tb.Fatal(protowire.ParseError(tag))
		}
		size := protowire.ConsumeFieldValue(n, typ, b[tag:])
		if size < 0 {
			tb.Fatal(protowire.ParseError(size))
		}
		var body []byte
		if typ == protowire.BytesType {
			body, _ = protowire.ConsumeBytes(b[tag:])
		}
		fn(n, b[:tag+size], body)
		b = b[tag+size:]
	}
}

// TestZippedClassifier is a real classifier that answers with maps: the wine
// model with what skl2onnx would have put behind it.
func TestZippedClassifier(t *testing.T) {
	const file = "testdata/wine_lr_zipmap.onnx"
	plain, err := os.ReadFile("testdata/wine_lr.onnx")
	if err != nil {
		t.Fatal(err)
	}
	want := zipped(t, plain, "probabilities", intsAttribute("classlabels_int64s", 0, 1, 2))
	if *update {
		if err := os.WriteFile(file, want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s is not what this test makes (%v): run it with -update", file, err)
	}
	m := readModel(t, "wine_lr")
	schema := m.schema()
	schema.Outputs[1].Name, schema.Classes = "output_probability", []string{"0", "1", "2"}
	s, out := openGraph(t, file, schema), make([]infer.Tensor, 2)
	if len(s.plans) != 1 {
		t.Error("its maps are read one by one")
	}
	for _, n := range []int{1, 54, 2000} {
		if err := s.Run(t.Context(), n, []infer.Tensor{m.batch(0, n)}, out); err != nil {
			t.Fatal(err)
		}
		if err := m.check(0, n, out); err != nil || out[1].Name != "output_probability" {
			t.Errorf("%d rows of %q: %v", n, out[1].Name, err)
		}
	}
	in := []infer.Tensor{m.batch(0, 16)}
	if got := testing.AllocsPerRun(20, func() {
		if err := s.Run(t.Context(), 16, in, out); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations a run, want none", got)
	}
}

// A model that cannot be taken apart is left as it is.
func TestUnzipLeavesAlone(t *testing.T) {
	maps := map[string]bool{"scores": true}
	zip := node("ai.onnx.ml", "ZipMap", []string{"p"}, []string{"scores"})
	for name, model := range map[string][]byte{
		"cut off":         msg(7, zip, scoreMaps("scores", "INT64"))[:40],
		"no ZipMap":       msg(7, node("", "Other", []string{"p"}, []string{"scores"}), scoreMaps("scores", "INT64")),
		"of an input":     msg(7, zip, input("p", "FP32", -1, 3), scoreMaps("scores", "INT64")),
		"given elsewhere": msg(7, zip, output("p", "FP32", -1, 3), scoreMaps("scores", "INT64")),
		"another output":  msg(7, node("ai.onnx.ml", "ZipMap", []string{"p"}, []string{"others"}), scoreMaps("scores", "INT64")),
	} {
		if got, scores := unzip(model, maps); got != nil {
			t.Errorf("%s: %v was taken off", name, scores)
		}
	}
}
