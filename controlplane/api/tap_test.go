package api

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// tapping starts a listener and waits until it listens.
func tapping(t *testing.T, s *Service, fn func(operator.TapMessage) error) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	ctx := as(t, operator.Operator)
	go func() { ended <- s.Tap(ctx, "cam-a1", fn) }()
	synctest.Wait()
	return ended
}

var errSeen = errors.New("seen enough")

func TestTap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWorld().service()
		messages := []*protocol.Accepted{
			{Device: "cam-a1", ReceivedMs: now.UnixMilli(), Body: &protocol.Accepted_Hello{Hello: &protocol.Hello{AgentVersion: "1.2"}}},
			{Device: "cam-b1", Body: &protocol.Accepted_Hello{}},
			{Device: "cam-a1", Body: &protocol.Accepted_Report{Report: &protocol.Report{RssBytes: 7}}},
			{Device: "cam-a1", Body: &protocol.Accepted_Record{Record: &protocol.Record{Seq: 3}}},
			{Device: "cam-a1", Body: &protocol.Accepted_Record{Record: &protocol.Record{Skip: &protocol.Skip{To: 9}}}},
			{Device: "cam-a1", Cloned: true},
		}
		s.Observed(messages[2]) // nobody listens yet
		var got []operator.TapMessage
		ended := tapping(t, s, func(m operator.TapMessage) error {
			if got = append(got, m); len(got) == 5 {
				return errSeen
			}
			return nil
		})
		for _, m := range messages {
			s.Observed(m)
		}
		if err := <-ended; !errors.Is(err, errSeen) {
			t.Fatal(err)
		}
		for i, want := range []struct{ kind, in string }{
			{"hello", "1.2"}, {"report", "7"}, {"record", `"body":{}`}, {"skip", "9"}, {"mark", "cloned"},
		} {
			if got[i].Kind != want.kind || !bytes.Contains(got[i].Envelope, []byte(want.in)) || got[i].Device != "cam-a1" {
				t.Errorf("message %d: got %s %s, want %+v", i, got[i].Kind, got[i].Envelope, want)
			}
		}
		if len(s.taps.all) != 0 {
			t.Errorf("listeners are left: %v", s.taps.all)
		}
	})
}

// A listener that is too slow holds nobody up and is told what it missed.
func TestTapThatCannotFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWorld().service()
		hello := &protocol.Accepted{Device: "cam-a1", Body: &protocol.Accepted_Hello{}}
		read := make(chan struct{})
		var missed []byte
		ended := tapping(t, s, func(m operator.TapMessage) error {
			<-read
			if m.Kind == "missed" {
				missed = m.Envelope
				return errSeen
			}
			return nil
		})
		s.Observed(hello)
		synctest.Wait() // it is busy with this one
		for range tapBuffer + 5 {
			s.Observed(hello)
		}
		close(read)
		if err := <-ended; !errors.Is(err, errSeen) || string(missed) != `{"messages":5}` {
			t.Errorf("got %v and %s", err, missed)
		}
	})
}

func TestTapNeedsARole(t *testing.T) {
	if err := newWorld().service().Tap(as(t, operator.Viewer), "cam-a1", nil); operator.CodeOf(err) != operator.Forbidden {
		t.Errorf("got %v", err)
	}
}
