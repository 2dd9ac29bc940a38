// Package artifact keeps the files of releases by their content: whoever knows a
// SHA-256 can read the bytes, and nobody can put other bytes under it.
//
// A blob is uploaded in parts of any size into a file of its own, and becomes a
// blob only when all of it is there and hashes to its name. It is then put into
// the broker's object store, which is the copy that counts, and into a directory
// that serves byte ranges to devices. A file missing from the directory, or of
// the wrong size, is fetched again from the object store; so the directory may
// be lost.
//
// Between versions of a file a Deltas makes deltas, which are blobs too.
package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Defaults and limits of a store.
const (
	// DefaultMaxBlob is room for a large model in fp32.
	DefaultMaxBlob = 4 << 30
	// DefaultMaxTotal keeps a forgotten store from filling a disk that the
	// ledger needs too.
	DefaultMaxTotal = 64 << 30
	// MaxBytes bounds what GetBytes reads into memory.
	MaxBytes = 128 << 20
	// UploadTTL is how long an unfinished upload may rest before the next start
	// of the control plane removes it.
	UploadTTL = 7 * 24 * time.Hour

	bucketName = "BLOBS"
	// chunkSize of the object store: measured as the fastest of 128, 512, 900 KiB
	// that stays well below the broker's message limit.
	chunkSize = 512 << 10
	// baseTimeout and minRate give a transfer to or from the object store its
	// deadline: without one the client library takes 5 s for all of it.
	baseTimeout = time.Minute
	minRate     = 1 << 20 // bytes a second
)

// What the store may answer.
var (
	// ErrNotFound says that there is no such blob.
	ErrNotFound = errors.New("blob not found")
	// ErrOffset says that an upload goes on elsewhere: at the offset returned.
	ErrOffset = errors.New("upload does not go on at that offset")
	// ErrDigest says that what was uploaded is not what its name says. The
	// upload begins again at 0.
	ErrDigest = errors.New("uploaded content does not have the digest it was announced with")
	// ErrTooLarge says that a blob, or a part of it, is larger than announced or
	// allowed.
	ErrTooLarge = errors.New("blob is too large")
	// ErrFull says that the quota or the disk is used up.
	ErrFull = errors.New("blob store is full")
	// ErrBusy says that the same blob is being uploaded by someone else.
	ErrBusy = errors.New("blob is being uploaded by someone else")
)

// Config of a store. Dir is required.
type Config struct {
	Dir      string       // for cached blobs and unfinished uploads
	MaxBlob  int64        // bytes; 0: DefaultMaxBlob
	MaxTotal int64        // bytes of all blobs; 0: DefaultMaxTotal
	Logger   *slog.Logger // nil: none
}

// Store keeps blobs.
type Store struct {
	cfg     Config
	objects jetstream.ObjectStore
	js      jetstream.JetStream
	puts    chan struct{} // one for each transfer to the object store

	life    context.Context //nolint:containedctx // of the store: fetches belong to no single caller
	stop    context.CancelFunc
	fetches sync.WaitGroup

	mu    sync.Mutex
	sizes map[release.Digest]int64    // guarded by mu: of all blobs in the object store
	busy  map[release.Digest]struct{} // guarded by mu: being uploaded
	fetch map[release.Digest]*fetch   // guarded by mu: being brought into the cache
	total int64                       // guarded by mu: sum of sizes and of announced uploads in progress
}

// Upload is how far a blob is.
type Upload struct {
	Offset   int64 // bytes held; where the next part begins
	Complete bool  // it is a blob
}

// Open returns the store whose blobs are in the broker behind nc. Close ends it.
func Open(ctx context.Context, nc *nats.Conn, cfg Config) (*Store, error) {
	if cfg.MaxBlob == 0 {
		cfg.MaxBlob = DefaultMaxBlob
	}
	if cfg.MaxTotal == 0 {
		cfg.MaxTotal = DefaultMaxTotal
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		cfg: cfg, sizes: map[release.Digest]int64{},
		puts: make(chan struct{}, maxPuts), busy: map[release.Digest]struct{}{}, fetch: map[release.Digest]*fetch{},
	}
	for _, dir := range []string{s.blobs(), s.uploads()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open blob store: %w", err)
		}
	}
	if err := s.connect(ctx, nc); err != nil {
		return nil, fmt.Errorf("open blob store: %w", err)
	}
	s.removeStale(time.Now())
	s.life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	return s, nil
}

// Close ends what the store does in the background. Open readers stay usable.
func (s *Store) Close() {
	s.stop()
	s.fetches.Wait()
}

