package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestScoreKeepsFiles refuses command lines that would cost a file or make no
// sense, before anything is written.
func TestScoreKeepsFiles(t *testing.T) {
	dir := t.TempDir()
	release := t.TempDir()
	demo := filepath.Join(repository(t), "deploy", "demo", "models")
	code, _, errOut := command(t, "profile", filepath.Join(demo, "digits-1.onnx"), "--rows", filepath.Join(demo, "digits-1.train.csv"),
		"--expected", filepath.Join(demo, "digits-1.expected.csv"), "--condition", "condition", "--to", release)
	if code != exitOK {
		t.Fatal(errOut)
	}
	rows, err := os.ReadFile(filepath.Join(demo, "heldout.csv"))
	if err != nil {
		t.Fatal(err)
	}
	in, out := filepath.Join(dir, "in.csv"), filepath.Join(dir, "out.csv")
	if err := os.WriteFile(in, rows, 0o600); err != nil {
		t.Fatal(err)
	}
	score := func(more ...string) (int, string) {
		args := []string{
			"score", in, "--graph", filepath.Join(demo, "digits-1.onnx"), "--schema", filepath.Join(release, schemaFile),
			"--baseline", filepath.Join(release, baselineFile), "--quiet",
		}
		code, _, errOut := command(t, append(args, more...)...)
		return code, errOut
	}
	if code, errOut := score("--to", out); code != exitOK {
		t.Fatal(errOut)
	}
	want, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for says, args := range map[string][]string{
		"nothing was written: " + out + " is there already; replace it with --force": {"--to", out},
		"nothing is left to resume":              {"--to", out, "--resume"},
		"would overwrite the input":              {"--to", in, "--force"},
		"(" + in + ") would overwrite the input": {"--to", in, "--resume"},
		"the list of rejects (" + in:             {"--to", out, "--force", "--rejects", in},
		"the report (" + in:                      {"--to", out, "--force", "--report", in},
		"would overwrite the output":             {"--to", out, "--force", "--report", out},
		"--threads is -3":                        {"--threads", "-3"},
		"--batch is 0":                           {"--batch", "0"},
		"--batch is -1":                          {"--batch=-1"},
		`agent: bad option: on-error is "foo"`:   {"--on-error", "foo"},
	} {
		if code, errOut := score(args...); code != exitUsage || !strings.Contains(errOut, says) {
			t.Errorf("%q: %d %s, want %d and %q", args, code, errOut, exitUsage, says)
		}
		for name, was := range map[string][]byte{in: rows, out: want} {
			if got, err := os.ReadFile(name); err != nil || string(got) != string(was) {
				t.Fatalf("%q: %s is now %.80q, %v", args, name, got, err)
			}
		}
	}
}
