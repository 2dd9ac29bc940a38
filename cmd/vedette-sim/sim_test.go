package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// seeds are those to run: VEDETTE_SEED asks for one, VEDETTE_FULL for many more.
func seeds(t *testing.T) (first, n uint64) {
	t.Helper()
	if s := os.Getenv("VEDETTE_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return seed, 1
	}
	switch {
	case os.Getenv("VEDETTE_FULL") != "":
		return 0, 20_000
	case raced:
		return 0, 100
	}
	return 0, 1000
}

// Fleets of real update machines under the real server, through storms.
func TestSeeds(t *testing.T) {
	first, n := seeds(t)
	sum := map[string]int{}
	for seed := first; seed < first+n; seed++ {
		began := time.Now()
		w := newWorld(plan{seed: seed, scenario: scenarios[0]})
		if err := w.run(); err != nil {
			t.Fatalf("%v\nagain: go run ./cmd/vedette-sim run --seed %d -v\n%s", err, seed, strings.Join(w.trace.about(err.Error(), 60), "\n"))
		}
		if d := time.Since(began); d > 300*time.Millisecond && os.Getenv("SIM_SLOW") != "" {
			println("slow", seed, d.String(), w.events, w.tally["look"], len(w.devices), w.t.String())
		}
		for what, k := range w.tally {
			sum[what] += k
		}
		sum["event"] += w.events
	}
	t.Logf("%d seeds: %v", n, sum)
}
