package ingest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
)

// Fold is a state computed from the stream with checkpoints in a bucket. Its
// functions are called by one goroutine.
type Fold struct {
	// Name is for logs and for the keys in Bucket.
	Name string
	// Bucket keeps the records that Dirty returns under their keys, and a marker. It belongs to this fold alone.
	Bucket kvstore.Bucket
	// Load restores what Dirty returned before; called once, before the first Apply, with nothing at the first start.
	Load func(records map[string][]byte) error
	// Apply folds one message. After a crash messages come again: a record that includes seq must skip it.
	Apply func(seq uint64, a *protocol.Accepted)
	// Dirty returns the records changed since the last call; an empty value deletes.
	Dirty func() map[string][]byte
	// Every is how often the fold is written down, DefaultCheckpoint if 0.
	Every time.Duration
	// Ready is called once when the fold has all that was stored when it began; may be nil.
	Ready func()
	// Written is called when all that Dirty has returned so far is durable: no
	// message that was folded before its last call comes again. May be nil.
	Written func()
	// Late lets a fold without a checkpoint begin with the oldest message that the
	// stream still holds: what it says of the time before is nothing, not wrong.
	Late bool
}

// marker says up to where a fold's records are complete, and of which stream.
type marker struct {
	Incarnation time.Time `json:"incarnation"` // when the stream was made
	Seq         uint64    `json:"seq"`         // last message included
	Sum         []byte    `json:"sum"`         // SHA-256 of that message
}

const (
	markerKey    = "marker"
	recordPrefix = "r"
	flushTimeout = 30 * time.Second
)

// Fold runs f until ctx ends, then writes it down. ErrGap and ErrIncarnation
// mean that the fold cannot be continued from its checkpoint.
func (i *Ingest) Fold(ctx context.Context, f Fold) error {
	r := &folding{ingest: i, fold: f}
	if err := r.load(ctx); err != nil {
		return fmt.Errorf("fold %s: %w", f.Name, err)
	}
	i.folds.set(f.Name, r.mark.Seq)
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("fold %s: %w", f.Name, err)
	}
	return nil
}

// folding is one run of a fold.
type folding struct {
	ingest *Ingest
	fold   Fold
	mark   marker
	raw    []byte // the message at mark.Seq, until its sum is needed
	target uint64 // what the stream held when the run began
	ready  bool
}

// load restores the checkpoint and makes sure that it belongs to this stream.
func (r *folding) load(ctx context.Context) error {
	info, err := r.ingest.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at the uplink stream: %w", err)
	}
	r.target = info.State.LastSeq
	mark, found, err := readMarker(ctx, r.fold.Bucket)
	if err != nil {
		return err
	}
	if !found {
		mark.Incarnation = info.Created
	}
	if !found && r.fold.Late && info.State.FirstSeq > 1 {
		mark.Seq = info.State.FirstSeq - 1
	}
	r.mark = mark
	if err := r.ingest.continues(ctx, r.mark); err != nil {
		return err
	}
	records := map[string][]byte{}
	if r.mark.Seq > 0 {
		if records, err = r.records(ctx); err != nil {
			return err
		}
	}
	return r.fold.Load(records)
}

func (r *folding) records(ctx context.Context) (map[string][]byte, error) {
	entries, err := r.fold.Bucket.List(ctx, recordPrefix)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	records := make(map[string][]byte, len(entries))
	for _, e := range entries {
		records[strings.TrimPrefix(e.Key, recordPrefix+".")] = e.Value
	}
	return records, nil
}

