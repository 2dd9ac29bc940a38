package ingest

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// sender numbers bodies as a device does.
type sender struct {
	epoch []byte
	seq   uint64
	chain []byte
	total *protocol.Tally
}

func newSender(b byte) *sender {
	id := make([]byte, protocol.EpochSize)
	id[0] = b
	return &sender{epoch: id, total: &protocol.Tally{}}
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func window(rows uint64) *protocol.Body {
	return &protocol.Body{Kind: &protocol.Body_Window{Window: &protocol.Window{
		Model: "digits", Release: make([]byte, protocol.DigestSize), Role: "primary", Rows: rows,
	}}}
}

func (s *sender) next(t *testing.T, b *protocol.Body) *protocol.Record {
	t.Helper()
	return s.raw(encode(t, b), protocol.TallyOf(b))
}

func (s *sender) raw(body []byte, counts *protocol.Tally) *protocol.Record {
	s.chain = protocol.NextChain(s.chain, body)
	s.total = s.total.Add(counts)
	s.seq++
	return &protocol.Record{Epoch: s.epoch, Seq: s.seq, Prev: s.seq - 1, Chain: s.chain, Body: body, Total: s.total}
}

func (s *sender) skip(prev uint64) *protocol.Record {
	return &protocol.Record{
		Epoch: s.epoch, Seq: s.seq, Prev: prev, Chain: s.chain, Total: s.total,
		Skip: &protocol.Skip{To: s.seq, Chain: s.chain, Total: s.total, Reason: "salvage"},
	}
}

// take is Accept where no error is expected.
func take(t *testing.T, c Cursor, r *protocol.Record) (Cursor, Verdict) {
	t.Helper()
	after, v, err := Accept(c, r)
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	return after, v
}

func TestRecordsInOrderAreStoredAndAcknowledged(t *testing.T) {
	s, c := newSender(1), Cursor{}
	for i := range uint64(40) {
		var v Verdict
		r := s.next(t, window(i))
		if c, v = take(t, c, r); v.Accepted.GetRecord() != r || v.Acks[0].GetSeq() != i+1 || !bytes.Equal(v.Acks[0].GetChain(), r.GetChain()) {
			t.Fatalf("record %d: %v", i+1, v)
		}
	}
}

func TestRepeatedRecordIsAcknowledgedAndNotStored(t *testing.T) {
	s, c := newSender(1), Cursor{}
	records := []*protocol.Record{s.next(t, window(1)), s.next(t, window(2)), s.next(t, window(3))}
	for _, r := range records {
		c, _ = take(t, c, r)
	}
	for _, r := range records {
		after, v := take(t, c, r)
		if v.Accepted != nil || v.Acks[0].GetSeq() != 3 || v.Acks[0].GetCloned() || !proto.Equal(after.Proto(), c.Proto()) {
			t.Errorf("record %d again: %v", r.GetSeq(), v)
		}
	}
}

func TestRecordBehindAGapIsNotStored(t *testing.T) {
	s, c := newSender(1), Cursor{}
	c, _ = take(t, c, s.next(t, window(1)))
	s.next(t, window(2))
	if _, v := take(t, c, s.next(t, window(4))); v.Accepted != nil || v.Acks[0].GetSeq() != 1 {
		t.Errorf("record 3 after 1: %v", v)
	}
}

func TestSkipCountsExactlyWhatIsMissing(t *testing.T) {
	s, c := newSender(1), Cursor{}
	c, _ = take(t, c, s.next(t, window(1)))
	s.next(t, window(10))
	s.next(t, &protocol.Body{Kind: &protocol.Body_Labels{Labels: &protocol.Labels{Matched: 5}}})
	c, v := take(t, c, s.skip(1))
	if got := v.Accepted; got.GetLostRecords() != 2 || got.GetLost().GetRows() != 10 || got.GetLost().GetLabels() != 5 {
		t.Errorf("skip of two records: %v", v.Accepted)
	}
	if _, v := take(t, c, s.next(t, window(2))); v.Accepted == nil {
		t.Error("the record after the skip was not stored")
	}
}

func TestSkipOfWhatTheServerHasMeanwhileIsDropped(t *testing.T) {
	s, c := newSender(1), Cursor{}
	first := s.next(t, window(1))
	c, _ = take(t, c, first)
	c, _ = take(t, c, s.next(t, window(2)))
	if _, v := take(t, c, s.skip(1)); v.Accepted != nil || v.Acks[0].GetSeq() != 2 {
		t.Errorf("skip to 2 though 2 is held: %v", v)
	}
}

func TestSameNumberWithAnotherContentIsAClone(t *testing.T) {
	a, b := newSender(1), newSender(1)
	c := Cursor{}
	for range 3 {
		c, _ = take(t, c, a.next(t, window(1)))
	}
	for name, r := range map[string]*protocol.Record{
		"number that is taken":       b.next(t, window(7)),
		"body that does not follow ": {Epoch: a.epoch, Seq: 4, Prev: 3, Chain: make([]byte, 8), Body: []byte("x"), Total: a.total},
	} {
		after, v := take(t, c, r)
		if !after.Cloned() || !v.Accepted.GetCloned() || !v.Acks[0].GetCloned() {
			t.Errorf("%s: %v", name, v)
		}
		if _, v := take(t, after, a.next(t, window(1))); v.Accepted != nil || !v.Acks[0].GetCloned() {
			t.Errorf("%s: a record after the mark: %v", name, v)
		}
		if _, v, err := AcceptHello(after, &protocol.Hello{}); err != nil || v.Accepted != nil || !v.Acks[0].GetCloned() {
			t.Errorf("%s: a hello after the mark: %v, %v", name, v, err)
		}
		if after.cleared().Cloned() {
			t.Errorf("%s: the mark cannot be lifted", name)
		}
	}
}

func TestRefusedContentCountsAsLostAndDoesNotBlock(t *testing.T) {
	bad := window(3)
	bad.GetWindow().Model = "../etc"
	huge := window(0)
	huge.GetWindow().Rows = 1 << 60
	short := window(4)
	short.GetWindow().Release = []byte("short")
	for name, send := range map[string]func(*sender) *protocol.Record{
		"name":          func(s *sender) *protocol.Record { return s.next(t, bad) },
		"digest":        func(s *sender) *protocol.Record { return s.next(t, short) },
		"count":         func(s *sender) *protocol.Record { return s.next(t, huge) },
		"not decodable": func(s *sender) *protocol.Record { return s.raw([]byte{0xff, 0xff}, &protocol.Tally{Rows: 3}) },
		"unknown kind":  func(s *sender) *protocol.Record { return s.raw(nil, &protocol.Tally{Rows: 3}) },
		"another total": func(s *sender) *protocol.Record { return s.raw(encode(t, window(1)), &protocol.Tally{Rows: 3}) },
		"too many bins": func(s *sender) *protocol.Record { return s.next(t, withStreams(1, maxBins+1)) },
		"many streams":  func(s *sender) *protocol.Record { return s.next(t, withStreams(maxStreams+1, 1)) },
		"more than all": func(s *sender) *protocol.Record { return s.next(t, labelled(1, 2)) },
		"nameless event": func(s *sender) *protocol.Record {
			return s.next(t, &protocol.Body{Kind: &protocol.Body_Event{Event: &protocol.Event{}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newSender(1), Cursor{}
			c, _ = take(t, c, s.next(t, window(1)))
			before := s.total
			c, v := take(t, c, send(s))
			want, err := s.total.Sub(before)
			if err != nil {
				t.Fatal(err)
			}
			if a := v.Accepted; a.GetRefused() == "" || len(a.GetRecord().GetBody()) > 0 || a.GetLostRecords() != 1 || !proto.Equal(a.GetLost(), want) || v.Acks[0].GetRefused() == "" {
				t.Errorf("got %v, want it refused with %v lost", a, want)
			}
			if _, v := take(t, c, s.next(t, window(1))); v.Accepted == nil || v.Accepted.GetRefused() != "" {
				t.Errorf("the record after it: %v", v)
			}
		})
	}
}

func withStreams(streams, bins int) *protocol.Body {
	b := window(3)
	for range streams {
		b.GetWindow().Streams = append(b.GetWindow().Streams, &protocol.Histogram{Bins: make([]uint64, bins)})
	}
	return b
}

func labelled(matched, correct uint64) *protocol.Body {
	return &protocol.Body{Kind: &protocol.Body_Labels{Labels: &protocol.Labels{
		Model: "digits", Release: make([]byte, protocol.DigestSize), Matched: matched, Correct: correct,
	}}}
}

func TestMalformedRecordsAreNotAnswered(t *testing.T) {
	good := func() *protocol.Record { return newSender(1).next(t, window(1)) }
	for name, spoil := range map[string]func(*protocol.Record){
		"short epoch":        func(r *protocol.Record) { r.Epoch = r.Epoch[1:] },
		"no chain":           func(r *protocol.Record) { r.Chain = nil },
		"number zero":        func(r *protocol.Record) { r.Seq = 0 },
		"prev not below":     func(r *protocol.Record) { r.Prev = 1 },
		"silent gap":         func(r *protocol.Record) { r.Seq = 5 },
		"skip with body":     func(r *protocol.Record) { r.Skip = &protocol.Skip{To: 1, Chain: r.Chain} },
		"skip to other":      func(r *protocol.Record) { r.Body, r.Skip = nil, &protocol.Skip{To: 2, Chain: r.Chain} },
		"skip another chain": func(r *protocol.Record) { r.Body, r.Skip = nil, &protocol.Skip{To: 1} },
	} {
		r := good()
		spoil(r)
		if _, v, err := Accept(Cursor{}, r); !errors.Is(err, ErrMalformed) || v.Acks != nil || v.Accepted != nil {
			t.Errorf("%s: got %v, %v", name, v, err)
		}
	}
}

func TestClosedEpochTakesSkipsOnly(t *testing.T) {
	s, c := newSender(1), Cursor{}
	c, _ = take(t, c, s.next(t, window(1)))
	c, v, err := AcceptHello(c, &protocol.Hello{Epochs: []*protocol.Epoch{{Id: s.epoch, Closing: true, Current: true}}})
	if err != nil || !v.Acks[0].GetClosed() || v.Acks[0].GetSeq() != 1 || v.Acks[0].GetSuperseded() {
		t.Fatalf("closing hello: %v, %v", v, err)
	}
	if _, v := take(t, c, s.next(t, window(2))); v.Accepted != nil || !v.Acks[0].GetClosed() {
		t.Errorf("body in a closed epoch: %v", v)
	}
	if _, v := take(t, c, s.skip(1)); v.Accepted != nil {
		t.Errorf("skip from before the closing: %v", v)
	}
	skip := s.skip(1)
	skip.Skip.Reason = protocol.SkipClosed
	if _, v := take(t, c, skip); v.Accepted.GetLost().GetRows() != 2 {
		t.Errorf("skip of a closed epoch: %v", v)
	}
}

func TestSuccessorOfAClosedEpochIsKnown(t *testing.T) {
	old := newSender(1)
	next := &sender{epoch: protocol.Successor(old.epoch), total: &protocol.Tally{}}
	c, _ := take(t, Cursor{}, old.next(t, window(1)))
	c, _ = take(t, c, next.next(t, window(1)))
	_, v, err := AcceptHello(c, &protocol.Hello{Epochs: []*protocol.Epoch{{Id: old.epoch, Closing: true, Current: true}}})
	if err != nil || !v.Acks[0].GetSuperseded() || len(v.Accepted.GetAbandoned()) != 0 {
		t.Errorf("closing hello of an epoch that was followed: %v, %v", v, err)
	}
}

func TestEpochOfAReinstalledDeviceIsAbandonedOnce(t *testing.T) {
	old, fresh := newSender(1), newSender(2)
	c, _ := take(t, Cursor{}, old.next(t, window(1)))
	hello := &protocol.Hello{Epochs: []*protocol.Epoch{{Id: fresh.epoch, Current: true}}}
	c, v, err := AcceptHello(c, hello)
	if err != nil || !slices.EqualFunc(v.Accepted.GetAbandoned(), [][]byte{old.epoch}, bytes.Equal) {
		t.Fatalf("first hello abandons %x, %v", v.Accepted.GetAbandoned(), err)
	}
	if _, v, _ := AcceptHello(c, hello); len(v.Accepted.GetAbandoned()) != 0 {
		t.Errorf("second hello abandons %x again", v.Accepted.GetAbandoned())
	}
}

func TestEpochsAreBounded(t *testing.T) {
	c := Cursor{}
	for i := range maxEpochs {
		c, _ = take(t, c, newSender(byte(i)).next(t, window(1)))
	}
	r := newSender(200).next(t, window(1))
	if _, v := take(t, c, r); v.Accepted != nil || v.Acks[0].GetRefused() == "" {
		t.Errorf("one epoch too many: %v", v)
	}
	c, _, err := AcceptHello(c, &protocol.Hello{Epochs: []*protocol.Epoch{{Id: newSender(0).epoch, Current: true}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, v := take(t, c, r); v.Accepted == nil {
		t.Error("an abandoned epoch makes no room")
	}
}

func TestCursorSurvivesItsEncoding(t *testing.T) {
	s, c := newSender(1), Cursor{}
	for i := range uint64(50) {
		c, _ = take(t, c, s.next(t, window(i)))
	}
	c, _ = take(t, c, newSender(2).next(t, window(1)))
	again := CursorOf(c.Proto())
	if !proto.Equal(again.Proto(), c.Proto()) {
		t.Errorf("got %v, want %v", again.Proto(), c.Proto())
	}
}

func FuzzAccept(f *testing.F) {
	s := newSender(1)
	raw, err := proto.Marshal(&protocol.Up{Body: &protocol.Up_Record{Record: s.raw([]byte("x"), &protocol.Tally{})}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		up := &protocol.Up{}
		if proto.Unmarshal(raw, up) != nil {
			return
		}
		after, v, err := decide(Cursor{}, up)
		if err != nil && (v.Accepted != nil || len(after.epochs) != 0) {
			t.Errorf("a refused message changes %v, %v", after, v)
		}
	})
}
