package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/deploy/demo"
)

// bin is where the programs under test are: what `make build` made, unless
// VEDETTE_BIN names another folder.
func bin(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("VEDETTE_BIN")
	if dir == "" {
		dir = filepath.Join("..", "..", "build", "bin")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "vedette-control")); err != nil {
		t.Fatalf("%v: run 'make build' first", err)
	}
	return dir
}

// The main job, with power cuts: a device dies while it serves, the control
// plane before version 2 is published, and both in the middle of its rollout.
// The end state must be the same as without.
func TestMainJobWithKills(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	result, err := demo.Run(ctx, demo.Options{Bin: bin(t), Dir: filepath.Join(t.TempDir(), "demo"), Kill: true, Log: t.Output()})
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
	b, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
}
