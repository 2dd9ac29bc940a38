package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the collector rest: a simulation makes much and keeps little.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	testscript.Main(m, map[string]func(){"vedette-sim": main})
}

// Scripts run the program as people do.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}

// The same seed is the same simulation.
func TestSeedsRepeat(t *testing.T) {
	for seed := range uint64(5) {
		p := plan{seed: seed, scenario: scenarios[0]}
		var ends [2]string
		for i := range ends {
			w := newWorld(p)
			if err := w.run(); err != nil {
				t.Fatal(err)
			}
			ends[i] = fmt.Sprint(w.t, w.events, w.tally, strings.Join(w.trace.about("", traceSize), "\n"))
		}
		if ends[0] != ends[1] {
			t.Errorf("seed %d ends in two ways:\n%.2000s\n%.2000s", seed, ends[0], ends[1])
		}
	}
}

// Every scenario can be lived through.
func TestScenarios(t *testing.T) {
	n := uint64(10)
	if raced {
		n = 2
	}
	for _, s := range scenarios[1:] {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for seed := range n {
				simulate(t, plan{seed: seed, scenario: s})
			}
		})
	}
}

// seeds are those to run: VEDETTE_SEED asks for one, VEDETTE_SEEDS for so many,
// VEDETTE_FULL for many more. Of the thousand, the race detector sees twenty-five.
func seeds(t *testing.T) (first, n uint64) {
	t.Helper()
	if s := os.Getenv("VEDETTE_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return seed, 1
	}
	if s := os.Getenv("VEDETTE_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return 0, n
	}
	switch {
	case os.Getenv("VEDETTE_FULL") != "":
		return 0, 20_000
	case raced:
		return 0, 25
	}
	return 0, 1000
}

// Fleets of real update machines under the real server, through storms. What
// must always hold is checked after every event; in the end everything comes to
// rest and the ledger replays.
func TestSeeds(t *testing.T) {
	first, n := seeds(t)
	var (
		mu  sync.Mutex
		sum = map[string]int{} // guarded by mu
	)
	t.Run("shard", func(t *testing.T) {
		const shards = 4 // of the seeds, run at once
		for shard := range uint64(shards) {
			t.Run(strconv.FormatUint(shard, 10), func(t *testing.T) {
				t.Parallel()
				for seed := first + shard; seed < first+n && !t.Failed(); seed += shards {
					tally := simulate(t, plan{seed: seed, scenario: scenarios[0]})
					mu.Lock()
					for what, k := range tally {
						sum[what] += k
					}
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d seeds: %v", n, sum)
	if n < 1000 || t.Failed() {
		return
	}
	for _, what := range happens {
		if sum[what] < 10 {
			t.Errorf("%q happened %d times in %d seeds: the simulation has become too narrow", what, sum[what], n)
		}
	}
}

// happens is what a thousand seeds must come through to prove something.
var happens = []string{
	"rollout completed", "rollout reverted", "rollout aborted", "rollout halted", "rollout paused", "rollout awaiting_approval",
	"update active", "update refused", "update reverted", "update failed", "update superseded",
	"server crashed", "checkpoint lost", "ledger refused", "server clock jumped", "device clock jumped", "power cut", "partition",
	"message lost", "message repeated", "message delayed", "older desired state ignored", "label changed", "revocation", "late joiner", "report of a liar",
	"gate golden must fail", "gate install must fail", "gate crash must fail", "command rollback", "command abort", "command retry", "command next", "command resume",
	"shadow runs", "look for nothing",
}

// simulate runs one simulation and says how to see it again when it fails.
func simulate(t *testing.T, p plan) map[string]int {
	t.Helper()
	w := newWorld(p)
	if err := w.run(); err != nil {
		t.Errorf("%v\nagain: %s\n%s", err, p.again(), strings.Join(w.trace.about(err.Error(), 60), "\n"))
	}
	w.tally["event"] = w.events
	return w.tally
}
