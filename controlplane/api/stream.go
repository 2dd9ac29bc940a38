package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// eventQuery selects events of the stream.
type eventQuery struct {
	Kinds string `query:"kinds"` // separated by commas; empty selects all
	After string `query:"after"` // event id to continue behind, for clients that cannot set Last-Event-ID
}

func (s *Server) eventRoute(b Backend) route {
	return route{
		name: "events", method: http.MethodGet, path: "/events", role: operator.Viewer,
		summary: "Changes as they happen, as server-sent events.", media: "text/event-stream",
		query: typeOf[eventQuery](), unbounded: true,
		handle: func(c echo.Context) error {
			kinds, after, err := followed(c)
			if err != nil {
				return err
			}
			return s.stream(c, func(ctx context.Context, send func(id string, v any) error) error {
				return b.Follow(ctx, kinds, after, func(e operator.Event) error {
					return send(strconv.FormatUint(e.ID, 10), e)
				})
			})
		},
	}
}

func followed(c echo.Context) (kinds []string, after uint64, err error) {
	var q eventQuery
	if err := operator.DecodeQuery(c.QueryParams(), &q); err != nil {
		return nil, 0, err
	}
	if q.Kinds != "" {
		kinds = strings.Split(q.Kinds, ",")
	}
	last := firstOf(c.Request().Header.Get("Last-Event-ID"), q.After)
	if last == "" {
		return kinds, 0, nil
	}
	if after, err = strconv.ParseUint(last, 10, 64); err != nil {
		return nil, 0, operator.Errorf(operator.Invalid, "event id %q is not a number", last)
	}
	return kinds, after, nil
}

func (s *Server) tapRoute(b Backend) route {
	return route{
		name: "tap", method: http.MethodGet, path: "/devices/:device/tap", role: operator.Operator,
		summary: "What a device sends, decoded, as server-sent events.", media: "text/event-stream", unbounded: true,
		handle: func(c echo.Context) error {
			device, err := subjectOf(c)
			if err != nil {
				return err
			}
			return s.stream(c, func(ctx context.Context, send func(id string, v any) error) error {
				return b.Tap(ctx, device, func(m operator.TapMessage) error { return send("", m) })
			})
		},
	}
}

// stream serves server-sent events until the client leaves or Close is called.
// An error before the first event is an ordinary error answer.
func (s *Server) stream(c echo.Context, follow func(ctx context.Context, send func(id string, v any) error) error) error {
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	defer context.AfterFunc(s.streams, cancel)()
	w := newEventWriter(c, s.cfg.Idle)
	defer w.done()
	beats := make(chan struct{})
	go func() {
		defer close(beats)
		w.beat(ctx, s.cfg.Heartbeat, cancel)
	}()
	err := follow(ctx, w.send)
	cancel()
	<-beats
	if w.started || err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// eventWriter writes one stream. Events and heartbeats come from two goroutines.
type eventWriter struct {
	mu      sync.Mutex // guards all below
	c       echo.Context
	control *http.ResponseController
	idle    time.Duration
	started bool
}

// newEventWriter lifts the server's read deadline: the client has said all that
// it will say, and its silence must not end the stream.
func newEventWriter(c echo.Context, idle time.Duration) *eventWriter {
	w := &eventWriter{c: c, control: http.NewResponseController(c.Response()), idle: idle}
	_ = w.control.SetReadDeadline(time.Time{}) // recorders in tests have none
	return w
}

// done leaves no deadline behind for the next request of the connection.
func (w *eventWriter) done() {
	_ = w.control.SetWriteDeadline(time.Time{}) // recorders in tests have none
}

// send writes one event.
func (w *eventWriter) send(id string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	text := "data: " + string(data) + "\n\n"
	if id != "" {
		text = "id: " + id + "\n" + text
	}
	return w.write(text)
}

// openAfter is how long a stream may fail with a proper status before it is
// opened with a first comment.
const openAfter = 100 * time.Millisecond

// beat writes a comment soon, which opens the stream, and then regularly: a
// client that is gone is noticed by the failing write.
func (w *eventWriter) beat(ctx context.Context, every time.Duration, cancel context.CancelFunc) {
	timer := time.NewTimer(openAfter)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			if err := w.write(": alive\n\n"); err != nil {
				cancel()
				return
			}
			timer.Reset(every)
		}
	}
}

func (w *eventWriter) write(text string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.started {
		w.started = true
		h := w.c.Response().Header()
		h.Set(echo.HeaderContentType, "text/event-stream")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no") // reverse proxies would hold events back
		w.c.Response().WriteHeader(http.StatusOK)
	}
	if err := w.control.SetWriteDeadline(time.Now().Add(w.idle)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := io.WriteString(w.c.Response(), text); err != nil {
		return err
	}
	return w.control.Flush()
}

// exportRoute writes the whole ledger as JSON lines.
func (s *Server) exportRoute(b Backend) route {
	return route{
		name: "exportLedger", method: http.MethodGet, path: "/ledger/export", role: operator.Viewer,
		summary: "The whole ledger as JSON lines, for verification offline.", media: "application/jsonl", unbounded: true,
		handle: func(c echo.Context) error {
			c.Response().Header().Set(echo.HeaderContentType, "application/jsonl")
			w := &patientWriter{w: c.Response(), control: http.NewResponseController(c.Response()), idle: s.cfg.Idle}
			defer w.done()
			err := b.ExportLedger(c.Request().Context(), w)
			if err != nil && c.Response().Committed {
				// The status is sent: break the connection off, so that a cut
				// export cannot pass for a whole one.
				s.cfg.Log.Error("ledger export broke off", "request_id", idOf(c), "error", err)
				panic(http.ErrAbortHandler)
			}
			return err
		},
	}
}

// patientWriter moves the write deadline on with every write.
type patientWriter struct {
	w       io.Writer
	control *http.ResponseController
	idle    time.Duration
}

// Write writes with a fresh deadline. Recorders in tests have none to set.
func (w *patientWriter) Write(p []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(w.idle)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return w.w.Write(p)
}

// done leaves no deadline behind for the next request of the connection.
func (w *patientWriter) done() {
	_ = w.control.SetWriteDeadline(time.Time{}) // recorders in tests have none
}
