package client

import (
	"context"
	"io"
	"net/http"
	"strconv"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// UploadChunk sends one chunk of a blob of size bytes in all.
func (c *Client) UploadChunk(ctx context.Context, d release.Digest, size, offset int64, chunk io.Reader) (*operator.Upload, error) {
	req, err := c.request(ctx, http.MethodPatch, path("uploads", d.String()), nil, io.NopCloser(chunk))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/offset+octet-stream")
	req.Header.Set("Upload-Offset", strconv.FormatInt(offset, 10))
	req.Header.Set("Upload-Length", strconv.FormatInt(size, 10))
	up := &operator.Upload{}
	if err := c.exchange(req, func(res *http.Response) error { return decodeReply(res, up) }); err != nil {
		return nil, err
	}
	return up, nil
}

// Uploader sends whole blobs to a store in chunks, and continues where a
// broken connection left off.
type Uploader struct {
	Store    operator.BlobStore
	Chunk    int64             // bytes of one chunk; 0: 8 MiB
	Tries    int               // without any progress before giving up; 0: DefaultTries
	Progress func(total int64) // bytes the store holds or is being sent; may be nil
}

// defaultChunk is small enough that a slow line (1 Mbit/s) acknowledges a
// chunk each minute, and large enough that 100 Mbit/s is not slowed by replies.
const defaultChunk = 8 << 20

// Upload makes the store hold the blob. What it holds already is not sent again.
func (u *Uploader) Upload(ctx context.Context, d release.Digest, size int64, content io.ReaderAt) error {
	tries, best := 0, int64(-1)
	for {
		held, err := u.rest(ctx, d, size, content)
		if err == nil {
			return nil
		}
		if held > best {
			tries, best = 0, held
		}
		if tries++; tries >= u.tries() || !worthRepeating(err) || !wait(ctx, pause(tries)) {
			return err
		}
	}
}

func (u *Uploader) tries() int {
	if u.Tries > 0 {
		return u.Tries
	}
	return DefaultTries
}

func worthRepeating(err error) bool {
	return Temporary(err) || operator.CodeOf(err) == operator.OffsetMismatch
}

// rest sends chunks from where the store is. It returns how much the store is
// known to hold.
func (u *Uploader) rest(ctx context.Context, d release.Digest, size int64, content io.ReaderAt) (held int64, err error) {
	up, err := u.Store.BlobStatus(ctx, d)
	if err != nil {
		return 0, err
	}
	for !up.Complete {
		held = up.Offset
		if held < 0 || held > size {
			return held, operator.Errorf(operator.OffsetMismatch, "the server holds %d bytes of a blob of %d", held, size)
		}
		u.progress(held)
		chunk := &countingReader{Reader: io.NewSectionReader(content, held, min(u.chunk(), size-held)), at: held, progress: u.progress}
		if up, err = u.Store.UploadChunk(ctx, d, size, held, chunk); err != nil {
			return held, err
		}
		if !up.Complete && up.Offset <= held {
			return held, operator.Errorf(operator.UnknownResponse, "the server took nothing of a chunk at %d of %d bytes", held, size)
		}
	}
	u.progress(size)
	return size, nil
}

func (u *Uploader) chunk() int64 {
	if u.Chunk > 0 {
		return min(u.Chunk, operator.MaxChunk)
	}
	return defaultChunk
}

func (u *Uploader) progress(total int64) {
	if u.Progress != nil {
		u.Progress(total)
	}
}

// countingReader tells how far it has been read.
type countingReader struct {
	io.Reader

	at       int64
	progress func(total int64)
}

// Read reads and tells.
func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.at += int64(n)
		r.progress(r.at)
	}
	return n, err
}
