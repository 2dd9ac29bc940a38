package ingest

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
)

func idle(up time.Duration) *protocol.Report {
	ms := uint64(up.Milliseconds())
	return &protocol.Report{
		Generation: 3, RssBytes: ms,
		Models: []*protocol.ModelState{{Model: "digits", State: "idle", Serving: true, StateForMs: ms, ActiveForMs: ms}},
	}
}

func TestQuietReports(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var stored told
	stored.hear(&protocol.Accepted{ReceivedMs: now.UnixMilli(), Body: &protocol.Accepted_Report{Report: idle(2 * time.Hour)}})
	for _, c := range []struct {
		name   string
		after  time.Duration
		change func(r *protocol.Report)
		want   bool
	}{
		{"more memory and time", time.Minute, func(*protocol.Report) {}, true},
		{"after half an hour", quietEvery, func(*protocol.Report) {}, false},
		{"the clock was set back", -time.Minute, func(*protocol.Report) {}, false},
		{"another generation", time.Minute, func(r *protocol.Report) { r.Generation++ }, false},
		{"an update begins", time.Minute, func(r *protocol.Report) { r.Models[0].State = "downloading" }, false},
		{"it answers no more", time.Minute, func(r *protocol.Report) { r.Models[0].Serving = false }, false},
		{"just activated", time.Minute, func(r *protocol.Report) { r.Models[0].ActiveForMs = 60_000 }, false},
		{"it waits", time.Minute, func(r *protocol.Report) { r.Models[0].Waiting = "for power" }, false},
		{"a challenger starts", time.Minute, func(r *protocol.Report) {
			r.Models[0].Challenger = &protocol.Challenger{State: &protocol.ModelState{State: "resolving"}}
		}, false},
	} {
		r := idle(2*time.Hour + c.after)
		c.change(r)
		before := proto.CloneOf(r)
		if got := stored.repeats(r, now.Add(c.after)); got != c.want || !proto.Equal(r, before) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if new(told).repeats(idle(2*time.Hour), now) {
		t.Error("the first report of a device says nothing new")
	}
}

// A fold that was not there when the stream began starts with its oldest message
// when it may, and is told what is durable.
func TestFoldThatComesLate(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	i := start(t, nc, Config{})
	w, s := connect(t, nc, "cam-1"), newSender(1)
	for n := range uint64(4) {
		w.record(s.next(t, window(n)))
		w.ack()
	}
	if err := i.stream.DeleteMsg(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := i.Fold(t.Context(), newAdder().fold(kvstore.NewMemory())); !errors.Is(err, ErrGap) {
		t.Errorf("a fold that needs all of it: got %v, want %v", err, ErrGap)
	}
	a := newAdder()
	f := a.fold(kvstore.NewMemory())
	written := make(chan struct{}, 8)
	f.Late, f.Every, f.Written = true, time.Millisecond, func() { written <- struct{}{} }
	stop := runFold(t, i, f)
	for _, c := range []<-chan struct{}{a.ready, written} {
		select {
		case <-c:
		case <-time.After(20 * time.Second):
			t.Fatal("the fold never caught up, or was never written")
		}
	}
	if got := a.rows("cam-1"); got != 1+2+3 {
		t.Errorf("rows of the messages left: got %d, want 6", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
