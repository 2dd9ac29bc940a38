package outbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// written makes an outbox file with n windows of 1 row each and returns its bytes.
func written(tb testing.TB, dir string, n int) (path string, raw []byte) {
	tb.Helper()
	path = filepath.Join(dir, "outbox.db")
	o, _, err := Open(path, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	unsynced(o)
	for i := range n {
		if err := o.Append(window("m", 1, int64(i)*1000)); err != nil {
			tb.Fatal(err)
		}
	}
	o.Close()
	raw, err = os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return path, raw
}

// unsynced spares the disk where a test pulls no plug.
func unsynced(o *Outbox) { o.store.flush = func(*os.File) error { return nil } }

// drainAll sends and acknowledges everything, answering a question for the
// cursor as a server that holds nothing does; it returns what was counted and
// what was reported lost.
func drainAll(tb testing.TB, o *Outbox) (held, lost Sum, unknown bool) {
	tb.Helper()
	unsynced(o)
	for range 100_000 {
		if o.Stats().Asking {
			epoch := o.Epochs()[len(o.Epochs())-1].GetId()
			if err := o.Ack(&protocol.Ack{Epoch: epoch, Closed: true, Chain: make([]byte, 8)}); err != nil {
				tb.Fatal(err)
			}
		}
		records, err := o.Send(protocol.MaxSent)
		if err != nil {
			tb.Fatal(err)
		}
		if len(records) == 0 {
			return held, lost, unknown || o.Epochs()[len(o.Epochs())-1].GetUncertain()
		}
		for _, r := range records {
			if r.GetSkip() != nil {
				tb.Fatalf("skip %v though nothing was sent", r.GetSkip())
			}
			b := &protocol.Body{}
			if err := proto.Unmarshal(r.GetBody(), b); err != nil {
				tb.Fatal(err)
			}
			if e := b.GetEvent(); e != nil {
				lost = lost.plus(sumOf(e.GetLost()))
				unknown = unknown || e.GetLostUnknown()
				continue
			}
			held = held.plus(sumOf(protocol.TallyOf(b)))
		}
		last := records[len(records)-1]
		if err := o.Ack(&protocol.Ack{Epoch: last.GetEpoch(), Seq: last.GetSeq()}); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Fatal("the outbox is never empty")
	return
}

// at is where the nth append of the file begins.
func at(raw []byte, n int) int {
	place := 0
	for range n {
		place += 1 + bytes.Index(raw[place+1:], []byte("*3\r\n"))
	}
	return place
}

func TestDamage(t *testing.T) {
	const n = 100
	zero := func(b []byte) {
		clear(b)
	}
	for _, tc := range []struct {
		name     string
		spoil    func(raw []byte) []byte
		lost     uint64 // rows known to be lost
		least    uint64 // rows held at least, where some may be lost unknown
		unknown  bool
		unproven bool
	}{
		{name: "cut by 1 byte", spoil: func(r []byte) []byte { return r[:len(r)-1] }, least: n, unproven: true},
		{name: "cut by 2 bytes", spoil: func(r []byte) []byte { return r[:len(r)-2] }, least: n, unproven: true},
		{name: "cut by 500 bytes", spoil: func(r []byte) []byte { return r[:len(r)-500] }, least: n - 3, unproven: true},
		{name: "cut in the header", spoil: func(r []byte) []byte { return r[:at(r, n)+9] }, least: n - 1, unproven: true},
		{name: "cut in the frame", spoil: func(r []byte) []byte { return r[:at(r, n)+60] }, least: n - 1, unproven: true},
		{name: "4096 zeros behind", spoil: func(r []byte) []byte { return append(r, make([]byte, 4096)...) }, least: n, unknown: true, unproven: true},
		{name: "garbage behind", spoil: func(r []byte) []byte { return append(r, "garbage"...) }, least: n, unknown: true, unproven: true},
		{name: "garbage line behind", spoil: func(r []byte) []byte { return append(r, "garbage\r\n"...) }, least: n, unknown: true, unproven: true},
		{name: "last 512 bytes zeroed", spoil: func(r []byte) []byte { zero(r[len(r)-512:]); return r }, least: n - 4, unknown: true, unproven: true},
		{name: "page in the middle zeroed", spoil: func(r []byte) []byte { zero(r[at(r, 40) : at(r, 44)-10]); return r }, lost: 4},
		{name: "byte in the structure", spoil: func(r []byte) []byte { r[at(r, 40)] = 'x'; return r }},
		{name: "byte in a length", spoil: func(r []byte) []byte { r[at(r, 40)+5] ^= 1; return r }},
		{name: "bit in a value", spoil: func(r []byte) []byte { r[at(r, 41)-20] ^= 4; return r }, lost: 1},
		{name: "huge length", spoil: func(r []byte) []byte {
			p := at(r, 50)
			return bytes.Join([][]byte{r[:p], []byte("*3\r\n$3\r\nset\r\n$9000000000\r\n"), r[p:]}, nil)
		}},
		{name: "first half gone", spoil: func(r []byte) []byte { return r[at(r, 50)+7:] }, lost: 49},
		{name: "only the last record left", spoil: func(r []byte) []byte { return r[at(r, n):] }, lost: n - 1},
		{name: "bit in the last record", spoil: func(r []byte) []byte { r[len(r)-20] ^= 1; return r }, least: n - 1, unknown: true, unproven: true},
		{name: "another file's bytes", spoil: func([]byte) []byte { return bytes.Repeat([]byte("not ours "), 1000) }, unknown: true},
		{name: "emptied", spoil: func([]byte) []byte { return nil }, unknown: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path, raw := written(t, t.TempDir(), n)
			spoilt := tc.spoil(bytes.Clone(raw))
			if err := os.WriteFile(path, spoilt, 0o600); err != nil {
				t.Fatal(err)
			}
			o, s := open(t, path, Options{})
			if s == nil {
				t.Fatal("damage was not reported")
			}
			if kept, err := os.ReadFile(s.Quarantine); err != nil || !bytes.Equal(kept, spoilt) {
				t.Errorf("the damaged file was not kept: %v", err)
			}
			if s.LostUnknown != tc.unknown || s.Unproven != tc.unproven {
				t.Errorf("salvage says %+v, want unknown %v, unproven %v", s, tc.unknown, tc.unproven)
			}
			held, lost, unknown := drainAll(t, o)
			if lost.Rows != tc.lost || unknown != tc.unknown {
				t.Errorf("lost %d rows, unknown %v; want %d, %v", lost.Rows, unknown, tc.lost, tc.unknown)
			}
			if tc.least == 0 && !tc.unknown && held.Rows+lost.Rows != n || held.Rows < tc.least {
				t.Errorf("held %d and lost %d of %d rows", held.Rows, lost.Rows, n)
			}
			o.Close()
			if _, again := open(t, path, Options{}); again != nil {
				t.Errorf("the salvaged file is damaged again: %+v", again)
			}
		})
	}
}

func TestHoleInSentBecomesASkip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	o, _ := open(t, path, Options{})
	for _, rows := range []uint64{1, 2, 4} {
		o.Append(window("m", rows, 0))
		send(t, o)
	}
	before := send(t, o)
	o.Close()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(raw, []byte(keyOf(kindSent, 2)))
	raw[i+60] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	o, s := open(t, path, Options{})
	if s == nil || s.SentHoles != 1 || s.LostUnknown || s.Unproven {
		t.Fatalf("salvage says %+v, want one hole", s)
	}
	got := send(t, o)
	if len(got) != 3 || got[1].GetSkip().GetTo() != 2 || got[1].GetTotal().GetRows() != 3 || !bytes.Equal(got[1].GetChain(), before[1].GetChain()) {
		t.Fatalf("sends %v", got)
	}
	if !proto.Equal(got[2], before[2]) {
		t.Errorf("the record after the hole changed: %v", got[2])
	}
}

