package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// ReleaseFiles opens what a version is made of; the caller closes it.
type ReleaseFiles interface {
	ReleaseFile(ctx context.Context, model, version, name string) (io.ReadSeekCloser, release.File, error)
}

// ReleaseFile opens one file of a version's manifest. Scientists may have it: it
// is what they trained. Nothing else in the blob store can be had this way, and
// viewers cannot take models away.
func (s *Service) ReleaseFile(ctx context.Context, model, version, name string) (io.ReadSeekCloser, release.File, error) {
	none := release.File{}
	if _, err := caller(ctx, operator.Scientist); err != nil {
		return nil, none, err
	}
	v, err := s.d.Registry.Version(model, version)
	if err != nil {
		return nil, none, registryError(err)
	}
	if v.Manifest == nil {
		return nil, none, operator.Errorf(operator.NotFound, "the manifest of %s %s cannot be read", v.Model, v.Version)
	}
	files := v.Manifest.Files()
	i := slices.IndexFunc(files, func(f release.File) bool { return f.Name == name })
	if i < 0 {
		return nil, none, operator.Errorf(operator.NotFound, "%s %s has no file %q", v.Model, v.Version, name).
			WithHint("`vedette model show %s %s -o json` lists its files", v.Model, v.Version)
	}
	f, _, err := s.d.Blobs.Open(ctx, files[i].Digest)
	if errors.Is(err, artifact.ErrNotFound) {
		err = operator.Errorf(operator.BlobMissing, "%s of %s %s: %w", name, v.Model, v.Version, err).
			WithHint("was the server restored from a backup without its blobs? Upload the folder again")
	}
	return f, files[i], err
}

// releaseFileRoute serves files with ranges, so that a download can continue.
// Its ETag is the file's digest.
func (s *Server) releaseFileRoute(b Backend) route {
	return route{
		name: "releaseFile", method: http.MethodGet, path: "/models/:model/versions/:version/files/:file", role: operator.Scientist,
		summary: "One file of a version's manifest, or a range of it. The ETag is its digest.", media: "application/octet-stream", unbounded: true,
		handle: func(c echo.Context) error {
			model, version, err := versionOf(c)
			if err != nil {
				return err
			}
			name, err := param(c, "file")
			if err != nil {
				return err
			}
			content, file, err := b.ReleaseFile(c.Request().Context(), model, version, name)
			if err != nil {
				return err
			}
			defer func() { _ = content.Close() }()
			header := c.Response().Header()
			header.Set(echo.HeaderContentType, "application/octet-stream")
			header.Set("ETag", `"`+file.Digest.String()+`"`)
			w := &patientWriter{w: c.Response(), control: http.NewResponseController(c.Response()), idle: s.cfg.Idle}
			defer w.done()
			http.ServeContent(patientResponse{c.Response(), w}, c.Request(), "", time.Time{}, content)
			return nil
		},
	}
}

// patientResponse moves the write deadline on with every write.
type patientResponse struct {
	http.ResponseWriter

	body *patientWriter
}

func (r patientResponse) Write(p []byte) (int, error) { return r.body.Write(p) }
