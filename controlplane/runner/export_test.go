package runner

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

func TestVerifyExportReplaysWhatTheLedgerHolds(t *testing.T) {
	h := newHouse(t, "a1", "a2")
	id := h.create(spec("v2"))
	h.act(id, rollout.Start)
	h.until(id, is(rollout.StatusCompleted))
	var export bytes.Buffer
	if err := h.ledger.Export(t.Context(), &export); err != nil {
		t.Fatal(err)
	}
	whole := export.String()
	got, err := VerifyExport(strings.NewReader(whole))
	if want := (Replayed{Rollouts: 1, Decisions: len(h.verify(id)) - 1}); err != nil || got != want {
		t.Errorf("whole export: got %+v, %v; want %+v", got, err, want)
	}
	forged := strings.Replace(whole, `"state":"healthy"`, `"state":"failed"`, 1)
	if forged == whole {
		t.Fatal("the export says of no device that it is healthy")
	}
	if _, err := VerifyExport(strings.NewReader(forged)); err == nil || !strings.Contains(err.Error(), id) {
		t.Errorf("forged export: got %v, want an error that names %s", err, id)
	}
	if _, err := VerifyExport(strings.NewReader(whole[:len(whole)-20])); err == nil {
		t.Error("torn export: not noticed")
	}
}
