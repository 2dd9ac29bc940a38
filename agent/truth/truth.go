// Package truth takes what people found out later about this device's
// predictions, where they gave it to the control plane and not to the device.
// The device alone knows its predictions, so the truths come here in numbered
// batches, are joined as feedback is, and the control plane is told what became
// of them [P-9].
//
// A kill at any point counts nothing twice: a match marks its prediction, so it
// is found marked when the batch comes again; what matched nothing is counted
// only after the batch has been written down as taken. A kill between the two
// costs the count of what matched nothing, and no more.
package truth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/agent/observe"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// stateFile says which batch was taken last and what became of it.
const stateFile = "truths.json"

// maxState bounds the state file in bytes.
const maxState = 4 << 10

// Pauses between tries after a failure, with full jitter.
const firstPause, maxPause = time.Second, time.Minute

// Source gives the batches.
type Source interface {
	// Next tells what became of the newest batch taken and returns the next one,
	// nil when there is none. To repeat it changes nothing.
	Next(ctx context.Context, taken *protocol.TruthTaken) (*protocol.TruthBatch, error)
}

// Joiner finds the predictions. It is an *observe.Observer.
type Joiner interface {
	Truth(ctx context.Context, model, id, label string) (observe.Joined, error)
	CountUnmatched(model string, n uint64) error
	// Snapshot writes down what was counted.
	Snapshot() error
}

var _ Joiner = (*observe.Observer)(nil)

// Taker takes batches when it is told that there are some.
type Taker struct {
	dir    string
	source Source
	joiner Joiner
	log    *slog.Logger
	wake   chan struct{} // has a value when there may be a batch
	save   func(path string, data []byte) error

	mu    sync.Mutex // guards what follows
	taken result     // of the newest batch written down as taken
	told  uint64     // newest number heard of

	joined result // of Run alone: the newest batch joined, perhaps not yet written down
}

// result is what became of one batch.
type result struct {
	Seq       uint64 `json:"seq"`
	Matched   uint64 `json:"matched"`
	Unmatched uint64 `json:"unmatched"`
	Repeated  uint64 `json:"repeated"`
	Refused   uint64 `json:"refused"`
}

func (r result) wire() *protocol.TruthTaken {
	return &protocol.TruthTaken{Seq: r.Seq, Matched: r.Matched, Unmatched: r.Unmatched, Repeated: r.Repeated, Refused: r.Refused}
}

// New reads which batch was taken last. A file that cannot be read starts over:
// the control plane gives out no batch that it knows was taken.
func New(dir string, source Source, joiner Joiner, log *slog.Logger) *Taker {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &Taker{dir: dir, source: source, joiner: joiner, log: log, wake: make(chan struct{}, 1), save: atomicfile.Write}
	if err := t.load(); err != nil {
		log.Warn("it is not known which truths were taken: those that wait are joined again", "error", err)
	}
	return t
}

func (t *Taker) load() error {
	f, err := os.Open(filepath.Join(t.dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open taken truths: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := json.NewDecoder(io.LimitReader(f, maxState)).Decode(&t.taken); err != nil {
		return fmt.Errorf("read taken truths: %w", err)
	}
	return nil
}

// Taken is the number of the newest batch taken, 0 for none.
func (t *Taker) Taken() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taken.Seq
}

// Tell says that there is a batch of that number. An old number is nothing new.
func (t *Taker) Tell(newest uint64) {
	t.mu.Lock()
	news := newest > t.taken.Seq && newest > t.told
	t.told = max(t.told, newest)
	t.mu.Unlock()
	if news {
		t.signal()
	}
}

func (t *Taker) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Run takes batches until ctx ends.
func (t *Taker) Run(ctx context.Context) error {
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
		err := t.drain(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the caller ended it
		case err == nil && failures > 0:
			t.log.Info("truths are taken again")
			failures = 0
		case err != nil:
			if failures++; failures == 1 {
				t.log.Warn("truths are not taken, trying on", "error", err)
			}
			t.later(ctx, failures)
		}
	}
}

// later wakes Run after a pause.
func (t *Taker) later(ctx context.Context, failures int) {
	pause := min(firstPause<<min(failures-1, 10), maxPause)
	timer := time.NewTimer(rand.N(pause)) //nolint:gosec // spreads load, guards nothing
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		t.signal()
	}
}

// drain takes batches until there is none.
func (t *Taker) drain(ctx context.Context) error {
	for {
		t.mu.Lock()
		taken := t.taken
		t.mu.Unlock()
		b, err := t.source.Next(ctx, taken.wire())
		if err != nil || b == nil {
			return err
		}
		if b.GetSeq() <= taken.Seq {
			return fmt.Errorf("control plane sent batch %d of truths after batch %d", b.GetSeq(), taken.Seq)
		}
		if err := t.take(ctx, b); err != nil {
			return err
		}
	}
}

// take joins a batch and writes it down as taken, in this order.
func (t *Taker) take(ctx context.Context, b *protocol.TruthBatch) error {
	if t.joined.Seq != b.GetSeq() {
		joined, err := t.join(ctx, b)
		if err != nil {
			return err
		}
		t.joined = joined // should writing fail, the matches are not reported as repeated
	}
	if err := t.write(t.joined); err != nil {
		return err
	}
	if n := t.joined.Unmatched; n > 0 {
		if err := t.joiner.CountUnmatched(b.GetModel(), n); err != nil {
			return err
		}
	}
	t.log.Info("truths taken", "upload", b.GetUpload(), "model", b.GetModel(), "matched", t.joined.Matched,
		"unmatched", t.joined.Unmatched, "repeated", t.joined.Repeated, "refused", t.joined.Refused)
	return t.joiner.Snapshot()
}

func (t *Taker) join(ctx context.Context, b *protocol.TruthBatch) (out result, err error) {
	out.Seq = b.GetSeq()
	for _, truth := range b.GetTruths() {
		joined, err := t.joiner.Truth(ctx, b.GetModel(), truth.GetId(), truth.GetLabel())
		switch {
		case errors.Is(err, observe.ErrUnknownModel), errors.Is(err, observe.ErrLabel):
			out.Refused++
		case err != nil:
			return out, fmt.Errorf("join truth: %w", err)
		case joined == observe.Matched:
			out.Matched++
		case joined == observe.Repeated:
			out.Repeated++
		default:
			out.Unmatched++
		}
	}
	return out, nil
}

// write makes a batch the newest one taken.
func (t *Taker) write(taken result) error {
	data, err := json.Marshal(taken)
	if err != nil {
		return fmt.Errorf("encode taken truths: %w", err)
	}
	if err := t.save(filepath.Join(t.dir, stateFile), data); err != nil {
		return fmt.Errorf("write taken truths: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = taken
	return nil
}
