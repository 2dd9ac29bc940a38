package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// answered is an open answer of a real server.
type answered struct {
	status int
	media  string
	body   io.Reader
}

// open asks a real server for a stream.
func open(t *testing.T, s *Server, path string, headers ...string) answered {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Cleanup(s.Close) // first: a stream has no other end
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+operator.Prefix+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret-viewer")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return answered{res.StatusCode, res.Header.Get("Content-Type"), res.Body}
}

func TestEventStream(t *testing.T) {
	type asked struct {
		kinds []string
		after uint64
	}
	calls := make(chan asked, 1)
	s := New(Config{Auth: fakeAuth{}, Heartbeat: time.Millisecond, Backend: &fakeBackend{
		follow: func(ctx context.Context, kinds []string, after uint64, fn func(operator.Event) error) error {
			calls <- asked{kinds, after}
			if err := fn(operator.Event{ID: 8, Kind: operator.EventDevice, Subject: "cam-a1"}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		},
	}})
	res := open(t, s, "/events?kinds=device,rollout", "Last-Event-ID", "7")
	if got := <-calls; got.after != 7 || !slices.Equal(got.kinds, []string{"device", "rollout"}) {
		t.Errorf("got %+v", got)
	}
	if got := res.media; got != "text/event-stream" {
		t.Errorf("got content type %q", got)
	}
	lines := bufio.NewScanner(res.body)
	var seen []string
	for lines.Scan() && lines.Text() != ": alive" {
		seen = append(seen, lines.Text())
	}
	got := strings.Join(seen, "\n")
	if !strings.HasPrefix(got, "id: 8\ndata: {\"id\":8,\"kind\":\"device\",\"subject\":\"cam-a1\"") {
		t.Errorf("got %q", got)
	}
	s.Close()
	if _, err := io.Copy(io.Discard, res.body); err != nil {
		t.Errorf("the stream broke instead of ending: %v", err)
	}
}

func TestStreamRefusedBeforeItOpens(t *testing.T) {
	s := New(Config{Auth: fakeAuth{}, Backend: &fakeBackend{
		follow: func(context.Context, []string, uint64, func(operator.Event) error) error {
			return operator.Errorf(operator.Invalid, "no events of kind x")
		},
	}})
	if got := open(t, s, "/events?kinds=x").status; got != http.StatusBadRequest {
		t.Errorf("got status %d, want 400", got)
	}
}

// A cut export must not look whole.
func TestExportThatBreaksOff(t *testing.T) {
	s := New(Config{Auth: fakeAuth{}, Backend: &fakeBackend{export: func(w io.Writer) error {
		if _, err := io.WriteString(w, strings.Repeat("{}\n", 100_000)); err != nil {
			return err
		}
		return errors.New("stream is gone")
	}}})
	res := open(t, s, "/ledger/export")
	if _, err := io.Copy(io.Discard, res.body); err == nil {
		t.Error("a cut export was read to its end")
	}
}

func TestExportThatFailsAtOnce(t *testing.T) {
	s := New(Config{Auth: fakeAuth{}, Backend: &fakeBackend{export: func(io.Writer) error { return errors.New("stream is gone") }}})
	if got := open(t, s, "/ledger/export").status; got != http.StatusInternalServerError {
		t.Errorf("got status %d, want 500", got)
	}
}

// The deadline of a stream is gone when its connection is used again.
func TestConnectionSurvivesAnExport(t *testing.T) {
	s := New(Config{Auth: fakeAuth{}, Idle: time.Millisecond, Backend: &fakeBackend{
		export: func(w io.Writer) error { _, err := io.WriteString(w, "{}\n"); return err },
		device: func(string) (*operator.DeviceDetail, error) {
			// Longer than Idle: a deadline left behind would now have passed.
			<-time.After(20 * time.Millisecond)
			return &operator.DeviceDetail{}, nil
		},
	}})
	server := httptest.NewServer(s)
	defer server.Close()
	defer s.Close()
	for _, path := range []string{"/ledger/export", "/devices/x"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+operator.Prefix+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer secret-viewer")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		res.Body.Close()
	}
}
