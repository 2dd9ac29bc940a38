package drift

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// teller feeds a monitor what one device says, a second apart.
type teller struct {
	t    *testing.T
	m    *Monitor
	seq  uint64
	mono uint64
}

func (x *teller) tell(body *protocol.Body) {
	x.t.Helper()
	x.seq++
	x.mono += 1000
	at := &protocol.Stamp{Boot: make([]byte, 16), MonotonicMs: x.mono}
	a := &protocol.Accepted{Device: "cam-1", ReceivedMs: start.UnixMilli() + int64(x.mono), Sent: at}
	if body == nil {
		a.Body = &protocol.Accepted_Hello{Hello: &protocol.Hello{}}
	} else {
		body.At = at
		data, err := proto.Marshal(body)
		if err != nil {
			x.t.Fatal(err)
		}
		a.Body = &protocol.Accepted_Record{Record: &protocol.Record{Body: data}}
	}
	x.m.Apply(x.seq, a)
}

func (x *teller) window(w *protocol.Window) {
	w.Model, w.StartMonotonicMs, w.EndMonotonicMs = "m", x.mono+1, x.mono+1000
	x.tell(&protocol.Body{Kind: &protocol.Body_Window{Window: w}})
}

func (x *teller) labels(l *protocol.Labels) {
	l.Model, l.StartMonotonicMs, l.EndMonotonicMs = "m", x.mono+1, x.mono+1000
	x.tell(&protocol.Body{Kind: &protocol.Body_Labels{Labels: l}})
}

func latencyOf(t *testing.T, d time.Duration, n int) []byte {
	t.Helper()
	l := sketch.NewLatency()
	for range n {
		l.Add(d)
	}
	data, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What a release shows as a challenger is no evidence of it as the primary one,
// and what a shadow computes nobody was served.
func TestChallengersAreKeptApart(t *testing.T) {
	v1, v2 := release.Digest{1}, release.Digest{2}
	x := &teller{t: t, m: New(Config{Bucket: time.Second})}
	x.tell(nil)
	x.window(&protocol.Window{Release: v1[:], Role: "primary", Rows: 100, Calls: 100})
	for i := range 40 { // more than are kept apart
		x.window(&protocol.Window{
			Release: v2[:], Role: "shadow", Rows: 10, Calls: 10, FailedRows: 1, FailedCalls: 1, Latency: latencyOf(t, 2*time.Millisecond, 10),
			Comparison: &protocol.Comparison{Primary: v1[:], Rows: 10, Agreed: 9, SkippedRows: 3, Worst: float64(i) / 100, Latency: latencyOf(t, time.Millisecond, 10)},
		})
	}
	x.labels(&protocol.Labels{Release: v2[:], Role: "shadow", Matched: 7, Correct: 6})
	halfway := start.Add(time.Duration(x.mono) * time.Millisecond)
	for range 5 {
		x.window(&protocol.Window{Release: v2[:], Role: "share", Rows: 30, Calls: 30, FailedRows: 2, FailedCalls: 2})
	}
	x.labels(&protocol.Labels{Release: v2[:], Role: "share", Matched: 4, Correct: 3})

	if got := x.m.Evidence("m", v2, time.Time{}, time.Time{})["cam-1"]; got.Rows != 0 || got.Calls != 0 || got.FailedRows != 0 || got.Labels != 0 {
		t.Errorf("a challenger is evidence of the primary: %+v", got)
	}
	if got, _ := x.m.ShadowOf("cam-1", "m", v2, time.Time{}); got.Compared != 400 || got.Agreed != 360 || got.FailedRows != 40 {
		t.Errorf("shadowed: got %+v, want 360 of 400 rows agreed and 40 failed", got)
	}
	if got, ok := x.m.ShadowOf("cam-1", "m", v2, halfway); ok {
		t.Errorf("shadowed since only a share was answered: got %+v", got)
	}
	for _, total := range x.m.Totals() {
		switch want := map[release.Digest]uint64{v1: 100, v2: 160}[total.Release]; {
		case total.Rows+total.FailedRows != want:
			t.Errorf("%x: %d rows, want %d", total.Release[:1], total.Rows+total.FailedRows, want)
		case total.Release == v2 && total.Labels != 4:
			t.Errorf("%d labels, want those of the share alone", total.Labels)
		}
	}
	got := x.m.Beside("m", v2, time.Time{})
	if len(got) != 2 || got[0].Role != "shadow" || got[1].Role != "share" {
		t.Fatalf("beside: %+v", got)
	}
	shadow, share := got[0], got[1]
	if shadow.Compared != 400 || shadow.Agreed != 360 || shadow.Skipped != 120 || shadow.FailedRows != 40 || shadow.Worst != 0.39 || shadow.Primary != v1 {
		t.Errorf("shadow: %+v", shadow)
	}
	if shadow.Labels != 7 || shadow.Correct != 6 || share.Labels != 4 || share.Correct != 3 || share.Rows != 150 || share.FailedRows != 10 {
		t.Errorf("labels %d/%d of the shadow; share: %+v", shadow.Correct, shadow.Labels, share)
	}
	ratio := float64(shadow.Latency.Quantile(0.5)) / float64(shadow.PrimaryLatency.Quantile(0.5))
	if shadow.Latency.Count() != 400 || ratio < 1.9 || ratio > 2.1 {
		t.Errorf("latency of %d calls, %v times the primary's", shadow.Latency.Count(), ratio)
	}
	if late := x.m.Beside("m", v2, halfway); len(late) != 1 || late[0].Role != "share" {
		t.Errorf("since halfway: %+v", late)
	}
	if c := x.m.device("cam-1").state.Current["m"]; c.Release != v1 {
		t.Errorf("%x counts as serving", c.Release[:1])
	}
}

// A challenger beside one primary release after the other is kept apart for
// each, and only for so many.
func TestRivalsAreBounded(t *testing.T) {
	x := &teller{t: t, m: New(Config{Bucket: time.Second})}
	x.tell(nil)
	v2 := release.Digest{200}
	for i := range 3 * maxRivals {
		primary := release.Digest{byte(i + 1)}
		x.window(&protocol.Window{Release: v2[:], Role: "shadow", Rows: 1, Comparison: &protocol.Comparison{Primary: primary[:], Rows: 1}})
	}
	got := x.m.Beside("m", v2, time.Time{})
	if len(got) != maxRivals || got[len(got)-1].Primary != (release.Digest{3 * maxRivals}) {
		t.Errorf("%d rivals are kept, the last %s", len(got), fmt.Sprint(got[len(got)-1].Primary))
	}
}
