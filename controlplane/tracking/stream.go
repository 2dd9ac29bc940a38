package tracking

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName = "TRACKING"
	subject    = "tracking.journal"
	// fetchMessages and fetchBytes bound what the broker sends at once: while it
	// reads that, appends wait.
	fetchMessages = 256
	fetchBytes    = 1 << 20
	// fetchTimeout bounds the wait for that: a busy disk may take seconds.
	fetchTimeout = 15 * time.Second
)

// Headers of an append and of an answer (NATS ADR-31).
const (
	headerAfter    = "Nats-Expected-Last-Sequence"
	headerStatus   = "Status"
	headerSequence = "Nats-Sequence"
	statusNone     = "404"
	statusEnd      = "204"
)

// stream is a journal in JetStream.
type stream struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
}

var _ journal = (*stream)(nil)

// openStream returns the journal of the broker behind nc and makes its stream if
// it is not there.
func openStream(ctx context.Context, nc *nats.Conn) (*stream, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open the journal of runs: %w", err)
	}
	s, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        streamName,
		Description: "experiments, runs and models as they were logged",
		Subjects:    []string{subject},
		Storage:     jetstream.FileStorage,
		Compression: jetstream.S2Compression,
		Discard:     jetstream.DiscardNew,
		DenyDelete:  true,
		DenyPurge:   true,
		AllowDirect: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", streamName, err)
	}
	return &stream{nc: nc, js: js, stream: s}, nil
}

func (s *stream) append(ctx context.Context, after uint64, message []byte) error {
	m := nats.NewMsg(subject)
	m.Data = message
	m.Header.Set(headerAfter, strconv.FormatUint(after, 10))
	ack, err := s.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && moved(api):
		return errMoved
	case err != nil:
		return err
	case ack.Sequence != after+1:
		return fmt.Errorf("the broker stored message %d, not %d", ack.Sequence, after+1)
	}
	return nil
}

func moved(err *jetstream.APIError) bool {
	return err.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		err.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

func (s *stream) last(ctx context.Context) (uint64, error) {
	info, err := s.stream.Info(ctx)
	if err != nil {
		return 0, err
	}
	return info.State.LastSeq, nil
}

// bytes is what the broker counts: messages before they are compressed.
func (s *stream) bytes(ctx context.Context) (uint64, error) {
	info, err := s.stream.Info(ctx)
	if err != nil {
		return 0, err
	}
	return info.State.Bytes, nil
}

func (s *stream) incarnation(ctx context.Context) (string, error) {
	info, err := s.stream.Info(ctx)
	if err != nil {
		return "", err
	}
	return info.Created.UTC().Format(time.RFC3339Nano), nil
}

func (s *stream) read(ctx context.Context, from, to uint64, fn func(uint64, []byte) error) error {
	for next := max(from, 1); next <= to; {
		n, err := s.fetch(ctx, next, to, fn)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("message %d cannot be read: %w", next, ErrDamaged)
		}
		next += n
	}
	return nil
}

// fetch reads some messages from a sequence on and tells how many. One request
// is answered by a message each and one that ends them.
func (s *stream) fetch(ctx context.Context, from, to uint64, fn func(uint64, []byte) error) (n uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	ask, err := json.Marshal(map[string]any{
		"seq": from, "next_by_subj": subject, "batch": min(fetchMessages, to-from+1), "max_bytes": fetchBytes,
	})
	if err != nil {
		return 0, err
	}
	inbox := s.nc.NewRespInbox()
	answers, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answers.Unsubscribe() }() // it goes with the connection otherwise
	if err := s.nc.PublishRequest("$JS.API.DIRECT.GET."+streamName, inbox, ask); err != nil {
		return 0, err
	}
	for {
		m, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			return 0, err
		}
		switch status := m.Header.Get(headerStatus); status {
		case statusNone, statusEnd:
			return n, nil
		case "":
		default:
			return 0, fmt.Errorf("the broker answers %s %s", status, m.Header.Get("Description"))
		}
		seq, err := strconv.ParseUint(m.Header.Get(headerSequence), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the broker's answer: %w", err)
		}
		if seq != from+n {
			return 0, fmt.Errorf("message %d cannot be read: %w", from+n, ErrDamaged)
		}
		if err := fn(seq, m.Data); err != nil {
			return 0, err
		}
		n++
	}
}
