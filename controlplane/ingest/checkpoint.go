package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

const (
	flushWriters = 16
	// flushShare is how many times as long as it takes to write a fold down it
	// rests before it does so again: every record is synced, so without a rest a
	// large fleet's checkpoints would keep the disk from its messages.
	flushShare = 20
	// maxCheckpoint bounds the rest, and so what has to be folded again after a
	// crash: five minutes of ten thousand devices are a few seconds' work.
	maxCheckpoint = 5 * time.Minute
)

// writing is the checkpoint of a fold that is being written. While it is, the
// fold must not touch it but for done.
type writing struct {
	ctx       context.Context //nolint:containedctx // its end breaks off what is being written
	bucket    kvstore.Bucket
	unwritten map[string][]byte // records not known to be written; an empty value deletes
	busy      bool
	failed    bool // the last one did
	began     time.Time
	done      chan error
}

// begin writes the unwritten records, then the marker: after a crash between them
// messages come again, and records skip what they include.
func (w *writing) begin(m marker) {
	w.busy, w.began = true, time.Now()
	go func() {
		ctx, cancel := context.WithTimeout(w.ctx, maxCheckpoint)
		defer cancel()
		w.done <- w.write(ctx, m)
	}()
}

// ended takes in how it went. What could not be written is tried again with the
// next: its records change no more by themselves, and a later marker includes
// them.
func (w *writing) ended(err error) {
	w.busy, w.failed = false, err != nil
	if err == nil {
		clear(w.unwritten)
	}
}

// rest is how long to wait before the next.
func (w *writing) rest(every time.Duration) time.Duration {
	return max(every, min(flushShare*time.Since(w.began), maxCheckpoint))
}

func (w *writing) write(ctx context.Context, m marker) error {
	if err := w.records(ctx); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	if _, err := w.bucket.Put(ctx, markerKey, raw); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

// records writes the unwritten records.
func (w *writing) records(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(flushWriters)
	values := map[string][]byte{}
	for key, value := range w.unwritten {
		key = recordPrefix + "." + key
		if len(value) > 0 {
			values[key] = value
			continue
		}
		g.Go(func() error { return w.bucket.Delete(gctx, key) })
	}
	return errors.Join(g.Wait(), kvstore.PutAll(ctx, w.bucket, values))
}
