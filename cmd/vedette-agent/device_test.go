package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/protocol/release"
)

// command runs the program in this process.
func command(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	t.Setenv("VEDETTE_ONNXRUNTIME", library(t))
	var o, e bytes.Buffer
	code = run(args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// digitsRelease profiles the demo's first model and lays it out in dir as a
// device holds it, with the graph of version graph.
func digitsRelease(t *testing.T, dir string, graph int) (*release.Manifest, release.Digest) {
	t.Helper()
	models := filepath.Join(repository(t), "deploy", "demo", "models")
	prof := t.TempDir()
	code, _, errOut := command(t, "profile", filepath.Join(models, "digits-1.onnx"), "--rows", filepath.Join(models, "digits-1.train.csv"),
		"--expected", filepath.Join(models, "digits-1.expected.csv"), "--condition", "condition", "--to", prof)
	if code != exitOK {
		t.Fatal(errOut)
	}
	put := func(path string) release.File {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f := release.File{Name: filepath.Base(path), Digest: release.DigestOf(raw), Size: int64(len(raw))}
		if err := os.WriteFile(filepath.Join(dir, f.Digest.String()), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	schema, err := readSchema(filepath.Join(prof, schemaFile))
	if err != nil {
		t.Fatal(err)
	}
	m := &release.Manifest{
		Format: release.Format, Model: "digits", Version: "v1", Sequence: 1, Schema: *schema,
		Variants: []release.Variant{{Name: "fp32", Precision: "fp32", Graph: put(filepath.Join(models, fmt.Sprintf("digits-%d.onnx", graph)))}},
		Baseline: put(filepath.Join(prof, baselineFile)), Golden: put(filepath.Join(prof, goldenFile)),
		Lineage: release.Lineage{Created: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)},
	}
	raw, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return m, release.DigestOf(raw)
}

// TestTrialOfRealModel tries the real model in a child process, and one whose
// graph is another than the golden vectors were made with.
func TestTrialOfRealModel(t *testing.T) {
	for graph, want := range map[int]string{1: "", 2: trial.CodeGolden} {
		dir := t.TempDir()
		m, digest := digitsRelease(t, dir, graph)
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		v, err := trial.New(trial.Config{
			Exe: exe, Args: []string{trialCommand, "--onnxruntime", library(t)}, Env: []string{envProgram + "=1"},
		}).Try(t.Context(), trial.Candidate{Digest: digest, Manifest: m, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if v.Code != want || v.OK != (want == "") {
			t.Errorf("graph of version %d: %+v, want code %q", graph, v, want)
		}
		if v.OK && (v.P95 <= 0 || v.PeakBytes == 0 || v.Report.GetGoldenRows() != 64) {
			t.Errorf("verdict lacks measurements: %+v", v)
		}
	}
}

// TestTrialOnEveryProvider measures the real model on every execution provider
// of the library. One that this machine has no device for says so and hurts
// nothing; where there is a device, golden vectors and the clock decide. (This is
// no formality: with ONNX Runtime 1.30.0 on Mesa's lavapipe, WebGPU computes this
// very model wrongly, while others come out right.)
func TestTrialOnEveryProvider(t *testing.T) {
	dir := t.TempDir()
	m, digest := digitsRelease(t, dir, 1)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rt, err := onnx.Open(library(t))
	if err != nil {
		t.Fatal(err)
	}
	providers := infer.Candidates(rt.Info().Providers, nil)
	v, err := trial.New(trial.Config{
		Exe: exe, Args: []string{trialCommand, "--onnxruntime", library(t)}, Env: []string{envProgram + "=1"}, Providers: providers,
	}).Try(t.Context(), trial.Candidate{Digest: digest, Manifest: m, Dir: dir})
	if err != nil || !v.OK {
		t.Fatalf("verdict %q %q, %v, want ok", v.Code, v.Message, err)
	}
	tried := v.Report.GetTried()
	if len(tried) != len(providers) || tried[0].GetProvider() != release.CPUProvider || tried[0].GetCode() != "" {
		t.Fatalf("tried %v, want each of %v, the CPU first and fit", tried, providers)
	}
	for _, p := range tried {
		t.Logf("%s: %q %s p95 %d µs, %d KiB", p.GetProvider(), p.GetCode(), p.GetMessage(), p.GetP95Us(), p.GetPeakBytes()>>10)
		if p.GetCode() != "" && p.GetMessage() == "" {
			t.Errorf("%s: %q without a reason", p.GetProvider(), p.GetCode())
		}
		if p.GetChosen() != (p.GetProvider() == v.Provider) {
			t.Errorf("%s: chosen %v, the verdict says %s", p.GetProvider(), p.GetChosen(), v.Provider)
		}
	}
}

// TestScoreActiveModel scores with what the slots of a device say is active.
func TestScoreActiveModel(t *testing.T) {
	state := t.TempDir()
	staging := filepath.Join(state, slots.Folder, "digits", "new")
	if err := os.MkdirAll(staging, 0o700); err != nil {
		t.Fatal(err)
	}
	_, digest := digitsRelease(t, staging, 1)
	dir := filepath.Join(state, slots.Folder, "digits", digest.String())
	if err := os.Rename(staging, dir); err != nil {
		t.Fatal(err)
	}
	activate(t, state, slots.Set{Format: slots.Format, Active: slots.Slot{Release: digest}})
	rows := filepath.Join(repository(t), "deploy", "demo", "models", "heldout.csv")
	to := filepath.Join(t.TempDir(), "out.csv")
	code, out, errOut := command(t, "score", rows, "--model", "digits", "--state", state, "--keep", "digit", "--to", to, "-o", "json")
	var s struct{ Scored int }
	if err := json.Unmarshal([]byte(out), &s); code != exitOK || err != nil || s.Scored != 540 {
		t.Fatalf("%d %s%s", code, out, errOut)
	}
	checkAccuracy(t, to)

	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := command(t, "score", rows, "--model", "digits", "--state", state); code != exitFailed || !strings.Contains(errOut, "is damaged") {
		t.Errorf("damaged manifest: %d %s", code, errOut)
	}
	activate(t, state, slots.Set{Format: slots.Format})
	if code, _, errOut := command(t, "score", rows, "--model", "digits", "--state", state); code != exitFailed || !strings.Contains(errOut, "no version of model") {
		t.Errorf("nothing active: %d %s", code, errOut)
	}
}

func activate(t *testing.T, state string, set slots.Set) {
	t.Helper()
	raw, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	files, err := slots.OS(state)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if err := slots.WriteRecord(files, slots.Folder+"/digits/slots.json", append(raw, '\n')); err != nil {
		t.Fatal(err)
	}
}

// checkAccuracy compares column class with the kept column digit.
func checkAccuracy(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	right, rows := 0, 0
	for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n")[1:] {
		f := strings.Split(line, ",")
		if rows++; f[1] == f[2] {
			right++
		}
	}
	if rows != 540 || right < 525 {
		t.Errorf("%d of %d held-out images are read right", right, rows)
	}
}
