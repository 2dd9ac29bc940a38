package tracking

import (
	"context"
	"crypto/rand"
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
	// fetchMessages and fetchBytes bound what the broker sends at once: while it
	// reads that, appends wait.
	fetchMessages = 256
	fetchBytes    = 1 << 20
)

// Headers by which the broker joins messages to one write (NATS ADR-50), and
// those of an append and of an answer (NATS ADR-31).
const (
	headerBatch    = "Nats-Batch-Id"
	headerNth      = "Nats-Batch-Sequence"
	headerCommit   = "Nats-Batch-Commit"
	headerAfter    = "Nats-Expected-Last-Sequence"
	headerStatus   = "Status"
	headerSubject  = "Nats-Subject"
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
		Name:               streamName,
		Description:        "experiments, runs and models as they were logged",
		Subjects:           []string{subjectRoot + ">"},
		Storage:            jetstream.FileStorage,
		Compression:        jetstream.S2Compression,
		Discard:            jetstream.DiscardNew,
		AllowDirect:        true,
		AllowAtomicPublish: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", streamName, err)
	}
	return &stream{nc: nc, js: js, stream: s}, nil
}

// append writes all entries as one batch, for which the broker syncs the disk a
// fixed number of times however many they are.
func (s *stream) append(ctx context.Context, after uint64, entries []entry) error {
	id := rand.Text()
	for i, e := range entries {
		m := nats.NewMsg(e.subject)
		m.Data = e.raw
		if i == 0 {
			m.Header.Set(headerAfter, strconv.FormatUint(after, 10))
		}
		if len(entries) > 1 {
			m.Header.Set(headerBatch, id)
			m.Header.Set(headerNth, strconv.Itoa(i+1))
		}
		if i+1 < len(entries) {
			if err := s.nc.PublishMsg(m); err != nil {
				return err
			}
			continue
		}
		if len(entries) > 1 {
			m.Header.Set(headerCommit, "1")
		}
		return s.commit(ctx, m, after+uint64(len(entries)))
	}
	return nil
}

// commit sends the last message of an append and reads the broker's answer.
func (s *stream) commit(ctx context.Context, last *nats.Msg, want uint64) error {
	m, err := s.nc.RequestMsgWithContext(ctx, last)
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		Seq   uint64              `json:"seq"`
	}
	switch err := json.Unmarshal(m.Data, &answer); {
	case err != nil:
		return fmt.Errorf("read the broker's answer: %w", err)
	case answer.Error != nil && moved(answer.Error):
		return errMoved
	case answer.Error != nil:
		return answer.Error
	case answer.Seq != want:
		return fmt.Errorf("the broker stored up to %d, not %d", answer.Seq, want)
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

func (s *stream) incarnation(ctx context.Context) (string, error) {
	info, err := s.stream.Info(ctx)
	if err != nil {
		return "", err
	}
	return info.Created.UTC().Format(time.RFC3339Nano), nil
}

func (s *stream) read(ctx context.Context, from, to uint64, fn func(entry) error) error {
	seen := from - 1
	err := s.fetchAll(ctx, subjectRoot+">", from, func(e entry) error {
		if e.seq > to {
			return errEnough
		}
		seen = e.seq
		return fn(e)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if seen < to {
		return s.readable(ctx, to)
	}
	return nil
}

// readable is ErrDamaged when the broker does not find a record. The last of a
// range is never one that was purged: what notes the purge comes after it.
func (s *stream) readable(ctx context.Context, seq uint64) error {
	_, err := s.stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("record %d cannot be read: %w", seq, ErrDamaged)
	}
	return err
}

func (s *stream) history(ctx context.Context, subject string, from uint64, fn func(entry) error) error {
	return s.fetchAll(ctx, subject, max(from, 1), fn)
}

func (s *stream) purge(ctx context.Context, subject string) error {
	return s.stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
}

// fetchAll calls fn for each message of a subject from a sequence on.
func (s *stream) fetchAll(ctx context.Context, subject string, from uint64, fn func(entry) error) error {
	for {
		next, err := s.fetch(ctx, subject, from, fn)
		if err != nil || next == 0 {
			return err
		}
		from = next
	}
}

// fetch reads some messages of a subject and tells from where to go on, 0 at the
// end.
func (s *stream) fetch(ctx context.Context, subject string, from uint64, fn func(entry) error) (next uint64, err error) {
	ask, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": subject, "batch": fetchMessages, "max_bytes": fetchBytes})
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
		case statusNone:
			return 0, nil
		case statusEnd:
			return next, nil
		case "":
		default:
			return 0, fmt.Errorf("the broker answers %s %s", status, m.Header.Get("Description"))
		}
		e, err := entryOf(m)
		if err == nil {
			err = fn(e)
		}
		if err != nil {
			return 0, err
		}
		next = e.seq + 1
	}
}

func entryOf(m *nats.Msg) (entry, error) {
	seq, err := strconv.ParseUint(m.Header.Get(headerSequence), 10, 64)
	if err != nil {
		return entry{}, fmt.Errorf("read the broker's answer: %w", err)
	}
	return entry{subject: m.Header.Get(headerSubject), raw: m.Data, seq: seq}, nil
}
