package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Read returns the records of a chain, oldest first, or ErrNotFound.
func (l *Ledger) Read(ctx context.Context, chain string) ([]Record, error) {
	head, err := l.chainHead(ctx, chain)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withinTime(ctx, chainTimeout)
	defer cancel()
	var out []Record
	err = l.scan(ctx, span{filter: subjectPrefix + chain, from: 1, to: head.Seq}, func(r Record) error {
		if r.Index != uint64(len(out))+1 {
			return fmt.Errorf("record with index %d cannot be read: %w", len(out)+1, ErrDamaged)
		}
		out = append(out, r)
		return l.fillBody(ctx, &out[len(out)-1])
	})
	if err != nil {
		return nil, fmt.Errorf("read ledger chain %s: %w", chain, err)
	}
	return out, nil
}

// Head returns the newest record of a chain, or ErrNotFound.
func (l *Ledger) Head(ctx context.Context, chain string) (Record, error) {
	rec, err := l.chainHead(ctx, chain)
	if err != nil {
		return Record{}, err
	}
	ctx, cancel := withinTime(ctx, chainTimeout)
	defer cancel()
	return rec, l.fillBody(ctx, &rec)
}

// chainHead is Head without a body that is kept as a blob.
func (l *Ledger) chainHead(ctx context.Context, chain string) (Record, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	if err := checkChain(chain); err != nil {
		return Record{}, err
	}
	rec, err := l.fetchHead(ctx, chain)
	if err != nil {
		return Record{}, err
	}
	if rec.Seq == 0 {
		return Record{}, fmt.Errorf("%w: %s", ErrNotFound, chain)
	}
	return rec, nil
}

