package outbox

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/vedette-edge/vedette/protocol"
)

// Book is the exact accounting of a device [P-4] without a disk: what is open,
// pending and sent, and what each change writes. It is a value that never
// changes: every decision is a Change, whose After holds once its frame is
// synced. The model check in cmd/e2e explores it together with the server's half.
type Book struct {
	head    Head
	base    uint64             // highest sequence the server says it holds; below head.Acked when it lost some
	former  map[EpochID]uint64 // the same for closed epochs; absent means all
	open    []*Item
	pending []*Item // by index
	sent    []sentRecord
	use     map[string]int64 // bytes of open and pending records, by model
	free    *atomic.Int64    // places not taken in the array that pending shares with other books
}

// Item is one record that has no number yet.
type Item struct {
	Entry
	Index    uint64
	Name     string   // open: the caller's key
	absorbed []uint64 // indices merged into it whose frames may still lie in the file
}

// sentRecord is one numbered record that the server is not known to hold.
type sentRecord struct {
	Mark
	prev  chainValue // chain before it
	sum   Sum
	body  string
	batch uint64 // index of the frame it lies in
}

// before is the mark just below the record.
func (s sentRecord) before() Mark {
	total, _ := s.Total.minus(s.sum) // a total includes its own record
	return Mark{Seq: s.Seq - 1, Chain: s.prev, Total: total}
}

// Change is one decision: write Frame, forget the keys in Drop, then After holds.
type Change struct {
	Frame Frame
	Drop  []string
	After *Book
	// Rewrite says that the change is not one frame: After has to replace the whole file.
	Rewrite bool
	// item is the record that Frame writes, nil for other frames.
	item *Item
}

// NewBook begins a new epoch with nothing in it.
func NewBook(epoch EpochID) *Book {
	return &Book{head: Head{Next: 1, Epoch: epoch}}
}

// Doubt is the book after something that leaves more lost than can be proven.
func (b *Book) Doubt() *Book {
	next := b.copy()
	next.head.Unknown = true
	return next
}

// Head returns the accounting after the newest change.
func (b *Book) Head() Head { return b.head }

// Pending counts the records that wait for a number.
func (b *Book) Pending() int { return len(b.pending) }

// Open counts the records still growing.
func (b *Book) Open() int { return len(b.open) }

// Held counts the numbered records that the server is not known to hold.
func (b *Book) Held() int { return len(b.sent) }

// change completes a change of one frame: next is b's copy with everything else
// done.
func (b *Book) change(next *Book, f Frame, drop ...string) Change {
	next.head.LSN++
	next.head.Open = nil
	for _, it := range next.open {
		next.head.Open = append(next.head.Open, it.Index)
	}
	f.Head = next.head
	return Change{Frame: f, Drop: drop, After: next}
}

func (b *Book) copy() *Book {
	next := *b
	next.use = maps.Clone(b.use)
	return &next
}

// enter counts a record that waits from now on.
func (b *Book) enter(e Entry) {
	if b.use == nil {
		b.use = map[string]int64{}
	}
	b.use[e.Model] += e.cost()
	b.head.Count++
	b.head.Waiting = b.head.Waiting.plus(e.Sum)
}

// leave takes back what enter did.
func (b *Book) leave(e Entry) {
	if b.use[e.Model] -= e.cost(); b.use[e.Model] == 0 {
		delete(b.use, e.Model)
	}
	b.head.Count--
	b.head.Waiting, _ = b.head.Waiting.minus(e.Sum) // Waiting is a sum over all items
}

func without(items []*Item, drop *Item) []*Item {
	kept := make([]*Item, 0, len(items))
	for _, it := range items {
		if it != drop {
			kept = append(kept, it)
		}
	}
	return kept
}

func with(items []*Item, it *Item) []*Item {
	return append(slices.Clip(items), it)
}

// push adds a pending record. Books share what did not change: the first one to
// go on from an array takes its next place, any other gets an array of its own.
func (b *Book) push(it *Item) {
	free := int64(cap(b.pending) - len(b.pending))
	if free == 0 || b.free == nil || !b.free.CompareAndSwap(free, free-1) {
		b.pending = slices.Grow(slices.Clip(b.pending), 1)
		b.free = &atomic.Int64{}
		b.free.Store(int64(cap(b.pending) - len(b.pending) - 1))
	}
	b.pending = append(b.pending, it)
}

// find returns the open record of that name, or nil.
func (b *Book) find(name string) *Item {
	for _, it := range b.open {
		if it.Name == name {
			return it
		}
	}
	return nil
}

// PutOpen writes a growing record down under a name, replacing what was there.
func (b *Book) PutOpen(name string, e Entry) Change {
	next, it := b.copy(), &Item{Entry: e, Name: name, Index: b.head.Next}
	if old := b.find(name); old != nil {
		it.Index = old.Index
		next.open = without(next.open, old)
		next.leave(old.Entry)
	} else {
		next.head.Next++
	}
	next.open = with(next.open, it)
	next.enter(e)
	return b.write(next, it)
}

