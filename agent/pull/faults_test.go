package pull

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	randv2 "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// trusting trusts the authority alone, at the time of now.
func trusting(a *agenttest.Authority, now func() time.Time) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.Pool(), Time: now},
		DisableKeepAlives: true, TLSHandshakeTimeout: time.Second, ResponseHeaderTimeout: time.Second,
	}}
}

// secure is a TLS server that answers with h.
func secure(t *testing.T, cfg *tls.Config, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.TLS = cfg
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// drip sends a byte at a time, as slowly as keeps a connection alive.
func drip(res http.ResponseWriter, req *http.Request) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := res.Write([]byte("x")); err != nil {
			return
		}
		res.(http.Flusher).Flush()
		select {
		case <-tick.C:
		case <-req.Context().Done():
			return
		}
	}
}

// TestFaultsOfTheNetwork puts every fault between a device and its control
// plane, over real TLS: the same name for it wherever it strikes (metadata,
// manifest, file), something to do about it, a retry after a pause, and nothing
// that was not verified.
func TestFaultsOfTheNetwork(t *testing.T) {
	w := newWorld(t, 5000)
	ca := agenttest.NewAuthority(t, day0.Add(10*year))
	good := ca.Server(t, day0.Add(year))
	page := func(res http.ResponseWriter, _ *http.Request) {
		res.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(res, "<html>sign in</html>")
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, tt := range []struct {
		name string
		base string
		want error
		code string
	}{
		{"no address for the name", "https://control.invalid", link.ErrName, "dns"},
		{"nobody listens", strings.Replace(closed.URL, "http", "https", 1), link.ErrUnreachable, "unreachable"},
		{"another authority", secure(t, agenttest.NewAuthority(t, day0.Add(10*year)).Server(t, day0.Add(year)), w.serve), link.ErrAuthority, "tls_authority"},
		{"expired server certificate", secure(t, ca.Server(t, day0.Add(-time.Hour)), w.serve), link.ErrExpired, "tls_expired"},
		{"cut in the handshake", "https://" + agenttest.Listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 100)) }), link.ErrCut, "cut"},
		{"silent in the handshake", "https://" + agenttest.Listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), link.ErrSilent, "timeout"},
		{"captive portal without TLS", "https://" + agenttest.Listen(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
		}), link.ErrNotTLS, "not_tls"},
		{"captive portal behind a proxy", secure(t, good, page), ErrPortal, "captive_portal"},
		{"redirect to a portal", secure(t, good, func(res http.ResponseWriter, req *http.Request) {
			http.Redirect(res, req, "http://"+closed.Listener.Addr().String()+"/login", http.StatusFound)
		}), ErrPortal, "captive_portal"},
		{"500", secure(t, good, func(res http.ResponseWriter, _ *http.Request) { http.Error(res, "oops", 500) }), ErrServer, "server"},
		{"silent after the handshake", secure(t, good, func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }), link.ErrSilent, "timeout"},
		{"a byte a second", secure(t, good, drip), link.ErrSilent, "timeout"},
		{"cut after the headers", secure(t, good, func(res http.ResponseWriter, _ *http.Request) {
			res.Header().Set("Content-Length", "100000")
			_, _ = res.Write(make([]byte, 100))
			res.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}), link.ErrCut, "cut"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := trusting(ca, func() time.Time { return day0 })
			t.Cleanup(client.CloseIdleConnections)
			bad := &HTTP{Client: client, Base: tt.base, patience: 300 * time.Millisecond}
			cfg := w.cfg
			var pauses []time.Duration
			cfg.Attempts, cfg.Stall = 3, 300*time.Millisecond
			cfg.Wait = func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil }
			cfg.Trust = w.freshTrust()
			cfg.Blobs, cfg.Metadata = bad, w.cfg.Metadata
			dir := t.TempDir()
			reason(t, New(cfg).Fetch(t.Context(), w.manifest, dir, nil), tt.want, tt.code, true)
			_, err := New(cfg).Resolve(t.Context(), "digits", w.digest)
			reason(t, err, tt.want, tt.code, true)
			if len(pauses) != 4 {
				t.Errorf("paused %d times, want twice for the file and twice for the manifest", len(pauses))
			}
			cfg.Metadata, cfg.Trust = bad, w.freshTrust()
			_, err = New(cfg).Resolve(t.Context(), "digits", w.digest)
			reason(t, err, tt.want, tt.code, true)
			if entries, _ := os.ReadDir(dir); len(entries) > 1 || len(entries) == 1 && !strings.HasSuffix(entries[0].Name(), partSuffix) {
				t.Errorf("the folder holds %v", entries)
			}
		})
	}
}

func (w *world) freshTrust() *trust.Store {
	w.t.Helper()
	store, err := trust.Open(w.t.TempDir(), release.DigestOf(w.files[trustPath+"root.1.json"]))
	if err != nil {
		w.t.Fatal(err)
	}
	return store
}

// cutAfter serves the world, but ends the first answer for a graph after so many
// bytes of it.
func (w *world) cutAfter(cut int64) {
	w.instead(func(res http.ResponseWriter, req *http.Request) {
		if !strings.HasSuffix(req.URL.Path, w.graph().Digest.String()) {
			w.file(res, req)
			return
		}
		w.handler.Store(nil)
		content, from := w.files[req.URL.Path], int64(0)
		if r := req.Header.Get("Range"); r != "" {
			from, _ = strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(r, "bytes="), "-"), 10, 64)
			res.Header().Set("Content-Range", "bytes "+strconv.FormatInt(from, 10)+"-/"+strconv.Itoa(len(content)))
		}
		res.Header().Set("Content-Length", strconv.FormatInt(int64(len(content))-from, 10))
		if from > 0 {
			res.WriteHeader(http.StatusPartialContent)
		}
		end := min(from+cut, int64(len(content)))
		n, _ := res.Write(content[from:end])
		w.mu.Lock()
		w.sent += int64(n)
		w.mu.Unlock()
		if end < int64(len(content)) {
			res.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	})
}

// TestCutAtEveryByte ends the connection after every single byte of a small
// file: the same Fetch goes on, and what came does not come again.
func TestCutAtEveryByte(t *testing.T) {
	const size = 300
	w := newWorld(t, size)
	for cut := range int64(size) {
		w.sent, w.dir = 0, t.TempDir()
		w.cutAfter(cut)
		if err := w.fetch(nil); err != nil {
			t.Fatalf("cut after %d bytes: %v", cut, err)
		}
		if w.sent != w.manifest.Size() {
			t.Errorf("cut after %d bytes: %d were sent, want %d", cut, w.sent, w.manifest.Size())
		}
	}
	w.whole()
}

// TestKilledAtRandomBytes kills the process again and again after a random
// number of bytes (the files stay as they are): every new one fetches at most
// one chunk again, by what the server sent.
func TestKilledAtRandomBytes(t *testing.T) {
	const size = 6*chunk + 4321
	for seed := range uint64(6) {
		r := randv2.New(randv2.NewPCG(seed, 9))
		w := newWorld(t, size)
		w.cfg.Attempts = 1
		kills := int64(0)
		for kills < 30 {
			w.cutAfter(r.Int64N(2 * chunk))
			err := w.fetch(nil)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrLink) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			kills++
		}
		w.whole()
		if again := w.sent - w.manifest.Size(); again > kills*chunk {
			t.Errorf("seed %d: %d bytes came again over %d kills, want at most a chunk for each", seed, again, kills)
		}
		if kills == 0 {
			t.Errorf("seed %d: nothing was cut", seed)
		}
	}
}
