package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/controlplane/api"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// memory is a small control plane behind the real HTTP server.
type memory struct {
	api.Backend

	mu    sync.Mutex // guards all below
	blobs map[release.Digest][]byte
	sizes map[release.Digest]int64
	trips int // chunks that break after half of what was sent
	label operator.LabelChange
}

func (m *memory) Device(_ context.Context, id string) (*operator.DeviceDetail, error) {
	if id != "cam/1" {
		return nil, operator.Errorf(operator.NotFound, "no device %s", id).WithHint("vedette device list")
	}
	return &operator.DeviceDetail{Device: operator.Device{ID: id, Presence: operator.Online}}, nil
}

func (m *memory) SetLabels(_ context.Context, id string, c operator.LabelChange) (*operator.Device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.label = c
	return &operator.Device{ID: id, Labels: c.Set}, nil
}

func (m *memory) RevokeDevice(context.Context, string, operator.Reasoned) error { return nil }

func (m *memory) ExportLedger(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "{\"seq\":1}\n")
	return err
}

func (m *memory) TrustMetadata(context.Context, string) ([]byte, error) {
	return []byte(`{ "signed" : 1 }`), nil
}

func (m *memory) BlobStatus(_ context.Context, d release.Digest) (*operator.Upload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status(d), nil
}

func (m *memory) status(d release.Digest) *operator.Upload {
	held := int64(len(m.blobs[d]))
	size, known := m.sizes[d]
	return &operator.Upload{Digest: d, Offset: held, Complete: known && size == held && release.DigestOf(m.blobs[d]) == d}
}

func (m *memory) UploadChunk(_ context.Context, d release.Digest, size, offset int64, r io.Reader) (*operator.Upload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if offset != int64(len(m.blobs[d])) {
		return nil, operator.Errorf(operator.OffsetMismatch, "the blob is at %d", len(m.blobs[d]))
	}
	chunk, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	m.sizes[d] = size
	if m.trips > 0 {
		m.trips--
		m.blobs[d] = append(m.blobs[d], chunk[:len(chunk)/2]...)
		panic(http.ErrAbortHandler) // the connection breaks
	}
	m.blobs[d] = append(m.blobs[d], chunk...)
	return m.status(d), nil
}

func (m *memory) Follow(ctx context.Context, _ []string, after uint64, fn func(operator.Event) error) error {
	if err := fn(operator.Event{ID: after + 1, Kind: operator.EventDevice, Subject: "cam"}); err != nil {
		return err
	}
	if after == 0 {
		panic(http.ErrAbortHandler)
	}
	<-ctx.Done()
	return ctx.Err()
}

type onlyToken string

func (o onlyToken) Authenticate(_ context.Context, token string) (operator.Principal, error) {
	if token != string(o) {
		return operator.Principal{}, operator.Errorf(operator.Unauthorized, "the token is not known")
	}
	return operator.Principal{Name: "ann", Role: operator.Admin}, nil
}

