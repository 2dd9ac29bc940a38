package dashboard

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

const (
	// refreshEvery bounds how often a page is told to ask for itself again.
	refreshEvery = time.Second
	// maxRefresh bounds what a page may ask for instead.
	maxRefresh = time.Minute
	// reconnectAfter is what browsers wait after a broken stream, milliseconds.
	reconnectAfter = 2000
	// writeTimeout bounds how long a reader may take nothing.
	writeTimeout = 30 * time.Second
)

// events tells a page when to ask for itself again: once at the start, because
// something may have changed since it was made or since the last stream broke,
// and then after changes of the kinds it shows.
func (s *Server) events(w http.ResponseWriter, r *request) {
	var kinds []string
	if k := r.URL.Query().Get("kinds"); k != "" {
		kinds = strings.Split(k, ",")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.streams, cancel)()

	changes := make(chan struct{}, 1)
	go s.follow(ctx, kinds, changes)
	defer func() { // the goroutine ends with ctx, and closes the channel
		cancel()
		for range changes {
		}
	}()

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	s.tellChanges(ctx, newStream(w), changes, paceOf(r.URL.Query().Get("every")))
}

// paceOf reads how often a page wants to be told at most.
func paceOf(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		return refreshEvery
	}
	return min(max(d, refreshEvery), maxRefresh)
}

// follow puts a token into changes after events; many make one.
func (s *Server) follow(ctx context.Context, kinds []string, changes chan<- struct{}) {
	defer close(changes)
	err := s.cfg.Service.Follow(ctx, kinds, 0, func(operator.Event) error {
		select {
		case changes <- struct{}{}:
		default: // one is waiting to be told
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("events of a page ended", "error", err)
	}
}

func (s *Server) tellChanges(ctx context.Context, out *stream, changes <-chan struct{}, every time.Duration) {
	if out.send("retry: %d\nevent: change\ndata: start\n\n", reconnectAfter) != nil {
		return
	}
	beat := time.NewTicker(s.cfg.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, more := <-changes:
			if !more || out.send("event: change\ndata: changed\n\n") != nil || !pause(ctx, every) {
				return
			}
		case <-beat.C:
			if out.send(":\n\n") != nil {
				return
			}
		}
	}
}

// pause waits; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// stream writes server-sent events, each flushed and with a deadline of its own.
type stream struct {
	w       io.Writer
	control *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // recorders in tests have none
	return &stream{w: w, control: c}
}

func (s *stream) send(format string, args ...any) error {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // as above
	if _, err := fmt.Fprintf(s.w, format, args...); err != nil {
		return err
	}
	return s.control.Flush()
}
