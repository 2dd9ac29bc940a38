package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// envProgram makes this test program the agent, for tests that start it.
const envProgram = "VEDETTE_AGENT_PROGRAM"

// TestMain lets scripts call the program under its name.
func TestMain(m *testing.M) {
	if os.Getenv(envProgram) != "" {
		main()
	}
	testscript.Main(m, map[string]func(){"vedette-agent": main})
}

// TestScripts runs the program as a person would, on the demo's model.
func TestScripts(t *testing.T) {
	root := repository(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("VEDETTE_ONNXRUNTIME", library(t))
			env.Setenv("MODELS", filepath.Join(root, "deploy", "demo", "models"))
			env.Setenv("GRAPHS", filepath.Join(root, "agent", "onnx", "testdata"))
			return nil
		},
	})
}

// repository is the folder of go.mod.
func repository(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			tb.Fatal("no go.mod above this package")
		}
		dir = filepath.Dir(dir)
	}
}

// library is ONNX Runtime of the checkout.
func library(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(repository(tb), "build", "onnxruntime", "libonnxruntime.so.1")
	if _, err := os.Stat(path); err != nil {
		tb.Fatalf("%v: run `make setup`", err)
	}
	return path
}