func (s *Store) connect(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, baseTimeout)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	s.js = js
	s.objects, err = js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: bucketName, Storage: jetstream.FileStorage,
	})
	if err != nil {
		return err
	}
	infos, err := s.objects.List(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("list blobs: the store's directory of them may be damaged: restore the data directory from a backup: %w", err)
	}
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return fmt.Errorf("list blobs: %w", err)
	}
	for _, info := range infos {
		d, err := release.ParseDigest(info.Name)
		if err != nil {
			s.cfg.Logger.Warn("object is no blob", slog.String("name", info.Name))
			continue
		}
		s.sizes[d] = int64(info.Size) //nolint:gosec // written by us, bounded by MaxBlob
		s.total += s.sizes[d]
	}
	return nil
}

// removeStale clears what interrupted transfers left behind.
func (s *Store) removeStale(now time.Time) {
	entries, err := os.ReadDir(s.uploads())
	if err != nil {
		s.cfg.Logger.Warn("unfinished uploads not listed", slog.Any("error", err))
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		if strings.HasPrefix(e.Name(), tempPrefix) || now.Sub(info.ModTime()) > UploadTTL {
			if err := os.Remove(filepath.Join(s.uploads(), e.Name())); err != nil {
				s.cfg.Logger.Warn("unfinished upload not removed", slog.Any("error", err))
			}
		}
	}
}

// tempPrefix marks files that no later call goes on with.
const tempPrefix = "tmp-"

func (s *Store) blobs() string   { return filepath.Join(s.cfg.Dir, "sha256") }
func (s *Store) uploads() string { return filepath.Join(s.cfg.Dir, "uploads") }

func (s *Store) blobPath(d release.Digest) string { return filepath.Join(s.blobs(), d.String()) }
func (s *Store) partPath(d release.Digest) string { return filepath.Join(s.uploads(), d.String()) }

// Size returns the size of a blob in bytes, or ErrNotFound.
func (s *Store) Size(d release.Digest) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size, ok := s.sizes[d]
	if !ok {
		return 0, fmt.Errorf("%w: %s", ErrNotFound, d)
	}
	return size, nil
}

// Has says whether a blob is there.
func (s *Store) Has(d release.Digest) bool {
	_, err := s.Size(d)
	return err == nil
}

// Total is the sum of all blobs in bytes.
func (s *Store) Total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	for _, size := range s.sizes {
		n += size
	}
	return n
}

// Open returns a blob's content and its size in bytes. It is read from disk; a
// blob that is not cached is fetched first. The caller closes it.
func (s *Store) Open(ctx context.Context, d release.Digest) (io.ReadSeekCloser, int64, error) {
	f, size, err := s.open(ctx, d)
	if err != nil {
		return nil, 0, err // not f: a nil file is no nil interface
	}
	return f, size, nil
}

func (s *Store) open(ctx context.Context, d release.Digest) (*os.File, int64, error) {
	size, err := s.Size(d)
	if err != nil {
		return nil, 0, err
	}
	f, err := s.openCached(d, size)
	if err == nil {
		return f, size, nil
	}
	if err := s.bringIn(ctx, d, size); err != nil {
		return nil, 0, err
	}
	if f, err = s.openCached(d, size); err != nil {
		return nil, 0, fmt.Errorf("open blob %s: %w", d.Short(), err)
	}
	return f, size, nil
}

// Remove deletes a blob that nobody needs any more. Open readers stay usable;
// that it was not there is no error.
func (s *Store) Remove(ctx context.Context, d release.Digest) error {
	ctx, cancel := deadline(ctx, 0)
	defer cancel()
	s.mu.Lock()
	s.total -= s.sizes[d]
	delete(s.sizes, d)
	s.mu.Unlock()
	if err := s.objects.Delete(ctx, d.String()); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("remove blob %s: %w", d.Short(), err)
	}
	if err := os.Remove(s.blobPath(d)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove blob %s from the cache: %w", d.Short(), err)
	}
	return nil
}

// openCached refuses a file of the wrong size: it is not what was written.
func (s *Store) openCached(d release.Digest, size int64) (*os.File, error) {
	f, err := os.Open(s.blobPath(d))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != size {
		err = fmt.Errorf("cached blob %s has %d bytes, not %d", d.Short(), info.Size(), size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// GetBytes returns a whole blob of at most MaxBytes by its SHA-256 in hex.
func (s *Store) GetBytes(ctx context.Context, sha256hex string) ([]byte, error) {
	d, err := release.ParseDigest(sha256hex)
	if err != nil {
		return nil, err
	}
	f, size, err := s.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > MaxBytes {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d fit in memory", ErrTooLarge, d.Short(), size, MaxBytes)
	}
	data, err := io.ReadAll(io.LimitReader(f, size))
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Short(), err)
	}
	return data, nil
}

// deadline bounds a transfer of so many bytes.
func deadline(ctx context.Context, size int64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, baseTimeout+time.Duration(size/minRate)*time.Second)
}
