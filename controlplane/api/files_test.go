package api

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Only files of a manifest can be had, by scientists and above, and from where a
// broken download ended.
func TestReleaseFile(t *testing.T) {
	w := newWorld()
	graph, secret := []byte("the graph"), []byte("rows of people")
	d := release.DigestOf(graph)
	w.uploads[d], w.uploads[release.DigestOf(secret)] = graph, secret
	w.versions[0].Manifest = &release.Manifest{Variants: []release.Variant{{Name: "fp32", Graph: release.File{Name: "m.onnx", Digest: d, Size: 9}}}}
	s := New(Config{Backend: w.service(), Auth: fakeAuth{}})
	defer s.Close()
	for _, tt := range []struct {
		name, role, path, bytes string
		status                  int
		body                    string
	}{
		{"whole", "scientist", "2/files/m.onnx", "", http.StatusOK, "the graph"},
		{"the rest", "publisher", "2/files/m.onnx", "bytes=4-", http.StatusPartialContent, "graph"},
		{"a viewer", "viewer", "2/files/m.onnx", "", http.StatusForbidden, ""},
		{"another blob", "admin", "2/files/" + release.DigestOf(secret).String(), "", http.StatusNotFound, ""},
		{"another version", "admin", "1/files/m.onnx", "", http.StatusNotFound, ""},
		{"outside", "admin", "2/files/..%2Fm.onnx", "", http.StatusNotFound, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, operator.Prefix+"/models/digits/versions/"+tt.path, http.NoBody)
			req.Header.Set("Authorization", "Bearer "+tt.role)
			if tt.bytes != "" {
				req.Header.Set("Range", tt.bytes)
			}
			rec := httptest.NewRecorder()
			s.ServeHTTP(rec, req)
			if rec.Code != tt.status || tt.body != "" && (rec.Body.String() != tt.body || rec.Header().Get("ETag") != `"`+d.String()+`"`) {
				t.Errorf("got %d %q, ETag %s", rec.Code, rec.Body, rec.Header().Get("ETag"))
			}
		})
	}
	delete(w.uploads, d)
	if _, _, err := w.service().ReleaseFile(as(t, operator.Scientist), "digits", "2", "m.onnx"); err == nil {
		t.Error("a lost blob was opened")
	}
}
