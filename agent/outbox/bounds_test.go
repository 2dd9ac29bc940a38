package outbox

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// A month offline: a full outbox counts exactly what one without bounds does.
func TestFullOutboxCountsLikeAnUnboundedOne(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	small, _ := open(t, filepath.Join(dir, "small.db"), Options{ModelBytes: 8_000, TotalBytes: 30_000})
	twin, _ := open(t, filepath.Join(dir, "twin.db"), Options{})
	models := []string{"a", "b"}
	for i := range 250 {
		model := models[r.IntN(2)]
		wall := int64(i) * 5 * 60_000
		for _, b := range []*protocol.Body{window(model, r.Uint64N(100), wall), labels(model, r.Uint64N(5))} {
			for _, o := range []*Outbox{small, twin} {
				if err := o.Append(proto.CloneOf(b)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if st := small.Stats(); st.Bytes > 30_000 {
			t.Fatalf("after %d windows the outbox has %d bytes, at most 30000", i, st.Bytes)
		}
	}
	if st := small.Stats(); st.Merged == 0 {
		t.Fatal("nothing was merged")
	}
	want, _, _ := drainAll(t, twin)
	got, lost, unknown := drainAll(t, small)
	if got != want || lost != (Sum{}) || unknown {
		t.Errorf("bounded outbox counts %+v and lost %+v, the unbounded one %+v", got, lost, want)
	}
}

func TestMergingPrefersTheSameHour(t *testing.T) {
	h := hour
	b := NewBook(EpochID{1})
	for _, wall := range []int64{0, h - 1, h, 2 * h, 2*h + 1, 30 * h} {
		e, err := NewEntry(window("m", 1, wall))
		if err != nil {
			t.Fatal(err)
		}
		b = b.Append(e).After
	}
	var spans []int64
	for {
		changes := b.Merge(func(*Item) bool { return true }, 1)
		if len(changes) == 0 {
			break
		}
		b = changes[0].After
		for _, it := range b.pending {
			spans = append(spans, it.start/h)
		}
		spans = append(spans, -1)
	}
	want := []int64{0, 1, 2, 2, 30, -1, 0, 1, 2, 30, -1, 0, 2, 30, -1, 0, 30, -1, 0, -1}
	if len(spans) != len(want) {
		t.Fatalf("merged %v, want %v", spans, want)
	}
	for i := range want {
		if spans[i] != want[i] {
			t.Fatalf("merged %v, want %v", spans, want)
		}
	}
}

func TestUnlikeRecordsAreNotMerged(t *testing.T) {
	base := func() *protocol.Body { return window("m", 1, 0) }
	for name, other := range map[string]func(*protocol.Body){
		"model":   func(b *protocol.Body) { b.GetWindow().Model = "n" },
		"release": func(b *protocol.Body) { b.GetWindow().Release = []byte("r") },
		"role":    func(b *protocol.Body) { b.GetWindow().Role = "shadow" },
		"boot":    func(b *protocol.Body) { b.At.Boot = []byte("another boot 123") },
		"streams": func(b *protocol.Body) { b.GetWindow().Streams = nil },
		"bins":    func(b *protocol.Body) { b.GetWindow().Streams[0].Bins = []uint64{1} },
		"kind":    func(b *protocol.Body) { b.Kind = labels("m", 1).Kind },
	} {
		book := NewBook(EpochID{1})
		spoilt := base()
		other(spoilt)
		for _, body := range []*protocol.Body{base(), spoilt} {
			e, err := NewEntry(body)
			if err != nil {
				t.Fatal(err)
			}
			book = book.Append(e).After
		}
		if len(book.Merge(func(*Item) bool { return true }, 1)) > 0 {
			t.Errorf("windows of another %s were merged", name)
		}
	}
}

// Boots do not merge, so a device that starts again and again fills up: then
// the oldest records go, and every row of them is reported.
func TestWhatIsGivenUpIsReported(t *testing.T) {
	o, _ := open(t, filepath.Join(t.TempDir(), "outbox.db"), Options{ModelBytes: 4000, TotalBytes: 6000})
	var want Sum
	for i := range 60 {
		b := window("m", 10, 0)
		b.At.Boot = []byte{15: byte(i)}
		b.GetWindow().Latency = make([]byte, 400)
		if err := o.Append(b); err != nil {
			t.Fatal(err)
		}
		want.Rows += 10
		if st := o.Stats(); st.Bytes > 6000 {
			t.Fatalf("after %d windows the outbox has %d bytes, at most 6000", i, st.Bytes)
		}
	}
	held, lost, unknown := drainAll(t, o)
	if held.plus(lost) != want || lost == (Sum{}) || unknown {
		t.Errorf("held %+v, lost %+v of %+v", held, lost, want)
	}
}

// Windows whose sketches cannot be read cannot be merged: they are given up,
// with their counts told.
func TestWhatCannotBeMergedIsNotLostInSilence(t *testing.T) {
	o, _ := open(t, filepath.Join(t.TempDir(), "outbox.db"), Options{ModelBytes: 8000})
	var want Sum
	for range 30 {
		b := window("m", 1, 0)
		b.GetWindow().Latency = bytes.Repeat([]byte{0xff}, 800)
		if err := o.Append(b); err != nil {
			t.Fatal(err)
		}
		want.Rows++
	}
	held, lost, _ := drainAll(t, o)
	if held.plus(lost) != want || lost == (Sum{}) {
		t.Errorf("held %+v and lost %+v of %+v though no window can be merged", held, lost, want)
	}
}

// A server that closes an epoch may hold more than the device remembers having
// sent: the chain proves which pending records those are.
func TestForgottenSendIsRecognised(t *testing.T) {
	book := NewBook(EpochID{1})
	var frames []*Frame
	do := func(c Change) {
		f := c.Frame
		frames = append(frames, &f)
		book = c.After
	}
	for _, rows := range []uint64{1, 2, 4} {
		e, err := NewEntry(window("m", rows, 0))
		if err != nil {
			t.Fatal(err)
		}
		do(book.Append(e))
	}
	c, _ := book.Send(2)
	sent := c.After.Records()
	again, s := Recover(frames, Damaged)
	if !s.Unproven || len(again.Records()) != 0 {
		t.Fatalf("after the end of the file was lost: %+v, sends %v", s, again.Records())
	}
	final := &protocol.Ack{Epoch: sent[1].GetEpoch(), Closed: true, Seq: 2, Chain: sent[1].GetChain(), Total: sent[1].GetTotal()}
	after, _, _ := again.Ack(final)
	if after.Pending() != 1 || after.Head().Waiting != (Sum{Rows: 4}) || after.Head().Closing {
		t.Errorf("after the server's answer %d records wait for %+v, want one with 4 rows", after.Pending(), after.Head().Waiting)
	}
	final.Chain = []byte("12345678")
	after, _, _ = again.Ack(final)
	if !after.Head().Unknown || after.Head().Waiting != (Sum{}) {
		t.Errorf("without proof %+v waits and unknown is %v", after.Head().Waiting, after.Head().Unknown)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	o, _, err := Open(filepath.Join(b.TempDir(), "outbox.db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer o.Close()
	body := window("m", 1, 0)
	body.GetWindow().Latency = make([]byte, 2048)
	b.ReportAllocs()
	for b.Loop() {
		if err := o.PutOpen("m", body); err != nil {
			b.Fatal(err)
		}
	}
}
