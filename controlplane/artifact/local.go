package artifact

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Local keeps blobs as files of this machine alone. It is for what is large,
// comes often and may be deleted, such as the artifacts of training runs: the
// object store would keep what was written in the last ten seconds in memory,
// all of 2 GB (measured), and every byte twice on disk. Its quota is its own, so
// that filling it leaves room for releases and the ledger.
type Local struct {
	cfg Config

	mu    sync.Mutex
	sizes map[release.Digest]int64 // guarded by mu
	total int64                    // guarded by mu: sum of sizes and of what is being written
}

// OpenLocal returns the blobs in cfg.Dir, and removes what interrupted uploads
// left there.
func OpenLocal(cfg Config) (*Local, error) {
	cfg.MaxBlob = cmp.Or(cfg.MaxBlob, DefaultMaxBlob)
	cfg.MaxTotal = cmp.Or(cfg.MaxTotal, DefaultMaxTotal)
	l := &Local{cfg: cfg, sizes: map[release.Digest]int64{}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open local blobs: %w", err)
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("list local blobs: %w", err)
	}
	for _, e := range entries {
		if err := l.take(e); err != nil {
			return nil, fmt.Errorf("list local blobs: %w", err)
		}
	}
	return l, nil
}

// take counts a file that is a blob, and removes one that did not become one.
func (l *Local) take(e os.DirEntry) error {
	if strings.HasPrefix(e.Name(), tempPrefix) {
		return os.Remove(filepath.Join(l.cfg.Dir, e.Name()))
	}
	d, err := release.ParseDigest(e.Name())
	if err != nil {
		return nil //nolint:nilerr // somebody else's file
	}
	info, err := e.Info()
	if err != nil {
		return err
	}
	l.sizes[d] = info.Size()
	l.total += info.Size()
	return nil
}

func (l *Local) path(d release.Digest) string { return filepath.Join(l.cfg.Dir, d.String()) }

// Has says whether a blob is there.
func (l *Local) Has(d release.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.sizes[d]
	return ok
}

// Digests are all blobs there are, in no order.
func (l *Local) Digests() []release.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]release.Digest, 0, len(l.sizes))
	for d := range l.sizes {
		out = append(out, d)
	}
	return out
}

// Open returns a blob's content and its size in bytes. The caller closes it.
func (l *Local) Open(_ context.Context, d release.Digest) (io.ReadSeekCloser, int64, error) {
	l.mu.Lock()
	size, ok := l.sizes[d]
	l.mu.Unlock()
	if !ok {
		return nil, 0, fmt.Errorf("%w: %s", ErrNotFound, d)
	}
	f, err := os.Open(l.path(d))
	if err != nil {
		return nil, 0, fmt.Errorf("open blob %s: %w", d.Short(), err)
	}
	return f, size, nil
}

// Put stores what r gives under the SHA-256 it turns out to have, and tells
// that and how many bytes it was. Nothing is held in memory, and nothing is
// left behind when r breaks off.
func (l *Local) Put(_ context.Context, r io.Reader) (release.Digest, int64, error) {
	f, err := os.CreateTemp(l.cfg.Dir, tempPrefix+"*")
	if err != nil {
		return release.Digest{}, 0, full(fmt.Errorf("store blob: %w", err))
	}
	defer os.Remove(f.Name()) // gone already when all went well
	m := &meter{local: l, file: f, hash: sha256.New()}
	defer m.release()
	_, err = io.Copy(m, r)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return release.Digest{}, 0, full(fmt.Errorf("store blob: %w", err))
	}
	d := release.Digest(m.hash.Sum(nil))
	return d, m.size, l.adopt(d, f.Name(), m.size)
}

// adopt makes a blob of a file. The lock is held while it takes its name, so
// that Remove does not remove it meanwhile.
func (l *Local) adopt(d release.Digest, path string, size int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.sizes[d]; ok {
		return nil
	}
	if err := atomicfile.Rename(path, l.path(d)); err != nil {
		return full(fmt.Errorf("store blob %s: %w", d.Short(), err))
	}
	l.sizes[d] = size
	l.total += size
	return nil
}

// Remove deletes a blob that nobody needs any more. Open readers stay usable;
// that it was not there is no error.
func (l *Local) Remove(_ context.Context, d release.Digest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total -= l.sizes[d]
	delete(l.sizes, d)
	if err := os.Remove(l.path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob %s: %w", d.Short(), err)
	}
	return nil
}

// meter writes a file of a size that nobody announced: it reserves the room as
// it goes, so that many of them together do not pass the quota either.
type meter struct {
	local *Local
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
	l := m.local
	if m.size+n > l.cfg.MaxBlob {
		return fmt.Errorf("%w: over %d bytes", ErrTooLarge, l.cfg.MaxBlob)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total+n > l.cfg.MaxTotal {
		return fmt.Errorf("%w: %d of %d bytes are used", ErrFull, l.total, l.cfg.MaxTotal)
	}
	l.total += n
	m.size += n
	return nil
}

// release gives the reserved room back: a blob counts by itself.
func (m *meter) release() {
	m.local.mu.Lock()
	defer m.local.mu.Unlock()
	m.local.total -= m.size
}
