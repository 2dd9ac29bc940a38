package tracking

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// maxGroup and maxGroupBytes bound what is stored at once. The broker takes up
	// to 1000 messages as one.
	maxGroup      = 256
	maxGroupBytes = 4 << 20
	// commitTimeout bounds one append: a busy disk may take seconds.
	commitTimeout = 15 * time.Second
)

// commit is a record on its way into the journal.
type commit struct {
	record  *record
	subject string
	raw     []byte
	done    chan error
}

// store appends a record and takes it into the index. The record is on disk and
// seen by readers when store returns nil. The caller holds the name of what it
// changes.
func (s *Store) store(ctx context.Context, r *record) error {
	raw, err := encode(r)
	if err != nil {
		return err
	}
	c := &commit{record: r, subject: r.subject(), raw: raw, done: make(chan error, 1)}
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
	err := s.appendGroup(ctx, group)
	if errors.Is(err, errMoved) { // what was thought lost had been stored after all
		if err = s.catchUp(ctx); err == nil {
			err = s.appendGroup(ctx, group)
		}
	}
	if err != nil {
		err = s.settle(ctx, group, err)
	}
	for _, c := range group {
		c.done <- err
	}
}

// appendGroup stores a group and takes it into the index. The committer is the
// only writer of the index, so it reads it without the lock.
func (s *Store) appendGroup(ctx context.Context, group []*commit) error {
	base := s.x.seq
	ends := map[string]uint64{}
	entries := make([]entry, len(group))
	for i, c := range group {
		prev, ok := ends[c.subject]
		if !ok {
			prev = s.x.end(c.subject)
		}
		follow(c.raw, prev)
		ends[c.subject] = base + uint64(i) + 1
		entries[i] = entry{subject: c.subject, raw: c.raw}
	}
	if err := s.journal.append(ctx, base, entries); err != nil {
		return fmt.Errorf("append to the journal of runs: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range group {
		_, prev, err := header(c.raw)
		if err == nil {
			err = s.x.apply(base+uint64(i)+1, c.record, prev)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle finds out what became of a group whose append failed: an answer may be
// lost on the way while the group is stored.
func (s *Store) settle(ctx context.Context, group []*commit, failed error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	first := s.x.seq + 1
	var found []byte
	err := s.journal.read(ctx, first, first, func(e entry) error {
		found = e.raw
		return nil
	})
	if err != nil || !bytes.Equal(found, group[0].raw) {
		return failed
	}
	return s.catchUp(ctx)
}

// catchUp takes in what the journal has beyond the index.
func (s *Store) catchUp(ctx context.Context) error {
	last, err := s.journal.last(ctx)
	if err != nil {
		return fmt.Errorf("look at the journal of runs: %w", err)
	}
	if last <= s.x.seq {
		return nil
	}
	err = s.journal.read(ctx, s.x.seq+1, last, func(e entry) error {
		r, prev, err := decode(e.raw)
		if err != nil {
			return fmt.Errorf("record %d: %w", e.seq, err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.x.apply(e.seq, r, prev)
	})
	if err != nil {
		return fmt.Errorf("read the journal of runs: %w", err)
	}
	return s.x.whole()
}
