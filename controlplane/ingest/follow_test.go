package ingest

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// slow is a stream of a broker that has too much to do to answer.
type slow struct {
	jetstream.Stream
	asked int
	err   error
}

func (s *slow) Info(context.Context, ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	s.asked++
	return nil, s.err
}

// late are messages that come after a while.
type late struct {
	jetstream.MessagesContext
	waits int
}

type message struct{ jetstream.Msg }

func (l *late) Next(...jetstream.NextOpt) (jetstream.Msg, error) {
	if l.waits--; l.waits >= 0 {
		return nil, context.DeadlineExceeded
	}
	return message{}, nil
}

// A broker that does not answer in time is waited for: a fold that gave up
// would take the server down when it is needed most.
func TestFollowWaitsForASlowBroker(t *testing.T) {
	stream := &slow{err: context.DeadlineExceeded}
	i := &Ingest{stream: stream}
	if _, err := i.await(t.Context(), &late{waits: 2}, 1); err != nil || stream.asked != 2 {
		t.Errorf("got %v after %d looks, want a message after 2", err, stream.asked)
	}
	gone := errors.New("no such stream")
	stream.err = gone
	if _, err := i.await(t.Context(), &late{waits: 1}, 1); !errors.Is(err, gone) {
		t.Errorf("without a stream: got %v, want %v", err, gone)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stream.err = context.DeadlineExceeded
	if _, err := i.await(ctx, &late{waits: 1}, 1); err == nil {
		t.Error("after the end: got a message")
	}
}
