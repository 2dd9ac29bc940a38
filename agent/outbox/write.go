package outbox

import (
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"

	"github.com/vedette-edge/vedette/protocol"
)

// work is a row of changes that are synced together.
type work struct {
	book    *Book
	changes []Change
	merged  uint64
}

func (w *work) do(c Change) {
	w.changes = append(w.changes, c)
	w.book = c.After
}

// apply takes a decision, writes it down and syncs; then it holds. On an error
// it does not. A file that has no room left is written anew into the space set
// aside for that, and the decision is taken again on what came of it.
func (o *Outbox) apply(decide func(*work)) error {
	if o.closed {
		return ErrClosed
	}
	changed, err := o.attempt(decide)
	if isFull(err) && o.rewrite(o.book, "") == nil {
		_, err = o.attempt(decide)
	}
	if !changed {
		return nil
	}
	err = storageError(err)
	o.note(err)
	return err
}

// attempt takes and writes a decision; changed says that there was one.
func (o *Outbox) attempt(decide func(*work)) (changed bool, err error) {
	err = o.ready()
	w := &work{book: o.book}
	decide(w)
	if err != nil || len(w.changes) == 0 {
		return len(w.changes) > 0, err
	}
	if !w.changes[0].Rewrite {
		o.makeRoom(w)
	}
	if err := o.write(w); err != nil {
		return true, err
	}
	o.merged += w.merged
	o.book = w.book
	o.tidy()
	return true, nil
}

// ready makes the file hold the book, so that every change builds on what is on disk.
func (o *Outbox) ready() error {
	switch {
	case o.broken:
		return o.rewrite(o.book, "")
	case o.store.db == nil:
		return o.reopen()
	default:
		return nil
	}
}

// storageError says what is wrong with the disk and what to do.
func storageError(err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	default:
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
}

// note logs the first failure and the recovery only.
func (o *Outbox) note(err error) {
	switch {
	case err != nil && o.failed == nil:
		o.log.Error("outbox cannot write", "error", err)
	case err == nil && o.failed != nil:
		o.log.Info("outbox writes again")
	}
	o.failed = err
}

func (o *Outbox) write(w *work) error {
	for i, c := range w.changes {
		if err := o.writeOne(c); err != nil {
			// BuntDB takes a torn write back; what was written before it stays.
			o.broken = i > 0 || o.store.db == nil
			return err
		}
	}
	if err := o.store.sync(); err != nil {
		o.broken = true // what of it is on disk cannot be known
		return fmt.Errorf("sync outbox file: %w", err)
	}
	return nil
}

func (o *Outbox) writeOne(c Change) error {
	if c.Rewrite {
		if err := o.rewrite(c.After, ""); err != nil {
			return err
		}
		*c.After = *o.book
		return nil
	}
	value := c.Frame.Encode()
	if err := o.store.write(c.Frame.key(), value, c.Drop); err != nil {
		return fmt.Errorf("append to outbox file: %w", err)
	}
	if c.item != nil {
		c.item.Body = value[len(value)-c.item.size:] // one copy in memory, BuntDB's
	}
	return nil
}

// rewrite replaces the file by b and makes b the book.
func (o *Outbox) rewrite(b *Book, keep string) error {
	image, frames := b.Image()
	size := b.size()
	if err := o.store.replace(frames, size+room(0), keep); err != nil {
		return err
	}
	o.book, o.broken = image, false
	return o.reopen()
}

// reopen loads the file, which holds exactly the book. The records' bodies are
// given up before: for a moment there would be two of each in memory.
func (o *Outbox) reopen() error {
	for _, it := range slices.Concat(o.book.open, o.book.pending) {
		it.Body = ""
	}
	o.trim()
	if err := o.store.open(); err != nil {
		return err
	}
	if err := o.rebind(o.book); err != nil {
		return errors.Join(err, o.store.close())
	}
	return nil
}

// trim gives memory back that was needed for a moment only: reading or
// rewriting a large file would otherwise cost the device twice its size for good.
func (o *Outbox) trim() {
	const worthIt = 4 << 20 // bytes; less is not worth a garbage collection
	if o.book.size() > worthIt {
		debug.FreeOSMemory()
	}
}

