package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// A hundred runs go the way of a hundred thousand: everything that the benchmark
// measures comes about. How long it takes is not asked here.
func TestTrackedRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	t.Chdir(filepath.Join("..", ".."))
	if _, err := os.Stat(filepath.Join("build", "bin", "vedette-control")); err != nil {
		t.Fatalf("%v: run 'make build' first", err)
	}
	figures := filepath.Join(t.TempDir(), "figures.json")
	args := []string{"-quick", "-runs", "100", "-only", "runs", "-json", figures, "registry"}
	if code := run(args, t.Output(), t.Output()); code != 0 {
		t.Fatalf("bench %v: exit code %d", args, code)
	}
	raw, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	var all []Figure
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range all {
		found[f.What] = f.Value
	}
	for _, what := range []string{"runs logged", "log-batch", "search p99: best by a metric", "resident memory of the server", "start of the server", "data on disk"} {
		if found[what] <= 0 {
			t.Errorf("%s: got %g", what, found[what])
		}
	}
}
