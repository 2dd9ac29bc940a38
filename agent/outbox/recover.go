package outbox

import (
	"cmp"
	"maps"
	"slices"

	"github.com/vedette-edge/vedette/protocol"
)

// Tail is how the file ends after its last good frame.
type Tail int

// Ends of a file. A cut one is what a write that never returned leaves; damage
// may also have hit writes that did return.
const (
	Whole Tail = iota
	Cut
	Damaged
)

// Recover rebuilds the book from the frames that are left of a file, in any
// order, deletions not needed: the newest head says what must be there, and
// what is not there is lost by exactly the difference. Nil when there is no
// frame at all [P-4.7].
func Recover(frames []*Frame, tail Tail) (*Book, *Salvage) {
	if len(frames) == 0 {
		return nil, nil
	}
	newest := slices.MaxFunc(frames, func(a, b *Frame) int { return cmp.Compare(a.Head.LSN, b.Head.LSN) })
	b := &Book{head: newest.Head, base: newest.Head.Acked.Seq}
	b.recoverOpen(frames)
	b.recoverPending(frames)
	b.recoverSent(frames)
	s := &Salvage{SentHoles: int(b.head.Sent.Seq-b.head.Acked.Seq) - len(b.sent), LostUnknown: tail == Damaged} //nolint:gosec // at most MaxSent apart
	b.balance(s)
	if tail != Whole {
		b.doubt()
		s.Unproven = true
	}
	b.head.Unknown = b.head.Unknown || s.LostUnknown
	return b, s
}

// salvageTape rebuilds the book from a file in whatever state. A file without a
// single good frame begins a new epoch.
func salvageTape(t *tape) (*Book, *Salvage) {
	newest := map[string]*Frame{} // by key: what is older cannot matter
	found := scanFile(t, func(f *Frame) {
		if key := f.key(); newest[key] == nil || f.Head.LSN >= newest[key].Head.LSN {
			newest[key] = f.clone()
		}
	})
	book, s := Recover(slices.Collect(maps.Values(newest)), found.tail)
	if book == nil {
		book, s = NewBook(randomEpoch()).Doubt(), &Salvage{LostUnknown: true, Lost: &protocol.Tally{}}
	}
	s.DamagedBytes = found.damaged
	return book, s
}

// newestOf keeps, by index, the newest frame of a kind that alive accepts.
func newestOf(frames []*Frame, kind byte, alive func(*Frame) bool) []*Frame {
	byIndex := map[uint64]*Frame{}
	for _, f := range frames {
		if f.Kind != kind || !alive(f) {
			continue
		}
		if old := byIndex[f.Index]; old == nil || f.Head.LSN >= old.Head.LSN {
			byIndex[f.Index] = f
		}
	}
	out := make([]*Frame, 0, len(byIndex))
	for _, f := range byIndex {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *Frame) int { return cmp.Compare(a.Index, b.Index) })
	return out
}

func (b *Book) recoverOpen(frames []*Frame) {
	for _, f := range newestOf(frames, kindOpen, func(f *Frame) bool { return slices.Contains(b.head.Open, f.Index) }) {
		if e, err := entryOf(f.Body); err == nil {
			b.open = append(b.open, &Item{Entry: e, Index: f.Index, Name: leftover(f.Index)})
		}
	}
}

func (b *Book) recoverPending(frames []*Frame) {
	found := newestOf(frames, kindPending, func(f *Frame) bool { return f.Index > b.head.Moved })
	absorbed := map[uint64]bool{}
	for _, f := range found {
		for _, i := range f.Absorbed {
			absorbed[i] = true
		}
	}
	for _, f := range found {
		e, err := entryOf(f.Body)
		if err != nil || absorbed[f.Index] {
			continue
		}
		b.pending = append(b.pending, &Item{Entry: e, Index: f.Index, absorbed: f.Absorbed})
	}
}

func (b *Book) recoverSent(frames []*Frame) {
	bySeq := map[uint64]sentRecord{}
	for _, f := range newestOf(frames, kindSent, func(f *Frame) bool { return f.Head.Epoch == b.head.Epoch }) {
		m := f.Before
		for i, body := range f.Bodies {
			prev := m.Chain
			m = m.then(body, f.Sums[i])
			if m.Seq > b.head.Acked.Seq && m.Seq <= b.head.Sent.Seq {
				bySeq[m.Seq] = sentRecord{Mark: m, prev: prev, sum: f.Sums[i], body: body, batch: f.Index}
			}
		}
	}
	for _, s := range bySeq {
		b.sent = append(b.sent, s)
	}
	slices.SortFunc(b.sent, func(x, y sentRecord) int { return cmp.Compare(x.Seq, y.Seq) })
}

// balance finds what the waiting records lack of what the head counted.
func (b *Book) balance(s *Salvage) {
	want, count := b.head.Waiting, b.head.Count
	b.count()
	lost, ok := want.minus(b.head.Waiting)
	if !ok {
		// More was found than was there: a frame outlived its record in a way this
		// file format rules out. Nothing can be proven of such a file.
		s.LostUnknown = true
	}
	s.Lost = lost.Tally()
	if b.head.Count < count {
		s.LostRecords = count - b.head.Count
	}
}

// doubt closes the epoch: changes after the last good frame may be forgotten,
// sends among them. Open records become pending now, so that all of them lie
// below the line of doubt [P-4.9].
func (b *Book) doubt() {
	h := &b.head
	for _, it := range b.open {
		b.pending = append(b.pending, &Item{Entry: it.Entry, Index: h.Next, absorbed: []uint64{it.Index}})
		h.Next++
	}
	b.open, h.Open = nil, nil
	h.Closing, h.Suspect = true, h.Next
}

// clean says that nothing of note was found. Holes among the sent records are
// not new in a file without damage: they stay until the server has their skips.
func (s *Salvage) clean() bool {
	return !s.Unproven && !s.LostUnknown && s.LostRecords == 0 && sumOf(s.Lost) == Sum{} && s.DamagedBytes == 0
}

// Report is the event that tells the server what is gone, if anything is
// [P-4.7]. What only may be gone is told too.
func (s *Salvage) Report() (Entry, bool) {
	if s.LostRecords == 0 && (sumOf(s.Lost) == Sum{}) && !s.LostUnknown {
		return Entry{}, false
	}
	return lossEvent("salvage", s.LostRecords, sumOf(s.Lost), s.LostUnknown), true
}
