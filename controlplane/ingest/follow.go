package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// stall is how long a fold waits for a message before it looks whether the
// broker can read that one at all.
const stall = 3 * time.Second

// errFollowEnded says that the broker ended the delivery.
var errFollowEnded = errors.New("the broker ended the delivery of the uplink stream")

// Follow calls fn for every message from the sequence from on (1 is the first),
// then for every new one, until ctx ends or fn fails. ErrGap when from was aged
// out, ErrIncarnation when the stream does not reach it yet.
func (i *Ingest) Follow(ctx context.Context, from uint64, fn func(seq uint64, a *protocol.Accepted) error) error {
	return i.follow(ctx, from, func(m followed) error { return fn(m.seq, m.a) })
}

func (i *Ingest) follow(ctx context.Context, from uint64, fn func(followed) error) error {
	info, err := i.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at the uplink stream: %w", err)
	}
	state := info.State
	switch {
	case state.LastSeq > 0 && from < state.FirstSeq:
		return fmt.Errorf("%w (asked for %d, stream begins at %d)", ErrGap, from, state.FirstSeq)
	case from > state.LastSeq+1:
		return fmt.Errorf("%w (asked for %d, stream ends at %d)", ErrIncarnation, from, state.LastSeq)
	}
	consumer, err := i.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(1, from),
	})
	if err != nil {
		return fmt.Errorf("follow the uplink stream: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("follow the uplink stream: %w", err)
	}
	defer messages.Stop()
	return i.drain(ctx, messages, max(1, from), fn)
}

func (i *Ingest) drain(ctx context.Context, messages jetstream.MessagesContext, next uint64, fn func(followed) error) error {
	for {
		msg, err := i.await(ctx, messages, next)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("follow the uplink stream: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("follow the uplink stream: %w", err)
		}
		seq := meta.Sequence.Stream
		if seq < next {
			continue // the consumer was made anew and repeats
		}
		if seq > next {
			return fmt.Errorf("%w (expected %d, got %d)", ErrGap, next, seq)
		}
		a := &protocol.Accepted{}
		if err := proto.Unmarshal(msg.Data(), a); err != nil {
			return fmt.Errorf("decode message %d of the uplink stream: %w", seq, err)
		}
		if err := fn(followed{seq: seq, raw: msg.Data(), a: a}); err != nil {
			return err
		}
		next++
	}
}

// await returns the message that follows. The broker passes over one that it
// cannot read without a word, so after a while without any await looks for it.
func (i *Ingest) await(ctx context.Context, messages jetstream.MessagesContext, next uint64) (jetstream.Msg, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, stall)
		msg, err := messages.Next(jetstream.NextContext(wait))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return msg, err
		}
		info, err := i.stream.Info(ctx)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			continue // the broker has too much to do: that it is slow is no reason to give up
		}
		if err != nil {
			return nil, fmt.Errorf("look at the stream: %w", err)
		}
		if next > info.State.LastSeq {
			continue // there is none yet
		}
		if _, err := i.stream.GetMsg(ctx, next); errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, fmt.Errorf("%w (message %d of %d cannot be read)", ErrGap, next, info.State.LastSeq)
		}
	}
}
