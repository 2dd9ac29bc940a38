package api

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// tapBuffer is how many messages of a device may wait for one listener. A
// listener that falls further behind misses some and is told how many: nobody
// watching may hold up those who work.
const tapBuffer = 256

// taps passes accepted messages on to those who watch a device.
type taps struct {
	mu  sync.Mutex           // guards all below
	all map[string][]*tapped // by device
}

// tapped is one listener.
type tapped struct {
	messages chan *protocol.Accepted
	missed   int // guarded by taps.mu
}

func newTaps() *taps { return &taps{all: map[string][]*tapped{}} }

// Observed passes an accepted message on to those who watch its device. Call
// it from a fold of the uplink; it never blocks and keeps nothing.
func (s *Service) Observed(a *protocol.Accepted) { s.taps.pass(a) }

func (t *taps) pass(a *protocol.Accepted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.all[a.GetDevice()] {
		select {
		case l.messages <- a:
		default:
			l.missed++
		}
	}
}

func (t *taps) open(device string) *tapped {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &tapped{messages: make(chan *protocol.Accepted, tapBuffer)}
	t.all[device] = append(t.all[device], l)
	return l
}

func (t *taps) close(device string, l *tapped) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rest := t.all[device][:0:0]
	for _, other := range t.all[device] {
		if other != l {
			rest = append(rest, other)
		}
	}
	if t.all[device] = rest; len(rest) == 0 {
		delete(t.all, device)
	}
}

// takeMissed returns how many messages a listener missed since the last call.
func (t *taps) takeMissed(l *tapped) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := l.missed
	l.missed = 0
	return n
}

// Tap tells what a device sends from now on, decoded, until ctx ends or fn fails.
func (s *Service) Tap(ctx context.Context, device string, fn func(operator.TapMessage) error) error {
	if _, err := caller(ctx, operator.Operator); err != nil {
		return err
	}
	if _, ok := s.d.Fleet.Device(device); !ok {
		return unknownDevice(device)
	}
	l := s.taps.open(device)
	defer s.taps.close(device, l)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-l.messages:
			if n := s.taps.takeMissed(l); n > 0 {
				if err := fn(s.missed(device, n)); err != nil {
					return err
				}
			}
			m, err := tapMessage(a)
			if err != nil {
				return err
			}
			if err := fn(m); err != nil {
				return err
			}
		}
	}
}

func (s *Service) missed(device string, n int) operator.TapMessage {
	return operator.TapMessage{
		Device: device, Received: s.d.Now().UTC(), Kind: "missed",
		Envelope: json.RawMessage(fmt.Sprintf(`{"messages":%d}`, n)),
	}
}

// tapMessage decodes a message down to the body of a record, which travels as
// bytes because its hash is over exactly those.
func tapMessage(a *protocol.Accepted) (operator.TapMessage, error) {
	out := operator.TapMessage{Device: a.GetDevice(), Received: fromMS(a.GetReceivedMs())}
	var err error
	switch body := a.GetBody().(type) {
	case *protocol.Accepted_Hello:
		out.Kind = "hello"
		out.Envelope, err = protojson.Marshal(body.Hello)
	case *protocol.Accepted_Report:
		out.Kind = "report"
		out.Envelope, err = protojson.Marshal(body.Report)
	case *protocol.Accepted_Record:
		out.Kind = "record"
		if body.Record.GetSkip() != nil {
			out.Kind = "skip"
		}
		out.Envelope, err = recordJSON(body.Record)
	default:
		out.Kind = "mark"
		out.Envelope, err = protojson.Marshal(a)
	}
	if err != nil {
		return out, fmt.Errorf("decode message of %s: %w", a.GetDevice(), err)
	}
	return out, nil
}

// recordJSON writes a record with its body decoded beside it.
func recordJSON(r *protocol.Record) (json.RawMessage, error) {
	frame := proto.CloneOf(r)
	frame.Body = nil
	outer, err := protojson.Marshal(frame)
	if err != nil {
		return nil, err
	}
	body, err := sketch.DecodeBody(r.GetBody())
	if err != nil {
		return nil, err
	}
	inner, err := protojson.Marshal(body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Record json.RawMessage `json:"record"`
		Body   json.RawMessage `json:"body"`
	}{outer, inner})
}
