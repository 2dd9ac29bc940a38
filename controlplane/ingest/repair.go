package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

// Repair makes a fold whose checkpoint does not fit the stream, or that would
// come to a message that cannot be read, begin anew with what the stream still
// holds after that: everything older is no longer in it. It returns the reason,
// nil when there is none and nothing was changed. The fold must not be running.
func (i *Ingest) Repair(ctx context.Context, b kvstore.Bucket) (reason, err error) {
	info, err := i.stream.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the uplink stream: %w", err)
	}
	m, found, err := readMarker(ctx, b)
	if err != nil {
		return nil, err
	}
	if !found {
		m.Incarnation = info.Created
	}
	first := max(info.State.FirstSeq, 1)
	begin := max(first, m.Seq+1)
	if reason = i.continues(ctx, m); reason != nil {
		begin = first
	}
	if reason != nil && !errors.Is(reason, ErrGap) && !errors.Is(reason, ErrIncarnation) {
		return nil, reason
	}
	bad, err := i.unreadable(ctx, begin, info.State.LastSeq)
	if err != nil || reason == nil && bad == 0 {
		return nil, err
	}
	if reason == nil {
		reason = fmt.Errorf("%w (message %d cannot be read)", ErrGap, bad)
	}
	return reason, beginAnew(ctx, b, marker{Incarnation: info.Created, Seq: max(bad, first-1)})
}

// unreadable returns the last message of a range that the broker cannot read, 0
// when it reads all.
func (i *Ingest) unreadable(ctx context.Context, from, to uint64) (bad uint64, err error) {
	for seq := from; seq <= to; seq++ {
		_, err := i.stream.GetMsg(ctx, seq)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			bad = seq
		case err != nil:
			return 0, fmt.Errorf("read message %d of the uplink stream: %w", seq, err)
		}
	}
	return bad, nil
}

// beginAnew replaces a checkpoint by a marker alone.
func beginAnew(ctx context.Context, b kvstore.Bucket, m marker) error {
	// The records go first: a crash in between leaves a checkpoint that still does
	// not fit, and is repaired again.
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	old, err := b.List(ctx, recordPrefix)
	if err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	for _, e := range old {
		if err := b.Delete(ctx, e.Key); err != nil {
			return fmt.Errorf("drop checkpoint: %w", err)
		}
	}
	if _, err := b.Put(ctx, markerKey, raw); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

// readMarker returns a fold's marker, and whether it has one.
func readMarker(ctx context.Context, b kvstore.Bucket) (m marker, found bool, err error) {
	e, err := b.Get(ctx, markerKey)
	if errors.Is(err, kvstore.ErrNotFound) {
		return m, false, nil
	}
	if err == nil {
		err = json.Unmarshal(e.Value, &m)
	}
	if err != nil {
		return m, false, fmt.Errorf("read checkpoint: %w", err)
	}
	return m, true, nil
}
