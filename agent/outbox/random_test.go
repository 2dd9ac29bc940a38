package outbox

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

var onlySeed = flag.Int64("salvage.seed", -1, "damage with this seed only")

// past is a file with a history, and what is known of it without reading it.
type past struct {
	raw    []byte
	lsn    uint64           // of the newest change
	waits  map[string]*Item // open and pending records at the end, by the frame they lie in
	sent   []*protocol.Record
	server receiver // what the server held when the power was cut
	whole  Sum      // everything ever taken over
}

// history makes open windows that grow, merges, labels, and records that were
// sent, of which the server holds some more than it has acknowledged.
func history(tb testing.TB) *past {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "past.db")
	o, _, err := Open(path, Options{ModelBytes: 12_000})
	if err != nil {
		tb.Fatal(err)
	}
	unsynced(o)
	p := &past{waits: map[string]*Item{}}
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	for i := range 40 {
		wall := int64(i) * 60_000
		for rows := range uint64(2) {
			must(o.PutOpen("k", window("m", rows+1, wall)))
		}
		must(o.CloseOpen("k", window("m", 3, wall)))
		must(o.Append(labels("m", 1)))
		p.whole = p.whole.plus(Sum{Rows: 3, Labels: 1})
		if i == 10 || i == 35 {
			if p.sent, err = o.Send(5); err != nil {
				tb.Fatal(err)
			}
			for _, r := range p.sent[:3] {
				must(p.server.take(r))
			}
			must(o.Ack(p.server.ack()))
		}
	}
	must(p.server.take(p.sent[3])) // and its acknowledgement was lost
	must(o.PutOpen("k", window("m", 7, 41*60_000)))
	p.whole.Rows += 7
	if o.Stats().Merged == 0 {
		tb.Fatal("nothing was merged")
	}
	p.sent, p.lsn = o.book.Records(), o.book.head.LSN
	must(o.Close())
	p.raw, err = os.ReadFile(path)
	must(err)
	scanString(string(p.raw), func(f *Frame) {
		for _, it := range slices.Concat(o.book.open, o.book.pending) {
			if f.key() == it.key() && f.Body == it.Body {
				p.waits[f.Encode()] = it
			}
		}
	})
	if len(p.waits) < len(o.book.open)+len(o.book.pending) {
		tb.Fatalf("%d of %d waiting records are in the file", len(p.waits), len(o.book.open)+len(o.book.pending))
	}
	return p
}

// receiver judges records as a server does [P-4.4].
type receiver struct {
	epoch      []byte
	last       uint64
	chain      []byte
	total      Sum
	held, lost Sum
	unknown    bool
}

func (s *receiver) take(r *protocol.Record) error {
	if !bytes.Equal(r.GetEpoch(), s.epoch) {
		if r.GetSkip() != nil {
			return nil // of an epoch that is closed
		}
		*s = receiver{epoch: r.GetEpoch(), held: s.held, lost: s.lost, unknown: s.unknown, chain: make([]byte, protocol.ChainSize)}
	}
	if r.GetSeq() <= s.last {
		return nil
	}
	switch skip := r.GetSkip(); {
	case r.GetPrev() != s.last:
		return nil // the acknowledgement tells the device from where on
	case skip != nil:
		gone, ok := sumOf(r.GetTotal()).minus(s.total)
		if !ok {
			return fmt.Errorf("skip to %d has a total below the server's", r.GetSeq())
		}
		s.lost = s.lost.plus(gone)
	case !bytes.Equal(protocol.NextChain(s.chain, r.GetBody()), r.GetChain()):
		return fmt.Errorf("record %d does not continue the chain", r.GetSeq())
	default:
		if err := s.count(r.GetBody()); err != nil {
			return err
		}
	}
	s.last, s.chain, s.total = r.GetSeq(), r.GetChain(), sumOf(r.GetTotal())
	return nil
}

func (s *receiver) count(raw []byte) error {
	b := &protocol.Body{}
	if err := proto.Unmarshal(raw, b); err != nil {
		return err
	}
	if e := b.GetEvent(); e != nil {
		s.lost, s.unknown = s.lost.plus(sumOf(e.GetLost())), s.unknown || e.GetLostUnknown()
		return nil
	}
	s.held = s.held.plus(sumOf(protocol.TallyOf(b)))
	return nil
}

func (s *receiver) ack() *protocol.Ack {
	return &protocol.Ack{Epoch: s.epoch, Seq: s.last, Chain: s.chain, Total: s.total.Tally()}
}

