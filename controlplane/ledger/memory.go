package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Memory is a ledger without a broker, by the same rules: an append states what
// it follows, and each record names the hash of the one before it in its chain.
// Simulations keep it, back it up and put it back. It is for one goroutine.
type Memory struct {
	now     func() time.Time
	records []Record
	heads   map[string]Record
}

// NewMemory is an empty ledger with that clock.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, heads: map[string]Record{}}
}

// Backup is the ledger as it is now; what is appended to one of the two later is
// not in the other.
func (m *Memory) Backup() *Memory {
	b := NewMemory(m.now)
	b.records = slices.Clone(m.records)
	for _, r := range b.records {
		b.heads[r.Chain] = r
	}
	return b
}

// Append is Ledger.Append.
func (m *Memory) Append(_ context.Context, chain string, expect uint64, kind, actor string, body any) (Record, error) {
	if err := checkChain(chain); err != nil {
		return Record{}, err
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return Record{}, fmt.Errorf("append to ledger chain %s: encode %s: %w", chain, kind, err)
	}
	head := m.heads[chain]
	if expect != Any && expect != head.Seq {
		return Record{}, fmt.Errorf("append to ledger chain %s: %w: newest is %d, expected %d", chain, ErrConflict, head.Seq, expect)
	}
	rec := Record{
		Chain: chain, Index: head.Index + 1, Seq: m.Last() + 1, At: m.now().UTC().Truncate(time.Millisecond),
		Actor: actor, Kind: kind, Body: raw, Prev: head.Hash,
	}
	rec.Hash = hashOf(&rec)
	m.records = append(m.records, rec)
	m.heads[chain] = rec
	return rec, nil
}

// Last is the sequence of the newest record, 0 for none.
func (m *Memory) Last() uint64 { return uint64(len(m.records)) }

// Read is Ledger.Read.
func (m *Memory) Read(_ context.Context, chain string) ([]Record, error) {
	var out []Record
	for _, r := range m.records {
		if r.Chain == chain {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read ledger chain %s: %w", chain, ErrNotFound)
	}
	return out, nil
}

// Chains is Ledger.Chains.
func (m *Memory) Chains(_ context.Context, prefix string) ([]string, error) {
	var out []string
	for name := range m.heads {
		if prefix == "" || name == prefix || strings.HasPrefix(name, prefix+".") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Replay is Ledger.Replay.
func (m *Memory) Replay(_ context.Context, from uint64, fn func(Record) error) (next uint64, err error) {
	for _, r := range m.records[min(from-1, m.Last()):] {
		if err := fn(r); err != nil {
			return 0, err
		}
	}
	return m.Last() + 1, nil
}

// Export is Ledger.Export, without a final anchor.
func (m *Memory) Export(_ context.Context, w io.Writer) error {
	enc := json.NewEncoder(w)
	for _, r := range m.records {
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("export ledger: %w", err)
		}
	}
	return nil
}
