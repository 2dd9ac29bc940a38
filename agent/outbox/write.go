package outbox

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/vedette-edge/vedette/protocol"
)

// work is a row of changes that are synced together.
type work struct {
	book    *Book
	changes []Change
	merged  uint64
	err     error // why nothing can be written
}

func (w *work) do(c Change) {
	w.changes = append(w.changes, c)
	w.book = c.After
}

// begin opens a row of changes. A file that may hold more than the book is
// written anew first, so that every change builds on what is on disk.
func (o *Outbox) begin() *work {
	w := &work{}
	switch {
	case o.closed:
		w.err = ErrClosed
	case o.broken || o.store.db == nil:
		w.err = o.rewrite(o.book, "")
		o.broken = w.err != nil
	}
	w.book = o.book
	return w
}

// commit makes room, writes and syncs; then the changes hold. On an error none does.
func (o *Outbox) commit(w *work) error {
	if o.closed {
		return ErrClosed
	}
	if len(w.changes) == 0 {
		return nil
	}
	if !w.changes[0].Rewrite {
		o.makeRoom(w)
	}
	err := w.err
	if err == nil {
		err = o.write(w)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrStorage, err)
	}
	o.note(err)
	if err != nil {
		return err
	}
	o.merged += w.merged
	o.book = w.book
	o.shrink()
	return nil
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
	for _, c := range w.changes {
		if err := o.writeOne(c); err != nil {
			o.broken = true
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
		image, frames := c.After.Image()
		*c.After = *image
		return o.replace(c.After, frames, "")
	}
	value := c.Frame.Encode()
	if err := o.store.write(c.Frame.key(), value, c.Drop); err != nil {
		return fmt.Errorf("append to outbox file: %w", err)
	}
	if c.item != nil {
		c.item.Body = value[len(value)-len(c.item.Body):] // one copy in memory, BuntDB's
	}
	return nil
}

// rewrite replaces the file by b and makes b the book.
func (o *Outbox) rewrite(b *Book, keep string) error {
	image, frames := b.Image()
	if err := o.replace(image, frames, keep); err != nil {
		return err
	}
	o.book = image
	return nil
}

func (o *Outbox) replace(image *Book, frames []Frame, keep string) error {
	if err := o.store.replace(frames, keep); err != nil {
		return err
	}
	return o.rebind(image)
}

// rebind lets the book's records share BuntDB's memory.
func (o *Outbox) rebind(b *Book) error {
	for _, it := range slices.Concat(b.open, b.pending) {
		f := it.frame()
		value, err := o.store.get(f.key())
		if err != nil || len(value) < len(it.Body) {
			return fmt.Errorf("read back %s: %w", f.key(), errors.Join(err, errFrame))
		}
		it.Body = value[len(value)-len(it.Body):]
	}
	return nil
}

// slack is what the file may have beyond twice its live records: enough to
// rewrite it a few times a day only.
const slack = 4 << 20

func (o *Outbox) fileLimit(live int64) int64 { return 2*live + slack }

// shrink writes the file anew when most of it is dead. Failure costs nothing
// but space; the next change tries again.
func (o *Outbox) shrink() {
	if o.store.size() <= o.fileLimit(o.book.size()) {
		return
	}
	if err := o.rewrite(o.book, ""); err != nil {
		o.log.Warn("outbox file could not be shrunk", "error", err)
		o.broken = o.store.db == nil
	}
}

// overhead is what a record costs beyond its body: head, key, framing.
const overhead = 256

func (e Entry) cost() int64 { return int64(len(e.Body)) + overhead }

// size is what the book's records take.
func (b *Book) size() int64 {
	var n int64
	for _, it := range b.open {
		n += it.cost()
	}
	for _, it := range b.pending {
		n += it.cost()
	}
	for _, s := range b.sent {
		n += int64(len(s.body)) + overhead
	}
	return n
}

func (b *Book) modelSize(model string) int64 {
	var n int64
	for _, items := range [][]*Item{b.open, b.pending} {
		for _, it := range items {
			if it.Model == model {
				n += it.cost()
			}
		}
	}
	return n
}

// models are the models with waiting records.
func (b *Book) models() []string {
	var out []string
	for _, it := range slices.Concat(b.open, b.pending) {
		if !slices.Contains(out, it.Model) {
			out = append(out, it.Model)
		}
	}
	return out
}

// makeRoom keeps the bounds: first by merging neighbours, the closest first,
// and only when nothing can be merged any more by giving the oldest record up
// for an event that says so.
func (o *Outbox) makeRoom(w *work) {
	for _, model := range w.book.models() {
		over := func() bool { return w.book.modelSize(model) > int64(o.opt.ModelBytes) }
		for over() && o.relieve(w, model, false) {
		}
	}
	over := func() bool { return w.book.size() > int64(o.opt.TotalBytes) }
	for over() && o.relieve(w, "", true) {
	}
}

// relieve makes one step towards less; false when there is none.
func (o *Outbox) relieve(w *work, model string, anyModel bool) bool {
	of := func(it *Item) bool { return anyModel || it.Model == model }
	if c, ok := w.book.Merge(of, o.opt.Merge); ok {
		w.do(c)
		w.merged++
		return true
	}
	return o.giveUp(w, of)
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
	w := o.begin()
	for {
		c, ok := w.book.CloseLeft()
		if !ok {
			return o.commit(w)
		}
		w.do(c)
	}
}
