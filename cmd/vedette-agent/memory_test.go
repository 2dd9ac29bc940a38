package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestMemoryLimitFollowsWhatIsAlive(t *testing.T) {
	for _, tt := range []struct {
		live uint64
		want int64
	}{
		{0, leastMemory}, {10 << 20, leastMemory}, {24 << 20, 32 << 20}, {400 << 20, 502 << 20}, {math.MaxUint64, math.MaxInt32*5/4 + 2<<20},
	} {
		if got := memoryFor(tt.live); got != tt.want {
			t.Errorf("%d live bytes: limit %d, want %d", tt.live, got, tt.want)
		}
	}
}

func TestOperatorsMemoryLimitStays(t *testing.T) {
	before := debug.SetMemoryLimit(100 << 20)
	defer debug.SetMemoryLimit(before)
	keepMemory(t.Context())()
	if got := debug.SetMemoryLimit(-1); got != 100<<20 {
		t.Errorf("limit is %d, want what the operator set", got)
	}
	debug.SetMemoryLimit(math.MaxInt64)
	stop := keepMemory(t.Context())
	if got := debug.SetMemoryLimit(-1); got != leastMemory {
		t.Errorf("limit is %d, want %d", got, leastMemory)
	}
	stop()
	if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
		t.Errorf("limit after the end is %d, want none", got)
	}
}
