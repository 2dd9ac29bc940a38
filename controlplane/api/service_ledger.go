package api

import (
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Ledger lists records, newest first. The cursor is the sequence of the last
// one given out.
func (s *Service) Ledger(ctx context.Context, q operator.LedgerQuery) (*operator.Page[operator.LedgerRecord], error) {
	limit, err := pageSize(q.Paging)
	if err != nil {
		return nil, err
	}
	before, err := s.ledgerEnd(ctx, q.Cursor)
	if err != nil {
		return nil, err
	}
	page := &operator.Page[operator.LedgerRecord]{Items: []operator.LedgerRecord{}}
	take := func(r *ledger.Record) (full bool) {
		if r.Seq < before && (q.Chain == "" || r.Chain == q.Chain) && (q.Kind == "" || r.Kind == q.Kind) {
			page.Items = append(page.Items, ledgerRecord(r))
		}
		return len(page.Items) > limit
	}
	if q.Chain != "" {
		err = s.chainBackwards(ctx, q.Chain, take)
	} else {
		err = s.ledgerBackwards(ctx, before, take)
	}
	if err != nil {
		return nil, operator.Errorf(operator.Unavailable, "read the ledger: %w", err)
	}
	if len(page.Items) > limit {
		page.Items = page.Items[:limit]
		page.Next = strconv.FormatUint(page.Items[limit-1].Seq, 10)
	}
	page.Total, err = s.ledgerTotal(ctx)
	return page, err
}

func (s *Service) ledgerTotal(ctx context.Context) (int, error) {
	last, err := s.d.Ledger.Last(ctx)
	if err != nil {
		return 0, operator.Errorf(operator.Unavailable, "read the ledger: %w", err)
	}
	return int(min(last, 1<<31-1)), nil
}

// ledgerEnd is the sequence that a page ends before.
func (s *Service) ledgerEnd(ctx context.Context, cursor string) (uint64, error) {
	if cursor == "" {
		last, err := s.ledgerTotal(ctx)
		return uint64(last) + 1, err //nolint:gosec // not negative
	}
	before, err := strconv.ParseUint(cursor, 10, 63)
	if err != nil {
		return 0, operator.Errorf(operator.Invalid, "cursor %.40q is not one of the ledger's", cursor)
	}
	return before, nil
}

func (s *Service) chainBackwards(ctx context.Context, chain string, take func(*ledger.Record) bool) error {
	records, err := s.d.Ledger.Read(ctx, chain)
	if errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ledger.ErrChain) {
		return nil
	}
	for i := len(records) - 1; i >= 0; i-- {
		if take(&records[i]) {
			break
		}
	}
	return err
}

// ledgerStep is how many records are read at one time on the way back.
const ledgerStep = 256

// errEnough ends a replay that has read what it was asked for.
var errEnough = errors.New("enough")

// ledgerBackwards reads the ledger, which can only be read forwards, in steps
// from its end.
func (s *Service) ledgerBackwards(ctx context.Context, before uint64, take func(*ledger.Record) bool) error {
	for to := before; to > 1; {
		from := max(to, ledgerStep+1) - ledgerStep
		var step []ledger.Record
		_, err := s.d.Ledger.Replay(ctx, from, func(r ledger.Record) error {
			if r.Seq >= to {
				return errEnough
			}
			step = append(step, r)
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		for i := len(step) - 1; i >= 0; i-- {
			if take(&step[i]) {
				return nil
			}
		}
		to = from
	}
	return nil
}

func ledgerRecord(r *ledger.Record) operator.LedgerRecord {
	return operator.LedgerRecord{
		Seq: r.Seq, Chain: r.Chain, Index: r.Index, Kind: r.Kind, Actor: r.Actor, At: r.At,
		Body: r.Body, Blob: r.Blob, Prev: r.Prev, Hash: r.Hash,
	}
}

// ExportLedger writes the whole ledger, up to an anchor made for it, in the form
// that is verified offline.
func (s *Service) ExportLedger(ctx context.Context, w io.Writer) error {
	return s.d.Ledger.Export(ctx, w)
}