func start(t *testing.T, m *memory) *Client {
	t.Helper()
	m.blobs, m.sizes = map[release.Digest][]byte{}, map[release.Digest]int64{}
	s := api.New(api.Config{Backend: m, Auth: onlyToken("t0k")})
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Cleanup(s.Close)
	c, err := New(server.URL+"/", "t0k", Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCalls(t *testing.T) {
	m := &memory{}
	c := start(t, m)
	ctx := t.Context()
	d, err := c.Device(ctx, "cam/1")
	if err != nil || d.ID != "cam/1" || d.Presence != operator.Online {
		t.Errorf("device: got %+v, %v", d, err)
	}
	_, err = c.Device(ctx, "other")
	if e := (*operator.Error)(nil); !errors.As(err, &e) || e.Code != operator.NotFound || e.Hint == "" || e.Request == "" {
		t.Errorf("unknown device: got %#v", err)
	}
	want := operator.LabelChange{Set: map[string]string{"site": "b"}, Reason: "moved", Revision: "12"}
	if _, err := c.SetLabels(ctx, "cam", want); err != nil || m.label.Revision != "12" || m.label.Set["site"] != "b" || m.label.Reason != "moved" {
		t.Errorf("labels: got %+v, %v", m.label, err)
	}
	if err := c.RevokeDevice(ctx, "cam", operator.Reasoned{Reason: "stolen"}); err != nil {
		t.Errorf("revoke: %v", err)
	}
	var export bytes.Buffer
	if err := c.ExportLedger(ctx, &export); err != nil || export.String() != "{\"seq\":1}\n" {
		t.Errorf("export: got %q, %v", &export, err)
	}
	if raw, err := c.TrustMetadata(ctx, "root"); err != nil || string(raw) != `{ "signed" : 1 }` {
		t.Errorf("metadata must come byte for byte: got %q, %v", raw, err)
	}
}

func TestWrongTokenSaysWhatToDo(t *testing.T) {
	c := start(t, &memory{})
	c.token = "other"
	_, err := c.Device(t.Context(), "cam/1")
	if e := (*operator.Error)(nil); !errors.As(err, &e) || e.Code != operator.Unauthorized || !strings.Contains(e.Hint, "vedette login") {
		t.Errorf("got %#v", err)
	}
}

func TestRefusesServersThatAreNone(t *testing.T) {
	for _, server := range []string{"", "localhost:8080", "ftp://x", "https://", "https://user:pass@x", "https://x?y=z", "://"} {
		if _, err := New(server, "", Options{}); operator.CodeOf(err) != operator.Invalid {
			t.Errorf("%q: got %v", server, err)
		}
	}
}

// Another server behind the URL is told apart from an error of the API.
func TestForeignAnswers(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"page":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"error":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad gateway", http.StatusBadGateway) },
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) },
		"garbage": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, "{]")
		},
		"other types": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"id": 7}`)
		},
	} {
		server := httptest.NewServer(handler)
		c, err := New(server.URL, "t", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Device(t.Context(), "x"); operator.CodeOf(err) != operator.UnknownResponse {
			t.Errorf("%s: got %v", name, err)
		}
		server.Close()
	}
}

// answer is what one request gets: a body under a status, or no connection.
type answer struct {
	status int
	body   string
	hang   bool // until the request's own deadline
}

// transport gives each request the next answer, and the last one again.
type transport struct {
	tries   atomic.Int32
	answers []answer
}

// RoundTrip answers.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	n := int(t.tries.Add(1)) - 1
	a := t.answers[min(n, len(t.answers)-1)]
	if a.hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if a.status == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{
		StatusCode: a.status, Status: http.StatusText(a.status), Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(a.body)),
	}, nil
}

func scripted(t *testing.T, answers ...answer) (*Client, *transport) {
	t.Helper()
	tr := &transport{answers: answers}
	c, err := New("http://control", "t", Options{Transport: tr})
	if err != nil {
		t.Fatal(err)
	}
	return c, tr
}

var refuse = answer{}

const unavailable = `{"code":"unavailable","message":"starting"}`

func TestReadsAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := scripted(t, refuse, answer{status: 503, body: unavailable}, answer{status: 200, body: `{"id":"ca`}, answer{status: 200, body: `{"id":"cam"}`})
		begin := time.Now()
		d, err := c.Device(t.Context(), "cam")
		if err != nil || d.ID != "cam" {
			t.Errorf("got %+v, %v", d, err)
		}
		if got := tr.tries.Load(); got != 4 {
			t.Errorf("got %d tries, want 4", got)
		}
		if took := time.Since(begin); took < 700*time.Millisecond || took > 1400*time.Millisecond {
			t.Errorf("pauses of %v: want half to all of 200+400+800 ms", took)
		}
	})
}

func TestReadsGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := scripted(t, refuse)
		_, err := c.Device(t.Context(), "cam")
		if operator.CodeOf(err) != operator.Unreachable || tr.tries.Load() != DefaultTries {
			t.Errorf("got %v after %d tries", err, tr.tries.Load())
		}
	})
}

func TestCommandsAreSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := scripted(t, refuse, answer{status: 200, body: `{}`})
		_, err := c.CreateRollout(t.Context(), operator.RolloutCreate{})
		if operator.CodeOf(err) != operator.Unreachable || tr.tries.Load() != 1 {
			t.Errorf("got %v after %d tries", err, tr.tries.Load())
		}
	})
}

func TestLastingErrorsAreNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := scripted(t, answer{status: 404, body: `{"code":"not_found","message":"no"}`})
		if _, err := c.Device(t.Context(), "cam"); operator.CodeOf(err) != operator.NotFound || tr.tries.Load() != 1 {
			t.Errorf("got %v after %d tries", err, tr.tries.Load())
		}
	})
}

func TestTryHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := scripted(t, answer{hang: true})
		_, err := c.Device(t.Context(), "cam")
		if operator.CodeOf(err) != operator.Unreachable || tr.tries.Load() != DefaultTries {
			t.Errorf("got %v after %d tries", err, tr.tries.Load())
		}
	})
}

func TestUploadContinues(t *testing.T) {
	for name, held := range map[string]int{"from nothing": 0, "from the middle": 70_000, "empty blob": 0} {
		t.Run(name, func(t *testing.T) {
			m := &memory{trips: 3}
			c := start(t, m)
			content := bytes.Repeat([]byte("vedette"), 30_000)
			if name == "empty blob" {
				content = nil
			}
			d := release.DigestOf(content)
			m.blobs[d] = bytes.Clone(content[:held])
			var last int64
			u := &Uploader{Store: c, Chunk: 50_000, Progress: func(total int64) { last = total }}
			if err := u.Upload(t.Context(), d, int64(len(content)), bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(m.blobs[d], content) {
				t.Errorf("the server holds %d bytes, want %d", len(m.blobs[d]), len(content))
			}
			if last != int64(len(content)) {
				t.Errorf("progress ended at %d of %d", last, len(content))
			}
			m.trips = 1
			if err := u.Upload(t.Context(), d, int64(len(content)), bytes.NewReader(content)); err != nil || m.trips != 1 {
				t.Errorf("a complete blob was sent again: %v", err)
			}
		})
	}
}

func TestUploadGivesUpWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := scripted(t, refuse)
		u := &Uploader{Store: c, Tries: 2}
		err := u.Upload(t.Context(), release.DigestOf(nil), 0, bytes.NewReader(nil))
		if operator.CodeOf(err) != operator.Unreachable {
			t.Errorf("got %v", err)
		}
		if got := tr.tries.Load(); got != 2*DefaultTries {
			t.Errorf("got %d tries, want %d", got, 2*DefaultTries)
		}
	})
}

func TestUploadOfWrongContentIsLasting(t *testing.T) {
	c, _ := scripted(t, answer{status: 200, body: `{"offset":0}`}, answer{status: 422, body: `{"code":"digest_mismatch","message":"not the content"}`})
	u := &Uploader{Store: c}
	if err := u.Upload(t.Context(), release.DigestOf(nil), 1, strings.NewReader("x")); operator.CodeOf(err) != operator.DigestMismatch {
		t.Errorf("got %v", err)
	}
}

// After a broken connection the stream goes on behind the last event.
func TestFollowContinues(t *testing.T) {
	c := start(t, &memory{})
	done := errors.New("seen enough")
	var seen []uint64
	err := c.Follow(t.Context(), nil, 0, func(e operator.Event) error {
		if seen = append(seen, e.ID); len(seen) == 2 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) || seen[0] != 1 || seen[1] != 2 {
		t.Errorf("got %v and events %v", err, seen)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	c := start(t, &memory{})
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Follow(ctx, nil, 5, func(operator.Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestReadEvents(t *testing.T) {
	var got []string
	in := ": alive\n\nid: 1\ndata: a\ndata:b\n\nevent: x\ndata: c\n\ndata: cut"
	if err := readEvents(strings.NewReader(in), func(b []byte) error { got = append(got, string(b)); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a\nb", "c"}; strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
	long := "data: " + strings.Repeat("x", maxEvent+1) + "\n\n"
	if err := readEvents(strings.NewReader(long), func([]byte) error { return nil }); err == nil {
		t.Error("an event over the limit was read")
	}
}
