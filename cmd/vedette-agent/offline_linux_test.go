package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestScoreWithoutNetwork scores with the folder of a signed version where there
// is no network at all, not even the host's own address.
func TestScoreWithoutNetwork(t *testing.T) {
	dir := t.TempDir()
	m, _ := digitsRelease(t, dir, 1)
	rows := filepath.Join(repository(t), "deploy", "demo", "models", "heldout.csv")
	to := filepath.Join(t.TempDir(), "out.csv")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "score", rows, "--release", dir, "--keep", "digit", "--to", to, "--report", to+".json")
	cmd.Env = append(os.Environ(), envProgram+"=1", "VEDETTE_ONNXRUNTIME="+library(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("no network namespace can be made here (%v): allow unprivileged user namespaces to run this", err)
	}
	if err != nil || !strings.Contains(string(out), "540 rows: 540 scored") || !strings.Contains(string(out), "no drift") {
		t.Fatalf("%v: %s", err, out)
	}
	checkAccuracy(t, to)

	// A file of the version that is not the signed one is not scored with.
	if err := os.WriteFile(filepath.Join(dir, m.Baseline.Digest.String()), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errOut := command(t, "score", rows, "--release", dir, "--to", to, "--force")
	if code != exitFailed || !strings.Contains(errOut, "is not the file that the manifest names") {
		t.Errorf("damaged baseline: %d %s", code, errOut)
	}
	if err := os.Remove(filepath.Join(dir, m.Variants[0].Graph.Digest.String())); err != nil {
		t.Fatal(err)
	}
	code, _, errOut = command(t, "score", rows, "--release", dir, "--to", to, "--force")
	if code != exitFailed || !strings.Contains(errOut, "lacks digits-1.onnx, which its manifest names") {
		t.Errorf("no graph: %d %s", code, errOut)
	}
}
