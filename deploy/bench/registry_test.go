package main

import "testing"

// A hundred runs go the way of a hundred thousand: everything that the benchmark
// measures comes about. How long it takes is not asked here.
func TestTrackedRuns(t *testing.T) {
	all := benched(t, "-quick", "-runs", "100", "-only", "runs", "registry")
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
