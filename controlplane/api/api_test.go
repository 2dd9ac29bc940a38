package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// fakeBackend answers with its fields; what a test does not set panics, which
// the server must survive too.
type fakeBackend struct {
	Backend

	devices func(operator.DeviceQuery) (*operator.Page[operator.Device], error)
	device  func(id string) (*operator.DeviceDetail, error)
	labels  func(ctx context.Context, id string, c operator.LabelChange) (*operator.Device, error)
	chunk   func(ctx context.Context, d release.Digest, size, offset int64, r io.Reader) (*operator.Upload, error)
	export  func(w io.Writer) error
	follow  func(ctx context.Context, kinds []string, after uint64, fn func(operator.Event) error) error
	version func(model, version string) (*operator.VersionDetail, error)
	quality func(q operator.QualityQuery) (*operator.Quality, error)
	publish func(operator.TargetsUpload) (*operator.Published, error)
	policy  func(p operator.RetrainPolicy) (*operator.RetrainPolicy, error)
}

func (f *fakeBackend) Devices(_ context.Context, q operator.DeviceQuery) (*operator.Page[operator.Device], error) {
	return f.devices(q)
}

func (f *fakeBackend) Device(_ context.Context, id string) (*operator.DeviceDetail, error) {
	return f.device(id)
}

func (f *fakeBackend) SetLabels(ctx context.Context, id string, c operator.LabelChange) (*operator.Device, error) {
	return f.labels(ctx, id, c)
}

func (f *fakeBackend) UploadChunk(ctx context.Context, d release.Digest, size, offset int64, r io.Reader) (*operator.Upload, error) {
	return f.chunk(ctx, d, size, offset, r)
}

func (f *fakeBackend) ExportLedger(_ context.Context, w io.Writer) error { return f.export(w) }

func (f *fakeBackend) Follow(ctx context.Context, kinds []string, after uint64, fn func(operator.Event) error) error {
	return f.follow(ctx, kinds, after, fn)
}

func (f *fakeBackend) Version(_ context.Context, model, version string) (*operator.VersionDetail, error) {
	return f.version(model, version)
}

func (f *fakeBackend) Quality(_ context.Context, q operator.QualityQuery) (*operator.Quality, error) {
	return f.quality(q)
}

func (f *fakeBackend) SetRetrainPolicy(_ context.Context, p operator.RetrainPolicy) (*operator.RetrainPolicy, error) {
	return f.policy(p)
}

func (f *fakeBackend) Publish(_ context.Context, u operator.TargetsUpload) (*operator.Published, error) {
	return f.publish(u)
}

// fakeAuth knows tokens named for roles.
type fakeAuth struct{}

func (fakeAuth) Authenticate(_ context.Context, token string) (operator.Principal, error) {
	role := operator.Role(strings.TrimPrefix(token, "secret-"))
	if !role.Valid() {
		return operator.Principal{}, operator.Errorf(operator.Unauthorized, "the token is not known")
	}
	return operator.Principal{Name: "ann", Role: role, Token: "id-" + string(role)}, nil
}

// exchange is one request and what came back.
type exchange struct {
	*httptest.ResponseRecorder

	t *testing.T
}

func ask(t *testing.T, s http.Handler, role operator.Role, method, path, body string, headers ...string) exchange {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, operator.Prefix+path, strings.NewReader(body))
	if role != "" {
		req.Header.Set("Authorization", "Bearer secret-"+string(role))
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, req)
	return exchange{rec, t}
}

// code is the error code of the answer.
func (e exchange) code() operator.Code {
	e.t.Helper()
	var body operator.Error
	if err := json.Unmarshal(e.Body.Bytes(), &body); err != nil {
		e.t.Fatalf("status %d with %q: %v", e.Code, e.Body, err)
	}
	if got, want := e.Code, body.Code.Status(); got != want {
		e.t.Errorf("got status %d with code %s, want %d", got, body.Code, want)
	}
	return body.Code
}

