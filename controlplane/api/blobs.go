package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Headers of an upload: where the chunk starts and how long the whole blob is.
const (
	offsetHeader = "Upload-Offset"
	lengthHeader = "Upload-Length"
	chunkMedia   = "application/offset+octet-stream"
)

func uploadStatus(b Backend) route {
	return one("blobStatus", "/uploads/:digest", "How far the upload of a blob is.",
		func(ctx context.Context, text string) (*operator.Upload, error) {
			d, err := digestOf(text)
			if err != nil {
				return nil, err
			}
			return b.BlobStatus(ctx, d)
		}).as(operator.Publisher)
}

func digestOf(text string) (release.Digest, error) {
	d, err := release.ParseDigest(text)
	if err != nil {
		return d, operator.Errorf(operator.Invalid, "digest in the path: %w", err)
	}
	return d, nil
}

// uploadChunk appends to a blob. It has no deadline as a whole, since a chunk
// over a slow line takes long; it ends when the line is silent.
func (s *Server) uploadChunk(b Backend) route {
	r := route{
		name: "uploadChunk", method: http.MethodPatch, path: "/uploads/:digest", role: operator.Publisher,
		summary: "Append a chunk to a blob, from the offset held.", unbounded: true, reply: typeOf[*operator.Upload](),
	}
	r.handle = func(c echo.Context) error {
		text, err := param(c, "digest")
		if err != nil {
			return err
		}
		d, err := digestOf(text)
		if err != nil {
			return err
		}
		offset, size, err := uploadHeaders(c.Request().Header)
		if err != nil {
			return err
		}
		chunk := s.patient(c, http.MaxBytesReader(c.Response(), c.Request().Body, operator.MaxChunk))
		up, err := b.UploadChunk(c.Request().Context(), d, size, offset, chunk)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = operator.Errorf(operator.Unavailable, "the upload was silent for %v", s.cfg.Idle).WithHint("run it again: it continues where it stopped")
		}
		return reply(c)(up, err)
	}
	return r
}

func uploadHeaders(h http.Header) (offset, size int64, err error) {
	if h.Get(echo.HeaderContentType) != chunkMedia {
		return 0, 0, operator.Errorf(operator.Invalid, "a chunk must be sent as %s", chunkMedia)
	}
	if offset, err = strconv.ParseInt(h.Get(offsetHeader), 10, 64); err != nil || offset < 0 {
		return 0, 0, operator.Errorf(operator.Invalid, "header %s must be a byte offset", offsetHeader)
	}
	if size, err = strconv.ParseInt(h.Get(lengthHeader), 10, 64); err != nil || size < offset {
		return 0, 0, operator.Errorf(operator.Invalid, "header %s must be the size of the whole blob in bytes", lengthHeader)
	}
	return offset, size, nil
}

// patient moves the read deadline on with every read.
func (s *Server) patient(c echo.Context, r io.Reader) io.Reader {
	return &patientReader{Reader: r, control: http.NewResponseController(c.Response()), idle: s.cfg.Idle}
}

type patientReader struct {
	io.Reader

	control *http.ResponseController
	idle    time.Duration
}

// Read reads with a fresh deadline. Recorders in tests have none to set.
func (r *patientReader) Read(p []byte) (int, error) {
	if err := r.control.SetReadDeadline(time.Now().Add(r.idle)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := r.Reader.Read(p)
	if err != nil {
		// Left behind, the deadline would cancel the request while the blob is checked.
		_ = r.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

func trustMetadata(b Backend) route {
	r := one("trustMetadata", "/trust/metadata/:name", "One signed metadata file, byte for byte.", b.TrustMetadata)
	r.reply, r.media = nil, "application/json"
	r.handle = func(c echo.Context) error {
		name, err := param(c, "name")
		if err != nil {
			return err
		}
		file, err := b.TrustMetadata(c.Request().Context(), name)
		if err != nil {
			return err
		}
		return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, file)
	}
	return r
}
