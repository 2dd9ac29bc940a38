package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/protocol/release"
)

// batchGraphs are models of which a run costs little and much more than what
// surrounds it.
var batchGraphs = []struct {
	name    string
	columns int64
}{{"digits_mlp", 64}, {"bc_gbt", 30}}

// BenchmarkBatching is calls of one row from many callers at once, each call
// with a run of its own and sharing runs. It says when sharing pays.
func BenchmarkBatching(b *testing.B) {
	rt, err := onnx.Open(library(b))
	if err != nil {
		b.Fatal(err)
	}
	for _, g := range batchGraphs {
		for _, callers := range []int{1, 4, 16, 64} {
			for name, limits := range map[string]infer.Limits{
				"off": {}, "32 rows": {BatchRows: 32}, "32 rows, 1ms": {BatchRows: 32, BatchDelay: time.Millisecond},
			} {
				limits.Queue = 1000
				b.Run(fmt.Sprintf("%s/%d callers/%s", g.name, callers, name), func(b *testing.B) {
					e := batchEngine(b, rt, g.name, g.columns, limits)
					callAtOnce(b, e, g.columns, callers)
				})
			}
		}
	}
}

func batchEngine(b *testing.B, rt infer.Runtime, name string, columns int64, limits infer.Limits) *infer.Engine {
	b.Helper()
	graph, err := os.ReadFile(filepath.Join(repository(b), "agent", "onnx", "testdata", name+".onnx"))
	if err != nil {
		b.Fatal(err)
	}
	dir, digest := b.TempDir(), release.DigestOf(graph)
	if err := os.WriteFile(filepath.Join(dir, digest.String()), graph, 0o600); err != nil {
		b.Fatal(err)
	}
	classes := map[string]int64{"digits_mlp": 10, "bc_gbt": 2}[name]
	e := infer.New(rt, infer.Config{Limits: limits})
	err = e.Activate(b.Context(), infer.Release{Dir: dir, Manifest: &release.Manifest{
		Model: "m", Version: "v1", Variants: []release.Variant{{Name: "fp32", Graph: release.File{Digest: digest}}},
		Schema: release.Schema{
			Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, columns}}},
			Outputs: []release.Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{-1}}, {Name: "probabilities", Datatype: "FP32", Shape: []int64{-1, classes}}},
		},
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close(context.Background()) })
	return e
}

// callAtOnce shares b.N calls out among callers.
func callAtOnce(b *testing.B, e *infer.Engine, columns int64, callers int) {
	b.Helper()
	calls := make(chan struct{}, callers)
	b.ResetTimer()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			req, resp := &infer.Request{Model: "m", ID: "i", Inputs: []infer.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{1, columns}, Data: make([]float32, columns)}}}, &infer.Response{}
			for range calls {
				if err := e.InferInto(context.Background(), req, resp); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	for range b.N {
		calls <- struct{}{}
	}
	close(calls)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
