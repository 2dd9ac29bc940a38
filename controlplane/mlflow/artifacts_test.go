package mlflow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/mlflow"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

const proxy = "/api/2.0/mlflow-artifacts/artifacts/"

func TestArtifacts(t *testing.T) {
	w := newWorld(t)
	w.put("1/abc/artifacts/notes.txt", "one")
	w.put("1/abc/artifacts/model/MLmodel", "flavors: {}")
	w.put("1/abc/artifacts/model/data/weights.bin", "0123456789")
	w.put("1/abd/artifacts/other.txt", "another run's")

	status, h, body := w.do("GET", proxy+"1/abc/artifacts/notes.txt", "")
	if status != http.StatusOK || body != "one" {
		t.Fatalf("got %d %q", status, body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/octet-stream", "Content-Disposition": "attachment; filename=notes.txt",
		"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
	if status, h, body := w.do("HEAD", proxy+"1/abc/artifacts/notes.txt", ""); status != http.StatusOK || body != "" || h.Get("Content-Length") != "3" {
		t.Errorf("HEAD: %d %q %v", status, body, h)
	}
	_, _, body = w.do("GET", "/api/2.0/mlflow-artifacts/artifacts?path=1/abc/artifacts", "")
	if want := `{"files":[{"path":"model","is_dir":true},{"path":"notes.txt","is_dir":false,"file_size":3}]}` + "\n"; body != want {
		t.Errorf("got %s, want %s", body, want)
	}
	w.put("1/abc/artifacts/notes.txt", "two, longer")
	if _, _, body := w.do("GET", proxy+"1/abc/artifacts/notes.txt", ""); body != "two, longer" {
		t.Errorf("got %q after replacement", body)
	}
	if status, _, _ := w.do("DELETE", proxy+"1/abc/artifacts/model", ""); status != http.StatusOK {
		t.Errorf("DELETE: %d", status)
	}
	w.refused(http.StatusNotFound, "RESOURCE_DOES_NOT_EXIST", "GET", proxy+"1/abc/artifacts/model/data/weights.bin", "")
	if n := len(w.blobs.Digests()); n != 2 {
		t.Errorf("%d blobs are left, want those of the two files that are", n)
	}
	w.refused(http.StatusNotImplemented, "NOT_IMPLEMENTED", "POST", "/api/2.0/mlflow-artifacts/mpu/create/1/abc/artifacts/big", `{}`)
}

func TestSameContentIsKeptUntilItsLastName(t *testing.T) {
	w := newWorld(t)
	w.put("1/a/artifacts/x", "same")
	w.put("1/b/artifacts/x", "same")
	if n := len(w.blobs.Digests()); n != 1 {
		t.Errorf("%d blobs for one content", n)
	}
	w.do("DELETE", proxy+"1/a/artifacts/x", "")
	if _, _, body := w.do("GET", proxy+"1/b/artifacts/x", ""); body != "same" {
		t.Errorf("got %q after the other name was removed", body)
	}
	w.put("1/b/artifacts/x", "changed")
	if w.blobs.Has(release.DigestOf([]byte("same"))) {
		t.Error("content that nothing names was kept")
	}
}

func TestRanges(t *testing.T) {
	w := newWorld(t)
	w.put("1/a/artifacts/x", "0123456789")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.http.URL+proxy+"1/a/artifacts/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer viewer")
	r.Header.Set("Range", "bytes=3-5")
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if b, _ := io.ReadAll(reply.Body); reply.StatusCode != http.StatusPartialContent || string(b) != "345" {
		t.Errorf("got %d %q", reply.StatusCode, b)
	}
}

// Paths that would leave where they are joined to, here or on the disk of
// whoever downloads them.
func TestPathsThatClimb(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{
		"1/a/../../etc/passwd", "1/a/%2e%2e/x", "1/a/%252e%252e/x", "1/a/%25252e%25252e/x", "..%2fx", "1/..", "%2e%2e",
		"1/a/%00x", "1/a/%2500x", "%2fetc/passwd", "%252fetc/passwd", "1//x", "1/a/..%5cx", "C%3a/x", "1/./x", "1/a/", "1/%0ax",
		"http%3a//h/x", strings.Repeat("x", 300), strings.Repeat("x/", 600) + "x",
	} {
		for _, method := range []string{"PUT", "GET", "DELETE"} {
			if method == "DELETE" && path == "1/a/" {
				continue
			}
			w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", method, proxy+path, "x")
		}
	}
	if n := len(w.blobs.Digests()); n != 0 {
		t.Errorf("%d blobs were stored", n)
	}
	_, run := w.experiment("climbing")
	for _, path := range []string{"../x", "%2e%2e/x", "/etc/passwd"} {
		w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "GET", "/get-artifact?run_id="+run+"&path="+path, "")
		w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "GET", "artifacts/list?run_id="+run+"&path="+path, "")
	}
	w.put("1/a/artifacts/100%25 sure.txt", "a percent sign is a name like any other")
}

