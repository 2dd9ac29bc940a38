package onnx

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestLibraryReportsNothing opens the library in a process of its own, whose
// home and temporary directories are empty, and finds them empty afterwards.
func TestLibraryReportsNothing(t *testing.T) {
	const child = "VEDETTE_TEST_REPORTS_NOTHING"
	if os.Getenv(child) != "" {
		testRuntime(t)
		return
	}
	library := testRuntime(t).Info().Library // skips without one
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLibraryReportsNothing$")
	cmd.Env = append(os.Environ(), child+"=1", EnvLibrary+"="+library, "HOME="+home, "XDG_CACHE_HOME="+home, "TMPDIR="+home)
	// What this process inherited must not be what keeps the child silent.
	cmd.Env = append(cmd.Env, envTelemetry+"=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("the library wrote %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
