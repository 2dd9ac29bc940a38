package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// By how much the heap may grow between two collections, in percent of what is
// live. Most of a large heap are connections and what is known of devices: it
// stays as long as the devices do, and so has to be gone through again whatever
// the percentage; Go's default of 100 would double the memory of a large fleet to
// save a few percent of a processor core. But a collection slows what is asked
// for meanwhile, and 25% of a small heap are used up by a few dozen searches, so
// that each collection finds next to nothing: there is a room that it has anyway.
const (
	leastPercent = 25
	mostPercent  = 100
	room         = 128 << 20 // bytes
)

// gcPercent is the percentage for so many live bytes.
func gcPercent(live uint64) int {
	return int(min(mostPercent, max(leastPercent, 100*room/max(live, 1))))
}

// paceCollections keeps the percentage right until the context ends. It begins
// with the least: while all is loaded the heap doubles faster than it is looked at.
func paceCollections(ctx context.Context, every time.Duration) {
	at := leastPercent
	debug.SetGCPercent(at)
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		// Setting it stops the world for a moment: not for a change nobody notices.
		if p := gcPercent(sample[0].Value.Uint64()); p > at+4 || p < at-4 || p != at && p == leastPercent {
			at = p
			debug.SetGCPercent(at)
		}
	}
}