// A send is one write of a record and ten deletions, in no certain order.
// Wherever that is cut, all ten records are there, once.
func TestHalfATransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	o, _ := open(t, path, Options{})
	for range 10 {
		if err := o.Append(window("m", 1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	before := o.Stats().File
	send(t, o)
	o.Close()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := before; cut <= int64(len(raw)); cut++ {
		b, _ := salvageTape(&tape{src: bytes.NewReader(raw[:cut]), size: cut})
		server := receiver{}
		if _, err := server.drain(b); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if server.held != (Sum{Rows: 10}) || server.lost != (Sum{}) || server.unknown {
			t.Fatalf("cut at %d of %d: the server holds %+v and counts %+v lost", cut, len(raw), server.held, server.lost)
		}
	}
}

// Wherever a file is cut, nothing that was acknowledged before the
// write in flight is lost, and nothing is counted twice.
func TestPlugPulledAnywhere(t *testing.T) {
	dir := t.TempDir()
	path, whole := written(t, dir, 4)
	place := filepath.Join(dir, "cut.db")
	for cut := at(whole, 1); cut < len(whole); cut += 3 {
		if err := os.WriteFile(place, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		synced := scanString(string(whole[:cut]), nil)
		o, _, err := Open(place, Options{})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		held, lost, unknown := drainAll(t, o)
		o.Close()
		if want := uint64(synced.frames - 1); held.Rows != want || lost.Rows != 0 || unknown {
			t.Fatalf("cut at %d: held %d, lost %d, unknown %v; want %d rows", cut, held.Rows, lost.Rows, unknown, want)
		}
	}
	_ = path
}

func newestLSN(raw string) (lsn uint64) {
	scanString(raw, func(f *Frame) { lsn = max(lsn, f.Head.LSN) })
	return lsn
}

func scanString(raw string, visit func(*Frame)) scan {
	if visit == nil {
		visit = func(*Frame) {}
	}
	return scanFile(&tape{src: strings.NewReader(raw), size: int64(len(raw))}, visit)
}

func FuzzScan(f *testing.F) {
	_, raw := written(f, f.TempDir(), 3)
	f.Add(string(raw))
	f.Add("*3\r\n$3\r\nset\r\n$99999999999\r\n")
	f.Add(frameMagic + strings.Repeat("\xff", 8))
	f.Fuzz(func(t *testing.T, raw string) {
		var frames []*Frame
		s := scanString(raw, func(f *Frame) { frames = append(frames, f) })
		if s.damaged > int64(len(raw)) {
			t.Errorf("%d of %d bytes are damaged", s.damaged, len(raw))
		}
		if b, _ := Recover(frames, s.tail); b != nil {
			b.Records()
		}
	})
}

func FuzzFrame(f *testing.F) {
	fr := Frame{Head: Head{LSN: 3, Open: []uint64{1}, Former: []Former{{}}}, Kind: kindSent, Bodies: []string{"a"}, Sums: []Sum{{1, 2}}, Absorbed: []uint64{4}}
	f.Add(fr.Encode()[frameHeader:])
	f.Fuzz(func(t *testing.T, payload string) {
		got, err := decodePayload(payload)
		if err != nil {
			return
		}
		again, n, err := decodeFrame(got.Encode())
		if err != nil || n == 0 {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		if want, have := got.Encode(), again.Encode(); want != have {
			t.Errorf("encoding changes: %q, %q", want, have)
		}
	})
}

func TestFileStaysBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	o, _ := open(t, path, Options{})
	big := window("m", 1, 0)
	big.GetWindow().Latency = make([]byte, 100<<10)
	for i := range 200 {
		if err := o.PutOpen("k"+strconv.Itoa(i%2), big); err != nil {
			t.Fatal(err)
		}
		if st := o.Stats(); st.File > 2*st.Bytes+slack+200<<10 {
			t.Fatalf("file has %d bytes for %d live ones", st.File, st.Bytes)
		}
	}
}

func TestReadingIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge.db")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 33); err != nil { // sparse: 8 GiB of nothing
		t.Skip(fmt.Sprint("no sparse files here: ", err))
	}
	f.Close()
	tape, file, err := openTape(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if n := len(tape.from(0, 1<<30)); n != 1000 {
		t.Errorf("read %d bytes, want 1000", n)
	}
}
