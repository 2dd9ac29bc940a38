package rollout

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// fleetOf is a rollout in its last wave whose devices all serve the release and
// report evidence.
func fleetOf(n int) (*State, *Facts) {
	s := New("r", "ada", Spec{Model: "m", Version: "v", Release: v2}.WithDefaults(), Requirements{}, begin)
	f := &Facts{Devices: make(map[string]*DeviceFacts, n)}
	s.Header.Status, s.Header.Wave, s.Header.Started = StatusRunning, 3, begin
	s.Header.Overall, s.Header.Deadline = begin.Add(time.Hour), begin.Add(time.Hour)
	for i := range s.Waves {
		s.Waves[i].State = WavePassed
	}
	s.Waves[2].State = WaveOpen
	s.Devices = make(map[string]*Device, n)
	evidence := func() *Evidence {
		return &Evidence{Rows: 100, P95US: 1000, Labels: 100, Correct: 90, Classes: make([]uint64, 10)}
	}
	for i := range n {
		id := fmt.Sprintf("device-%d", i)
		s.Devices[id] = &Device{
			State: DeviceActive, Wave: 3, Since: begin, Deadline: begin.Add(time.Hour), Tries: 1, Profile: "pi", Site: "a",
			Order: Order{Kind: Forward, Seq: 1}, Old: v1, Offered: begin,
		}
		f.Devices[id] = &DeviceFacts{
			Selected: true, Profile: "pi", Site: "a", Reported: begin, Active: v2, Assigned: v2, Serving: true, Generation: 1,
			New: evidence(), Past: evidence(),
		}
	}
	s.counted = s.census()
	return s, f
}

// The bars: a full step over 100,000 devices takes at most 100 ms, over a
// million 1.5 s, so that a stop is decided long before the devices' next
// reports; and a device costs at most 1 KB, what is known of it included.
func BenchmarkStep(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("devices=%d", n), func(b *testing.B) {
			if n == 1_000_000 && testing.Short() {
				b.Skip("needs a gigabyte")
			}
			before := heapBytes()
			s, f := fleetOf(n)
			bytes := float64(heapBytes()-before) / float64(n)
			now := begin.Add(time.Minute)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Step(s, f, now, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(bytes, "B/device") // here, because the loop forgets what was reported before it
			runtime.KeepAlive(f)
		})
	}
}

// heapBytes is what is reachable, in bytes.
func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