func TestSourcesOnDisks(t *testing.T) {
	w := newWorld(t)
	w.ok("POST", "registered-models/create", `{"name":"m"}`)
	for _, source := range []string{
		"/etc/passwd", "file:///etc", "file:/etc", "FILE:///etc", "./x", "mlflow-artifacts:/1/../x", "mlflow-artifacts:/1/%2e%2e/x",
		"mlflow-artifacts://other.host/1/x", "mlflow-artifacts:/", "runs:/../x", "models:/m-../x", "models:/m", "models:/none/1", "javascript:1", "s3://b/../x",
	} {
		status, _, body := w.do("POST", api+"model-versions/create", fmt.Sprintf(`{"name":"m","source":%q}`, source))
		if status != http.StatusBadRequest && status != http.StatusNotFound {
			t.Errorf("%s: got %d %s", source, status, body)
		}
	}
}

// A full journal is told at once too: clients repeat 429, which is MLflow's for it.
func TestFullJournal(t *testing.T) {
	store, err := tracking.Open(t.Context(), tracking.Config{MaxBytes: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close(context.Background()) })
	w := newWorldOn(t, artifact.Config{}, store)
	w.ok("POST", "registered-models/create", `{"name":"m"}`)
	w.refused(http.StatusInsufficientStorage, "RESOURCE_EXHAUSTED", "POST", "registered-models/create", `{"name":"n","description":"`+strings.Repeat("x", 4<<10)+`"}`)
	w.ok("GET", "registered-models/get?name=m", "")
}

func TestFullStorage(t *testing.T) {
	w := newWorldWith(t, artifact.Config{MaxTotal: 64 << 10, MaxBlob: 48 << 10})
	w.refused(http.StatusRequestEntityTooLarge, "INVALID_PARAMETER_VALUE", "PUT", proxy+"1/a/artifacts/z", strings.Repeat("z", 50<<10))
	w.put("1/a/artifacts/x", strings.Repeat("x", 40<<10))
	w.refused(http.StatusInsufficientStorage, "RESOURCE_EXHAUSTED", "PUT", proxy+"1/a/artifacts/y", strings.Repeat("y", 40<<10))
	w.do("DELETE", proxy+"1/a/artifacts/x", "")
	w.put("1/a/artifacts/y", strings.Repeat("y", 40<<10))
}

// A sender that goes away in the middle leaves nothing behind.
func TestBrokenUpload(t *testing.T) {
	w := newWorld(t)
	gone := io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), failing{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, w.http.URL+proxy+"1/a/artifacts/x", gone)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer scientist")
	if reply, err := http.DefaultClient.Do(r); err == nil {
		reply.Body.Close()
		t.Fatalf("got %d", reply.StatusCode)
	}
	w.http.Close() // waits for the handler
	if n := len(w.blobs.Digests()); n != 0 {
		t.Errorf("%d blobs were stored", n)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("unplugged") }

