package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Status says how far the upload of a blob is. One that was never begun is at 0.
func (s *Store) Status(d release.Digest) (Upload, error) {
	if size, err := s.Size(d); err == nil {
		return Upload{Offset: size, Complete: true}, nil
	}
	info, err := os.Stat(s.partPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return Upload{}, nil
	}
	if err != nil {
		return Upload{}, fmt.Errorf("read upload of %s: %w", d.Short(), err)
	}
	return Upload{Offset: info.Size()}, nil
}

// Write adds a part to an upload of size bytes, starting at offset, which must
// be where the upload is. When r breaks off, what came is kept and on disk. The
// part that completes the blob makes it one; if that fails for a passing reason,
// an empty part at the end tries again. The state returned is right also beside
// an error.
func (s *Store) Write(ctx context.Context, d release.Digest, size, offset int64, r io.Reader) (Upload, error) {
	if up, err := s.Status(d); err != nil || up.Complete {
		return up, err
	}
	if size < 0 || size > s.cfg.MaxBlob {
		return Upload{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, s.cfg.MaxBlob)
	}
	done, err := s.begin(d, size)
	if err != nil {
		up, _ := s.Status(d)
		return up, err
	}
	defer done()
	if err := s.writePart(d, size, offset, r); err != nil {
		up, statusErr := s.Status(d)
		return up, errors.Join(err, statusErr)
	}
	up, err := s.Status(d)
	if err != nil || up.Offset < size {
		return up, err
	}
	if err := s.complete(ctx, d, s.partPath(d), size); err != nil {
		if errors.Is(err, ErrDigest) {
			up.Offset = 0
		}
		return up, err
	}
	return Upload{Offset: size, Complete: true}, nil
}

// begin takes the blob for one uploader and reserves its room.
func (s *Store) begin(d release.Digest, size int64) (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.busy[d]; ok {
		return nil, fmt.Errorf("%w: %s", ErrBusy, d.Short())
	}
	if s.total+size > s.cfg.MaxTotal {
		return nil, fmt.Errorf("%w: %d of %d bytes are used, %d more were announced", ErrFull, s.total, s.cfg.MaxTotal, size)
	}
	s.busy[d] = struct{}{}
	s.total += size
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, d)
		s.total -= size
	}, nil
}

func (s *Store) writePart(d release.Digest, size, offset int64, r io.Reader) error {
	f, err := os.OpenFile(s.partPath(d), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return full(fmt.Errorf("open upload of %s: %w", d.Short(), err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read upload of %s: %w", d.Short(), err)
	}
	if info.Size() != offset {
		return fmt.Errorf("%w: it is at %d, not %d", ErrOffset, info.Size(), offset)
	}
	_, err = io.Copy(f, io.LimitReader(r, size-offset))
	if err := errors.Join(err, f.Sync()); err != nil {
		return full(fmt.Errorf("write upload of %s: %w", d.Short(), err))
	}
	// One byte more than announced is another file than announced.
	if n, _ := io.ReadFull(r, make([]byte, 1)); n > 0 {
		return fmt.Errorf("%w: more than the %d bytes announced were sent", ErrTooLarge, size)
	}
	return nil
}

// complete makes a blob of a whole file, which it moves away or, when the
// content is wrong, removes.
func (s *Store) complete(ctx context.Context, d release.Digest, path string, size int64) error {
	if err := verify(path, d); err != nil {
		if errors.Is(err, ErrDigest) {
			err = errors.Join(err, os.Remove(path))
		}
		return err
	}
	if err := s.replicate(ctx, d, path, size); err != nil {
		return full(fmt.Errorf("store blob %s: %w", d.Short(), err))
	}
	if err := atomicfile.Rename(path, s.blobPath(d)); err != nil {
		return full(fmt.Errorf("cache blob %s: %w", d.Short(), err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sizes[d]; !ok {
		s.sizes[d] = size
		s.total += size
	}
	return nil
}

func verify(path string, d release.Digest) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	if got := release.Digest(h.Sum(nil)); got != d {
		return fmt.Errorf("%w: announced %s, got %s", ErrDigest, d, got)
	}
	return nil
}

// replicate puts the file into the object store, unless it is there.
func (s *Store) replicate(ctx context.Context, d release.Digest, path string, size int64) error {
	ctx, cancel := deadline(ctx, size)
	defer cancel()
	_, err := s.objects.GetInfo(ctx, d.String())
	if err == nil {
		return nil
	}
	if !errors.Is(err, jetstream.ErrObjectNotFound) {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	select {
	case s.puts <- struct{}{}:
		defer func() { <-s.puts }()
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err = s.objects.Put(ctx, jetstream.ObjectMeta{
		Name: d.String(),
		Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize},
	}, &paced{Reader: f, wait: func() error { return s.settle(ctx) }})
	return err
}

// PutBytes stores a small blob under its SHA-256.
func (s *Store) PutBytes(ctx context.Context, data []byte) error {
	d := release.DigestOf(data)
	size := int64(len(data))
	switch {
	case s.Has(d):
		return nil
	case size > min(s.cfg.MaxBlob, MaxBytes):
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	path, err := s.temp(bytes.NewReader(data))
	if err != nil {
		return full(fmt.Errorf("store blob %s: %w", d.Short(), err))
	}
	defer os.Remove(path) // gone already when all went well
	return s.complete(ctx, d, path, size)
}

// temp writes r to a file that is on disk when it returns.
func (s *Store) temp(r io.Reader) (path string, err error) {
	f, err := os.CreateTemp(s.uploads(), tempPrefix+"*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// full names the one storage error that an operator has to act on.
func full(err error) error {
	var api *jetstream.APIError
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		errors.As(err, &api) && (api.ErrorCode == errCodeResources || api.ErrorCode == errCodeStorage) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// What the broker says when its disk or its limit of storage is used up.
const (
	errCodeResources jetstream.ErrorCode = 10023
	errCodeStorage   jetstream.ErrorCode = 10047
)
