package tracking

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// commitTimeout bounds one append: a busy disk may take seconds.
const commitTimeout = 15 * time.Second

// commit is a record on its way into the journal.
type commit struct {
	record *record
	raw    []byte
	done   chan error
}

// store appends a record and takes it into the index. The record is on disk and
// seen by readers when store returns nil. The caller holds the name of what it
// changes.
func (s *Store) store(ctx context.Context, r *record) error {
	raw, err := encode(r)
	if err != nil {
		return err
	}
	if err := s.room.admit(len(raw)); err != nil {
		return err
	}
	c := &commit{record: r, raw: raw, done: make(chan error, 1)}
	select {
	case s.commits <- c:
	case <-s.quit:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	// From here on it is stored or not whatever the caller does: wait for it, so
	// that the name is held until it is known.
	return <-c.done
}

// commitAll stores what comes in groups: whoever comes while the disk is at
// work goes together with the next.
func (s *Store) commitAll() {
	for {
		select {
		case c := <-s.commits:
			s.commitGroup(s.gather(c))
		case <-s.quit:
			return
		}
	}
}

// gather is c with those that wait behind it.
func (s *Store) gather(c *commit) []*commit {
	group, size := []*commit{c}, len(c.raw)
	for len(group) < maxGroup && size < maxGroupBytes {
		select {
		case c := <-s.commits:
			group, size = append(group, c), size+len(c.raw)
		default:
			return group
		}
	}
	return group
}

func (s *Store) commitGroup(group []*commit) {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	message := []byte{formatVersion}
	for _, c := range group {
		message = append(message, c.raw...)
	}
	err := s.journal.append(ctx, s.x.seq, message)
	if errors.Is(err, errMoved) { // what was thought lost had been stored after all
		if err = s.catchUp(ctx); err == nil {
			err = s.journal.append(ctx, s.x.seq, message)
		}
	}
	if err == nil {
		s.room.add(len(message))
		s.takeIn(group)
	} else {
		err = s.settle(ctx, message, err)
	}
	for _, c := range group {
		c.done <- err
	}
}

// takeIn lets the index include a group that was stored. The committer is the
// only one that changes the index, so it alone may read it without the lock.
func (s *Store) takeIn(group []*commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.x.seq++
	for nth, c := range group {
		s.x.apply(momentOf(s.x.seq, nth), c.record)
	}
}

// settle finds out what became of a message whose append failed: an answer may be
// lost on the way while the message is stored.
func (s *Store) settle(ctx context.Context, message []byte, failed error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	failed = fmt.Errorf("append to the journal of runs: %w", failed)
	next := s.x.seq + 1
	if last, err := s.journal.last(ctx); err != nil || last < next {
		return failed
	}
	err := s.journal.read(ctx, next, next, func(_ uint64, found []byte) error {
		if !bytes.Equal(found, message) {
			return failed
		}
		return nil
	})
	return cmp.Or(err, s.catchUp(ctx))
}

// catchUp takes in what the journal has beyond the index.
func (s *Store) catchUp(ctx context.Context) error {
	last, err := s.journal.last(ctx)
	if err == nil {
		err = s.journal.read(ctx, s.x.seq+1, last, s.replay)
	}
	if err != nil {
		return fmt.Errorf("read the journal of runs: %w", err)
	}
	return nil
}

// replay takes a message in.
func (s *Store) replay(seq uint64, message []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := decode(message, "", func(nth int, r *record) error {
		s.x.apply(momentOf(seq, nth), r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("message %d: %w", seq, err)
	}
	s.x.seq = seq
	s.room.add(len(message))
	return nil
}
