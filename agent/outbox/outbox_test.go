package outbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

func open(t *testing.T, path string, opt Options) (*Outbox, *Salvage) {
	t.Helper()
	o, s, err := Open(path, opt)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { o.Close() })
	return o, s
}

func window(model string, rows uint64, wallMs int64) *protocol.Body {
	return &protocol.Body{
		At: &protocol.Stamp{Boot: []byte("0123456789abcdef"), WallMs: wallMs},
		Kind: &protocol.Body_Window{Window: &protocol.Window{
			Model: model, Role: "primary", Rows: rows, Calls: rows, StartWallMs: wallMs, EndWallMs: wallMs + 1000,
			Streams: []*protocol.Histogram{{Bins: []uint64{rows, 0, 0}}},
		}},
	}
}

func labels(model string, n uint64) *protocol.Body {
	return &protocol.Body{
		At:   &protocol.Stamp{Boot: []byte("0123456789abcdef")},
		Kind: &protocol.Body_Labels{Labels: &protocol.Labels{Model: model, Matched: n, Confusion: []uint64{n, 0, 0, 0}}},
	}
}

func send(t *testing.T, o *Outbox) []*protocol.Record {
	t.Helper()
	records, err := o.Send(protocol.MaxSent)
	if err != nil {
		t.Fatalf("Send: %v", err)
	}
	return records
}

func tally(t *testing.T, records []*protocol.Record) Sum {
	t.Helper()
	var sum Sum
	for _, r := range records {
		b := &protocol.Body{}
		if err := proto.Unmarshal(r.GetBody(), b); err != nil {
			t.Fatal(err)
		}
		sum = sum.plus(sumOf(protocol.TallyOf(b)))
	}
	return sum
}

// ackAll says that the server holds everything that was sent.
func ackAll(t *testing.T, o *Outbox, records []*protocol.Record) {
	t.Helper()
	if len(records) == 0 {
		return
	}
	r := records[len(records)-1]
	if err := o.Ack(&protocol.Ack{Epoch: r.GetEpoch(), Seq: r.GetSeq(), Chain: r.GetChain(), Total: r.GetTotal()}); err != nil {
		t.Fatalf("Ack: %v", err)
	}
}