// Chains returns the names of all chains at or below a prefix of whole tokens,
// sorted; "" is all.
func (l *Ledger) Chains(ctx context.Context, prefix string) ([]string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	info, err := l.stream.Info(ctx, jetstream.WithSubjectFilter(subjectPrefix+">"))
	if err != nil {
		return nil, fmt.Errorf("list ledger chains: %w", err)
	}
	var out []string
	for subject := range info.State.Subjects {
		chain := strings.TrimPrefix(subject, subjectPrefix)
		if prefix == "" || chain == prefix || strings.HasPrefix(chain, prefix+".") {
			out = append(out, chain)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Last returns the sequence of the newest record of the whole ledger, 0 for none.
func (l *Ledger) Last(ctx context.Context) (uint64, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	info, err := l.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("read state of the ledger: %w", err)
	}
	return info.State.LastSeq, nil
}

// Replay calls fn for every record from a sequence (0 and 1 are the first) to
// the newest one at the time of the call, and returns the sequence to go on
// from. It ends early with fn's error.
func (l *Ledger) Replay(ctx context.Context, from uint64, fn func(Record) error) (next uint64, err error) {
	from = max(from, 1)
	last, err := l.reach(ctx, from)
	if err != nil || last < from {
		return from, err
	}
	err = l.scan(ctx, span{from: from, to: last, whole: true}, func(r Record) error {
		return l.deliver(ctx, r, fn)
	})
	if err != nil {
		return from, fmt.Errorf("replay ledger: %w", err)
	}
	return last + 1, nil
}

// Follow calls fn for every record from a sequence (0 and 1 are the first) and
// for every new one, in order and none twice, until ctx ends (nil), fn returns
// an error (that error) or the broker fails.
func (l *Ledger) Follow(ctx context.Context, from uint64, fn func(Record) error) error {
	from = max(from, 1)
	if _, err := l.reach(ctx, from); err != nil {
		return err
	}
	err := l.scan(ctx, span{from: from, whole: true}, func(r Record) error {
		return l.deliver(ctx, r, fn)
	})
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the caller ended it
	}
	if err != nil {
		return fmt.Errorf("follow ledger: %w", err)
	}
	return nil
}

func (l *Ledger) deliver(ctx context.Context, r Record, fn func(Record) error) error {
	if err := l.fillBody(ctx, &r); err != nil {
		return err
	}
	return fn(r)
}

// Export writes the whole ledger as JSON lines, the form that Verify reads, with
// the bodies that are kept as blobs in their records. It anchors first and ends
// with the newest anchor, so that an export without one at its end is known to
// lack its end. Of an empty ledger it writes nothing.
func (l *Ledger) Export(ctx context.Context, w io.Writer) error {
	if err := l.Anchor(ctx); err != nil {
		return fmt.Errorf("anchor ledger before its export: %w", err)
	}
	_, last, err := l.lastAnchor(ctx)
	if err != nil || last == 0 {
		return err
	}
	err = l.scan(ctx, span{from: 1, to: last, whole: true}, func(r Record) error {
		return l.deliver(ctx, r, func(r Record) error { return writeLine(w, &r) })
	})
	if err != nil {
		return fmt.Errorf("export ledger: %w", err)
	}
	return nil
}

// writeLine writes one line of an export. A body that was kept as a blob comes
// last and as it is: it may be large, and another copy of it costs as much again.
func writeLine(w io.Writer, r *Record) error {
	if r.Blob == "" {
		return json.NewEncoder(w).Encode(r)
	}
	rest := *r
	rest.Body = nil
	line, err := json.Marshal(&rest)
	if err != nil {
		return err
	}
	for _, part := range [][]byte{line[:len(line)-1], []byte(`,"body":`), r.Body, []byte("}\n")} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// fillBody fetches a body that is kept as a blob.
func (l *Ledger) fillBody(ctx context.Context, r *Record) error {
	if r.Blob == "" {
		return nil
	}
	if l.opts.Blobs == nil {
		return fmt.Errorf("ledger record %d keeps its body as blob %s: no blob store", r.Seq, r.Blob)
	}
	body, err := l.opts.Blobs.GetBytes(ctx, cmp.Or(r.packed, r.Blob)) // those of earlier servers are not compressed
	if err == nil && r.packed != "" {
		body, err = unpack(body, MaxBlobBody)
	}
	if err != nil {
		return fmt.Errorf("fetch body of ledger record %d: %w", r.Seq, err)
	}
	if sum(body) != r.Blob {
		return fmt.Errorf("body of ledger record %d is not what was recorded: blob %s", r.Seq, r.Blob)
	}
	r.Body = body
	return nil
}

// reach returns the newest sequence, and ErrGap if from is beyond it: a consumer
// asked for such a start would begin elsewhere without an error.
func (l *Ledger) reach(ctx context.Context, from uint64) (last uint64, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	info, err := l.stream.Info(ctx, jetstream.WithDeletedDetails(true))
	if err != nil {
		return 0, fmt.Errorf("read state of the ledger: %w", err)
	}
	if err := whole(info.State); err != nil {
		return 0, err
	}
	if from > info.State.LastSeq+1 {
		return 0, fmt.Errorf("%w: asked for %d, the ledger ends at %d", ErrGap, from, info.State.LastSeq)
	}
	return info.State.LastSeq, nil
}

// span says which records a scan covers.
type span struct {
	filter string // subject; "" is all
	from   uint64
	to     uint64 // 0: go on with new ones
	whole  bool   // no sequence may be missing
}

func (l *Ledger) scan(ctx context.Context, s span, fn func(Record) error) error {
	cfg := jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   s.from,
	}
	if s.filter != "" {
		cfg.FilterSubjects = []string{s.filter}
	}
	consumer, err := l.stream.OrderedConsumer(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open consumer: %w", err)
	}
	it, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("open consumer: %w", err)
	}
	defer it.Stop()
	for next := s.from; s.to == 0 || next <= s.to; {
		rec, err := l.await(ctx, it, s, next)
		if err != nil {
			return err
		}
		if err := fn(rec); err != nil {
			return err
		}
		next = rec.Seq + 1
	}
	return nil
}

func nextRecord(ctx context.Context, it jetstream.MessagesContext) (Record, error) {
	msg, err := it.Next(jetstream.NextContext(ctx))
	if err != nil {
		return Record{}, errors.Join(ctx.Err(), err)
	}
	meta, err := msg.Metadata()
	if err != nil {
		return Record{}, fmt.Errorf("read metadata of a ledger message: %w", err)
	}
	return decode(msg.Data(), meta.Sequence.Stream)
}
