package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
)

// A ledger whose hashes and anchors are all right, but in which somebody wrote
// that a rollout completed, is found out: with what was recorded and what
// follows.
func TestVerifyFindsAForgedDecision(t *testing.T) {
	l, err := ledger.Open(t.Context(), brokertest.Start(t).Conn(), ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := rollout.Moment(time.Now())
	state := rollout.New("digits-2-1", "ada", rollout.Spec{Model: "digits", Version: "2"}.WithDefaults(), rollout.Requirements{}, now)
	head := state.Header
	head.Status, head.Cause = rollout.StatusCompleted, "trust me"
	for _, r := range []struct {
		kind, actor string
		body        any
	}{
		{runner.KindCreated, "ada", runner.Created{Reason: "why", State: state}},
		{runner.KindStep, runner.Actor, runner.Record{Decision: rollout.Decision{Format: rollout.Format, At: now, Patch: rollout.Patch{Header: &head}}}},
	} {
		if _, err := l.Append(t.Context(), "rollout.digits-2-1", ledger.Any, r.kind, r.actor, r.body); err != nil {
			t.Fatal(err)
		}
	}
	var export bytes.Buffer
	if err := l.Export(t.Context(), &export); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "export.jsonl")
	if err := os.WriteFile(file, export.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{file, "-"} {
		var out, errOut bytes.Buffer
		if code := run([]string{"ledger", "verify", from}, bytes.NewReader(export.Bytes()), &out, &errOut); code != exitFailed {
			t.Errorf("%s: exit code %d, want %d", from, code, exitFailed)
		}
		for _, want := range []string{"decision 2 of rollout digits-2-1", now.Format(time.RFC3339), `status: recorded "completed", follows nothing`} {
			if !strings.Contains(errOut.String(), want) {
				t.Errorf("%s: %q is not in\n%s", from, want, &errOut)
			}
		}
	}
}
