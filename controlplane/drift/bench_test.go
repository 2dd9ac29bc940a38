package drift

import (
	"runtime"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// BenchmarkEvaluate is a fleet of 1000 devices on 50 sites, of which five sites
// have news of every device at each look: 100 windows folded and scored on 67
// streams. Budget: 1 ms of one core for each.
func BenchmarkEvaluate(b *testing.B) {
	f := demo(b, 1)
	f.tick(demoWindow, 540)
	var window *protocol.Body
	for _, a := range f.log {
		if w := bodyOf(a); w.GetWindow() != nil {
			window = w
		}
	}
	data, err := proto.Marshal(window)
	if err != nil {
		b.Fatal(err)
	}
	const devices, sites = 1000, 50
	m := New(Config{MaxAge: time.Hour})
	m.releases = f.m.releases
	send := func(i int) {
		f.seq++
		m.Apply(f.seq, &protocol.Accepted{
			Device: "dev-" + strconv.Itoa(i), ReceivedMs: f.now.UnixMilli() + 40, Sent: window.GetAt(),
			Body: &protocol.Accepted_Record{Record: &protocol.Record{Body: data}},
		})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range devices {
		name := "dev-" + strconv.Itoa(i)
		m.SetLabels(name, map[string]string{"site": strconv.Itoa(i % sites)})
		f.seq++
		m.Apply(f.seq, &protocol.Accepted{
			Device: name, ReceivedMs: f.now.UnixMilli(), Sent: window.GetAt(),
			Body: &protocol.Accepted_Hello{Hello: &protocol.Hello{}},
		})
		send(i)
	}
	m.Evaluate(f.now)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportAllocs()
	round := 0
	for b.Loop() {
		for i := range devices {
			if i%sites/5 == round%10 {
				send(i)
			}
		}
		round++
		m.Evaluate(f.now)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/devices/1024, "KiB/device")
	if s := m.Scores(""); len(s) != 1 || len(s[0].Devices) != devices {
		b.Fatal("the fleet was not scored")
	}
}
