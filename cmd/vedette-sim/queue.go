package main

import (
	"container/heap"
	"time"
)

// queue is what is going to happen, in order of time and, at one time, in the
// order in which it was planned.
type queue struct {
	items   []item
	planned uint64
}

type item struct {
	at time.Duration // since the beginning
	n  uint64
	do func()
}

var _ heap.Interface = (*queue)(nil)

func (q *queue) Len() int      { return len(q.items) }
func (q *queue) Swap(i, j int) { q.items[i], q.items[j] = q.items[j], q.items[i] }

func (q *queue) Less(i, j int) bool {
	a, b := &q.items[i], &q.items[j]
	return a.at < b.at || a.at == b.at && a.n < b.n
}

// Push implements heap.Interface.
func (q *queue) Push(x any) { q.items = append(q.items, x.(item)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(q.items) - 1
	x := q.items[last]
	q.items[last] = item{}
	q.items = q.items[:last]
	return x
}

// add plans something.
func (q *queue) add(at time.Duration, do func()) {
	q.planned++
	heap.Push(q, item{at, q.planned, do})
}

// next takes what happens first; ok is false when nothing will.
func (q *queue) next() (it item, ok bool) {
	if len(q.items) == 0 {
		return item{}, false
	}
	return heap.Pop(q).(item), true
}