// rebind lets the book's records share BuntDB's memory.
func (o *Outbox) rebind(b *Book) error {
	for _, it := range slices.Concat(b.open, b.pending) {
		key := it.key()
		value, err := o.store.get(key)
		if err != nil || len(value) < it.size {
			return fmt.Errorf("read back %s: %w", key, errors.Join(err, errFrame))
		}
		it.Body = value[len(value)-it.size:]
	}
	return nil
}

// slack is what the file may have beyond twice its live records: enough to
// rewrite it a few times a day only.
const slack = 4 << 20

func fileLimit(live int64) int64 { return 2*live + slack }

// commitRoom is left below the limit for what one change of many records writes.
const commitRoom = 1 << 20

// tidy writes the file anew when most of it is dead, and sets the space aside
// for doing so, or as much as the disk has: what is sent makes it enough.
// Failure costs nothing but space; the next change tries again.
func (o *Outbox) tidy() {
	live := o.book.size()
	if o.store.size() > fileLimit(live)-commitRoom {
		if err := o.rewrite(o.book, ""); err != nil {
			o.log.Warn("outbox file could not be shrunk", "error", err)
		}
	}
	for n := live + room(live); n >= reserveStep; n /= 2 {
		if err := o.store.reserve(n); !isFull(err) {
			return
		}
	}
}

// overhead is what a record costs beyond its body in memory, where it costs
// most: head, key and framing, BuntDB's item, and the book's.
const overhead = 384

func (e Entry) cost() int64 { return int64(e.size) + overhead }

// size is what the book's records take.
func (b *Book) size() int64 {
	var n int64
	for _, used := range b.use {
		n += used
	}
	for _, s := range b.sent {
		n += int64(len(s.body)) + overhead
	}
	return n
}

// mergeShare of a bound is freed at once when it is reached: looking for what
// to merge costs as much for one pair as for many.
const mergeShare = 16

// makeRoom keeps the bounds: first by giving samples up, then by merging
// neighbours, the closest first, and only when nothing can be merged any more by giving the oldest record up
// for an event that says so.
func (o *Outbox) makeRoom(w *work) {
	o.expireSamples(w)
	for _, model := range slices.Sorted(maps.Keys(w.book.use)) {
		used := func() int64 { return w.book.use[model] }
		o.relieve(w, used, int64(o.opt.ModelBytes), func(it *Item) bool { return it.Model == model })
	}
	used := func() int64 { return w.book.size() }
	o.relieve(w, used, int64(o.opt.TotalBytes), func(*Item) bool { return true })
}

// relieve keeps what is used by the records that of accepts within a bound, as
// far as that can be done.
func (o *Outbox) relieve(w *work, used func() int64, bound int64, of func(*Item) bool) {
	for used() > bound && o.dropSample(w, of) {
		continue
	}
	for used() > bound {
		merges := w.book.Merge(of, used()-bound+bound/mergeShare)
		for _, c := range merges {
			w.do(c)
		}
		w.merged += uint64(len(merges))
		if len(merges) == 0 && !o.giveUp(w, of) {
			return
		}
	}
}

func (o *Outbox) giveUp(w *work, of func(*Item) bool) bool {
	from := w.book.mergeable()
	i := slices.IndexFunc(w.book.pending, func(it *Item) bool {
		return it.Index >= from && of(it) && it.cost() > 2*overhead
	})
	if i < 0 {
		return false
	}
	it := w.book.pending[i]
	w.do(w.book.GiveUp(i, o.overflow(it)))
	o.log.Warn("outbox is full, the oldest record was given up", "model", it.Model, "rows", it.Sum.Rows, "labels", it.Sum.Labels)
	return true
}

// overflow is the event that stands for a record given up.
func (o *Outbox) overflow(it *Item) Entry {
	v := &protocol.Event{
		Kind: "outbox_full", LostRecords: max(1, uint64(it.weight)), Lost: it.Sum.Tally(),
		Attributes: map[string]string{"times": strconv.Itoa(1)},
	}
	b := &protocol.Body{Kind: &protocol.Body_Event{Event: v}}
	if o.opt.Stamp != nil {
		b.At = o.opt.Stamp()
	}
	e, err := NewEntry(b)
	if err != nil {
		panic(err) // a message of five small fields always encodes
	}
	return e
}

// closeLeft makes open records of the boot before pending.
func (o *Outbox) closeLeft() error {
	return o.apply(func(w *work) {
		for {
			c, ok := w.book.CloseLeft()
			if !ok {
				return
			}
			w.do(c)
		}
	})
}
