package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName    = "LEDGER"
	subjectPrefix = "ledger."
	// callTimeout is given to a call whose context has no deadline.
	callTimeout = 15 * time.Second
	// chainTimeout is given to one that reads a chain, with bodies of up to
	// MaxBlobBody.
	chainTimeout = 5 * time.Minute
)

// Options are the optional parts of a ledger.
type Options struct {
	Blobs  Blobs            // nil: bodies over MaxBody are refused
	Now    func() time.Time // nil: time.Now
	Logger *slog.Logger     // nil: none
}

// Ledger appends to and reads the one stream of records.
type Ledger struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	opts   Options
	marks  jetstream.KeyValue
	marked uint64 // what the mark says; Open's, then Run's alone

	mu    sync.Mutex
	heads map[string]Record // guarded by mu: newest known record per chain, without body
}

// Open returns the ledger of the broker behind nc and makes its stream if it is
// not there. It reads all of it: ErrDamaged when a record is lost.
func Open(ctx context.Context, nc *nats.Conn, opts Options) (*Ledger, error) {
	l, err := open(ctx, nc, opts)
	if err != nil {
		return nil, err
	}
	if err := l.check(ctx); err != nil {
		return nil, fmt.Errorf("check ledger: %w", err)
	}
	return l, nil
}

func open(ctx context.Context, nc *nats.Conn, opts Options) (*Ledger, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        streamName,
		Description: "every decision and operator action, hash-chained",
		Subjects:    []string{subjectPrefix + ">"},
		Storage:     jetstream.FileStorage,
		DenyDelete:  true,
		DenyPurge:   true,
		AllowDirect: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open ledger stream %s: %w", streamName, err)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{js: js, stream: stream, opts: opts, heads: map[string]Record{}}
	return l, l.openMark(ctx)
}

// Append adds a record to a chain. expect is the Seq of the chain's newest
// record as the caller knows it: 0 for a new chain, Any to follow whatever is
// there. When it returns, the record is on disk. ErrConflict means that nothing
// was added.
func (l *Ledger) Append(ctx context.Context, chain string, expect uint64, kind, actor string, body any) (Record, error) {
	if err := checkChain(chain); err != nil {
		return Record{}, err
	}
	rec := Record{Chain: chain, Kind: kind, Actor: actor}
	if err := l.setBody(ctx, &rec, body); err != nil {
		return Record{}, fmt.Errorf("append to ledger chain %s: %w", chain, err)
	}
	ctx, cancel := within(ctx) // from here on: a large body takes its time
	defer cancel()
	for {
		added, err := l.appendOnce(ctx, rec, expect)
		if expect == Any && errors.Is(err, ErrConflict) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return Record{}, fmt.Errorf("append to ledger chain %s: %w", chain, err)
		}
		return added, nil
	}
}

func (l *Ledger) setBody(ctx context.Context, rec *Record, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %s: %w", rec.Kind, err)
	}
	rec.Body = raw
	most := MaxBody
	if l.opts.Blobs != nil {
		most = MaxBlobBody
	}
	switch {
	case len(raw) <= MaxBody:
		return nil
	case len(raw) > most:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(raw), most)
	}
	stored, err := pack(raw)
	if err != nil {
		return err
	}
	if len(stored) > MaxPacked {
		return fmt.Errorf("%w: %d bytes, compressed %d, at most %d", ErrTooLarge, len(raw), len(stored), MaxPacked)
	}
	rec.Blob, rec.packed = sum(raw), sum(stored)
	ctx, cancel := withinTime(ctx, chainTimeout)
	defer cancel()
	if err := l.opts.Blobs.PutBytes(ctx, stored); err != nil {
		return fmt.Errorf("store body of %s: %w", rec.Kind, err)
	}
	return nil
}

