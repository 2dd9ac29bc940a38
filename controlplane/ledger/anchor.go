package ledger

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"log/slog"
	"maps"
	"slices"
	"time"
)

const (
	// AnchorEvery is how often Run anchors: the end of a chain that is younger
	// could be cut off unseen by whoever can write the store.
	AnchorEvery = time.Hour
	// maxHeads keeps an anchor far below MaxBody; what is over goes into the next one.
	maxHeads = 500

	kindAnchor  = "anchor"
	actorLedger = "ledger"
)

// Anchor is the body of a record in the anchor chain: the newest record of each
// chain that grew since the anchor before it, and the order of all records since.
type Anchor struct {
	Through uint64 `json:"through"` // all records up to this sequence are covered
	Heads   []Head `json:"heads"`   // by chain name
	Order   string `json:"order"`   // SHA-256 over the hashes (hex) of the records since the anchor before, hex
}

// Head names the newest record of a chain.
type Head struct {
	Chain string `json:"chain"`
	Index uint64 `json:"index"`
	Seq   uint64 `json:"seq"`
	Hash  string `json:"hash"`
}

// Run anchors every interval until ctx ends; 0 means AnchorEvery. More often,
// and at its end, it writes down how far the ledger goes, for the next Open. It
// always returns nil, after ctx has ended.
func (l *Ledger) Run(ctx context.Context, every time.Duration) error {
	tick, marks := time.NewTicker(cmp.Or(every, AnchorEvery)), time.NewTicker(markEvery)
	defer tick.Stop()
	defer marks.Stop()
	for {
		select {
		case <-ctx.Done():
			l.tryMark(context.WithoutCancel(ctx))
			return nil
		case <-marks.C:
			l.tryMark(ctx)
		case <-tick.C:
			if err := l.Anchor(ctx); err != nil && ctx.Err() == nil {
				l.opts.Logger.Error("ledger not anchored", slog.Any("error", err))
			}
		}
	}
}

func (l *Ledger) tryMark(ctx context.Context) {
	ctx, cancel := within(ctx)
	defer cancel()
	if err := l.mark(ctx); err != nil && ctx.Err() == nil {
		l.opts.Logger.Error("end of the ledger not marked", slog.Any("error", err))
	}
}

// Anchor records the newest hash of every chain that grew since the last anchor.
// Without news it adds nothing.
func (l *Ledger) Anchor(ctx context.Context) error {
	prev, expect, err := l.lastAnchor(ctx)
	if err != nil {
		return err
	}
	d := draft{through: prev.Through, heads: map[string]Head{}, order: sha256.New()}
	flush := func() error {
		if len(d.heads) == 0 {
			return nil
		}
		rec, err := l.Append(ctx, ChainAnchor, expect, kindAnchor, actorLedger, d.anchor())
		expect = rec.Seq
		return err
	}
	_, err = l.Replay(ctx, prev.Through+1, func(r Record) error {
		if d.full(r.Chain) {
			if err := flush(); err != nil {
				return err
			}
		}
		d.add(&r)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// draft is an anchor in the making.
type draft struct {
	through uint64
	heads   map[string]Head
	order   hash.Hash
}

func (d *draft) full(chain string) bool {
	_, known := d.heads[chain]
	return !known && len(d.heads) == maxHeads
}

func (d *draft) add(r *Record) {
	d.through = r.Seq
	d.order.Write([]byte(r.Hash))
	// Anchors alone are no news: each would ask for another.
	if r.Chain != ChainAnchor {
		d.heads[r.Chain] = Head{Chain: r.Chain, Index: r.Index, Seq: r.Seq, Hash: r.Hash}
	}
}

// anchor returns what was drafted and begins the next.
func (d *draft) anchor() Anchor {
	a := Anchor{Through: d.through, Heads: sortedHeads(d.heads), Order: hex.EncodeToString(d.order.Sum(nil))}
	clear(d.heads)
	d.order.Reset()
	return a
}

// lastAnchor returns the newest anchor and its sequence; zeros when there is none.
func (l *Ledger) lastAnchor(ctx context.Context) (Anchor, uint64, error) {
	rec, err := l.Head(ctx, ChainAnchor)
	if errors.Is(err, ErrNotFound) {
		return Anchor{}, 0, nil
	}
	if err != nil {
		return Anchor{}, 0, err
	}
	var a Anchor
	return a, rec.Seq, rec.Decode(&a)
}

func sortedHeads(heads map[string]Head) []Head {
	return slices.SortedFunc(maps.Values(heads), func(a, b Head) int { return cmp.Compare(a.Chain, b.Chain) })
}
