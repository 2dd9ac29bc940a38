package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/agent/serve"
	"github.com/vedette-edge/vedette/protocol/release"
)

// digitsServer serves the demo's first model over HTTP.
func digitsServer(tb testing.TB) (url string, image string) {
	tb.Helper()
	rt, err := onnx.Open(library(tb))
	if err != nil {
		tb.Fatal(err)
	}
	models := filepath.Join(repository(tb), "deploy", "demo", "models")
	graph, err := os.ReadFile(filepath.Join(models, "digits-1.onnx"))
	if err != nil {
		tb.Fatal(err)
	}
	dir, digest := tb.TempDir(), release.DigestOf(graph)
	if err := os.WriteFile(filepath.Join(dir, digest.String()), graph, 0o600); err != nil {
		tb.Fatal(err)
	}
	e := infer.New(rt, infer.Config{})
	err = e.Activate(tb.Context(), infer.Release{Dir: dir, Manifest: &release.Manifest{
		Model: "digits", Version: "v1",
		Variants: []release.Variant{{Name: "fp32", Graph: release.File{Digest: digest}}},
		Schema: release.Schema{
			Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 64}}},
			Outputs: []release.Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{-1}}, {Name: "probabilities", Datatype: "FP32", Shape: []int64{-1, 10}}},
		},
	}})
	if err != nil {
		tb.Fatal(err)
	}
	s := serve.New(e, serve.Config{Listen: "127.0.0.1:0", Runtime: rt.Info()})
	if err := s.Start(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			tb.Error(err)
		}
		if err := e.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	f, err := os.Open(filepath.Join(models, "heldout.csv"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	if _, err := r.Read(); err != nil {
		tb.Fatal(err)
	}
	row, err := r.Read()
	if err != nil {
		tb.Fatal(err)
	}
	return "http://" + s.Addr().String() + "/v2/models/digits/infer", strings.Join(row[:64], ",")
}

// TestServesRealModel asks for one image over HTTP, through every layer.
func TestServesRealModel(t *testing.T) {
	url, image := digitsServer(t)
	body := `{"id":"first","inputs":[{"name":"X","shape":[1,64],"datatype":"FP32","data":[` + image + `]}]}`
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	want := `{"model_name":"digits","model_version":"v1","id":"first","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[2]}`
	if err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(string(raw), want) {
		t.Errorf("%d %s, %v; want %s", resp.StatusCode, raw, err, want)
	}
}

// BenchmarkHTTP is one infer request over a kept connection: 64 numbers in, 11
// out, a real model, client included.
func BenchmarkHTTP(b *testing.B) {
	url, image := digitsServer(b)
	var binary bytes.Buffer
	head := `{"inputs":[{"name":"X","shape":[1,64],"datatype":"FP32","parameters":{"binary_data_size":256}}],"parameters":{"binary_data_output":true}}`
	binary.WriteString(head)
	binary.Write(make([]byte, 256))
	bodies := map[string][]byte{
		"json":   []byte(`{"inputs":[{"name":"X","shape":[1,64],"datatype":"FP32","data":[` + image + `]}]}`),
		"binary": binary.Bytes(),
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	ask := func(b *testing.B, kind string) {
		b.Helper()
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(bodies[kind]))
		if err != nil {
			b.Fatal(err)
		}
		if kind == "binary" {
			req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(head)))
		}
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status, err)
		}
		resp.Body.Close()
	}
	for _, kind := range []string{"json", "binary"} {
		b.Run(kind+"/1", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ask(b, kind)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
		b.Run(fmt.Sprintf("%s/%d", kind, 8), func(b *testing.B) {
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					ask(b, kind)
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}
