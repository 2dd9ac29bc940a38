package api

import (
	"bytes"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// The ledger is read backwards in pages, wholly and each record once.
func TestLedgerPages(t *testing.T) {
	l, err := ledger.Open(t.Context(), brokertest.Start(t).Conn(), ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const records = 2*ledgerStep + 30
	for i := range records {
		chain := []string{"operator", "rollout.x", "settings"}[i%3]
		if _, err := l.Append(t.Context(), chain, ledger.Any, []string{"a", "b"}[i%2], "ann", i); err != nil {
			t.Fatal(err)
		}
	}
	s := NewService(Deps{Ledger: l})
	for name, c := range map[string]struct {
		q    operator.LedgerQuery
		want int
	}{
		"all in pages":  {operator.LedgerQuery{Paging: operator.Paging{Limit: 100}}, records},
		"a chain":       {operator.LedgerQuery{Paging: operator.Paging{Limit: 50}, Chain: "rollout.x"}, (records + 1) / 3},
		"a kind":        {operator.LedgerQuery{Paging: operator.Paging{Limit: 7}, Kind: "b"}, records / 2},
		"unknown chain": {operator.LedgerQuery{Chain: "rollout.y"}, 0},
	} {
		var got []operator.LedgerRecord
		for {
			page, err := s.Ledger(t.Context(), c.q)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got = append(got, page.Items...)
			if c.q.Cursor = page.Next; page.Next == "" {
				break
			}
		}
		if len(got) != c.want {
			t.Errorf("%s: got %d records, want %d", name, len(got), c.want)
		}
		for i := 1; i < len(got); i++ {
			if got[i].Seq >= got[i-1].Seq {
				t.Fatalf("%s: record %d follows %d", name, got[i].Seq, got[i-1].Seq)
			}
		}
	}
	if _, err := s.Ledger(t.Context(), operator.LedgerQuery{Paging: operator.Paging{Cursor: "x"}}); operator.CodeOf(err) != operator.Invalid {
		t.Errorf("foreign cursor: got %v", err)
	}
	var export bytes.Buffer
	if err := s.ExportLedger(t.Context(), &export); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Verify(&export); err != nil {
		t.Error(err)
	}
}
