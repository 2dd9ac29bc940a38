package kvstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a Bucket in the process.
type Memory struct {
	mu       sync.Mutex
	revision uint64           // guarded by mu
	entries  map[string]Entry // guarded by mu
	changed  chan struct{}    // guarded by mu; closed and replaced at every write
	log      []Change         // guarded by mu; every write since the start
}

var _ Bucket = (*Memory)(nil)

// NewMemory returns an empty bucket that forgets everything with the process.
func NewMemory() *Memory {
	return &Memory{entries: map[string]Entry{}, changed: make(chan struct{})}
}

// Get implements Reader.
func (m *Memory) Get(ctx context.Context, key string) (Entry, error) {
	if err := firstError(checkKey(key), ctx.Err()); err != nil {
		return Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return Entry{}, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return clone(e), nil
}

// List implements Reader.
func (m *Memory) List(ctx context.Context, prefix string) ([]Entry, error) {
	if err := firstError(checkPrefix(prefix), ctx.Err()); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list(prefix), nil
}

func (m *Memory) list(prefix string) []Entry {
	var out []Entry
	for key, e := range m.entries {
		if below(key, prefix) {
			out = append(out, clone(e))
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// Watch implements Reader.
func (m *Memory) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	if err := firstError(checkPrefix(prefix), ctx.Err()); err != nil {
		return nil, err
	}
	m.mu.Lock()
	now := m.list(prefix)
	next := len(m.log)
	m.mu.Unlock()
	out := make(chan Change)
	go func() {
		defer close(out)
		for _, e := range now {
			if !send(ctx, out, Change{Entry: e}) {
				return
			}
		}
		if send(ctx, out, Change{Synced: true}) {
			m.follow(ctx, out, prefix, next)
		}
	}()
	return out, nil
}

func (m *Memory) follow(ctx context.Context, out chan<- Change, prefix string, next int) {
	for {
		m.mu.Lock()
		fresh := m.log[next:]
		next = len(m.log)
		changed := m.changed
		m.mu.Unlock()
		for _, c := range fresh {
			if below(c.Key, prefix) && !send(ctx, out, Change{Entry: clone(c.Entry), Deleted: c.Deleted}) {
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Put implements Writer.
func (m *Memory) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return m.write(ctx, key, value, func(uint64) bool { return true })
}

// Create implements Writer.
func (m *Memory) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return m.CompareAndSet(ctx, key, value, 0)
}

// CompareAndSet implements Writer.
func (m *Memory) CompareAndSet(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return m.write(ctx, key, value, func(has uint64) bool { return has == revision })
}

func (m *Memory) write(ctx context.Context, key string, value []byte, fits func(has uint64) bool) (uint64, error) {
	if err := firstError(checkWrite(key, value), ctx.Err()); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !fits(m.entries[key].Revision) {
		return 0, fmt.Errorf("set %s: %w", key, ErrConflict)
	}
	m.revision++
	e := Entry{Key: key, Value: slices.Clone(value), Revision: m.revision, At: time.Now().UTC()}
	m.entries[key] = e
	m.publish(Change{Entry: e})
	return m.revision, nil
}

// Delete implements Writer.
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := firstError(checkKey(key), ctx.Err()); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision++
	delete(m.entries, key)
	m.publish(Change{Entry: Entry{Key: key, Revision: m.revision, At: time.Now().UTC()}, Deleted: true})
	return nil
}

func (m *Memory) size() (bytes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, e := range m.entries {
		bytes += uint64(len(key) + len(e.Value))
	}
	return bytes
}

// publish wakes the watchers; mu is held.
func (m *Memory) publish(c Change) {
	m.log = append(m.log, c)
	close(m.changed)
	m.changed = make(chan struct{})
}

func below(key, prefix string) bool {
	return prefix == "" || strings.HasPrefix(key, prefix+".")
}

func clone(e Entry) Entry {
	e.Value = slices.Clone(e.Value)
	return e
}

func send(ctx context.Context, out chan<- Change, c Change) bool {
	select {
	case out <- c:
		return true
	case <-ctx.Done():
		return false
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
