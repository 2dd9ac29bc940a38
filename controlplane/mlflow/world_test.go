package mlflow_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/mlflow"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// world is a server with the real store, the real blob store and the real
// routes behind HTTP. Its principals have tokens that are the names of their roles.
type world struct {
	*testing.T

	store *tracking.Store
	blobs *artifact.Local
	files *mlflow.Files
	http  *httptest.Server
	role  operator.Role // of the next calls
	fleet *fleet
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldWith(t, artifact.Config{})
}

func newWorldWith(t *testing.T, cfg artifact.Config) *world {
	t.Helper()
	return newWorldOn(t, cfg, tracking.NewMemory())
}

func newWorldOn(t *testing.T, cfg artifact.Config, store *tracking.Store) *world {
	t.Helper()
	w := &world{T: t, store: store, role: operator.Scientist, fleet: &fleet{stages: map[release.Digest]operator.Stage{}}}
	cfg.Dir = t.TempDir()
	var err error
	if w.blobs, err = artifact.OpenLocal(cfg); err != nil {
		t.Fatal(err)
	}
	w.files, err = mlflow.OpenFiles(t.Context(), w.blobs, kvstore.NewMemory())
	if err != nil {
		t.Fatal(err)
	}
	w.http = httptest.NewServer(mlflow.New(mlflow.Config{
		Store: w.store, Files: w.files, Auth: roles{}, Releases: w.fleet, Journal: w.fleet,
	}))
	t.Cleanup(w.http.Close)
	return w
}

// roles lets in whoever names a role.
type roles struct{}

func (roles) Authenticate(_ context.Context, token string) (operator.Principal, error) {
	if role := operator.Role(token); role.Valid() {
		return operator.Principal{Name: "the " + token, Role: role}, nil
	}
	return operator.Principal{}, operator.Errorf(operator.Unauthorized, "the token is not known")
}

// fleet stands in for the registry and the ledger.
type fleet struct {
	mu     sync.Mutex
	stages map[release.Digest]operator.Stage // guarded by mu
	notes  []string                          // guarded by mu
}

func (f *fleet) ReleaseStage(d release.Digest) (operator.Stage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, ok := f.stages[d]; ok {
		return s, nil
	}
	return "", operator.Errorf(operator.NotFound, "there is no release %s", d)
}

func (f *fleet) MoveRelease(ctx context.Context, d release.Digest, to operator.Stage, reason string) error {
	if p, _ := operator.PrincipalOf(ctx); !p.Role.Allows(operator.Publisher) {
		return operator.Errorf(operator.Forbidden, "this needs role publisher, and %s is %s", p.Name, p.Role)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stages[d] = to
	f.notes = append(f.notes, "release to "+string(to)+": "+reason)
	return nil
}

func (f *fleet) NoteTracking(ctx context.Context, kind string, body any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, _ := operator.PrincipalOf(ctx)
	text, err := json.Marshal(body)
	f.notes = append(f.notes, p.Name+" "+kind+" "+string(text))
	return err
}

// do sends one request and returns status, headers and body.
func (w *world) do(method, path, body string) (int, http.Header, string) {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), method, w.http.URL+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	if w.role != "" {
		r.Header.Set("Authorization", "Bearer "+string(w.role))
	}
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer reply.Body.Close()
	b, err := io.ReadAll(reply.Body)
	if err != nil {
		w.Fatal(err)
	}
	return reply.StatusCode, reply.Header, string(b)
}

const api = "/api/2.0/mlflow/"

// ok sends a call that is to succeed and returns its answer.
func (w *world) ok(method, path, body string) map[string]any {
	w.Helper()
	status, _, text := w.do(method, api+path, body)
	if status != http.StatusOK {
		w.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	out := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	if err := dec.Decode(&out); err != nil {
		w.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
	return out
}

// refused sends a call that is to fail with a status and an error code.
func (w *world) refused(status int, code, method, path, body string) {
	w.Helper()
	if !strings.HasPrefix(path, "/") {
		path = api + path
	}
	got, _, text := w.do(method, path, body)
	var e struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		w.Fatalf("%s %s %s: %d %s", method, path, body, got, text)
	}
	if got != status || e.Code != code || e.Message == "" {
		w.Errorf("%s %s %.200s: got %d %s, want %d %s", method, path, body, got, text, status, code)
	}
}

// at finds a value in an answer: keys and indices separated by dots.
func at(t *testing.T, v any, path string) any {
	t.Helper()
	for key := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			i := int(key[0] - '0')
			if i >= len(x) {
				t.Fatalf("%s: there are only %d in %v", path, len(x), x)
			}
			v = x[i]
		default:
			t.Fatalf("%s: nothing at %q in %v", path, key, v)
		}
	}
	return v
}

func (w *world) text(v any, path string) string {
	w.Helper()
	s, ok := at(w.T, v, path).(string)
	if !ok {
		w.Fatalf("%s is no text in %v", path, v)
	}
	return s
}

// put uploads an artifact.
func (w *world) put(path, content string) {
	w.Helper()
	if status, _, text := w.do("PUT", "/api/2.0/mlflow-artifacts/artifacts/"+path, content); status != http.StatusOK || text != "{}\n" {
		w.Fatalf("PUT %s: %d %q", path, status, text)
	}
}
