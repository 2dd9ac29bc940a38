package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/deploy/demo"
)

// The main job while programs lose power at random moments, several dozen times
// in all: the end state and the totals are those of a quiet day.
func TestMainJobInAStorm(t *testing.T) {
	if os.Getenv("VEDETTE_FULL") != "1" {
		t.Skip("tells the whole story once for each of three seeds, some ten minutes: run it with 'make test-full' (VEDETTE_FULL=1)")
	}
	dir := bin(t)
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed+1), func(t *testing.T) { storm(t, dir, seed+1) })
	}
}

func storm(t *testing.T, dir string, seed uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	result, err := demo.Run(ctx, demo.Options{Bin: dir, Dir: filepath.Join(t.TempDir(), "demo"), Chaos: seed, Log: t.Output()})
	if err != nil {
		t.Fatalf("main job: %v", err)
	}
	if got, want := len(result.Steps), 8; got != want {
		t.Fatalf("steps told: got %d, want %d", got, want)
	}
	for _, s := range result.Steps {
		if !s.OK {
			t.Errorf("step %d (%s): %s", s.Step, s.Name, s.Error)
		}
	}
	kills := 0
	for _, n := range result.Kills {
		kills += n
	}
	if kills < 10 || result.Kills["vedette-control"] == 0 {
		t.Errorf("the storm was none: %v", result.Kills)
	}
	b, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
}
