package tracking

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// journal keeps messages in order, each a group of records. Sequences begin with
// 1 and have no gaps.
type journal interface {
	// append stores a message durably right after a sequence, or returns errMoved.
	append(ctx context.Context, after uint64, message []byte) error
	// last is the newest sequence, 0 for none.
	last(ctx context.Context) (uint64, error)
	// read calls fn for each message of a range of sequences, to included.
	// ErrDamaged when one cannot be read.
	read(ctx context.Context, from, to uint64, fn func(seq uint64, message []byte) error) error
	// bytes is how much the messages take.
	bytes(ctx context.Context) (uint64, error)
	// incarnation names the journal: one that was made anew has another.
	incarnation(ctx context.Context) (string, error)
}

var (
	// ErrDamaged says that the journal has lost a record.
	ErrDamaged = errors.New("the journal of tracked runs is damaged: restore the data directory from a backup; what was logged since that backup is lost")

	// errMoved says that the journal does not end where an append was to go.
	errMoved = errors.New("the journal has grown meanwhile")
	// errEnough ends a reading early.
	errEnough = errors.New("enough was read")
)

// memory is a journal that goes with the process.
type memory struct {
	mu       sync.Mutex // guards messages
	messages [][]byte
}

var _ journal = (*memory)(nil)

func (m *memory) append(_ context.Context, after uint64, message []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if uint64(len(m.messages)) != after {
		return errMoved
	}
	m.messages = append(m.messages, message)
	return nil
}

func (m *memory) last(context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.messages)), nil
}

func (m *memory) bytes(context.Context) (n uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, message := range m.messages {
		n += uint64(len(message))
	}
	return n, nil
}

func (m *memory) read(ctx context.Context, from, to uint64, fn func(uint64, []byte) error) error {
	m.mu.Lock()
	messages := m.messages
	m.mu.Unlock()
	for seq := max(from, 1); seq <= to; seq++ {
		if seq > uint64(len(messages)) {
			return fmt.Errorf("message %d: %w", seq, ErrDamaged)
		}
		if err := fn(seq, messages[seq-1]); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (m *memory) incarnation(context.Context) (string, error) { return "memory", nil }
