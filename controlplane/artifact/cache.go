package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
)

// fetch is one blob on its way into the cache; many may wait for it.
type fetch struct {
	done chan struct{} // closed when err is set
	err  error
}

// bringIn fetches a blob from the object store into the cache, once for all who
// ask at the same time. A caller who gives up does not stop it for the others.
func (s *Store) bringIn(ctx context.Context, d release.Digest, size int64) error {
	s.mu.Lock()
	f, ok := s.fetch[d]
	if !ok {
		f = &fetch{done: make(chan struct{})}
		s.fetch[d] = f
		s.fetches.Go(func() { s.runFetch(d, size, f) })
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("fetch blob %s: %w", d.Short(), ctx.Err())
	}
}

// runFetch ends by its deadline or with the store.
func (s *Store) runFetch(d release.Digest, size int64, f *fetch) {
	defer close(f.done)
	ctx, cancel := deadline(s.life, size)
	defer cancel()
	f.err = s.fetchObject(ctx, d, size)
	if f.err == nil {
		s.cfg.Logger.Info("blob fetched into the cache", slog.String("digest", d.String()), slog.Int64("bytes", size))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.fetch, d)
}

func (s *Store) fetchObject(ctx context.Context, d release.Digest, size int64) error {
	object, err := s.objects.Get(ctx, d.String())
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("%w: %s is gone from the object store", ErrNotFound, d)
	}
	if err != nil {
		return fmt.Errorf("fetch blob %s: %w", d.Short(), err)
	}
	defer object.Close()
	path, err := s.temp(io.LimitReader(object, size+1))
	if err != nil {
		return full(fmt.Errorf("fetch blob %s: %w", d.Short(), err))
	}
	defer os.Remove(path) // gone already when all went well
	if err := verify(path, d); err != nil {
		return fmt.Errorf("fetch blob from the object store: %w", err)
	}
	if err := atomicfile.Rename(path, s.blobPath(d)); err != nil {
		return full(fmt.Errorf("cache blob %s: %w", d.Short(), err))
	}
	return nil
}
