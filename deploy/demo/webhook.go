package demo

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// webhook is the training pipeline's end of a retrain request: it takes
// CloudEvents over HTTP and remembers them.
type webhook struct {
	server   *http.Server
	listener net.Listener
	done     sync.WaitGroup

	mu     sync.Mutex // guards events
	events []cloudEvent
}

// cloudEvent is what the demo looks at of a CloudEvents 1.0 structured event.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Source      string          `json:"source"`
	Subject     string          `json:"subject"`
	Data        json.RawMessage `json:"data"`
}

func newWebhook() (*webhook, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for retrain requests: %w", err)
	}
	w := &webhook{listener: l}
	w.server = &http.Server{Handler: http.HandlerFunc(w.take), ReadHeaderTimeout: 5 * time.Second}
	w.done.Go(func() { _ = w.server.Serve(l) }) // ends with Close
	return w, nil
}

// URL is where events are to be sent.
func (w *webhook) URL() string { return "http://" + w.listener.Addr().String() + "/retrain" }

func (w *webhook) take(rw http.ResponseWriter, r *http.Request) {
	var e cloudEvent
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil || !signed(r.Header.Get("X-Vedette-Signature"), body) {
		http.Error(rw, "the signature is not that of the secret", http.StatusForbidden)
		return
	}
	if err := json.Unmarshal(body, &e); err != nil || e.SpecVersion != "1.0" {
		http.Error(rw, "not a structured CloudEvent 1.0", http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// Delivery is at least once; the id says what came before.
	if !slices.ContainsFunc(w.events, func(had cloudEvent) bool { return had.ID == e.ID }) {
		w.events = append(w.events, e)
	}
	rw.WriteHeader(http.StatusNoContent)
}

// signed tells whether a body came from who knows the secret: the signature is
// "t=SECONDS,v1=HEX", the HMAC-SHA256 of the seconds, a dot and the body.
func signed(signature string, body []byte) bool {
	at, sum, ok := strings.Cut(strings.TrimPrefix(signature, "t="), ",v1=")
	got, err := hex.DecodeString(sum)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(append([]byte(at+"."), body...))
	return ok && err == nil && hmac.Equal(mac.Sum(nil), got)
}

// Events are those taken so far.
func (w *webhook) Events() []cloudEvent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// Close stops listening.
func (w *webhook) Close() error {
	err := w.server.Close()
	w.done.Wait()
	return err
}