func newServer(t *testing.T, b *fakeBackend) *Server {
	t.Helper()
	s := New(Config{Backend: b, Auth: fakeAuth{}})
	t.Cleanup(s.Close)
	return s
}

// Each route refuses who has no token, a wrong one, and one of a lesser role.
func TestEveryRouteAuthorises(t *testing.T) {
	s := newServer(t, &fakeBackend{})
	lesser := map[operator.Role]operator.Role{operator.Scientist: operator.Viewer, operator.Operator: operator.Scientist, operator.Publisher: operator.Operator, operator.Admin: operator.Publisher}
	for _, r := range routes(s) {
		if r.name == "openapi" {
			continue
		}
		path := echoParam.ReplaceAllString(r.path, "x")
		if got := ask(t, s, "", r.method, path, "").code(); got != operator.Unauthorized {
			t.Errorf("%s without a token: got %s", r.name, got)
		}
		if got := ask(t, s, "nobody", r.method, path, "").code(); got != operator.Unauthorized {
			t.Errorf("%s with an unknown token: got %s", r.name, got)
		}
		if role, ok := lesser[r.role]; ok {
			if got := ask(t, s, role, r.method, path, "").code(); got != operator.Forbidden {
				t.Errorf("%s as %s: got %s, want forbidden", r.name, role, got)
			}
		} else if r.role != operator.Viewer {
			t.Errorf("%s has role %q", r.name, r.role)
		}
		if r.method != http.MethodGet && r.role == operator.Viewer && r.name != "planRollout" {
			t.Errorf("%s changes something and is open to viewers", r.name)
		}
	}
}

func TestMalformedAuthorization(t *testing.T) {
	s := newServer(t, &fakeBackend{})
	for _, header := range []string{"Bearer", "Bearer ", "Basic secret-admin", "secret-admin", "bearer\tsecret-admin"} {
		if got := ask(t, s, "", http.MethodGet, "/devices", "", "Authorization", header).code(); got != operator.Unauthorized {
			t.Errorf("%q: got %s", header, got)
		}
	}
}

func TestListDecodesItsQuery(t *testing.T) {
	var got operator.DeviceQuery
	s := newServer(t, &fakeBackend{devices: func(q operator.DeviceQuery) (*operator.Page[operator.Device], error) {
		got = q
		return &operator.Page[operator.Device]{Items: []operator.Device{{ID: "cam-a1"}}, Next: "n", Total: 9}, nil
	}})
	e := ask(t, s, operator.Viewer, http.MethodGet, "/devices?selector=site%3Db&limit=5&cursor=c", "")
	want := operator.DeviceQuery{Paging: operator.Paging{Limit: 5, Cursor: "c"}, Selector: "site=b"}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	var page operator.Page[operator.Device]
	if err := json.Unmarshal(e.Body.Bytes(), &page); err != nil || len(page.Items) != 1 || page.Items[0].ID != "cam-a1" || page.Next != "n" || page.Total != 9 {
		t.Errorf("got %s, %v", e.Body, err)
	}
	if got := ask(t, s, operator.Viewer, http.MethodGet, "/devices?selctor=site%3Db", "").code(); got != operator.Invalid {
		t.Errorf("mistyped parameter: got %s", got)
	}
}