// closed answers the question for the final cursor.
func (s *receiver) closed(epoch []byte) *protocol.Ack {
	if !bytes.Equal(epoch, s.epoch) {
		return &protocol.Ack{Epoch: epoch, Closed: true, Chain: make([]byte, protocol.ChainSize)}
	}
	a := s.ack()
	a.Closed = true
	return a
}

// drain sends a whole book to a server.
func (s *receiver) drain(b *Book) (*Book, error) {
	for range 1000 {
		if b.head.Closing {
			after, c, write := b.Ack(s.closed(b.head.Epoch[:]))
			if b = after; write {
				b = c.After
			}
			continue
		}
		if c, ok := b.Send(protocol.MaxSent); ok {
			b = c.After
		}
		records := b.Records()
		if len(records) == 0 {
			return b, nil
		}
		for _, r := range records {
			if err := s.take(r); err != nil {
				return b, err
			}
		}
		after, c, write := b.Ack(s.ack())
		if b = after; write {
			b = c.After
		}
	}
	return b, fmt.Errorf("the server never takes %v", b.Records()[0])
}

// spoil damages a file as flash and file systems do.
func spoil(r *rand.Rand, raw []byte) []byte {
	if len(raw) == 0 {
		return raw
	}
	i, n := r.IntN(len(raw)), 1+r.IntN(600)
	end := min(len(raw), i+n)
	garbage := func(b []byte) []byte {
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		return b
	}
	switch r.IntN(12) {
	case 0: // cut
		return raw[:i]
	case 1: // the last bytes never reached the disk
		clear(raw[max(0, len(raw)-n):])
	case 2: // zeroed
		clear(raw[i:end])
	case 3: // a page of zeros
		page := i &^ (diskPage - 1)
		clear(raw[page:min(len(raw), page+diskPage)])
	case 4: // a flipped bit, in structure or value
		raw[i] ^= 1 << r.IntN(8)
	case 5: // a piece gone
		return append(raw[:i:i], raw[end:]...)
	case 6: // garbage
		garbage(raw[i:end])
	case 7: // zeros behind
		return append(raw, make([]byte, n)...)
	case 8: // garbage behind, as a line or not
		return append(append(raw, garbage(make([]byte, n))...), "\r\n"[:2*r.IntN(2)]...)
	case 9: // a length that lies
		if at := bytes.IndexByte(raw[i:], '$'); at >= 0 {
			return slices.Insert(raw, i+at+1, []byte("9000")...)
		}
	case 10: // half of a write: its deletions and not its record, or the other way round
		if at := bytes.Index(raw[i:], []byte("*3\r\n")); at >= 0 {
			return append(raw[:i+at:i+at], raw[i+at+min(len(raw)-i-at, 150):]...)
		}
	default: // an old piece again
		return bytes.Join([][]byte{raw[:i], raw[max(0, i-n):i], raw[i:]}, nil)
	}
	return raw
}

// damage is the past's file with one to three damages.
func (p *past) damage(seed int64) []byte {
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	bad := bytes.Clone(p.raw)
	for range 1 + r.IntN(3) {
		bad = spoil(r, bad)
	}
	return bad
}

// TestSalvageOfRandomDamage is 10,000 damaged files: every record with a good
// checksum survives, order and numbers hold, nothing is counted twice, and where
// it is claimed to be known what is lost, that is exactly what is missing.
func TestSalvageOfRandomDamage(t *testing.T) {
	p := history(t)
	exact, rounds := int64(0), int64(10_000)
	if raced {
		rounds /= 10
	}
	for seed := range rounds {
		if *onlySeed >= 0 && seed != *onlySeed {
			continue
		}
		bad := p.damage(seed)
		book, s := salvageTape(&tape{src: bytes.NewReader(bad), size: int64(len(bad))})
		err := p.survives(bad, book)
		if err == nil {
			var known bool
			known, err = p.balances(bad, book, s)
			if known {
				exact++
			}
		}
		if err != nil {
			t.Fatalf("%v\nsalvage: %+v\nreplay: go test ./agent/outbox -run %s -args -salvage.seed=%d", err, s, t.Name(), seed)
		}
	}
	if *onlySeed < 0 && exact < rounds/10 {
		t.Errorf("only %d of %d damaged files ended with exact totals: the test proves little", exact, rounds)
	}
}