func TestRecordsAreNumberedWhenSentAndLeaveWhenAcknowledged(t *testing.T) {
	o, s := open(t, filepath.Join(t.TempDir(), "outbox.db"), Options{})
	if s != nil {
		t.Errorf("a new outbox reports a salvage: %+v", s)
	}
	for i := range uint64(3) {
		if err := o.Append(window("m", i+1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	records := send(t, o)
	if len(records) != 3 || records[2].GetSeq() != 3 || records[2].GetPrev() != 2 || records[2].GetTotal().GetRows() != 6 {
		t.Fatalf("Send gave %v", records)
	}
	chain := protocol.NextChain(records[0].GetChain(), records[1].GetBody())
	if string(chain) != string(records[1].GetChain()) {
		t.Error("chain of record 2 does not follow from record 1")
	}
	if err := o.Ack(&protocol.Ack{Epoch: records[0].GetEpoch(), Seq: 2}); err != nil {
		t.Fatal(err)
	}
	if left := send(t, o); len(left) != 1 || !proto.Equal(left[0], records[2]) {
		t.Errorf("after an ack of 2 Send gave %v", left)
	}
	ackAll(t, o, records)
	if st := o.Stats(); st.Sent != 0 || st.Pending != 0 || st.Bytes != 0 {
		t.Errorf("after the last ack the outbox holds %+v", st)
	}
}

func TestOpenRecordIsReplacedAndClosedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	o, _ := open(t, path, Options{})
	for _, rows := range []uint64{1, 5, 9} {
		if err := o.PutOpen("m/primary", window("m", rows, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if got := send(t, o); len(got) != 0 {
		t.Fatalf("an open record was sent: %v", got)
	}
	if err := o.CloseOpen("m/primary", window("m", 12, 0)); err != nil {
		t.Fatal(err)
	}
	if got := tally(t, send(t, o)); got != (Sum{Rows: 12}) {
		t.Errorf("closed record counts %+v, want 12 rows", got)
	}
}

func TestOpenRecordOfAKilledAgentIsSent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	o, _ := open(t, path, Options{})
	if err := o.PutOpen("k", window("m", 7, 0)); err != nil {
		t.Fatal(err)
	}
	o.Close()
	o, s := open(t, path, Options{})
	if s != nil {
		t.Errorf("a kill was taken for damage: %+v", s)
	}
	if err := o.PutOpen("k", window("m", 2, 0)); err != nil {
		t.Fatal(err)
	}
	if got := tally(t, send(t, o)); got != (Sum{Rows: 7}) {
		t.Errorf("sent %+v, want the 7 rows of the boot before", got)
	}
}

func TestServerRestoredFromABackup(t *testing.T) {
	o, _ := open(t, filepath.Join(t.TempDir(), "outbox.db"), Options{})
	o.Append(window("m", 1, 0), window("m", 2, 0), window("m", 4, 0))
	records := send(t, o)
	if err := o.Ack(&protocol.Ack{Epoch: records[0].GetEpoch(), Seq: 2}); err != nil {
		t.Fatal(err)
	}
	if err := o.Ack(&protocol.Ack{Epoch: records[0].GetEpoch(), Seq: 1}); err != nil {
		t.Fatal(err)
	}
	got := send(t, o)
	if len(got) != 2 || got[0].GetSkip().GetTo() != 2 || got[0].GetPrev() != 1 || got[0].GetTotal().GetRows() != 3 || got[1].GetSeq() != 3 {
		t.Errorf("after the server fell back to 1: %v", got)
	}
}

func TestBodyOverTheLimitIsRefused(t *testing.T) {
	o, _ := open(t, filepath.Join(t.TempDir(), "outbox.db"), Options{})
	b := window("m", 1, 0)
	b.GetWindow().Latency = make([]byte, MaxBody)
	if err := o.Append(b); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestSecondProcessIsKeptOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	open(t, path, Options{})
	if _, _, err := Open(path, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}

func TestClosedOutboxSaysSo(t *testing.T) {
	o, _ := open(t, filepath.Join(t.TempDir(), "outbox.db"), Options{})
	o.Close()
	if err := o.Append(window("m", 1, 0)); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestDiskFailure(t *testing.T) {
	errDisk := errors.New("no space left on device")
	for _, step := range []string{"write", "sync"} {
		t.Run(step, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "outbox.db")
			o, _ := open(t, path, Options{})
			if err := o.Append(window("m", 1, 0)); err != nil {
				t.Fatal(err)
			}
			full := true
			o.store.inject = func(s string) error {
				if full && (s == step || s == "replace") {
					return errDisk
				}
				return nil
			}
			for range 3 {
				if err := o.Append(window("m", 2, 0)); !errors.Is(err, ErrStorage) || !errors.Is(err, errDisk) {
					t.Fatalf("got %v, want ErrStorage", err)
				}
			}
			if err := o.Stats().Error; !errors.Is(err, ErrStorage) || !errors.Is(err, errDisk) {
				t.Errorf("stats say %v, want ErrStorage", err)
			}
			full = false
			if err := o.Append(window("m", 4, 0)); err != nil {
				t.Fatalf("after space was freed: %v", err)
			}
			if err := o.Stats().Error; err != nil {
				t.Errorf("stats say %v after space was freed", err)
			}
			o.Close()
			o, s := open(t, path, Options{})
			if s != nil {
				t.Errorf("disk full was taken for damage: %+v", s)
			}
			if got := tally(t, send(t, o)); got != (Sum{Rows: 5}) {
				t.Errorf("outbox counts %+v, want the 5 rows that were acknowledged to the caller", got)
			}
		})
	}
}

func TestEverythingSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	want := Sum{}
	var acked Sum
	for i := range uint64(20) {
		o, s := open(t, path, Options{})
		if s != nil {
			t.Fatalf("opening %d reports %+v", i, s)
		}
		for j := range uint64(5) {
			if err := o.Append(window(fmt.Sprint("m", j), i+j, 0), labels("m", 1)); err != nil {
				t.Fatal(err)
			}
			want = want.plus(Sum{Rows: i + j, Labels: 1})
		}
		records := send(t, o)
		if i%3 == 0 {
			ackAll(t, o, records)
			acked = acked.plus(tally(t, records))
		}
		o.Close()
	}
	o, _ := open(t, path, Options{})
	for {
		records := send(t, o)
		if len(records) == 0 {
			break
		}
		acked = acked.plus(tally(t, records))
		ackAll(t, o, records)
	}
	if acked != want {
		t.Errorf("sent %+v in all, want %+v", acked, want)
	}
}
