package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrDamaged says that the store has lost a record.
var ErrDamaged = errors.New("the ledger is damaged: restore the data directory from a backup; what was decided since that backup is lost")

const (
	// stall is how long a scan waits for the next record before it looks whether
	// the broker can read that one at all.
	stall = 3 * time.Second
	// markEvery is how often Run writes down how far the ledger goes.
	markEvery = 5 * time.Second

	markBucket = "ledger-mark"
	markKey    = "newest"
)

// check reads the whole ledger, so that damage is found when the server starts
// and not when a decision is looked for.
func (l *Ledger) check(ctx context.Context) error {
	last, err := l.reach(ctx, 1)
	if err != nil {
		return err
	}
	if last < l.marked {
		return fmt.Errorf("records %d to %d are missing: %w", last+1, l.marked, ErrDamaged)
	}
	if last == 0 {
		return nil
	}
	return l.scan(ctx, span{from: 1, to: last, whole: true}, func(Record) error { return nil })
}

// whole returns an error that names the first record that the stream knows to
// be missing: none is ever deleted.
func whole(s jetstream.StreamState) error {
	if s.LastSeq == 0 || s.Msgs == s.LastSeq {
		return nil
	}
	missing := uint64(1)
	if s.FirstSeq == 1 && len(s.Deleted) > 0 {
		missing = s.Deleted[0]
	}
	return fmt.Errorf("%d of %d records are missing, the first is record %d: %w", s.LastSeq-s.Msgs, s.LastSeq, missing, ErrDamaged)
}

// await returns the record that follows. The broker passes over one that it
// cannot read without a word, so after a while without any await looks for it.
func (l *Ledger) await(ctx context.Context, it jetstream.MessagesContext, s span, next uint64) (Record, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, stall)
		rec, err := nextRecord(wait, it)
		cancel()
		if err == nil && s.whole && rec.Seq != next {
			return Record{}, damaged(next)
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return rec, err
		}
		if err := l.look(ctx, s, next); err != nil {
			return Record{}, err
		}
	}
}

// look returns ErrDamaged when the broker holds what a scan waits for and
// cannot read it.
func (l *Ledger) look(whole context.Context, s span, next uint64) error {
	ctx, cancel := within(whole)
	defer cancel()
	info, err := l.stream.Info(ctx)
	if errors.Is(err, context.DeadlineExceeded) && whole.Err() == nil {
		return nil // the broker has too much to do: that it is slow is no reason to give up
	}
	if err != nil {
		return fmt.Errorf("read state of the ledger: %w", err)
	}
	if !s.whole {
		next = s.to // what lies between may be of other chains
	}
	if next > info.State.LastSeq {
		return nil
	}
	if _, err := l.stream.GetMsg(ctx, next); errors.Is(err, jetstream.ErrMsgNotFound) {
		return damaged(next)
	}
	return nil // it is only slow
}

func damaged(seq uint64) error {
	return fmt.Errorf("record %d cannot be read: %w", seq, ErrDamaged)
}

// openMark reads how far the ledger went when that was written down last. A
// mark that is itself lost proves nothing.
func (l *Ledger) openMark(ctx context.Context) (err error) {
	l.marks, err = l.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: markBucket, Description: "newest record of the ledger", History: 1, Storage: jetstream.FileStorage,
	})
	if err != nil {
		return fmt.Errorf("open mark of the ledger: %w", err)
	}
	entry, err := l.marks.Get(ctx, markKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read mark of the ledger: %w", err)
	}
	l.marked, err = strconv.ParseUint(string(entry.Value()), 10, 64)
	if err != nil {
		return fmt.Errorf("read mark of the ledger: %w", err)
	}
	return nil
}

// mark writes down how far the ledger goes, for a later start to see that its
// end is missing: the broker takes a shorter file for a shorter stream.
func (l *Ledger) mark(ctx context.Context) error {
	last, err := l.Last(ctx)
	if err != nil || last == l.marked {
		return err
	}
	if _, err := l.marks.PutString(ctx, markKey, strconv.FormatUint(last, 10)); err != nil {
		return fmt.Errorf("mark end of the ledger: %w", err)
	}
	l.marked = last
	return nil
}