// What a crash between blob and path left is removed at the next start.
func TestOrphansAreRemoved(t *testing.T) {
	blobs, err := artifact.OpenLocal(artifact.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	bucket := kvstore.NewMemory()
	files, err := mlflow.OpenFiles(t.Context(), blobs, bucket)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := files.Put(t.Context(), "1/a/artifacts/x", strings.NewReader("kept"))
	if err != nil {
		t.Fatal(err)
	}
	orphan, _, err := blobs.Put(t.Context(), strings.NewReader("orphan"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mlflow.OpenFiles(t.Context(), blobs, bucket); err != nil {
		t.Fatal(err)
	}
	if blobs.Has(orphan) || !blobs.Has(kept.Digest) {
		t.Errorf("the orphan is there: %t, the artifact is there: %t", blobs.Has(orphan), blobs.Has(kept.Digest))
	}
}

// A large file passes through without being held: while it does, the heap of
// the process, client included, stays far below its size.
func TestLargeArtifactIsNotHeld(t *testing.T) {
	size, bound := int64(64<<20), uint64(24<<20)
	if os.Getenv("VEDETTE_FULL") != "" {
		size, bound = 2<<30, 64<<20
	}
	w := newWorld(t)
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	peak := &heap{from: heapNow()}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, w.http.URL+proxy+"1/a/artifacts/big", io.TeeReader(noise(size), peak))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer scientist")
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		t.Fatalf("got %d", reply.StatusCode)
	}
	same := &compare{want: noise(size)}
	r, _ = http.NewRequestWithContext(t.Context(), http.MethodGet, w.http.URL+proxy+"1/a/artifacts/big", nil)
	r.Header.Set("Authorization", "Bearer viewer")
	if reply, err = http.DefaultClient.Do(r); err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	n, err := io.Copy(io.MultiWriter(same, peak), reply.Body)
	if err != nil || n != size {
		t.Fatalf("got %d bytes, %v", n, err)
	}
	t.Logf("%d MiB through a heap that grew by %d MiB at most", size>>20, peak.most>>20)
	if peak.most > bound {
		t.Errorf("the heap grew by %d MiB, more than %d", peak.most>>20, bound>>20)
	}
}

func noise(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{7}), size)
}

// heap looks at how much is in use, every 8 MiB that pass.
type heap struct {
	from, most uint64
	passed     int
}

func (h *heap) Write(p []byte) (int, error) {
	if h.passed += len(p); h.passed > 8<<20 {
		h.passed = 0
		if now := heapNow(); now > h.from {
			h.most = max(h.most, now-h.from)
		}
	}
	return len(p), nil
}

func heapNow() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// compare fails where what passes is not what is wanted.
type compare struct{ want io.Reader }

func (c *compare) Write(p []byte) (int, error) {
	want := make([]byte, len(p))
	if _, err := io.ReadFull(c.want, want); err != nil {
		return 0, err
	}
	if !bytes.Equal(p, want) {
		return 0, errors.New("the content differs")
	}
	return len(p), nil
}

func TestDeployable(t *testing.T) {
	const pickle = "flavors:\n  python_function: {loader_module: mlflow.sklearn}\n  sklearn: {pickled_model: model.pkl}\n"
	const onnx = "flavors:\n  onnx: {data: model.onnx, onnx_version: 1.16.0}\n  python_function: {loader_module: mlflow.onnx}\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // of the tag
		why   string // part of status_message
	}{
		{"pickle", map[string]string{"MLmodel": pickle, "model.pkl": "x"}, "false", "only a pickle (sklearn)"},
		{"onnx", map[string]string{"MLmodel": onnx, "model.onnx": "x"}, "true", ""},
		{"onnx without its graph", map[string]string{"MLmodel": onnx}, "false", "model.onnx was not uploaded"},
		{"broken", map[string]string{"MLmodel": "flavors: ["}, "false", "cannot be read"},
		{"nothing yet", nil, "", "not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			_, run := w.experiment("deployable")
			root := strings.TrimPrefix(w.text(w.ok("GET", "runs/get?run_id="+run, ""), "run.info.artifact_uri"), "mlflow-artifacts:/")
			w.ok("POST", "registered-models/create", `{"name":"m"}`)
			for name, content := range c.files {
				w.put(root+"/model/"+name, content)
			}
			v := w.ok("POST", "model-versions/create", fmt.Sprintf(`{"name":"m","source":"runs:/%s/model","run_id":%q}`, run, run))
			message, _ := at(t, v, "model_version.status_message").(string)
			if tag(t, v, "vedette.deployable") != c.want || !strings.Contains(message, c.why) || w.text(v, "model_version.status") != "READY" {
				t.Errorf("got %v, want deployable=%s because %s", v, c.want, c.why)
			}
			if c.files != nil {
				return
			}
			w.put(root+"/model/MLmodel", pickle) // a client that registers first and uploads then
			if got := tag(t, w.ok("GET", "model-versions/get?name=m&version=1", ""), "vedette.deployable"); got != "false" {
				t.Errorf("got %q after the upload", got)
			}
		})
	}
}

