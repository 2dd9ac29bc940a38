package client

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// proxy serves one artifact, and breaks off after so many bytes of each answer.
type proxy struct {
	content []byte
	digest  release.Digest // announced
	breakAt int            // 0: never
	asked   []string       // ranges
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/2.0/mlflow-artifacts/artifacts/1/ab/artifacts/model/m.onnx" {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"no such file"}`))
		return
	}
	p.asked = append(p.asked, r.Header.Get("Range"))
	w.Header().Set("ETag", `"`+p.digest.String()+`"`)
	if p.breakAt > 0 {
		w = &breaking{ResponseWriter: w, left: p.breakAt}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.content))
}

type breaking struct {
	http.ResponseWriter

	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	n, err := b.ResponseWriter.Write(p[:min(len(p), b.left)])
	if b.left -= n; b.left == 0 && n < len(p) {
		_ = http.NewResponseController(b.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func serveArtifact(t *testing.T, p *proxy) (*Client, string) {
	t.Helper()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	c, err := New(server.URL, "secret", Options{Tries: 2})
	if err != nil {
		t.Fatal(err)
	}
	return c, filepath.Join(t.TempDir(), "m.onnx")
}

const artifactRoot = "mlflow-artifacts:/1/ab/artifacts"

// TestDownloadContinues breaks the connection again and again; nothing that
// came is fetched twice but the first bytes of an answer that is given up.
func TestDownloadContinues(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	p := &proxy{content: content, digest: release.DigestOf(content), breakAt: 40 << 10}
	c, to := serveArtifact(t, p)
	d, err := c.Download(t.Context(), artifactRoot, "model/m.onnx", to, 1<<20)
	if err != nil || d != release.DigestOf(content) {
		t.Fatalf("got %v, %v", d, err)
	}
	got, err := os.ReadFile(to)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if !strings.Contains(strings.Join(p.asked, " "), "bytes="+strconv.Itoa(40<<10)+"-") {
		t.Errorf("asked for %q", p.asked)
	}
	if left, _ := filepath.Glob(to + "*.part"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDownloadRefuses(t *testing.T) {
	content := []byte("a graph")
	tests := []struct {
		name  string
		p     *proxy
		uri   string
		below string
		limit int64
		want  operator.Code
	}{
		{"too large", &proxy{content: content, digest: release.DigestOf(content)}, artifactRoot, "model/m.onnx", 3, operator.TooLarge},
		{"not what was announced", &proxy{content: content, digest: release.DigestOf([]byte("x"))}, artifactRoot, "model/m.onnx", 99, operator.DigestMismatch},
		{"not there", &proxy{}, artifactRoot, "model/other.onnx", 99, operator.NotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, to := serveArtifact(t, tt.p)
			if _, err := c.Download(t.Context(), tt.uri, tt.below, to, tt.limit); operator.CodeOf(err) != tt.want {
				t.Errorf("got %v, want code %s", err, tt.want)
			}
			if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file is there (%v)", err)
			}
		})
	}
	c, to := serveArtifact(t, &proxy{})
	if _, err := c.Download(t.Context(), "s3://bucket/model", "m.onnx", to, 99); !errors.Is(err, ErrElsewhere) {
		t.Errorf("elsewhere: got %v, want %v", err, ErrElsewhere)
	}
}