// continues checks a checkpoint against the stream: the same incarnation, the
// same message at the checkpoint if it is still there, and nothing missing after it.
func (i *Ingest) continues(ctx context.Context, m marker) error {
	info, err := i.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at the uplink stream: %w", err)
	}
	state := info.State
	switch {
	case !info.Created.Equal(m.Incarnation), m.Seq > state.LastSeq:
		return fmt.Errorf("%w (checkpoint %d, stream ends at %d)", ErrIncarnation, m.Seq, state.LastSeq)
	case state.LastSeq > 0 && state.FirstSeq > m.Seq+1:
		return fmt.Errorf("%w (checkpoint %d, stream begins at %d)", ErrGap, m.Seq, state.FirstSeq)
	case m.Seq == 0 || m.Seq < state.FirstSeq || m.Sum == nil: // Repair's has no sum
		return nil
	}
	msg, err := i.stream.GetMsg(ctx, m.Seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("%w (message %d at the checkpoint cannot be read)", ErrGap, m.Seq)
	}
	if err != nil {
		return fmt.Errorf("read message %d at the checkpoint: %w", m.Seq, err)
	}
	if sum := sha256.Sum256(msg.Data); !bytes.Equal(sum[:], m.Sum) {
		return fmt.Errorf("%w (message %d is another one)", ErrIncarnation, m.Seq)
	}
	return nil
}

// followed is one message on its way to the fold.
type followed struct {
	seq uint64
	raw []byte
	a   *protocol.Accepted
}

func (r *folding) run(ctx context.Context) error {
	// Not a child of ctx: the end of ctx is for loop to see, not an error of follow.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	messages, ended := make(chan followed, 256), make(chan error, 1)
	go func() {
		ended <- r.ingest.follow(inner, r.mark.Seq+1, func(m followed) error {
			select {
			case messages <- m:
				return nil
			case <-inner.Done():
				return inner.Err()
			}
		})
	}()
	writes, cancelWrites := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelWrites()
	w := &writing{ctx: writes, bucket: r.fold.Bucket, unwritten: map[string][]byte{}, done: make(chan error, 1)}
	err := r.loop(ctx, messages, ended, w)
	stop()
	if err == nil {
		<-ended //nolint:errcheck // ended because it was told to
	}
	late := time.AfterFunc(flushTimeout, cancelWrites)
	defer late.Stop()
	return errors.Join(err, r.finish(w))
}

func (r *folding) loop(ctx context.Context, messages <-chan followed, ended <-chan error, w *writing) error {
	every := cmp.Or(r.fold.Every, DefaultCheckpoint)
	timer := time.NewTimer(every)
	defer timer.Stop()
	r.announce()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return cmp.Or(err, errFollowEnded)
		case m := <-messages:
			r.fold.Apply(m.seq, m.a)
			r.mark.Seq, r.raw = m.seq, m.raw
			r.ingest.folds.set(r.fold.Name, m.seq)
			r.announce()
		case <-timer.C:
			if !r.begin(w) {
				timer.Reset(every)
			}
		case err := <-w.done:
			timer.Reset(w.rest(every))
			r.ended(w, err)
		}
	}
}

// ended takes in how writing went.
func (r *folding) ended(w *writing, err error) {
	w.ended(err)
	switch {
	case err != nil:
		r.ingest.log.Warn("fold could not be written down, trying again", "fold", r.fold.Name, "error", err)
	case r.fold.Written != nil:
		r.fold.Written()
	}
}

// announce tells once that the fold has caught up.
func (r *folding) announce() {
	if r.ready || r.mark.Seq < r.target {
		return
	}
	r.ready = true
	if r.fold.Ready != nil {
		r.fold.Ready()
	}
}

// begin starts to write down what has changed, and says whether anything has.
// The fold goes on meanwhile: a large fleet takes seconds to be written.
func (r *folding) begin(w *writing) bool {
	if r.raw != nil {
		maps.Copy(w.unwritten, r.fold.Dirty())
		sum := sha256.Sum256(r.raw)
		r.mark.Sum, r.raw = sum[:], nil
	} else if !w.failed {
		return false
	}
	w.begin(r.mark)
	return true
}

// finish waits for what is being written and writes the rest.
func (r *folding) finish(w *writing) error {
	if w.busy {
		w.ended(<-w.done)
	}
	if !r.begin(w) {
		return nil
	}
	return <-w.done
}
