package mlflow

import (
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// scheme of artifacts that this server keeps.
const scheme = "mlflow-artifacts"

// Limits of an artifact's path.
const (
	maxPath    = 1024 // bytes
	maxSegment = 255  // bytes, what file systems take on download
	maxDecode  = 10   // rounds of URL escapes; nobody honest has more than one
)

// cleanPath checks a path of the artifact proxy or of a run. Escapes are undone
// until none is left before it is looked at, since some reader behind us might
// undo them too; what is kept is the path as it came.
func cleanPath(path string) (string, error) {
	bad := refuse(tracking.Invalid, "Invalid path: '%.80s'", path)
	if len(path) > maxPath {
		return "", bad
	}
	plain := path
	for range maxDecode {
		next, err := url.PathUnescape(plain)
		if err != nil || next == plain {
			break // a lone percent sign is a name like any other
		}
		plain = next
	}
	for _, p := range []string{path, plain} {
		if !safePath(p) {
			return "", bad
		}
	}
	return path, nil
}

// safePath says whether a path stays below where it is joined to, on any
// system it may be downloaded to.
func safePath(path string) bool {
	if !utf8.ValidString(path) || strings.ContainsFunc(path, operator.IsControl) || strings.Contains(path, `\`) {
		return false
	}
	if path == "" {
		return true
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." || len(segment) > maxSegment {
			return false
		}
	}
	drive := len(path) > 1 && path[1] == ':'
	return !drive && !strings.Contains(path, ":/")
}

// proxyPath is the path below the artifact proxy of an mlflow-artifacts URI;
// ok is false for other places.
func proxyPath(uri string) (path string, ok bool) {
	rest, ok := strings.CutPrefix(uri, scheme+":/")
	if !ok || strings.HasPrefix(rest, "/") {
		return "", false
	}
	path, err := cleanPath(strings.TrimSuffix(rest, "/"))
	return path, err == nil && path != ""
}

// join puts a checked path below another.
func join(base, path string) string {
	if path == "" {
		return base
	}
	return base + "/" + path
}

// Places that clients reach without this server.
var remoteSchemes = map[string]bool{
	"http": true, "https": true, "s3": true, "gs": true, "wasbs": true, "abfss": true, "dbfs": true, "hdfs": true, "ftp": true, "sftp": true,
}

// checkLocation checks where somebody wants artifacts to be: nowhere on the
// disks of this server or of whoever downloads.
func checkLocation(uri string) error {
	if uri == "" {
		return nil
	}
	name, rest, ok := strings.Cut(uri, ":")
	if !ok || len(uri) > maxPath || !utf8.ValidString(uri) || strings.ContainsFunc(uri, operator.IsControl) {
		return refuse(tracking.Invalid, "Invalid artifact location '%.80s': give a URI such as mlflow-artifacts:/…, not a path", uri)
	}
	if name == scheme {
		if _, ok := proxyPath(uri); !ok {
			return refuse(tracking.Invalid, "Invalid artifact location '%.80s': it must be mlflow-artifacts:/ and a path without '..'", uri)
		}
		return nil
	}
	if !remoteSchemes[strings.ToLower(name)] {
		return refuse(tracking.Invalid, "Invalid model version source: '%.80s'. A local path as a source is not allowed: log the model to this server first", uri)
	}
	if _, err := cleanPath(strings.Trim(rest, "/")); err != nil {
		return refuse(tracking.Invalid, "Invalid artifact location '%.80s'", uri)
	}
	return nil
}

// resolve is where the artifacts of a version's source are: models:/ and runs:/
// are followed to the place that they mean.
func (s *Server) resolve(source string) (string, error) {
	switch {
	case strings.HasPrefix(source, "models:/"):
		return s.resolveModel(source)
	case strings.HasPrefix(source, "runs:/"):
		id, path, _ := strings.Cut(strings.TrimPrefix(source, "runs:/"), "/")
		r, err := s.cfg.Store.Run(id)
		if err != nil {
			return "", err
		}
		path, err = cleanPath(path)
		return join(r.ArtifactURI, path), err
	}
	return strings.TrimSuffix(source, "/"), checkLocation(source)
}

// resolveModel follows models:/m-ID, models:/NAME/VERSION and models:/NAME@ALIAS.
func (s *Server) resolveModel(source string) (string, error) {
	rest := strings.Trim(strings.TrimPrefix(source, "models:"), "/")
	if strings.HasPrefix(rest, "m-") && !strings.ContainsAny(rest, "/@") {
		m, err := s.cfg.Store.LoggedModel(rest)
		return m.ArtifactURI, err
	}
	name, alias, byAlias := strings.Cut(rest, "@")
	if byAlias {
		version, err := s.aliased(name, alias)
		if err != nil {
			return "", err
		}
		v, err := s.cfg.Store.Version(name, version)
		return v.ArtifactURI, err
	}
	name, number, _ := strings.Cut(rest, "/")
	version, err := strconv.Atoi(number)
	if err != nil {
		return "", refuse(tracking.Invalid, "Invalid model source '%.80s': give models:/NAME/VERSION, models:/NAME@ALIAS or models:/m-ID", source)
	}
	v, err := s.cfg.Store.Version(name, version)
	return v.ArtifactURI, err
}