// survives says which record with a good checksum is not in the book, or in
// another place.
func (p *past) survives(bad []byte, b *Book) error {
	got := map[string]bool{}
	for _, it := range slices.Concat(b.open, b.pending) {
		got[it.Body] = true
	}
	for frame, it := range p.waits {
		if bytes.Contains(bad, []byte(frame)) && !got[it.Body] {
			return fmt.Errorf("record %d is whole in the file and not in the book", it.Index)
		}
	}
	if !slices.IsSortedFunc(b.pending, func(x, y *Item) int { return int(x.Index) - int(y.Index) }) {
		return errors.New("pending records are out of order")
	}
	for i, s := range b.sent {
		if i > 0 && s.Seq <= b.sent[i-1].Seq {
			return fmt.Errorf("number %d comes after %d", s.Seq, b.sent[i-1].Seq)
		}
		for _, r := range p.sent {
			if r.GetSeq() == s.Seq && bytes.Equal(r.GetEpoch(), b.head.Epoch[:]) && string(r.GetBody()) != s.body {
				return fmt.Errorf("number %d is another record now", s.Seq)
			}
		}
	}
	return nil
}

// balances hands the book to the server and compares totals. known says that
// they are claimed to be exact.
func (p *past) balances(bad []byte, b *Book, s *Salvage) (known bool, err error) {
	// A disk that loses writes it had synced leaves a file that ended like this
	// once: no device can tell. Where it ends between two writes, the server sees
	// it as an identity used twice.
	rolledBack := newestLSN(string(bad)) < p.lsn
	if rolledBack && !s.Unproven {
		return false, nil
	}
	if e, ok := s.Report(); ok {
		b = b.Append(e).After
	}
	for c, ok := b.CloseLeft(); ok; c, ok = b.CloseLeft() {
		b = c.After
	}
	server := p.server
	if b, err = server.drain(b); err != nil {
		return false, err
	}
	total := server.held.plus(server.lost)
	switch known = !server.unknown && !b.head.Unknown && !rolledBack; {
	case server.held.Rows > p.whole.Rows || server.held.Labels > p.whole.Labels:
		return known, fmt.Errorf("the server holds %+v, more than the %+v there were", server.held, p.whole)
	case known && total != p.whole:
		return known, fmt.Errorf("the server holds %+v and counts %+v lost of %+v", server.held, server.lost, p.whole)
	}
	return known, nil
}

// TestOpenSalvagesLikeTheBook opens damaged files for real: what comes out is
// what salvageTape finds, and the next Open finds nothing wrong.
func TestOpenSalvagesLikeTheBook(t *testing.T) {
	p := history(t)
	path := filepath.Join(t.TempDir(), "outbox.db")
	for seed := range int64(60) {
		bad := p.damage(seed)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		want, _ := salvageTape(&tape{src: bytes.NewReader(bad), size: int64(len(bad))})
		for range 2 {
			o, _, err := Open(path, Options{})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for _, it := range slices.Concat(want.open, want.pending) {
				if !slices.ContainsFunc(o.book.pending, func(got *Item) bool { return got.Body == it.Body }) {
					t.Errorf("seed %d: record %d is not there after opening", seed, it.Index)
				}
			}
			o.Close()
		}
		o, again := open(t, path, Options{})
		if again != nil {
			t.Errorf("seed %d: the salvaged file is damaged again: %+v", seed, again)
		}
		o.Close()
	}
}

// failing is a disk with a sector that cannot be read.
type failing struct {
	*strings.Reader
	bad int64
}

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if f.bad >= off && f.bad < off+int64(len(b)) {
		return 0, os.ErrInvalid
	}
	return f.Reader.ReadAt(b, off)
}

// A sector that the disk cannot read costs what lies in it and nothing else.
func TestUnreadableSector(t *testing.T) {
	_, raw := written(t, t.TempDir(), 100)
	src := failing{strings.NewReader(string(raw)), int64(at(raw, 50))}
	b, s := salvageTape(&tape{src: src, size: int64(len(raw))})
	sector := raw[src.bad&^(diskPage-1):][:diskPage]
	touched := bytes.Count(sector, []byte(frameMagic)) + 1 // one more reaches into it
	if lost := 100 - b.Pending(); lost == 0 || lost > touched || s.LostRecords != uint64(lost) || s.LostUnknown {
		t.Errorf("%d records of at most %d in the sector are gone, salvage says %+v", lost, touched, s)
	}
}
