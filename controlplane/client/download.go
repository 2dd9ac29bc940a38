package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// stallTimeout bounds how long a download may bring nothing.
const stallTimeout = time.Minute

// opener opens a file from an offset on and tells its whole size and digest.
type opener func(ctx context.Context, offset int64) (content io.ReadCloser, size int64, d release.Digest, err error)

// Download fetches a file below an artifact URI to a path, and continues where
// a broken connection or an earlier call left off: what came is kept beside the
// path under the digest of the whole. The file appears only when it is complete
// and what its digest says. A file of over limit bytes is refused.
func (c *Client) Download(ctx context.Context, uri, below, to string, limit int64) (release.Digest, error) {
	return c.download(ctx, below, to, limit, func(ctx context.Context, offset int64) (io.ReadCloser, int64, release.Digest, error) {
		return c.LoggedFile(ctx, uri, below, offset)
	})
}

// DownloadRelease fetches one file of a version's manifest to a path, as Download
// does. What comes must be what the manifest says, or nothing is kept.
func (c *Client) DownloadRelease(ctx context.Context, model, version string, file release.File, to string) error {
	_, err := c.download(ctx, file.Name, to, file.Size, func(ctx context.Context, offset int64) (io.ReadCloser, int64, release.Digest, error) {
		content, size, d, err := c.ReleaseFile(ctx, model, version, file.Name, offset)
		if err == nil && d != file.Digest {
			err = operator.Errorf(operator.DigestMismatch, "the server has %s, the manifest names %s", d.Short(), file.Digest.Short())
			err = errors.Join(err, content.Close())
		}
		return content, size, d, err
	})
	return err
}

// ReleaseFile opens a file of a version's manifest from an offset on and tells
// its whole size and digest. The caller closes it. It is tried once.
func (c *Client) ReleaseFile(ctx context.Context, model, version, name string, offset int64) (content io.ReadCloser, size int64, d release.Digest, err error) {
	req, err := c.request(ctx, http.MethodGet, path("models", model, "versions", version, "files", name), nil, http.NoBody)
	if err != nil {
		return nil, 0, d, err
	}
	return c.open(req, offset, c.refusal)
}

func (c *Client) download(ctx context.Context, below, to string, limit int64, open opener) (release.Digest, error) {
	tries, best := 0, int64(-1)
	for {
		d, held, err := c.downloadRest(ctx, below, to, limit, open)
		if err == nil {
			return d, nil
		}
		if held > best {
			tries, best = 0, held
		}
		if tries++; tries >= c.tries || !Temporary(err) || ctx.Err() != nil || !wait(ctx, pause(tries)) {
			return d, fmt.Errorf("download %s: %w", below, err)
		}
	}
}

// downloadRest fetches what is missing, and says how many bytes are there.
func (c *Client) downloadRest(ctx context.Context, below, to string, limit int64, open opener) (d release.Digest, held int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	content, size, d, err := open(ctx, 0)
	if err != nil {
		return d, 0, err
	}
	defer func() { _ = content.Close() }()
	if size > limit || size < 0 {
		return d, 0, operator.Errorf(operator.TooLarge, "%s has %d bytes, at most %d", below, size, limit)
	}
	part := fmt.Sprintf("%s.%s.part", to, d.Short())
	if held, err = partSize(part); err != nil {
		return d, 0, err
	}
	if held > 0 && held < size {
		_ = content.Close() // it would bring all of it again
		if content, _, _, err = open(ctx, held); err != nil {
			return d, held, err
		}
		defer func() { _ = content.Close() }()
	}
	if held < size {
		stall := time.AfterFunc(stallTimeout, cancel)
		defer stall.Stop()
		held, err = appendTo(part, held, io.LimitReader(&moving{content, stall}, size-held))
		if err != nil {
			return d, held, err
		}
	}
	if held < size {
		return d, held, operator.Errorf(operator.Unreachable, "%d of %d bytes came", held, size)
	}
	return d, held, finish(part, to, d)
}

func partSize(part string) (int64, error) {
	info, err := os.Stat(part)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, os.MkdirAll(filepath.Dir(part), 0o700)
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// moving puts off the end of a download with every read that brings something.
type moving struct {
	io.Reader

	stall *time.Timer
}

func (m *moving) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	if n > 0 {
		m.stall.Reset(stallTimeout)
	}
	return n, err
}

// appendTo writes what comes behind what is held. A connection that broke is
// told apart from a disk that refuses.
func appendTo(part string, held int64, content io.Reader) (int64, error) {
	f, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return held, err
	}
	w := &noted{File: f}
	n, err := io.Copy(w, content)
	if err != nil && w.err == nil {
		err = operator.Errorf(operator.Unreachable, "read: %w", err)
	}
	return held + n, errors.Join(err, f.Sync(), f.Close())
}

// noted remembers that writing failed.
type noted struct {
	*os.File

	err error
}

func (n *noted) Write(b []byte) (int, error) {
	written, err := n.File.Write(b)
	if err != nil {
		n.err = err
	}
	return written, err
}

// ReadFrom hides that of the file, which would bypass Write.
func (n *noted) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{n}, r)
}

// finish gives a complete file its name when it is what its digest says, and
// removes it otherwise.
func finish(part, to string, d release.Digest) error {
	f, err := os.Open(part)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got, err := release.DigestFromBytes(h.Sum(nil)); err != nil || got != d {
		return errors.Join(operator.Errorf(operator.DigestMismatch, "what came is %s, %s was announced", got.Short(), d.Short()), os.Remove(part))
	}
	return atomicfile.Rename(part, to)
}
