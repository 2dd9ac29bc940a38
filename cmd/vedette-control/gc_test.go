package main

import "testing"

// A small heap has room before it is collected, a large one no more than it had
// before there was a room.
func TestCollectionsByHeap(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 100, 10 << 20: 100, 128 << 20: 100, 256 << 20: 50, 400 << 20: 32, 512 << 20: 25, 4 << 30: 25,
	} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d MB: got %d%%, want %d%%", live>>20, got, want)
		}
	}
}
