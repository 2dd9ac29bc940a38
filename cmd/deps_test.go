// Package cmd_test checks what the programs may reach through their imports,
// directly or not. The linter sees single imports; this sees whole graphs.
package cmd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/vedette-edge/vedette/"

// goPackage is what `go list -json` tells of one package.
type goPackage struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	CgoFiles     []string
	GoFiles      []string
}

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,Deps,CgoFiles,GoFiles"}, args...)...)
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// in says whether path is one of the packages or lies below one.
func in(path string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return path == root || strings.HasPrefix(path, root+"/")
	})
}

// Programs that must stay pure Go and static, and those that must not carry
// the other side.
func TestWhatProgramsReach(t *testing.T) {
	const (
		onnxruntime = "github.com/yalue/onnxruntime_go"
		nats        = "github.com/nats-io"
		paho        = "github.com/eclipse/paho.mqtt.golang"
		echo        = "github.com/labstack/echo"
	)
	for program, forbidden := range map[string][]string{
		"cmd/vedette-agent":   {module + "controlplane", nats, echo},
		"cmd/vedette-control": {module + "agent", onnxruntime},
		"cmd/vedette":         {module + "agent", onnxruntime, "github.com/nats-io/nats-server", "github.com/tidwall", paho},
		"cmd/vedette-sim":     {module + "agent/onnx", onnxruntime, nats + "/nats-server", paho, echo},
		"agent":               {module + "controlplane", module + "agent/onnx", onnxruntime, nats, echo},
		"controlplane":        {module + "agent", onnxruntime, "github.com/tidwall/buntdb"},
		"protocol":            {module + "agent", module + "controlplane", nats, paho, echo, "net/http"},
	} {
		t.Run(program, func(t *testing.T) {
			for _, p := range list(t, "./"+program) {
				for _, dep := range p.Deps {
					if in(dep, forbidden...) {
						t.Errorf("%s reaches %s", p.ImportPath, dep)
					}
				}
			}
		})
	}
}

// Who may import what directly, tests included: DESIGN's house rules.
func TestWhoImportsWhat(t *testing.T) {
	rules := []struct {
		what    string
		allowed []string // below the module
	}{
		{"github.com/yalue/onnxruntime_go", []string{"agent/onnx"}},
		{module + "agent/onnx", []string{"agent/onnx", "cmd/vedette-agent"}},
		{"github.com/tidwall/buntdb", []string{"agent/outbox"}},
		{"filippo.io/age", []string{"protocol/release", "protocol/sampling", "agent/sample", "cmd/vedette"}},
		{"github.com/eclipse/paho.mqtt.golang", []string{"agent/uplink", "controlplane/broker", "cmd/e2e"}},
		{"github.com/labstack/echo", []string{"controlplane/api", "controlplane/deviceapi", "controlplane/dashboard", "controlplane/mlflow"}},
		{"github.com/nats-io", []string{
			"controlplane/broker", "controlplane/ingest", "controlplane/desired", "controlplane/artifact",
			"controlplane/ledger", "controlplane/retrain", "controlplane/kvstore", "controlplane/tracking", "cmd/e2e",
		}},
		{module + "controlplane", []string{"controlplane", "cmd", "deploy/demo", "deploy/bench"}},
		{module + "agent", []string{"agent", "cmd/vedette-agent", "cmd/vedette-sim", "cmd/e2e", "deploy/bench"}},
	}
	for _, p := range list(t, "./...") {
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for _, rule := range rules {
				if in(path, rule.what) && !in(from, rule.allowed...) {
					t.Errorf("%s imports %s", from, path)
				}
			}
		}
	}
}

// Packages that decide must not be able to act: no network, no files, no clock
// hidden behind an import of the adapters.
func TestPurePackagesReachNoAdapter(t *testing.T) {
	acting := []string{"net", "os", "os/exec", "database/sql", "github.com/nats-io", "github.com/labstack/echo"}
	random := []string{"math/rand", "math/rand/v2", "crypto/rand"}
	seeded := []string{"protocol/sketch", "protocol/constraints"} // sample rows, always the same ones
	for _, pure := range []string{
		"agent/update", "controlplane/rollout", "controlplane/drift", "controlplane/bootclock", "protocol", "protocol/sketch",
		"protocol/divergence", "protocol/release", "protocol/graph", "protocol/constraints", "protocol/document", "protocol/evaluation",
		"protocol/sampling", "protocol/delta",
	} {
		for _, p := range list(t, "./"+pure) {
			for _, dep := range p.Imports {
				// net/url only takes text apart, so "net" stands for itself alone.
				if slices.Contains(acting, dep) || in(dep, "net/http") || slices.Contains(random, dep) && !slices.Contains(seeded, pure) {
					t.Errorf("%s imports %s", p.ImportPath, dep)
				}
			}
		}
	}
}

// A test obeys the rule of its side too, however far it reaches: otherwise the
// sides would be held together by their tests.
func TestWhatTestsReach(t *testing.T) {
	for side, forbidden := range map[string][]string{
		"agent":        {module + "controlplane", "github.com/nats-io", "github.com/labstack/echo"},
		"controlplane": {module + "agent", "github.com/yalue/onnxruntime_go", "github.com/tidwall/buntdb"},
		"protocol":     {module + "agent", module + "controlplane"},
	} {
		t.Run(side, func(t *testing.T) {
			for _, p := range list(t, "-test", "./"+side+"/...") {
				for _, dep := range p.Deps {
					if in(dep, forbidden...) {
						t.Errorf("%s reaches %s", p.ImportPath, dep)
					}
				}
			}
		})
	}
}

// What is made for tests stays out of the programs.
func TestProgramsHoldNoFakes(t *testing.T) {
	for _, p := range list(t, "./cmd/...") {
		for _, dep := range append(p.Deps, p.ImportPath) {
			if strings.HasPrefix(dep, module) && strings.HasSuffix(dep, "test") {
				t.Errorf("%s reaches %s", p.ImportPath, dep)
			}
		}
	}
}

// Cgo lives in one room.
func TestOnlyOnePackageUsesCgo(t *testing.T) {
	for _, p := range list(t, "./...") {
		if len(p.CgoFiles) > 0 && !in(p.ImportPath, module+"agent/onnx") {
			t.Errorf("%s has cgo files %v", p.ImportPath, p.CgoFiles)
		}
	}
}

// Every package explains itself exactly once (STYLE 1), and packages are at
// most two deep below the module.
func TestHouse(t *testing.T) {
	for _, p := range list(t, "./...") {
		rel := strings.TrimPrefix(p.ImportPath, module)
		if depth := strings.Count(rel, "/") + 1; depth > 2 {
			t.Errorf("%s is %d deep, want at most 2", rel, depth)
		}
		comments := 0
		for _, f := range p.GoFiles {
			if hasPackageComment(t, filepath.Join(p.Dir, f)) {
				comments++
			}
		}
		if len(p.GoFiles) > 0 && comments != 1 {
			t.Errorf("%s has %d package comments, want exactly 1", rel, comments)
		}
	}
}

func hasPackageComment(t *testing.T, path string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "package ") })
	if at < 1 {
		return false
	}
	before := strings.TrimSpace(lines[at-1])
	return strings.HasPrefix(before, "//") && !strings.HasPrefix(before, "//go:") || strings.HasSuffix(before, "*/")
}