// A copy of a version answers no request, and nobody asked to publish it.
func TestCopyLeavesPublishingBehind(t *testing.T) {
	w := newWorld(t)
	w.ok("POST", "registered-models/create", `{"name":"m"}`)
	w.ok("POST", "registered-models/create", `{"name":"copy"}`)
	w.ok("POST", "model-versions/create", `{"name":"m","source":"mlflow-artifacts:/1/a/artifacts/model"}`)
	v := w.ok("POST", "model-versions/create", `{"name":"copy","source":"models:/m/1","tags":[
		{"key":"vedette.publish","value":"true"},{"key":"vedette.retrain","value":"r-1"},{"key":"vedette.release","value":"x"},
		{"key":"vedette.problem","value":"x"},{"key":"vedette.problem.of","value":"x"},{"key":"vedette.evidence","value":"wanted"},
		{"key":"vedette.evidence.problem","value":"x"},{"key":"team","value":"line 3"}]}`)
	var keys []string
	for _, x := range at(t, v, "model_version.tags").([]any) {
		keys = append(keys, w.text(x, "key"))
	}
	if got, want := strings.Join(keys, " "), "team vedette.principal"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// tag is a tag of the version in an answer.
func tag(t *testing.T, answer map[string]any, key string) string {
	t.Helper()
	list, _ := at(t, answer, "model_version.tags").([]any)
	for _, item := range list {
		if at(t, item, "key") == key {
			return fmt.Sprint(at(t, item, "value"))
		}
	}
	return ""
}

// A version that was signed has one stage, the registry's, and moves by its
// rules; what its lineage names is not taken away.
func TestReleasedVersion(t *testing.T) {
	w := newWorld(t)
	d := release.DigestOf([]byte("manifest"))
	w.fleet.stages[d] = operator.StageStaging
	w.ok("POST", "registered-models/create", `{"name":"m"}`)
	for range 2 {
		w.ok("POST", "model-versions/create", `{"name":"m","source":"mlflow-artifacts:/1/a/artifacts/model"}`)
	}
	attach := fmt.Sprintf(`{"name":"m","version":"1","key":"vedette.release","value":"%s"}`, d)
	w.refused(http.StatusForbidden, "PERMISSION_DENIED", "POST", "model-versions/set-tag", attach)
	w.role = operator.Publisher
	w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "POST", "model-versions/set-tag", `{"name":"m","version":"1","key":"vedette.release","value":"mine"}`)
	w.ok("POST", "model-versions/set-tag", attach)

	w.role = operator.Scientist
	if got := w.text(w.ok("GET", "model-versions/get?name=m&version=1", ""), "model_version.current_stage"); got != "Staging" {
		t.Errorf("got stage %s, want the release's", got)
	}
	to := func(version int, stage string) string {
		return fmt.Sprintf(`{"name":"m","version":"%d","stage":%q,"archive_existing_versions":true}`, version, stage)
	}
	w.refused(http.StatusForbidden, "PERMISSION_DENIED", "POST", "model-versions/transition-stage", to(1, "Production"))
	w.role = operator.Publisher
	w.ok("POST", "model-versions/transition-stage", to(1, "Production"))
	if w.fleet.stages[d] != operator.StageProduction {
		t.Errorf("the release is %s", w.fleet.stages[d])
	}
	w.ok("POST", "model-versions/transition-stage", to(2, "production"))
	if w.fleet.stages[d] != operator.StageArchived {
		t.Errorf("the release is %s after another version came to production", w.fleet.stages[d])
	}
	w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "DELETE", "model-versions/delete", `{"name":"m","version":"1"}`)
	w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "DELETE", "registered-models/delete", `{"name":"m"}`)
	w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "POST", "registered-models/rename", `{"name":"m","new_name":"n"}`)
	w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "POST", "model-versions/transition-stage", to(1, "None"))
	if notes := strings.Join(w.fleet.notes, "\n"); !strings.Contains(notes, "mlflow.stage") || !strings.Contains(notes, "release to archived") {
		t.Errorf("got notes\n%s", notes)
	}
}
