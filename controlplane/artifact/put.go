package artifact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Put stores what r gives under the SHA-256 it turns out to have, and tells
// that and how many bytes it was. Nothing is held in memory, and nothing is
// left behind when r breaks off.
func (s *Store) Put(ctx context.Context, r io.Reader) (release.Digest, int64, error) {
	f, err := os.CreateTemp(s.uploads(), tempPrefix+"*")
	if err != nil {
		return release.Digest{}, 0, full(fmt.Errorf("store blob: %w", err))
	}
	defer os.Remove(f.Name()) // gone already when all went well
	w := &meter{store: s, file: f, hash: sha256.New()}
	defer w.release()
	_, err = io.Copy(w, r)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return release.Digest{}, 0, full(fmt.Errorf("store blob: %w", err))
	}
	d := release.Digest(w.hash.Sum(nil))
	if s.Has(d) {
		return d, w.size, nil
	}
	return d, w.size, s.adopt(ctx, d, f.Name(), w.size)
}

// meter writes a file of a size that nobody announced: it reserves the room as
// it goes, so that many of them together do not pass the quota either.
type meter struct {
	store *Store
	file  *os.File
	hash  hash.Hash
	size  int64 // written and reserved
}

func (m *meter) Write(p []byte) (int, error) {
	if err := m.reserve(int64(len(p))); err != nil {
		return 0, err
	}
	m.hash.Write(p)
	return m.file.Write(p)
}

func (m *meter) reserve(n int64) error {
	s := m.store
	if m.size+n > s.cfg.MaxBlob {
		return fmt.Errorf("%w: over %d bytes", ErrTooLarge, s.cfg.MaxBlob)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total+n > s.cfg.MaxTotal {
		return fmt.Errorf("%w: %d of %d bytes are used", ErrFull, s.total, s.cfg.MaxTotal)
	}
	s.total += n
	m.size += n
	return nil
}

// release gives the reserved room back: a blob counts by itself.
func (m *meter) release() {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.store.total -= m.size
}

// Digests are all blobs there are, in no order.
func (s *Store) Digests() []release.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]release.Digest, 0, len(s.sizes))
	for d := range s.sizes {
		out = append(out, d)
	}
	return out
}
