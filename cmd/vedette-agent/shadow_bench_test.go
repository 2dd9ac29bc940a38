package main

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/protocol/release"
)

// digitsVersion is a version of the demo's digits for an engine.
func digitsVersion(tb testing.TB, version, role string) infer.Release {
	tb.Helper()
	graph, err := os.ReadFile(filepath.Join(repository(tb), "deploy", "demo", "models", "digits-"+version+".onnx"))
	if err != nil {
		tb.Fatal(err)
	}
	dir, digest := tb.TempDir(), release.DigestOf(graph)
	if err := os.WriteFile(filepath.Join(dir, digest.String()), graph, 0o600); err != nil {
		tb.Fatal(err)
	}
	return infer.Release{Dir: dir, Digest: digest, Role: role, Manifest: &release.Manifest{
		Model: "digits", Version: version,
		Variants: []release.Variant{{Name: "fp32", Graph: release.File{Digest: digest}}},
		Schema: release.Schema{
			Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 64}}},
			Outputs: []release.Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{-1}}, {Name: "probabilities", Datatype: "FP32", Shape: []int64{-1, 10}}},
		},
	}}
}

// batchOf is images of the demo, again and again.
func batchOf(tb testing.TB, rows int) infer.Tensor {
	tb.Helper()
	f, err := os.Open(filepath.Join(repository(tb), "deploy", "demo", "models", "heldout.csv"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	table, err := csv.NewReader(f).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	data := make([]float32, 0, 64*rows)
	for r := range rows {
		for _, text := range table[1+r%(len(table)-1)][:64] {
			v, err := strconv.ParseFloat(text, 32)
			if err != nil {
				tb.Fatal(err)
			}
			data = append(data, float32(v))
		}
	}
	return infer.Tensor{Name: "X", Datatype: "FP32", Shape: []int64{int64(rows), 64}, Data: data}
}

// BenchmarkBesideAShadow is what a shadow of all calls costs those of the
// serving version, at 500 calls a second: medians of alternated rounds with and
// without it, as ratios.
func BenchmarkBesideAShadow(b *testing.B) {
	rt, err := onnx.Open(library(b))
	if err != nil {
		b.Fatal(err)
	}
	for _, rows := range []int{1, 64} {
		b.Run(strconv.Itoa(rows)+" rows", func(b *testing.B) {
			e := infer.New(rt, infer.Config{})
			if err := e.Activate(b.Context(), digitsVersion(b, "1", infer.RolePrimary)); err != nil {
				b.Fatal(err)
			}
			shadow, in := digitsVersion(b, "2", infer.RoleShadow), batchOf(b, rows)
			var with, without [2][]float64 // p50 and p99 of each round, in microseconds
			for b.Loop() {
				addRound(b, e, in, &without)
				if err := e.Activate(b.Context(), shadow); err != nil {
					b.Fatal(err)
				}
				addRound(b, e, in, &with)
				if err := e.Retire(b.Context(), "digits"); err != nil {
					b.Fatal(err)
				}
			}
			for i, name := range []string{"p50", "p99"} {
				b.ReportMetric(median(with[i])/median(without[i]), name+"-ratio")
				b.ReportMetric(median(without[i]), name+"-µs-without")
			}
			if err := e.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func addRound(b *testing.B, e *infer.Engine, in infer.Tensor, to *[2][]float64) {
	b.Helper()
	const calls, pace = 1000, 2 * time.Millisecond
	took := make([]float64, calls)
	req, resp := &infer.Request{Model: "digits", Inputs: []infer.Tensor{in}}, &infer.Response{}
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for i := range took {
		<-tick.C
		start := time.Now()
		if err := e.InferInto(b.Context(), req, resp); err != nil {
			b.Fatal(err)
		}
		took[i] = float64(time.Since(start).Nanoseconds()) / 1e3
	}
	slices.Sort(took)
	to[0], to[1] = append(to[0], took[calls/2]), append(to[1], took[calls*99/100])
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
