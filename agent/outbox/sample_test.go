package outbox

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// sampled is a sample of some size whose window ended at a monotonic moment.
func sampled(model string, size int, end, expires time.Duration) *protocol.Body {
	ms := uint64(end.Milliseconds())
	return &protocol.Body{
		At: &protocol.Stamp{Boot: make([]byte, protocol.BootSize), MonotonicMs: ms, WallMs: int64(ms)},
		Kind: &protocol.Body_Sample{Sample: &protocol.Sample{
			Model: model, EndMonotonicMs: ms, EndWallMs: int64(ms), ExpiresMs: uint64(expires.Milliseconds()), Sealed: make([]byte, size),
		}},
	}
}

// kinds counts what the records hold.
func kinds(t *testing.T, records []*protocol.Record) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, r := range records {
		b, err := sketch.DecodeBody(r.GetBody())
		if err != nil {
			t.Fatal(err)
		}
		switch k := b.GetKind().(type) {
		case *protocol.Body_Event:
			out[k.Event.GetKind()] += times(k.Event)
			if k.Event.GetLost() != nil || k.Event.GetLostRecords() != 0 {
				t.Errorf("event %s says that something counted is lost", k.Event.GetKind())
			}
		default:
			out[fmt.Sprintf("%T", k)]++
		}
	}
	return out
}

// A full outbox gives all samples up before it merges two windows, and what it
// counts stays exact.
func TestSamplesGoFirst(t *testing.T) {
	o, _ := open(t, filepath.Join(t.TempDir(), "o.db"), Options{ModelBytes: 40_000, TotalBytes: 60_000})
	var want Sum
	for i := range 14 {
		b := window("m", 10, int64(i)*5*60_000)
		want.Rows += 10
		if err := o.Append(b, sampled("m", 5_000, time.Duration(i)*time.Minute, time.Hour)); err != nil {
			t.Fatal(err)
		}
		if st := o.Stats(); st.Bytes > 60_000 {
			t.Fatalf("%d bytes, at most 60000", st.Bytes)
		}
	}
	if st := o.Stats(); st.Merged != 0 {
		t.Errorf("%d windows were merged while there were samples", st.Merged)
	}
	records, err := o.Send(protocol.MaxSent)
	if err != nil {
		t.Fatal(err)
	}
	got := kinds(t, records)
	if got["*protocol.Body_Window"] != 14 || got["*protocol.Body_Sample"]+got["sample_dropped"] != 14 || got["sample_dropped"] < 7 {
		t.Errorf("got %v, want 14 windows and of 14 samples at least 7 dropped", got)
	}
	if total := records[len(records)-1].GetTotal(); sumOf(total) != want {
		t.Errorf("total is %v, want %+v", total, want)
	}
}

// A sample that has expired is not sent, by the clock of its boot, or by the
// wall after another start.
func TestExpiredSamplesAreNotSent(t *testing.T) {
	now := &protocol.Stamp{Boot: make([]byte, protocol.BootSize)}
	o, _ := open(t, filepath.Join(t.TempDir(), "o.db"), Options{Stamp: func() *protocol.Stamp { return now }})
	old, fresh := sampled("m", 100, 0, time.Hour), sampled("m", 100, 2*time.Hour, time.Hour)
	other := sampled("m", 100, 0, time.Hour)
	other.At.Boot = bytes.Repeat([]byte{7}, protocol.BootSize)
	if err := o.Append(old, fresh, other); err != nil {
		t.Fatal(err)
	}
	now = &protocol.Stamp{Boot: now.GetBoot(), MonotonicMs: uint64((2 * time.Hour).Milliseconds()), WallMs: (30 * time.Minute).Milliseconds()}
	records, err := o.Send(protocol.MaxSent)
	if err != nil {
		t.Fatal(err)
	}
	if got := kinds(t, records); got["*protocol.Body_Sample"] != 2 || got["sample_expired"] != 1 {
		t.Errorf("got %v, want two samples and one that expired", got)
	}
}

// What expires while the link is down is deleted then, not when it is back.
func TestExpiredSamplesAreDeletedOffline(t *testing.T) {
	now := &protocol.Stamp{Boot: make([]byte, protocol.BootSize)}
	o, _ := open(t, filepath.Join(t.TempDir(), "o.db"), Options{Stamp: func() *protocol.Stamp { return now }})
	if err := o.Append(sampled("m", 20_000, 0, time.Hour)); err != nil {
		t.Fatal(err)
	}
	now = &protocol.Stamp{Boot: now.GetBoot(), MonotonicMs: uint64((2 * time.Hour).Milliseconds())}
	if err := o.Append(window("m", 1, 0)); err != nil {
		t.Fatal(err)
	}
	if st := o.Stats(); st.Bytes > 5_000 {
		t.Errorf("%d bytes are held after the sample expired", st.Bytes)
	}
}