// CloseOpen makes the record under name pending, with e as its last content.
func (b *Book) CloseOpen(name string, e Entry) Change {
	old := b.find(name)
	if old == nil {
		return b.Append(e)
	}
	next := b.copy()
	next.open = without(next.open, old)
	next.leave(old.Entry)
	return b.add(next, e, []uint64{old.Index}, keyOf(kindOpen, old.Index))
}

// Append adds a pending record.
func (b *Book) Append(e Entry) Change { return b.add(b.copy(), e, nil) }

func (b *Book) add(next *Book, e Entry, absorbed []uint64, drop ...string) Change {
	it := &Item{Entry: e, Index: next.head.Next, absorbed: absorbed}
	next.head.Next++
	next.push(it)
	next.enter(e)
	return b.write(next, it, drop...)
}

func (b *Book) write(next *Book, it *Item, drop ...string) Change {
	c := b.change(next, it.frame(), drop...)
	c.item = it
	return c
}

func (it *Item) frame() Frame {
	if it.Name != "" {
		return Frame{Kind: kindOpen, Index: it.Index, Name: it.Name, Body: it.Body}
	}
	return Frame{Kind: kindPending, Index: it.Index, Absorbed: it.absorbed, Body: it.Body}
}

// key is where the item lies in BuntDB.
func (it *Item) key() string {
	if it.Name != "" {
		return keyOf(kindOpen, it.Index)
	}
	return keyOf(kindPending, it.Index)
}

// leftover names an open record that a kill left behind. No caller's key holds
// a zero byte.
func leftover(index uint64) string { return fmt.Sprintf("\x00left %d", index) }

// CloseLeft makes the oldest open record that a kill left behind pending as it
// is; false when there is none.
func (b *Book) CloseLeft() (Change, bool) {
	for _, it := range b.open {
		if it.Name == leftover(it.Index) {
			return b.CloseOpen(it.Name, it.Entry), true
		}
	}
	return Change{}, false
}

// Merge unites neighbours of one lane, among the pending records that of
// accepts, until that has freed so many bytes [P-4.8]. It takes the closest
// first and none twice: where one pass is not enough there is more to do after
// it. The changes are written in order; each one's After is the book after all.
func (b *Book) Merge(of func(*Item) bool, free int64) []Change {
	next := b.copy()
	next.pending = slices.Clone(b.pending)
	var done []Change
	for _, p := range pairs(b.pending, b.mergeable(), of) {
		if free <= 0 {
			break
		}
		a, z := next.pending[p.older], next.pending[p.newer]
		if a != b.pending[p.older] || z != b.pending[p.newer] {
			continue // united with its other neighbour in this pass
		}
		union, err := join(a.Entry, z.Entry)
		if err != nil {
			continue // not of one shape after all
		}
		free -= a.cost() + z.cost() - union.cost()
		done = append(done, next.unite(p, union))
	}
	next.pending = slices.DeleteFunc(next.pending, func(it *Item) bool { return it == nil })
	return done
}

// unite puts the union in the place of the newer record of b, so nothing that
// was absorbed ever lies above Moved when the union itself does not.
func (b *Book) unite(p pair, union Entry) Change {
	a, z := b.pending[p.older], b.pending[p.newer]
	it := &Item{Entry: union, Index: z.Index, absorbed: slices.Concat(a.absorbed, []uint64{a.Index}, z.absorbed)}
	b.leave(a.Entry)
	b.leave(z.Entry)
	b.enter(union)
	b.pending[p.older], b.pending[p.newer] = nil, it
	return b.write(b, it, keyOf(kindPending, a.Index))
}

// GiveUp replaces the pending record at i by an event that reports it lost:
// event's Sum must be the record's [P-4.7].
func (b *Book) GiveUp(i int, event Entry) Change {
	it := b.pending[i]
	next := b.copy()
	next.pending = without(next.pending, it)
	next.leave(it.Entry)
	absorbed := slices.Concat(it.absorbed, []uint64{it.Index})
	return b.add(next, event, absorbed, keyOf(kindPending, it.Index))
}

// mergeable is the lowest index that may be merged or given up: while the
// counter is not proven, older records must stay as a forgotten send found them.
func (b *Book) mergeable() uint64 {
	if b.head.Closing {
		return b.head.Suspect
	}
	return 0
}

