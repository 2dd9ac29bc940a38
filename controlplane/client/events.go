package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// maxEvent bounds one server-sent event in bytes: the largest envelope of a
// device as JSON.
const maxEvent = 4 << 20

// Follow tells changes as they happen. A broken connection is opened again and
// continues behind the last event.
func (c *Client) Follow(ctx context.Context, kinds []string, after uint64, fn func(operator.Event) error) error {
	query := url.Values{}
	if len(kinds) > 0 {
		query.Set("kinds", strings.Join(kinds, ","))
	}
	return c.follow(ctx, "/events", query, &after, func(data []byte) error {
		var e operator.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return operator.Errorf(operator.UnknownResponse, "read event: %w", err)
		}
		after = e.ID
		return fn(e)
	})
}

// Tap tells what a device sends from now on. After a broken connection it goes
// on; what was sent in between is not seen.
func (c *Client) Tap(ctx context.Context, device string, fn func(operator.TapMessage) error) error {
	return c.follow(ctx, path("devices", device, "tap"), nil, nil, func(data []byte) error {
		var m operator.TapMessage
		if err := json.Unmarshal(data, &m); err != nil {
			return operator.Errorf(operator.UnknownResponse, "read message: %w", err)
		}
		return fn(m)
	})
}

// errFollower wraps what the caller's own function returned, which ends the
// stream and is handed back as it was.
type errFollower struct{ error }

// follow keeps one stream open until ctx ends, the server refuses, fn fails, or
// all tries without an event in between are used up.
func (c *Client) follow(ctx context.Context, path string, query url.Values, after *uint64, fn func([]byte) error) error {
	for failed := 0; ; {
		err := c.streamOnce(ctx, path, query, after, func(data []byte) error {
			failed = 0
			if err := fn(data); err != nil {
				return errFollower{err}
			}
			return nil
		})
		if own, ok := errors.AsType[errFollower](err); ok {
			return own.error
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failed++; failed >= c.tries || !Temporary(err) || !wait(ctx, pause(failed)) {
			return err
		}
	}
}

// streamOnce reads one connection's events. It never returns nil: a stream
// that ends was broken off.
func (c *Client) streamOnce(ctx context.Context, path string, query url.Values, after *uint64, fn func([]byte) error) error {
	req, err := c.request(ctx, http.MethodGet, path, query, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if after != nil && *after > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatUint(*after, 10))
	}
	return c.exchange(req, func(res *http.Response) error {
		err := readEvents(res.Body, fn)
		if _, own := errors.AsType[errFollower](err); own {
			return err
		}
		if err == nil {
			err = io.EOF
		}
		return operator.Errorf(operator.Unreachable, "the event stream broke off: %w", err)
	})
}

// readEvents calls fn with the data of each event. Comments, names and ids are
// passed over: the data says all.
func readEvents(r io.Reader, fn func(data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if rest, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if len(data)+len(rest) > maxEvent {
				return bufio.ErrTooLong
			}
			data = append(append(data, bytes.TrimPrefix(rest, []byte(" "))...), '\n')
			continue
		}
		if len(line) == 0 && len(data) > 0 {
			if err := fn(bytes.TrimSuffix(data, []byte("\n"))); err != nil {
				return err
			}
			data = data[:0]
		}
	}
	return lines.Err()
}
