package mlflow

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
)

const proxyBase = "/mlflow-artifacts/artifacts"

func (s *Server) artifactRoutes() []route {
	list := reads("GET", "/mlflow/artifacts/list", call(s.runFiles))
	proxied := reads("GET", proxyBase, call(s.proxyList))
	get := reads("GET", proxyBase+"/*", s.download)
	head := reads("HEAD", proxyBase+"/*", s.download)
	put := writes("PUT", proxyBase+"/*", s.upload)
	get.stream, head.stream, put.stream = true, true, true
	routes := []route{list, proxied, get, head, put, writes("DELETE", proxyBase+"/*", s.removeFiles)}
	for _, step := range []string{"create", "complete", "abort"} {
		routes = append(routes, writes("POST", "/mlflow-artifacts/mpu/"+step+"/*", noMultipart))
	}
	return routes
}

// downloadRoutes are those of MLflow's own pages; people's links lead there too.
func (s *Server) downloadRoutes() []route {
	run := reads("GET", "/get-artifact", s.runFile)
	version := reads("GET", "/model-versions/get-artifact", s.versionFile)
	run.stream, version.stream = true, true
	return []route{run, version}
}

// noMultipart makes clients send a large file in one piece.
func noMultipart(c echo.Context) error {
	return c.JSON(http.StatusNotImplemented, problem{Code: codeNotDone, Message: "Multipart upload is not supported for the current artifact repository"})
}

// pathIn is the artifact path of a proxy request, taken from the URL as it was
// decoded once.
func pathIn(c echo.Context) (string, error) {
	_, rest, ok := strings.Cut(c.Request().URL.Path, proxyBase+"/")
	if !ok || rest == "" {
		return "", refuse(tracking.Invalid, "Invalid path: ''")
	}
	return cleanPath(rest)
}

type fileRequest struct {
	Run     string `json:"run_id"`
	UUID    string `json:"run_uuid"`
	Path    string `json:"path"`
	Name    string `json:"name"`
	Version text   `json:"version"`
}

// runFiles lists what a run logged; paths are those below its artifacts.
func (s *Server) runFiles(ctx context.Context, q fileRequest) (any, error) {
	id, err := runID{q.Run, q.UUID}.id()
	if err != nil {
		return nil, err
	}
	r, err := s.cfg.Store.Run(id)
	if err != nil {
		return nil, err
	}
	return s.list(ctx, r.ArtifactURI, q.Path)
}

type wireFile struct {
	Path string `json:"path"`
	Dir  bool   `json:"is_dir"`
	Size *int64 `json:"file_size,omitempty"`
}

// list answers with one directory below a root.
func (s *Server) list(ctx context.Context, root, dir string) (any, error) {
	dir = strings.TrimSuffix(dir, "/")
	at, err := Below(root, dir)
	if err != nil {
		return nil, err
	}
	files, err := s.cfg.Files.List(ctx, at)
	if err != nil {
		return nil, err
	}
	return object{"root_uri": root, "files": wireFiles(files, dir)}, nil
}

func wireFiles(files []Listed, dir string) []wireFile {
	out := make([]wireFile, len(files))
	for i, f := range files {
		out[i] = wireFile{Path: path.Join(dir, f.Name), Dir: f.Dir}
		if !f.Dir {
			out[i].Size = &f.Size
		}
	}
	return out
}

// proxyList lists a directory of the proxy; paths are base names.
func (s *Server) proxyList(ctx context.Context, q fileRequest) (any, error) {
	dir, err := cleanPath(strings.Trim(q.Path, "/"))
	if err == nil {
		err = required("path", dir)
	}
	if err != nil {
		return nil, err
	}
	files, err := s.cfg.Files.List(ctx, dir)
	if err != nil {
		return nil, err
	}
	return object{"files": wireFiles(files, "")}, nil
}

