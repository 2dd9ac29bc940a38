package main

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// leastMemory is what the Go side of an agent may take before its garbage is
// collected sooner than usual, in bytes. Without it a full outbox of 20 MB, all
// of it alive, would let as much garbage pile up before the next collection.
const leastMemory = 32 << 20

// memoryFor is the soft limit for so many live bytes: a quarter more, and some
// room for requests, so that collecting never becomes all that is done.
func memoryFor(live uint64) int64 {
	return max(leastMemory, int64(min(live, math.MaxInt32))*5/4+2<<20)
}

// keepMemory bounds the garbage of the process until stop is called. A limit
// that the operator has set (GOMEMLIMIT) is left alone.
func keepMemory(ctx context.Context) (stop func()) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return func() {}
	}
	debug.SetMemoryLimit(leastMemory)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { followMemory(ctx) })
	return func() {
		cancel()
		wg.Wait()
		debug.SetMemoryLimit(math.MaxInt64)
	}
}

func followMemory(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	limit := int64(leastMemory)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(live)
		// Every change stops the world for a moment: small ones are not worth it.
		if next := memoryFor(live[0].Value.Uint64()); next > limit || next < limit*3/4 {
			limit = next
			debug.SetMemoryLimit(limit)
		}
	}
}
