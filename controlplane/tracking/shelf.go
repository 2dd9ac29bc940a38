package tracking

import (
	"iter"
	"sync/atomic"
)

// kept is one thing of the index as it was after a record of the journal. It is
// never changed, only replaced.
type kept[T any] struct {
	slot int    // its place on the shelf
	at   moment // of the last record it includes
	v    T
}

// cell holds what a thing is now. Readers keep cells and look without a lock.
type cell[T any] struct {
	now atomic.Pointer[kept[T]]
}

func (c *cell[T]) get() *T { return &c.now.Load().v }

// shelf keeps the things of one kind in slots, and knows which of them have
// changed since they were written down. Slots are never given twice, so things
// that were made together lie together in the checkpoint.
type shelf[T any] struct {
	cells []*cell[T] // by slot, nil where one is gone
	dirty map[int]struct{}
}

// add puts a new thing into the next slot.
func (s *shelf[T]) add(at moment, v T) *cell[T] {
	c := &cell[T]{}
	c.now.Store(&kept[T]{slot: len(s.cells), at: at, v: v})
	s.cells = append(s.cells, c)
	s.touch(len(s.cells) - 1)
	return c
}

// all are the things that are there.
func (s *shelf[T]) all() iter.Seq[*cell[T]] {
	return func(yield func(*cell[T]) bool) {
		for _, c := range s.cells {
			if c != nil && !yield(c) {
				return
			}
		}
	}
}

// restore puts a thing back into its slot.
func (s *shelf[T]) restore(k *kept[T]) *cell[T] {
	for len(s.cells) <= k.slot {
		s.cells = append(s.cells, nil)
	}
	c := &cell[T]{}
	c.now.Store(k)
	s.cells[k.slot] = c
	return c
}

// set replaces a thing.
func (s *shelf[T]) set(c *cell[T], at moment, v T) {
	slot := c.now.Load().slot
	c.now.Store(&kept[T]{slot: slot, at: at, v: v})
	s.touch(slot)
}

func (s *shelf[T]) drop(c *cell[T]) {
	slot := c.now.Load().slot
	s.cells[slot] = nil
	s.touch(slot)
}

func (s *shelf[T]) touch(slot int) {
	if s.dirty == nil {
		s.dirty = map[int]struct{}{}
	}
	s.dirty[slot] = struct{}{}
}

// includes says whether a thing has taken a record in already.
func (c *cell[T]) includes(at moment) bool { return c.now.Load().at >= at }
