package rollout

import (
	"fmt"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// BenchmarkPlan plans for 10,000 devices that keep different hours, with every
// kind of budget. Bar: 1 s.
func BenchmarkPlan(b *testing.B) {
	const n = 10_000
	f, presence := &Facts{Devices: map[string]*DeviceFacts{}}, heardAt{}
	for i := range n {
		id, site := fmt.Sprintf("d%05d", i), fmt.Sprintf("s%03d", i%200)
		f.Devices[id] = &DeviceFacts{
			Selected: true, Profile: fmt.Sprint("p", i%5), Site: site, Bytes: 5 << 20, Active: v1, Serving: true, Groups: map[string]string{"site": site},
			TimeZone: []string{"Europe/Berlin", "Asia/Tokyo", "America/New_York"}[i%3],
			Past:     &Evidence{Rows: 10_000, Labels: 1000, Correct: uint64(900 + i%50), P95US: float64(1000 + i%100), Classes: []uint64{5000, 5000}},
		}
		presence[id] = hoursOf(begin, HeardHours, func(t time.Time) bool { return (t.Hour()*7+i*13+t.Day()*3)%24 < 14 })
	}
	spec := Spec{
		Model: "digits", Version: "v2", Release: v2,
		Waves:   []WaveSpec{{Percent: 1}, {Percent: 10}, {Percent: 50}, {Percent: 100}},
		Budget:  Budget{InFlight: 500, PerMinute: 600, BytesPerSecond: 100 << 20, Unavailable: []Unavailable{{Label: "site", Max: 3}}},
		Windows: []WindowSpec{{Cron: "0 20 * * *", Duration: release.Duration(10 * time.Hour), TimeZone: DeviceZone}},
	}.WithDefaults()
	b.ReportAllocs()
	for b.Loop() {
		if p := MakePlan("r", spec, Requirements{}, f, presence, begin); p.Expected == 0 {
			b.Fatalf("does not end: %v", p.Warnings)
		}
	}
}
