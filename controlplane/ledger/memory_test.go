package ledger_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/ledger"
)

// A ledger in memory keeps the rules of the one on the broker.
func TestMemory(t *testing.T) {
	ctx := t.Context()
	m := ledger.NewMemory(func() time.Time { return time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC) })
	one, err := m.Append(ctx, "rollout.r", 0, "k", "ann", map[string]int{"n": 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Append(ctx, "rollout.r", 0, "k", "ann", nil); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("a second first record: %v", err)
	}
	if _, err := m.Append(ctx, "a b", ledger.Any, "k", "ann", nil); !errors.Is(err, ledger.ErrChain) {
		t.Errorf("a chain with a space: %v", err)
	}
	backup := m.Backup()
	if _, err := m.Append(ctx, "rollout.r", one.Seq, "k", "ann", map[string]int{"n": 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Append(ctx, "device.d", ledger.Any, "k", "ann", nil); err != nil {
		t.Fatal(err)
	}
	var export bytes.Buffer
	if err := m.Export(ctx, &export); err != nil {
		t.Fatal(err)
	}
	if s, err := ledger.Audit(&export); err != nil || s.Records != 3 || s.Chains != 2 {
		t.Errorf("audit: %+v, %v", s, err)
	}
	chains, err := m.Chains(ctx, "rollout")
	if records, _ := m.Read(ctx, "rollout.r"); err != nil || len(chains) != 1 || len(records) != 2 {
		t.Errorf("chains %v, records %v, %v", chains, records, err)
	}
	if _, err := m.Read(ctx, "rollout.x"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("a chain that is not there: %v", err)
	}
	seen := 0
	if next, err := m.Replay(ctx, 2, func(ledger.Record) error { seen++; return nil }); err != nil || next != 4 || seen != 2 {
		t.Errorf("replay: %d seen, next %d, %v", seen, next, err)
	}
	if backup.Last() != 1 {
		t.Errorf("the backup has %d records", backup.Last())
	}
}
