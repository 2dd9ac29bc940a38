package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/vedette-edge/vedette/protocol/delta"
	"github.com/vedette-edge/vedette/protocol/release"
)

// errUseless says that a delta would not pay.
var errUseless = errors.New("the delta is hardly smaller than the file")

// Run makes the deltas that are wanted, one after the other, until ctx ends. It
// works on a thread of the lowest priority, so that it takes what others leave.
func (d *Deltas) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // of its own, because the thread's priority cannot be raised again
		defer close(done)
		if err := lowerPriority(); err != nil {
			d.cfg.Logger.Warn("deltas are made at ordinary priority", slog.Any("error", err))
		}
		d.sweep(ctx) // of what was removed while nobody looked
		for d.next(ctx) {
		}
	}()
	<-done
	return nil
}

// next makes one delta, or waits for one to be wanted.
func (d *Deltas) next(ctx context.Context) bool {
	p, ok := d.take()
	if !ok {
		select {
		case <-d.wake:
			return true
		case <-ctx.Done():
			return false
		}
	}
	d.sweep(ctx)
	o, err := d.build(ctx, p)
	if err == nil {
		err = d.remember(ctx, p, o)
	}
	if ctx.Err() != nil {
		return false
	}
	d.finish(p, o, err)
	d.cfg.Tried()
	return true
}

func (d *Deltas) take() (p pair, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) == 0 {
		return p, false
	}
	p, d.waiting = d.waiting[0], d.waiting[1:]
	return p, true
}

// finish counts and logs what came of a pair.
func (d *Deltas) finish(p pair, o outcome, err error) {
	o.failed = err != nil
	d.note(p, o)
	d.mu.Lock()
	delete(d.queued, p)
	switch {
	case err != nil:
		d.stats.Failed++
	case o.pays():
		d.stats.Made++
	default:
		d.stats.Useless++
	}
	d.mu.Unlock()
	log := d.cfg.Logger.With(slog.String("from", p.from.Short()), slog.String("to", p.to.Short()))
	if err != nil {
		log.Warn("delta not made, devices fetch the whole file", slog.Any("error", err))
	} else {
		log.Info("delta tried", slog.Bool("pays", o.pays()), slog.Int64("bytes", o.Size))
	}
}

// remember makes an outcome durable.
func (d *Deltas) remember(ctx context.Context, p pair, o outcome) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode delta's entry: %w", err)
	}
	if _, err := d.index.Put(ctx, p.key(), raw); err != nil {
		return fmt.Errorf("note delta: %w", err)
	}
	return nil
}

// build makes a delta and a blob of it, unless it would not pay. Making it again, because
// its entry was lost with the power, gives the same blob.
func (d *Deltas) build(ctx context.Context, p pair) (o outcome, err error) {
	o.Made = time.Now().UTC()
	from, oldSize, err := d.store.open(ctx, p.from)
	if err != nil {
		return o, err
	}
	defer from.Close()
	to, newSize, err := d.store.open(ctx, p.to)
	if err != nil {
		return o, err
	}
	defer to.Close()
	f, err := os.CreateTemp(d.store.uploads(), tempPrefix+"*")
	if err != nil {
		return o, full(fmt.Errorf("make delta: %w", err))
	}
	defer os.Remove(f.Name()) // gone already when all went well
	defer f.Close()
	h := delta.Header{Old: delta.Ref{Digest: p.from, Size: oldSize}, New: delta.Ref{Digest: p.to, Size: newSize}}
	out := &output{ctx: ctx, w: f, sum: sha256.New(), whole: newSize}
	switch err := delta.Encode(out, h, from, to); {
	case errors.Is(err, errUseless):
		return o, nil
	case err != nil:
		return o, full(err)
	}
	if err := d.prove(ctx, f, from, h); err != nil {
		return o, err
	}
	digest := release.Digest(out.sum.Sum(nil))
	if err := d.publish(ctx, f, digest, out.size); err != nil {
		return o, err
	}
	o.Delta, o.Size = digest, out.size
	return o, nil
}

// output is where a delta is written to. It ends the work when the delta would
// not pay any more, or when the server stops.
type output struct {
	ctx   context.Context //nolint:containedctx // of one Encode, which takes none
	w     io.Writer
	sum   hash.Hash
	size  int64
	whole int64 // bytes of the file
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	if o.size += int64(len(b)); !delta.Pays(o.size, o.whole) {
		return 0, errUseless
	}
	_, _ = o.sum.Write(b) // a hash takes everything
	return o.w.Write(b)
}

// prove applies a delta as a device will: what a device would refuse is not
// offered.
func (d *Deltas) prove(ctx context.Context, f *os.File, from io.ReaderAt, h delta.Header) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read delta again: %w", err)
	}
	sum := sha256.New()
	if err := delta.Decode(sum, f, from, h); err != nil {
		return fmt.Errorf("prove delta: %w", err)
	}
	if got := release.Digest(sum.Sum(nil)); got != h.New.Digest {
		return fmt.Errorf("prove delta: %w: it makes %s", ErrDigest, got.Short())
	}
	return ctx.Err()
}

// publish makes a written delta a blob, in the place of older ones if need be.
func (d *Deltas) publish(ctx context.Context, f *os.File, digest release.Digest, size int64) error {
	if err := f.Sync(); err != nil {
		return full(fmt.Errorf("write delta: %w", err))
	}
	if err := d.makeRoom(ctx, size); err != nil {
		return err
	}
	done, err := d.store.begin(digest, size)
	if err != nil {
		return err
	}
	defer done()
	return d.store.complete(ctx, digest, f.Name(), size)
}

// makeRoom gives up the oldest deltas until another one fits.
func (d *Deltas) makeRoom(ctx context.Context, size int64) error {
	for d.Stats().HeldBytes+size > d.cfg.MaxTotal {
		p, ok := d.oldest()
		if !ok {
			return fmt.Errorf("%w: a delta of %d bytes is over the limit for all of them", ErrFull, size)
		}
		if err := d.forget(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (d *Deltas) oldest() (oldest pair, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, o := range d.known {
		if o.pays() && (!ok || o.Made.Before(d.known[oldest].Made)) {
			oldest, ok = p, true
		}
	}
	return oldest, ok
}

// sweep gives up deltas one of whose files is gone.
func (d *Deltas) sweep(ctx context.Context) {
	d.mu.Lock()
	var gone []pair
	for p := range d.known {
		if !d.store.Has(p.from) || !d.store.Has(p.to) {
			gone = append(gone, p)
		}
	}
	d.mu.Unlock()
	for _, p := range gone {
		if err := d.forget(ctx, p); err != nil && ctx.Err() == nil {
			d.cfg.Logger.Warn("delta not removed", slog.String("from", p.from.Short()), slog.String("to", p.to.Short()), slog.Any("error", err))
		}
	}
}

// forget removes an entry first: a blob that nothing points to is made use of
// when the same delta is made again, an entry without a blob would mislead.
func (d *Deltas) forget(ctx context.Context, p pair) error {
	if err := d.index.Delete(ctx, p.key()); err != nil {
		return fmt.Errorf("forget delta: %w", err)
	}
	d.mu.Lock()
	o := d.known[p]
	delete(d.known, p)
	delete(d.pairs, o.Delta)
	d.mu.Unlock()
	if !o.pays() {
		return nil
	}
	return d.store.Remove(ctx, o.Delta)
}
