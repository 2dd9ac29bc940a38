package outbox

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
)

// A full outbox costs the heap little more than what it counts for: one copy of
// each body, BuntDB's, and no more after it was shrunk and opened again.
func TestMemoryOfAFullOutbox(t *testing.T) {
	if raced {
		t.Skip("the race detector has a memory of its own: run without -race")
	}
	path := filepath.Join(t.TempDir(), "outbox.db")
	before := liveHeap()
	check := func(when string, o *Outbox) {
		t.Helper()
		st, heap := o.Stats(), liveHeap()-before
		t.Logf("%s: %d records of %d bytes take %d bytes of heap", when, st.Pending, st.Bytes, heap)
		if st.Bytes < DefaultTotalBytes*9/10 {
			t.Errorf("%s: only %d bytes", when, st.Bytes)
		}
		if heap > st.Bytes*5/4 {
			t.Errorf("%s: %d bytes take %d bytes of heap, want at most a quarter more", when, st.Bytes, heap)
		}
	}
	o, _, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	unsynced(o)
	var models []*minutes
	for i := range 5 {
		models = append(models, newMinutes(t, fmt.Sprint("model-", i), uint64(i)))
	}
	for minute := range int64(7500) {
		for _, m := range models {
			if err := o.Append(m.body(minute * 60_000)); err != nil {
				t.Fatal(err)
			}
		}
	}
	check("filled", o)
	o.Close()
	o, _ = open(t, path, Options{}) // and the first one is garbage
	check("opened again", o)
	runtime.KeepAlive(models)
}

func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