func TestBodies(t *testing.T) {
	s := newServer(t, &fakeBackend{labels: func(ctx context.Context, id string, c operator.LabelChange) (*operator.Device, error) {
		p, _ := operator.PrincipalOf(ctx)
		return &operator.Device{ID: id, Labels: c.Set, Revision: c.Revision, Site: p.Name}, nil
	}})
	for name, c := range map[string]struct {
		body, media string
		want        operator.Code
	}{
		"unknown field": {`{"sett":{"a":"b"}}`, "application/json", operator.Invalid},
		"no JSON":       {`site=b`, "application/json", operator.Invalid},
		"two values":    {`{} {}`, "application/json", operator.Invalid},
		"a form":        {`set=b`, "application/x-www-form-urlencoded", operator.Invalid},
		"too large":     {`{"reason":"` + strings.Repeat("x", operator.MaxBody) + `"}`, "application/json", operator.TooLarge},
		"nothing":       {``, "application/json", operator.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			e := ask(t, s, operator.Operator, http.MethodPatch, "/devices/cam-a1/labels", c.body, "Content-Type", c.media)
			if got := e.code(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	e := ask(t, s, operator.Operator, http.MethodPatch, "/devices/cam-a1/labels", `{"set":{"site":"b"},"reason":"moved"}`, "If-Match", `"7"`)
	var d operator.Device
	if err := json.Unmarshal(e.Body.Bytes(), &d); err != nil || d.ID != "cam-a1" || d.Labels["site"] != "b" || d.Revision != "7" || d.Site != "ann" {
		t.Errorf("got %s, %v", e.Body, err)
	}
}

func TestPathParametersReachTheirMethods(t *testing.T) {
	s := newServer(t, &fakeBackend{
		version: func(model, version string) (*operator.VersionDetail, error) {
			return &operator.VersionDetail{Version: operator.Version{Model: model, Version: version}}, nil
		},
		quality: func(q operator.QualityQuery) (*operator.Quality, error) {
			return &operator.Quality{Model: q.Model + "/" + q.Cohort}, nil
		},
		policy: func(p operator.RetrainPolicy) (*operator.RetrainPolicy, error) { return &p, nil },
	})
	for _, c := range []struct{ method, path, body, want string }{
		{http.MethodGet, "/models/digits/versions/1.0", "", `"version":"1.0"`},
		{http.MethodGet, "/models/digits/quality?cohort=b&model=other", "", `"model":"digits/b"`},
		{http.MethodPut, "/models/digits/retrain-policy", `{"model":"other","on_drift":true}`, `"model":"digits"`},
	} {
		e := ask(t, s, operator.Admin, c.method, c.path, c.body)
		if e.Code != http.StatusOK || !strings.Contains(e.Body.String(), c.want) {
			t.Errorf("%s %s: got %d %s, want %s in it", c.method, c.path, e.Code, e.Body, c.want)
		}
	}
}

// What goes wrong inside is for the log, not for the client.
func TestInternalErrorsStayInside(t *testing.T) {
	var log bytes.Buffer
	s := New(Config{
		Auth: fakeAuth{}, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Backend: &fakeBackend{device: func(id string) (*operator.DeviceDetail, error) {
			switch id {
			case "gone":
				return nil, fmt.Errorf("show: %w", operator.Errorf(operator.NotFound, "no device gone").WithHint("list them"))
			case "slow":
				return nil, fmt.Errorf("read bucket: %w", context.DeadlineExceeded)
			}
			return nil, errors.New("open /secret/path")
		}},
	})
	defer s.Close()
	e := ask(t, s, operator.Viewer, http.MethodGet, "/devices/x", "", requestIDHeader, "abc-1")
	if got := e.code(); got != operator.Internal {
		t.Errorf("got %s, want internal", got)
	}
	if strings.Contains(e.Body.String(), "secret") || !strings.Contains(e.Body.String(), "abc-1") {
		t.Errorf("got %s: want the request id and not the cause", e.Body)
	}
	if !strings.Contains(log.String(), "open /secret/path") || !strings.Contains(log.String(), "abc-1") {
		t.Errorf("log has no cause: %s", &log)
	}
	if got := ask(t, s, operator.Viewer, http.MethodGet, "/devices/gone", "").code(); got != operator.NotFound {
		t.Errorf("got %s, want not_found", got)
	}
	if got := ask(t, s, operator.Viewer, http.MethodGet, "/devices/slow", "").code(); got != operator.Unavailable {
		t.Errorf("got %s, want unavailable", got)
	}
	if got := ask(t, s, operator.Viewer, http.MethodGet, "/overview", "").code(); got != operator.Internal {
		t.Errorf("a panic: got %s, want internal", got)
	}
	if strings.Contains(log.String(), "secret-") {
		t.Errorf("a token is in the log: %s", &log)
	}
}

// Signed targets grow with every release; nothing else may be that large.
func TestTargetsMayBeLarge(t *testing.T) {
	s := newServer(t, &fakeBackend{publish: func(u operator.TargetsUpload) (*operator.Published, error) {
		return &operator.Published{Targets: int64(len(u.Targets))}, nil
	}})
	for size, want := range map[int]int{4 << 20: http.StatusOK, operator.MaxTargetsBody: http.StatusRequestEntityTooLarge} {
		body, err := json.Marshal(operator.TargetsUpload{Targets: make([]byte, size)})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, s, operator.Publisher, http.MethodPost, "/trust/targets", string(body)).Code; got != want {
			t.Errorf("%d bytes: got status %d, want %d", size, got, want)
		}
	}
}

func TestUnknownRoutes(t *testing.T) {
	s := newServer(t, &fakeBackend{})
	if got := ask(t, s, operator.Admin, http.MethodGet, "/nothing", "").code(); got != operator.NotFound {
		t.Errorf("got %s", got)
	}
	wrong := ask(t, s, operator.Admin, http.MethodPut, "/devices", "")
	if got := wrong.code(); got != operator.WrongMethod || wrong.Code != http.StatusMethodNotAllowed {
		t.Errorf("got %s, status %d", got, wrong.Code)
	}
	if got := wrong.Header().Get("Allow"); !strings.Contains(got, http.MethodGet) || strings.Contains(got, http.MethodPut) {
		t.Errorf("allowed is %q, want GET", got)
	}
}

func TestUploadHeaders(t *testing.T) {
	digest := release.DigestOf([]byte("hello"))
	s := newServer(t, &fakeBackend{chunk: func(_ context.Context, d release.Digest, size, offset int64, r io.Reader) (*operator.Upload, error) {
		b, err := io.ReadAll(r)
		return &operator.Upload{Digest: d, Offset: offset + int64(len(b)), Complete: offset+int64(len(b)) == size}, err
	}})
	path := "/uploads/" + digest.String()
	e := ask(t, s, operator.Publisher, http.MethodPatch, path, "llo", "Content-Type", chunkMedia, offsetHeader, "2", lengthHeader, "5")
	var up operator.Upload
	if err := json.Unmarshal(e.Body.Bytes(), &up); err != nil || up != (operator.Upload{Digest: digest, Offset: 5, Complete: true}) {
		t.Errorf("got %s, %v", e.Body, err)
	}
	for name, headers := range map[string][]string{
		"JSON":            {"Content-Type", "application/json", offsetHeader, "0", lengthHeader, "5"},
		"no offset":       {"Content-Type", chunkMedia, lengthHeader, "5"},
		"negative offset": {"Content-Type", chunkMedia, offsetHeader, "-1", lengthHeader, "5"},
		"behind the end":  {"Content-Type", chunkMedia, offsetHeader, "6", lengthHeader, "5"},
		"no length":       {"Content-Type", chunkMedia, offsetHeader, "0"},
	} {
		if got := ask(t, s, operator.Publisher, http.MethodPatch, path, "x", headers...).code(); got != operator.Invalid {
			t.Errorf("%s: got %s", name, got)
		}
	}
	if got := ask(t, s, operator.Publisher, http.MethodPatch, "/uploads/beef", "x", "Content-Type", chunkMedia).code(); got != operator.Invalid {
		t.Errorf("short digest: got %s", got)
	}
}

func TestServesItsDocument(t *testing.T) {
	e := ask(t, newServer(t, &fakeBackend{}), "", http.MethodGet, "/openapi.yaml", "")
	if e.Code != http.StatusOK || !bytes.Equal(e.Body.Bytes(), OpenAPI()) {
		t.Errorf("got status %d and %d bytes", e.Code, e.Body.Len())
	}
}