// Send numbers the oldest pending records, at most limit and never more than
// protocol.MaxSent unacknowledged ones; false when there is nothing to number [P-4.2].
func (b *Book) Send(limit int) (Change, bool) {
	room := protocol.MaxSent - int(b.head.Sent.Seq-b.head.Acked.Seq) //nolint:gosec // at most MaxSent apart
	n := min(limit, room, len(b.pending))
	if b.head.Closing || n <= 0 {
		return Change{}, false
	}
	next := b.copy()
	next.sent = slices.Clone(b.sent)
	f := Frame{Kind: kindSent, Index: b.head.Sent.Seq + 1, Before: b.head.Sent}
	var drop []string
	for _, it := range b.pending[:n] {
		s := sentRecord{Mark: next.head.Sent.then(it.Body, it.Sum), prev: next.head.Sent.Chain, sum: it.Sum, body: it.Body, batch: f.Index}
		next.sent = append(next.sent, s)
		next.head.Sent, next.head.Moved = s.Mark, it.Index
		next.leave(it.Entry)
		f.Bodies, f.Sums = append(f.Bodies, it.Body), append(f.Sums, it.Sum)
		drop = append(drop, keyOf(kindPending, it.Index))
	}
	next.pending = b.pending[n:]
	return b.change(next, f, drop...), true
}

// Records returns what the server is not known to hold, in order. Where a
// record is gone, a skip stands for it [P-4.6].
func (b *Book) Records() []*protocol.Record {
	var out []*protocol.Record
	for _, f := range b.head.Former {
		if base, behind := b.former[f.Epoch]; behind {
			out = append(out, f.Final.skip(f.Epoch, base, protocol.SkipClosed))
		}
	}
	if b.head.Closing {
		return out
	}
	at := b.base
	if at < b.head.Acked.Seq {
		out = append(out, b.head.Acked.skip(b.head.Epoch, at, protocol.SkipServerBehind))
		at = b.head.Acked.Seq
	}
	for _, s := range b.sent {
		if s.Seq <= at {
			continue
		}
		if s.Seq > at+1 {
			out = append(out, s.before().skip(b.head.Epoch, at, protocol.SkipSalvage))
		}
		out = append(out, s.record(b.head.Epoch))
		at = s.Seq
	}
	if at < b.head.Sent.Seq {
		out = append(out, b.head.Sent.skip(b.head.Epoch, at, protocol.SkipSalvage))
	}
	return out
}

func (s sentRecord) record(epoch EpochID) *protocol.Record {
	return &protocol.Record{
		Epoch: epoch[:], Seq: s.Seq, Prev: s.Seq - 1, Chain: s.Chain[:],
		Body: []byte(s.body), Total: s.Total.Tally(),
	}
}

// Epochs is what hello tells of the counters, the current one last.
func (b *Book) Epochs() []*protocol.Epoch {
	var out []*protocol.Epoch
	for _, f := range b.head.Former {
		out = append(out, &protocol.Epoch{
			Id: slices.Clone(f.Epoch[:]), Sent: f.Final.Seq, Acked: f.Final.Seq, Chain: slices.Clone(f.Final.Chain[:]), Closing: true,
		})
	}
	h := b.head
	return append(out, &protocol.Epoch{
		Id: h.Epoch[:], Sent: h.Sent.Seq, Acked: h.Acked.Seq, Chain: h.Sent.Chain[:], Current: true, Closing: h.Closing, Uncertain: h.Unknown,
	})
}

// Image is the book as a whole file: a head frame and one frame for each record
// or run of sent ones. The returned book knows where its records lie in it.
func (b *Book) Image() (*Book, iter.Seq[*Frame]) {
	next := b.copy()
	head := b.change(next, Frame{Kind: kindHead}).Frame
	next.open, next.pending = plain(b.open), plain(b.pending)
	next.sent = slices.Clone(b.sent)
	batches := next.batches()
	return next, func(yield func(*Frame) bool) {
		if !yield(&head) {
			return
		}
		for _, it := range slices.Concat(next.open, next.pending) {
			f := it.frame()
			f.Head = next.head
			if !yield(&f) {
				return
			}
		}
		for i := range batches {
			if !yield(&batches[i]) {
				return
			}
		}
	}
}

// plain are the items as a new file holds them, where nothing old lies.
func plain(items []*Item) []*Item {
	out := make([]*Item, len(items))
	for i, it := range items {
		clean := *it
		clean.absorbed = nil
		out[i] = &clean
	}
	return out
}

// batches are frames for the sent records, one for each run without a hole.
func (b *Book) batches() []Frame {
	var out []Frame
	for start := 0; start < len(b.sent); {
		end := start + 1
		for end < len(b.sent) && b.sent[end].Seq == b.sent[end-1].Seq+1 {
			end++
		}
		out = append(out, batch(b.head, b.sent[start:end]))
		start = end
	}
	return out
}

// batch is one frame for a run of sent records, which learn where they lie.
func batch(h Head, run []sentRecord) Frame {
	f := Frame{Head: h, Kind: kindSent, Index: run[0].Seq, Before: run[0].before()}
	for i := range run {
		run[i].batch = f.Index
		f.Bodies, f.Sums = append(f.Bodies, run[i].body), append(f.Sums, run[i].sum)
	}
	return f
}
