package rollout

import (
	"fmt"
	"testing"
	"time"
)

// The budget: a step over 10,000 devices must be far shorter than the interval
// at which devices report, so that a stop is decided at once.
func BenchmarkStep10000(b *testing.B) {
	s := New("r", "ada", Spec{Model: "m", Version: "v"}.WithDefaults(), Requirements{}, begin)
	f := &Facts{Devices: map[string]*DeviceFacts{}}
	s.Header.Status, s.Header.Wave, s.Header.Started = StatusRunning, 3, begin
	s.Header.Overall, s.Header.Deadline = begin.Add(time.Hour), begin.Add(time.Hour)
	for i := range s.Waves {
		s.Waves[i].State = WavePassed
	}
	s.Waves[2].State = WaveOpen
	for i := range 10_000 {
		id := fmt.Sprintf("device-%d", i)
		s.Devices[id] = &Device{State: DeviceActive, Wave: 3, Since: begin, Tries: 1, Order: Order{Kind: Forward, Seq: 1}}
		f.Devices[id] = &DeviceFacts{
			Selected: true, Profile: "pi", Reported: begin, Serving: true,
			New:  &Evidence{Rows: 100, P95US: 1000, Labels: 100, Correct: 90, Classes: make([]uint64, 10)},
			Past: &Evidence{Rows: 100, P95US: 1000, Labels: 100, Correct: 90, Classes: make([]uint64, 10)},
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Step(s, f, begin.Add(time.Minute), nil); err != nil {
			b.Fatal(err)
		}
	}
}
