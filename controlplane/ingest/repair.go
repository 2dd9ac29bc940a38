package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

// Repair makes a fold whose checkpoint does not fit the stream begin anew with
// what the stream still holds: everything older is no longer in it. It returns
// the reason, nil when the checkpoint fits and nothing was changed. The fold
// must not be running.
func (i *Ingest) Repair(ctx context.Context, b kvstore.Bucket) (reason, err error) {
	m, found, err := readMarker(ctx, b)
	if err != nil || !found {
		return nil, err
	}
	reason = i.continues(ctx, m)
	if !errors.Is(reason, ErrGap) && !errors.Is(reason, ErrIncarnation) {
		return nil, reason
	}
	info, err := i.stream.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the uplink stream: %w", err)
	}
	// The records go first: a crash in between leaves a checkpoint that still does
	// not fit, and is repaired again.
	m = marker{Incarnation: info.Created, Seq: max(info.State.FirstSeq, 1) - 1}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode checkpoint: %w", err)
	}
	old, err := b.List(ctx, recordPrefix)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	for _, e := range old {
		if err := b.Delete(ctx, e.Key); err != nil {
			return nil, fmt.Errorf("drop checkpoint: %w", err)
		}
	}
	if _, err := b.Put(ctx, markerKey, raw); err != nil {
		return nil, fmt.Errorf("write checkpoint: %w", err)
	}
	return reason, nil
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
