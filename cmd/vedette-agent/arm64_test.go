package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/agent/trial"
)

// packagesAsked names the folder with the packages that `make test-package` has
// built: the agent for arm64 is taken out of one.
const packagesAsked = "VEDETTE_PACKAGES"

// foreign is the agent of the arm64 package, which runs here under qemu-user.
type foreign struct {
	t              *testing.T
	agent, library string
	env            []string
}

// openForeign unpacks the package, or skips where it cannot be run.
func openForeign(t *testing.T) *foreign {
	t.Helper()
	folder := os.Getenv(packagesAsked)
	if folder == "" {
		t.Skip("needs the agent for arm64: make test-package")
	}
	for tool, debian := range map[string]string{"qemu-aarch64": "qemu-user", "dpkg-deb": "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: apt-get install %s", tool, debian)
		}
	}
	const libc = "/usr/aarch64-linux-gnu/lib"
	if _, err := os.Stat(filepath.Join(libc, "libstdc++.so.6")); err != nil {
		t.Skipf("needs libraries for arm64: apt-get install libc6-dev-arm64-cross libstdc++6-arm64-cross: %v", err)
	}
	found, err := filepath.Glob(filepath.Join(folder, "*_arm64.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages for arm64: %v, %v", found, err)
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--extract", found[0], dir).CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v\n%s", err, out)
	}
	return &foreign{
		t: t, agent: filepath.Join(dir, "usr/bin/vedette-agent"), library: filepath.Join(dir, "usr/lib/vedette/libonnxruntime.so.1"),
		env: []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir(), "QEMU_LD_PREFIX=" + sysroot(t, libc)},
	}
}

// sysroot is what qemu shows the program instead of this machine: libraries for
// arm64, and a processor of that kind. With the cpuinfo of another, ONNX Runtime
// 1.30.0 ends the process while it is loaded.
func sysroot(t *testing.T, libc string) string {
	t.Helper()
	dir := t.TempDir()
	var cpus strings.Builder
	for i := range 2 {
		cpus.WriteString("processor\t: " + strconv.Itoa(i) + "\nBogoMIPS\t: 108.00\n" +
			"Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n" +
			"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n")
	}
	err := errors.Join(os.Symlink(libc, filepath.Join(dir, "lib")), os.Mkdir(filepath.Join(dir, "proc"), 0o700),
		os.WriteFile(filepath.Join(dir, "proc", "cpuinfo"), []byte(cpus.String()), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs the foreign agent to its end.
func (f *foreign) run(args ...string) (code int, out string) {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), "qemu-aarch64", append([]string{f.agent}, args...)...)
	cmd.Env = f.env
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		f.t.Fatal(err)
	}
	if e.Len() > 0 {
		f.t.Logf("vedette-agent %s: %s", strings.Join(args, " "), e.String())
	}
	return cmd.ProcessState.ExitCode(), o.String()
}

// The agent for arm64, with its own ONNX Runtime, finds itself in order, proves
// a real model by its golden vectors and computes what this machine computes.
func TestArm64(t *testing.T) {
	f := openForeign(t)
	t.Run("doctor", f.doctor)
	t.Run("trial", f.trial)
	t.Run("score", f.score)
}

func (f *foreign) doctor(t *testing.T) {
	_, out := f.run("doctor", "--offline", "--state", t.TempDir(), "-o", "json")
	var found Findings
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	by := map[string]Check{}
	for _, c := range found.Checks {
		by[c.Name] = c
	}
	if c := by["ONNX Runtime"]; c.Result != checkOK || !strings.Contains(c.Detail, f.library) {
		t.Errorf("runtime: %+v", c)
	}
	if c := by["device class"]; c.Result != checkOK || !strings.Contains(strings.ToLower(c.Detail), "arm64") {
		t.Errorf("device class: %+v", c)
	}
}

func (f *foreign) trial(t *testing.T) {
	for graph, want := range map[int]string{1: "", 2: trial.CodeGolden} {
		dir := t.TempDir()
		m, digest := digitsRelease(t, dir, graph)
		qemu, err := exec.LookPath("qemu-aarch64")
		if err != nil {
			t.Fatal(err)
		}
		v, err := trial.New(trial.Config{
			Exe: qemu, Args: []string{f.agent, trialCommand, "--onnxruntime", f.library}, Env: f.env,
		}).Try(t.Context(), trial.Candidate{Digest: digest, Manifest: m, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if v.Code != want || v.OK != (want == "") {
			t.Errorf("graph of version %d: %+v, want code %q", graph, v, want)
		}
	}
}

func (f *foreign) score(t *testing.T) {
	models := filepath.Join(repository(t), "deploy", "demo", "models")
	dir := t.TempDir()
	digitsRelease(t, dir, 1)
	args := []string{"score", filepath.Join(models, "heldout.csv"), "--release", dir, "--quiet"}
	code, want, errOut := command(t, args...)
	if code != exitOK {
		t.Fatal(errOut)
	}
	code, got := f.run(append(args, "--onnxruntime", f.library)...)
	if code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	a, b := cells(t, want), cells(t, got)
	if len(a) != len(b) || len(a) < 100 {
		t.Fatalf("%d lines here, %d there", len(a), len(b))
	}
	furthest := 0.0
	for i := range a {
		for k := range a[i] {
			d := apart(a[i][k], b[i][k])
			if furthest = max(furthest, d); d > 1e-6 {
				t.Fatalf("line %d, %s: %s here, %s there", i+1, a[0][k], a[i][k], b[i][k])
			}
		}
	}
	t.Logf("%d rows agree, numbers to within %g", len(a)-1, furthest)
}

func cells(t *testing.T, text string) [][]string {
	t.Helper()
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// apart is how far two cells are from each other: another processor adds up in
// another order. Cells that are no fractions are the same or not.
func apart(a, b string) float64 {
	if a == b {
		return 0
	}
	x, err := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	if err != nil || err2 != nil || !strings.ContainsAny(a, ".e") {
		return math.Inf(1)
	}
	return math.Abs(x - y)
}