// appendOnce links rec to the chain's head and publishes it on condition that
// the head is still that.
func (l *Ledger) appendOnce(ctx context.Context, rec Record, expect uint64) (Record, error) {
	head, err := l.head(ctx, rec.Chain)
	if err != nil {
		return Record{}, err
	}
	if expect != Any && expect != head.Seq {
		// The head in memory may be behind another writer's: look once.
		if head, err = l.fetchHead(ctx, rec.Chain); err != nil {
			return Record{}, err
		}
		if expect != head.Seq {
			return Record{}, fmt.Errorf("%w: newest is %d, expected %d", ErrConflict, head.Seq, expect)
		}
	}
	rec.Index, rec.Prev = head.Index+1, head.Hash
	rec.At = l.opts.Now().UTC().Truncate(time.Millisecond)
	rec.Hash = hashOf(&rec)
	seq, err := l.publish(ctx, &rec, head.Seq)
	if err != nil {
		l.forget(rec.Chain)
		return Record{}, err
	}
	rec.Seq = seq
	l.remember(rec)
	return rec, nil
}

// publish stores rec after the chain's record with sequence prev. An answer may
// be lost on the way: then the chain itself tells whether rec is in it.
func (l *Ledger) publish(ctx context.Context, rec *Record, prev uint64) (uint64, error) {
	data, err := encode(rec)
	if err != nil {
		return 0, err
	}
	ack, err := l.js.Publish(ctx, subjectPrefix+rec.Chain, data,
		jetstream.WithExpectLastSequencePerSubject(prev), jetstream.WithExpectStream(streamName))
	if err == nil {
		return ack.Sequence, nil
	}
	if isConflict(err) {
		return 0, ErrConflict
	}
	again, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if last, lookErr := l.fetchHead(again, rec.Chain); lookErr == nil && last.Hash == rec.Hash {
		return last.Seq, nil
	}
	return 0, err
}

// stored is a record in the stream. Packed is where its body is kept, not part of
// what it says: an export does not have it.
type stored struct {
	Record

	Packed string `json:"packed,omitempty"`
}

// encode writes rec as it is stored: without Seq, which the stream gives, and
// without a body that is kept as a blob.
func encode(rec *Record) ([]byte, error) {
	stored := stored{Record: *rec, Packed: rec.packed}
	stored.Seq = 0
	if stored.Blob != "" {
		stored.Body = nil
	}
	data, err := json.Marshal(&stored)
	if err != nil {
		return nil, fmt.Errorf("encode ledger record: %w", err)
	}
	return data, nil
}

// decode reads a stored record.
func decode(data []byte, seq uint64) (Record, error) {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return Record{}, fmt.Errorf("read ledger record %d: %w", seq, err)
	}
	rec := s.Record
	rec.Seq, rec.packed = seq, s.Packed
	return rec, rec.compact()
}

// compact takes white space out of the body: it has no meaning.
func (r *Record) compact() error {
	if len(r.Body) == 0 {
		return nil
	}
	var body bytes.Buffer
	body.Grow(len(r.Body))
	if err := json.Compact(&body, r.Body); err != nil {
		return fmt.Errorf("read ledger record %d: %w", r.Seq, err)
	}
	r.Body = body.Bytes()
	return nil
}

// head returns the newest record of a chain, without body; the zero record when
// there is none.
func (l *Ledger) head(ctx context.Context, chain string) (Record, error) {
	l.mu.Lock()
	head, ok := l.heads[chain]
	l.mu.Unlock()
	if ok {
		return head, nil
	}
	return l.fetchHead(ctx, chain)
}

func (l *Ledger) fetchHead(ctx context.Context, chain string) (Record, error) {
	msg, err := l.stream.GetLastMsgForSubject(ctx, subjectPrefix+chain)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("read head of ledger chain %s: %w", chain, err)
	}
	rec, err := decode(msg.Data, msg.Sequence)
	if err == nil {
		l.remember(rec)
	}
	return rec, err
}

func (l *Ledger) remember(rec Record) {
	rec.Body = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	if rec.Seq > l.heads[rec.Chain].Seq {
		l.heads[rec.Chain] = rec
	}
}

func (l *Ledger) forget(chain string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.heads, chain)
}

func isConflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// within gives ctx a deadline if it has none.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return withinTime(ctx, callTimeout)
}

func withinTime(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}
