package main

import (
	"context"
	"errors"
	"time"

	"github.com/vedette-edge/vedette/controlplane/ledger"
)

// errLedger is what the server is told while its disk takes nothing.
var errLedger = errors.New("the ledger cannot be written")

// journal is the server's ledger: the one in memory, watched by the checker, at
// which the server may die or be refused.
type journal struct{ s *server }

// Append implements runner.Ledger, desired.Ledger and fleet.Journal.
func (j *journal) Append(ctx context.Context, chain string, expect uint64, kind, actor string, body any) (ledger.Record, error) {
	j.s.outside()
	if j.s.broken {
		j.s.w.count("ledger refused")
		return ledger.Record{}, errLedger
	}
	rec, err := j.s.ledger.Append(ctx, chain, expect, kind, actor, body)
	if err != nil {
		return ledger.Record{}, err
	}
	j.s.w.check.committed(rec, body)
	j.s.follow(rec)
	j.s.outside()
	return rec, nil
}

// Read implements runner.Ledger.
func (j *journal) Read(ctx context.Context, chain string) ([]ledger.Record, error) {
	return j.s.ledger.Read(ctx, chain)
}

// Chains implements runner.Ledger.
func (j *journal) Chains(ctx context.Context, prefix string) ([]string, error) {
	return j.s.ledger.Chains(ctx, prefix)
}

// Replay implements desired.Ledger.
func (j *journal) Replay(ctx context.Context, from uint64, fn func(ledger.Record) error) (next uint64, err error) {
	return j.s.ledger.Replay(ctx, from, fn)
}

// follow brings an appended record to desired state a moment later.
func (s *server) follow(rec ledger.Record) {
	life := s.life
	s.w.after(s.w.between(time.Millisecond, 20*time.Millisecond), func() {
		if s.life != life {
			return
		}
		s.guarded(func() {
			if err := s.desired.Apply(rec); err != nil {
				s.w.fail("desired state: %w", err)
			}
		})
	})
}

// Follow implements desired.Ledger. Records come through follow, for there is
// one goroutine.
func (j *journal) Follow(context.Context, uint64, func(ledger.Record) error) error { return nil }