// upload streams one artifact to the blob store.
func (s *Server) upload(c echo.Context) error {
	at, err := pathIn(c)
	if err != nil {
		return err
	}
	select {
	case s.uploads <- struct{}{}:
		defer func() { <-s.uploads }()
	default:
		return operator.Errorf(operator.TooMany, "%d artifacts are being uploaded: try again in a moment", MaxUploads)
	}
	body := &body{Reader: c.Request().Body, control: http.NewResponseController(c.Response()), idle: s.cfg.Idle}
	_, err = s.cfg.Files.Put(c.Request().Context(), at, body)
	switch {
	case body.err != nil: // the sender's, not the store's
		return refuse(tracking.Invalid, "The upload of '%s' broke off: %v. Send it again", at, body.err)
	case err != nil:
		return err
	}
	return c.JSON(http.StatusOK, object{})
}

// body is what is uploaded: the deadline moves on with every read, so a slow
// link may take its time and a dead one may not.
type body struct {
	io.Reader

	control *http.ResponseController
	idle    time.Duration
	err     error // that ended it early
}

// Read reads with a fresh deadline. Recorders in tests have none to set.
func (b *body) Read(p []byte) (int, error) {
	if err := b.control.SetReadDeadline(time.Now().Add(b.idle)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := b.Reader.Read(p)
	if err != nil {
		// Left behind, the deadline would cancel the request while the blob is stored.
		_ = b.control.SetReadDeadline(time.Time{})
		if !errors.Is(err, io.EOF) {
			b.err = err
		}
	}
	return n, err
}

func (s *Server) download(c echo.Context) error {
	at, err := pathIn(c)
	if err != nil {
		return err
	}
	return s.send(c, at)
}

// send serves one artifact, whole or in ranges, and never as something that a
// browser would show or run: whoever logged it is not whoever opens it.
func (s *Server) send(c echo.Context, at string) error {
	content, file, err := s.cfg.Files.Open(c.Request().Context(), at)
	if err != nil {
		return err
	}
	defer content.Close()
	Attachment(c.Response().Header(), path.Base(at))
	c.Response().Header().Set("ETag", `"`+file.Digest.String()+`"`)
	http.ServeContent(c.Response(), c.Request(), "", time.UnixMilli(file.AddedMS), content)
	return nil
}

// Attachment makes browsers save an answer as a file of that name.
func Attachment(h http.Header, name string) {
	h.Set(echo.HeaderContentType, echo.MIMEOctetStream)
	h.Set(echo.HeaderContentDisposition, contentDisposition(name))
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	h.Set(echo.HeaderContentSecurityPolicy, "default-src 'none'; sandbox")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "private, no-cache")
}

func (s *Server) runFile(c echo.Context) error {
	var q fileRequest
	if err := decode(c, &q); err != nil {
		return err
	}
	id, err := runID{q.Run, q.UUID}.id()
	if err != nil {
		return err
	}
	r, err := s.cfg.Store.Run(id)
	if err != nil {
		return err
	}
	return s.sendBelow(c, r.ArtifactURI, q.Path)
}

func (s *Server) versionFile(c echo.Context) error {
	var q fileRequest
	if err := decode(c, &q); err != nil {
		return err
	}
	n, err := versionNumber(q.Name, q.Version)
	if err != nil {
		return err
	}
	v, err := s.cfg.Store.Version(q.Name, n)
	if err != nil {
		return err
	}
	return s.sendBelow(c, v.ArtifactURI, q.Path)
}

func (s *Server) sendBelow(c echo.Context, root, below string) error {
	if err := required("path", below); err != nil {
		return err
	}
	at, err := Below(root, below)
	if err != nil {
		return err
	}
	return s.send(c, at)
}

// Below is the path of an artifact below the root of a run or a model, or of
// the root itself. The error is a *tracking.Error.
func Below(root, path string) (string, error) {
	path, err := cleanPath(path)
	if err != nil {
		return "", err
	}
	base, ok := proxyPath(root)
	if !ok {
		return "", refuse(tracking.Invalid, "The artifacts at %.200s are not kept by this server: read them there", root)
	}
	return join(base, path), nil
}

func (s *Server) removeFiles(c echo.Context) error {
	at, err := pathIn(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	n, err := s.cfg.Files.Remove(ctx, strings.TrimSuffix(at, "/"))
	if err != nil {
		return err
	}
	if n > 0 {
		if err := s.deleted(ctx, "artifact", at); err != nil {
			return err
		}
	}
	return c.JSON(http.StatusOK, object{})
}
