package delivery

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func TestPostIsSigned(t *testing.T) {
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := Verify("s3cret", r.Header.Get(SignatureHeader), now, time.Minute, body); err != nil || r.Header.Get("Idempotency-Key") != "n-1" {
			t.Errorf("got %v with %v", err, r.Header)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer hook.Close()
	m := &Message{URL: hook.URL, Secret: "s3cret", ContentType: "text/plain", ID: "n-1", Body: []byte("hello")}
	if err := Post(t.Context(), NewClient(), now, m); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	body := []byte("body")
	good := Signature("secret", now, body)
	for name, c := range map[string]struct {
		secret, header string
		at             time.Time
		body           string
	}{
		"another body":     {"secret", good, now, "bodY"},
		"another secret":   {"secreT", good, now, "body"},
		"nothing":          {"secret", "", now, "body"},
		"old":              {"secret", good, now.Add(6 * time.Minute), "body"},
		"from the future":  {"secret", good, now.Add(-6 * time.Minute), "body"},
		"time changed":     {"secret", strings.Replace(good, "t=1", "t=2", 1), now, "body"},
		"other version":    {"secret", strings.Replace(good, "v1", "v2", 1), now, "body"},
		"cut":              {"secret", good[:len(good)-2], now, "body"},
		"no hexadecimal":   {"secret", good + "g", now, "body"},
		"more than hashed": {"secret", good + "00", now, "body"},
	} {
		if err := Verify(c.secret, c.header, c.at, 5*time.Minute, []byte(c.body)); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v, want ErrSignature", name, err)
		}
	}
	if err := Verify("secret", good, now.Add(4*time.Minute), 5*time.Minute, body); err != nil {
		t.Errorf("good: got %v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer inner.Close()
	hook := httptest.NewServer(http.RedirectHandler(inner.URL, http.StatusTemporaryRedirect))
	defer hook.Close()
	err := Post(t.Context(), NewClient(), now, &Message{URL: hook.URL})
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Status != http.StatusTemporaryRedirect || r.Retryable() {
		t.Errorf("got %v, want a refusal for good", err)
	}
}

func TestLinkLocalIsNotDialled(t *testing.T) {
	client := NewClient()
	client.Transport.(*http.Transport).Proxy = nil
	for _, to := range []string{"http://169.254.169.254/latest", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[fd00:ec2::254]/"} {
		if err := Post(t.Context(), client, now, &Message{URL: to}); !errors.Is(err, ErrLinkLocal) {
			t.Errorf("%s: got %v, want ErrLinkLocal", to, err)
		}
	}
}

func TestErrorsHideTheURL(t *testing.T) {
	for _, u := range []string{"http://user:pass@127.0.0.1:1/secret?token=x", "http://user:pass@a b/", "ftp://user:pass@host/", "https://user:pass@h/#x"} {
		for _, err := range []error{Post(t.Context(), NewClient(), now, &Message{URL: u}), CheckURL(u)} {
			if err != nil && (strings.Contains(err.Error(), "pass") || strings.Contains(err.Error(), "token")) {
				t.Errorf("%q shows credentials", err)
			}
		}
	}
	if got := Name("https://user:pass@h/p?token=x"); got != "https://h/p" {
		t.Errorf("name: got %q", got)
	}
}

func TestStates(t *testing.T) {
	busy := &Refusal{Status: http.StatusTooManyRequests, Wait: 90 * time.Second}
	for name, c := range map[string]struct {
		err  error
		wait time.Duration // 0: given up
	}{
		"no connection": {errors.New("refused"), time.Second},
		"busy":          {busy, 90 * time.Second},
		"gone":          {&Refusal{Status: http.StatusGone}, 0},
		"broken":        {&Refusal{Status: http.StatusBadGateway}, time.Second},
	} {
		s := State{NextMS: now.UnixMilli()}
		s.Tried(now, c.err, 1)
		if wait := time.Duration(s.NextMS-now.UnixMilli()) * time.Millisecond; s.Dead() != (c.wait == 0) || !s.Dead() && wait != c.wait {
			t.Errorf("%s: got %+v, want to wait %v", name, s, c.wait)
		}
	}
	s, at := State{NextMS: now.UnixMilli()}, now
	for !s.Dead() {
		if !s.Due(at) || s.Due(at.Add(-time.Millisecond)) {
			t.Fatalf("not due when it is: %+v at %v", s, at)
		}
		s.Tried(at, errors.New("refused"), 0.5)
		if s.NextMS > 0 {
			at = time.UnixMilli(s.NextMS)
		}
	}
	if took := at.Sub(now); s.Attempts != MaxAttempts || took < 5*time.Hour || took > 9*time.Hour {
		t.Errorf("gave up after %d attempts and %v, want a night", s.Attempts, took)
	}
	s.Again(at)
	if !s.Due(at) || s.Attempts != 0 {
		t.Errorf("again: got %+v", s)
	}
	s.Tried(at, nil, 0)
	if !s.Done || s.Dead() || s.Due(at.Add(time.Hour)) {
		t.Errorf("done: got %+v", s)
	}
}
