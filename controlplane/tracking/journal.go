package tracking

import (
	"context"
	"errors"
	"sync"
)

// entry is a record as the journal keeps it.
type entry struct {
	subject string
	raw     []byte
	seq     uint64 // where it is read
}

// journal keeps records in order. Sequences begin with 1 and have no gaps where
// nothing was purged.
type journal interface {
	// append stores entries durably, all or none, right after a sequence.
	append(ctx context.Context, after uint64, entries []entry) error
	// last is the newest sequence, 0 for none.
	last(ctx context.Context) (uint64, error)
	// read calls fn for each entry of a range of sequences, to included.
	read(ctx context.Context, from, to uint64, fn func(entry) error) error
	// history calls fn for each entry of a subject, or of subjectRoot+">", from a
	// sequence on.
	history(ctx context.Context, subject string, from uint64, fn func(entry) error) error
	// purge forgets a subject.
	purge(ctx context.Context, subject string) error
	// incarnation names the journal: one that was made anew has another.
	incarnation(ctx context.Context) (string, error)
}

var (
	// errMoved says that the journal does not end where an append was to go.
	errMoved = errors.New("the journal has grown meanwhile")
	// errEnough ends a history early.
	errEnough = errors.New("enough was read")
)

// memory is a journal that goes with the process.
type memory struct {
	mu      sync.Mutex // guards entries
	entries []entry
}

var _ journal = (*memory)(nil)

func (m *memory) append(_ context.Context, after uint64, entries []entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if uint64(len(m.entries)) != after {
		return errMoved
	}
	for i, e := range entries {
		e.seq = after + uint64(i) + 1
		m.entries = append(m.entries, e)
	}
	return nil
}

func (m *memory) last(context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.entries)), nil
}

func (m *memory) read(ctx context.Context, from, to uint64, fn func(entry) error) error {
	for _, e := range m.since(from) {
		if e.raw == nil {
			continue // purged
		}
		if e.seq > to {
			break
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (m *memory) history(ctx context.Context, subject string, from uint64, fn func(entry) error) error {
	for _, e := range m.since(from) {
		if e.raw == nil || subject != subjectRoot+">" && e.subject != subject {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// since returns what is there from a sequence on.
func (m *memory) since(from uint64) []entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := min(max(from, 1)-1, uint64(len(m.entries)))
	return m.entries[at:len(m.entries):len(m.entries)]
}

func (m *memory) purge(_ context.Context, subject string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := make([]entry, len(m.entries))
	for i, e := range m.entries {
		if e.subject != subject {
			kept[i] = e
		}
	}
	m.entries = kept
	return nil
}

func (m *memory) incarnation(context.Context) (string, error) { return "memory", nil }
