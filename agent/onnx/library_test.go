package onnx

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	rt := testRuntime(t)
	info := rt.Info()
	if info.Name != "onnxruntime" || !strings.HasPrefix(info.Version, "1.") {
		t.Errorf("runtime %q version %q", info.Name, info.Version)
	}
	if !slices.Contains(info.Providers, cpuProvider) {
		t.Errorf("providers %q lack %s", info.Providers, cpuProvider)
	}
	again, err := Open(info.Library)
	if err != nil || again != rt {
		t.Errorf("second open: %p, %v; want the same runtime", again, err)
	}
	if _, err := Open("/other.so"); !errors.Is(err, ErrLibrary) {
		t.Errorf("open of a second library: %v, want %v", err, ErrLibrary)
	}
	version, err := Version(info.Library)
	if err != nil || version != info.Version {
		t.Errorf("version %q, %v; want %q", version, err, info.Version)
	}
}

func TestInspectRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "lib.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/no/such/file", text, libc(t)} {
		if _, err := inspect(path); !errors.Is(err, ErrLibrary) {
			t.Errorf("%s: error %v, want %v", path, err, ErrLibrary)
		}
	}
}

// libc is a shared library that is not ONNX Runtime: the one this test runs on.
func libc(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 6 && strings.Contains(f[5], "libc.so") {
			return f[5]
		}
	}
	t.Fatal("this process has no libc")
	return ""
}

func TestCheckVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"1.30.0": true, "1.24.1": true, "1.23.2": false, "1.9.0": false, "2.0.0": false, "": false, "1": false, "1.x.0": false,
	} {
		if err := checkVersion(version); (err == nil) != ok {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

func TestFind(t *testing.T) {
	got, err := Find("/opt/lib.so")
	if err != nil || got != "/opt/lib.so" {
		t.Errorf("explicit: %q, %v", got, err)
	}
	t.Setenv(EnvLibrary, "/env/lib.so")
	if got, err = Find(""); err != nil || got != "/env/lib.so" {
		t.Errorf("environment: %q, %v", got, err)
	}
	if got, err = Find("/opt/lib.so"); err != nil || got != "/opt/lib.so" {
		t.Errorf("both: %q, %v; the explicit one should win", got, err)
	}
	t.Setenv(EnvLibrary, "")
	if _, err := Find(""); err != nil && (!errors.Is(err, ErrLibrary) || !strings.Contains(err.Error(), "--onnxruntime")) {
		t.Errorf("nothing found: %v does not say what to do", err)
	}
}
