package drift

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/bootclock"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

var digest = release.Digest{7}

// history is a stream of many kinds of messages by three devices.
func history(rng *rand.Rand, n int) []*protocol.Accepted {
	var log []*protocol.Accepted
	now := start.UnixMilli()
	boots := map[string]byte{}
	for range n {
		now += int64(rng.IntN(4000))
		dev := fmt.Sprintf("dev-%d", rng.IntN(3))
		if boots[dev] == 0 || rng.IntN(20) == 0 {
			boots[dev]++
		}
		mono := uint64(now - start.UnixMilli())
		at := &protocol.Stamp{Boot: append([]byte(dev), make([]byte, 10)...)[:16], MonotonicMs: mono, WallMs: now - 5e8}
		at.Boot = append([]byte(nil), at.GetBoot()...)
		at.Boot[15] = boots[dev]
		a := &protocol.Accepted{Device: dev, ReceivedMs: now + int64(rng.IntN(500)), Sent: at}
		body := &protocol.Body{At: at}
		from := mono - min(mono, 3000)
		switch k := rng.IntN(10); {
		case k == 0:
			a.Body = &protocol.Accepted_Hello{Hello: &protocol.Hello{}}
		case k == 1:
			a.LostRecords, a.Lost = 2, &protocol.Tally{Rows: 5, Labels: 1}
			a.Body = &protocol.Accepted_Record{Record: &protocol.Record{Skip: &protocol.Skip{}}}
		case k == 2:
			body.Kind = &protocol.Body_Event{Event: &protocol.Event{Kind: "salvage", LostRecords: 1, Lost: &protocol.Tally{Rows: 3}, LostUnknown: true}}
		case k < 5:
			body.Kind = &protocol.Body_Labels{Labels: &protocol.Labels{
				Role: []string{"", "shadow", "share"}[rng.IntN(3)], Model: "m", Release: digest[:], Matched: 4, Unmatched: 1, Correct: 3, StartMonotonicMs: from, EndMonotonicMs: mono,
				Calibration: tenths(int(mono%10), 4, 3, 0.75),
			}}
		default:
			w := &protocol.Window{
				Model: "m", Release: digest[:], Rows: 10, Calls: 5, FailedRows: 1, FailedCalls: 1,
				StartMonotonicMs: from, EndMonotonicMs: mono, Streams: []*protocol.Histogram{},
			}
			switch rng.IntN(4) {
			case 0:
				w.Role, w.Comparison = "shadow", &protocol.Comparison{Primary: bytes.Repeat([]byte{byte(rng.IntN(3))}, 32), Rows: 9, Agreed: 8, SkippedRows: 2}
			case 1:
				w.Role = "share"
			}
			body.Kind = &protocol.Body_Window{Window: w}
		}
		if body.GetKind() != nil {
			data, _ := proto.Marshal(body)
			a.Body = &protocol.Accepted_Record{Record: &protocol.Record{Body: data}}
		}
		log = append(log, a)
	}
	return log
}

func fresh(t *testing.T) *Monitor {
	t.Helper()
	m := New(Config{Bucket: time.Second, Buckets: 200})
	if err := m.SetRelease(Release{Digest: digest, Model: "m", Version: "1"}, nil); err != nil {
		t.Fatal(err)
	}
	for i, site := range []string{"a", "a", "b"} {
		m.SetLabels(fmt.Sprintf("dev-%d", i), map[string]string{"site": site})
	}
	return m
}

func snapshot(m *Monitor) string {
	evidence := m.Evidence("m", digest, start.Add(time.Minute), time.Time{})
	beside := m.Beside("m", digest, start.Add(time.Minute))
	rated := map[string][]rated{}
	for name, d := range m.devices {
		if t := d.tracks[digest]; t != nil {
			rated[name] = t.state.Rated
		}
	}
	data, _ := json.Marshal([]any{m.Totals(), m.Series(""), evidence, beside, rated})
	return string(data)
}

// Whatever was written down when the process died, folding the stream again
// from anywhere before it ends in the same state.
func TestCrashesChangeNothing(t *testing.T) {
	for seed := range uint64(trialsOf(15, 300)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		log := history(rng, 300)
		whole := fresh(t)
		for i, a := range log {
			whole.Apply(uint64(i+1), a)
		}
		disk := map[string][]byte{}
		m, marker := fresh(t), 0
		for i := 0; i < len(log); i++ {
			m.Apply(uint64(i+1), log[i])
			switch rng.IntN(25) {
			case 0: // a checkpoint, whole
				write(disk, m.Dirty(), nil)
				marker = i + 1
			case 1: // a crash in the middle of a checkpoint
				write(disk, m.Dirty(), rng)
				m = fresh(t)
				if err := m.Load(maps.Clone(disk)); err != nil {
					t.Fatal(err)
				}
				i = marker - 1
			}
		}
		if got, want := snapshot(m), snapshot(whole); got != want {
			i := 0
			for i < min(len(got), len(want)) && got[i] == want[i] {
				i++
			}
			t.Fatalf("seed %d: after crashes\n…%.300s\nwithout\n…%.300s", seed, got[max(0, i-100):], want[max(0, i-100):])
		}
	}
}

// write puts records to disk; with rng only some of them.
func write(disk, records map[string][]byte, rng *rand.Rand) {
	for k, v := range records {
		if rng != nil && rng.IntN(2) == 0 {
			continue
		}
		if len(v) == 0 {
			delete(disk, k)
		} else {
			disk[k] = v
		}
	}
}

func TestTotalsAreWhatWasSent(t *testing.T) {
	log := history(rand.New(rand.NewPCG(2, 2)), 500)
	m := fresh(t)
	want := map[string]Total{}
	for i, a := range log {
		m.Apply(uint64(i+1), a)
		m.Apply(uint64(i+1), a) // delivered twice by the stream: nothing is added
		w := want[a.GetDevice()]
		w.LostRecords += a.GetLostRecords()
		w.LostRows += a.GetLost().GetRows()
		w.LostLabels += a.GetLost().GetLabels()
		b := bodyOf(a)
		if b.GetWindow().GetRole() != "shadow" { // nobody is served by one
			w.Rows += b.GetWindow().GetRows()
			w.FailedRows += b.GetWindow().GetFailedRows()
		}
		if b.GetLabels().GetRole() != "shadow" {
			w.Labels += b.GetLabels().GetMatched() + b.GetLabels().GetUnmatched()
		}
		w.LostRecords += b.GetEvent().GetLostRecords()
		w.LostRows += b.GetEvent().GetLost().GetRows()
		w.UnknownLoss = w.UnknownLoss || b.GetEvent().GetLostUnknown()
		want[a.GetDevice()] = w
	}
	got := map[string]Total{}
	for _, x := range m.Totals() {
		w := got[x.Device]
		w.Rows += x.Rows
		w.FailedRows += x.FailedRows
		w.Labels += x.Labels
		w.LostRecords += x.LostRecords
		w.LostRows += x.LostRows
		w.LostLabels += x.LostLabels
		w.UnknownLoss = w.UnknownLoss || x.UnknownLoss
		got[x.Device] = w
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// What a device cannot prove is shown as uncertain, for good: nothing it says
// later takes the mark away, and a restart keeps it.
func TestWhatCannotBeProvenIsUncertain(t *testing.T) {
	epochs := func(uncertain ...bool) *protocol.Accepted {
		a := hello(1, 1000, start.UnixMilli())
		for _, u := range uncertain {
			e := &protocol.Epoch{Uncertain: u}
			a.GetHello().Epochs = append(a.GetHello().Epochs, e)
		}
		return a
	}
	abandoned := epochs(false)
	abandoned.Abandoned = [][]byte{bytes16(9)}
	for _, tt := range []struct {
		name  string
		hello *protocol.Accepted
		want  bool
	}{
		{"a hello without epochs", epochs(), false},
		{"every epoch is certain", epochs(false, false), false},
		{"one epoch is uncertain", epochs(false, true), true},
		{"an epoch was abandoned", abandoned, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := fresh(t)
			m.Apply(1, tt.hello)
			m.Apply(2, epochs(false))
			records := m.Dirty()
			restarted := fresh(t)
			if err := restarted.Load(records); err != nil {
				t.Fatal(err)
			}
			for what, m := range map[string]*Monitor{"folded": m, "loaded": restarted} {
				got := slices.ContainsFunc(m.Totals(), func(x Total) bool { return x.Device == "dev-0" && x.UnknownLoss })
				if got != tt.want {
					t.Errorf("%s: unknown loss %v, want %v", what, got, tt.want)
				}
			}
		})
	}
}

// The mark "cloned" follows the cursor: an operator may lift it.
func TestClonedUntilItIsLifted(t *testing.T) {
	m := fresh(t)
	for i, want := range []bool{false, true, true, false} {
		a := &protocol.Accepted{Device: "dev-0", Cursor: &protocol.Cursor{Cloned: want}}
		if i == 2 {
			a.Cursor = nil // says nothing of it
		}
		m.Apply(uint64(i+1), a)
		got := slices.ContainsFunc(m.Totals(), func(x Total) bool { return x.Device == "dev-0" && x.Cloned })
		if got != want {
			t.Errorf("after message %d: cloned %v, want %v", i+1, got, want)
		}
	}
}

func windowOf(boot byte, from, to uint64, w *protocol.Window) *protocol.Accepted {
	w.StartMonotonicMs, w.EndMonotonicMs = from, to
	body := &protocol.Body{At: &protocol.Stamp{Boot: bytes16(boot), MonotonicMs: to}, Kind: &protocol.Body_Window{Window: w}}
	data, _ := proto.Marshal(body)
	return &protocol.Accepted{
		Device: "dev-0", ReceivedMs: start.UnixMilli() + 900_000,
		Body: &protocol.Accepted_Record{Record: &protocol.Record{Body: data}},
	}
}

func bytes16(b byte) []byte {
	out := make([]byte, 16)
	out[0] = b
	return out
}

func hello(boot byte, monotonic uint64, received int64) *protocol.Accepted {
	return &protocol.Accepted{
		Device: "dev-0", ReceivedMs: received, Sent: &protocol.Stamp{Boot: bytes16(boot), MonotonicMs: monotonic, WallMs: 12},
		Body: &protocol.Accepted_Hello{Hello: &protocol.Hello{}},
	}
}

// A device whose clock stands in 1970 is placed by its hello; a boot that was
// never heard of counts in totals alone.
func TestServerTime(t *testing.T) {
	m := fresh(t)
	rows := func(n uint64) *protocol.Window {
		return &protocol.Window{Model: "m", Release: digest[:], Rows: n}
	}
	m.Apply(1, hello(1, 60_000, start.UnixMilli()+3_000)) // 3 s on the way
	m.Apply(2, hello(1, 90_000, start.UnixMilli()+30_010))
	m.Apply(3, windowOf(1, 61_000, 65_500, rows(10)))
	m.Apply(4, windowOf(9, 61_000, 65_500, rows(100))) // boot never heard of
	m.Apply(5, windowOf(1, 61_000, 10_000_000, rows(1000)))
	s := m.Series("m")
	if len(s) != 1 || len(s[0].Points) != 1 || s[0].Points[0].Rows != 10 {
		t.Fatalf("series: got %+v, want one bucket with 10 rows", s)
	}
	if got, want := s[0].Points[0].AtMS, start.UnixMilli()+5_000; got != want {
		t.Errorf("bucket: got %d, want %d", got, want)
	}
	totals := m.Totals()
	if len(totals) != 1 || totals[0].Rows != 1110 || totals[0].Uncertain != 1100 {
		t.Errorf("totals: got %+v, want 1110 rows, 1100 of them uncertain", totals)
	}
	if e := m.Evidence("m", digest, start, time.Time{})["dev-0"]; e.Rows != 10 || e.FromMS != start.UnixMilli()+1_010 {
		t.Errorf("evidence: got %+v", e)
	}
	if e := m.Evidence("m", digest, start.Add(2*time.Second), time.Time{}); len(e) != 0 {
		t.Errorf("evidence since the middle of the window: got %+v, want none", e)
	}
	if e := m.Evidence("m", digest, time.Time{}, start.Add(2*time.Second))["dev-0"]; e.Rows != 10 {
		t.Errorf("evidence until the middle of the window: got %+v, want what began before", e)
	}
	if e := m.Evidence("m", digest, time.Time{}, start.Add(1_010*time.Millisecond)); len(e) != 0 {
		t.Errorf("evidence until the window began: got %+v, want none", e)
	}
}

// Labels of a prediction made before the agent's restart are placed by how long
// ago the device's own clock says that was.
func TestLabelsOfAFormerBoot(t *testing.T) {
	m := fresh(t)
	m.Apply(1, hello(2, 1_000, start.UnixMilli()+61_000))
	body := &protocol.Body{
		At: &protocol.Stamp{Boot: bytes16(2), MonotonicMs: 4_000, WallMs: 100_000},
		Kind: &protocol.Body_Labels{Labels: &protocol.Labels{
			Model: "m", Release: digest[:], Matched: 8, Correct: 7, Unmatched: 2, StartWallMs: 50_000, EndWallMs: 70_000,
		}},
	}
	data, _ := proto.Marshal(body)
	m.Apply(2, &protocol.Accepted{
		Device: "dev-0", ReceivedMs: start.UnixMilli() + 65_000,
		Body: &protocol.Accepted_Record{Record: &protocol.Record{Body: data}},
	})
	p := m.Series("m")[0].Points[0]
	if p.AtMS != start.UnixMilli()+34_000 || p.Labels != 8 || p.Accuracy != 7.0/8 {
		t.Errorf("got %+v, want 8 labels 30 s before the record", p)
	}
	if x := m.Totals()[0]; x.Labels != 10 || x.Matched != 8 || x.Correct != 7 {
		t.Errorf("totals: got %+v", x)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := New(Config{Bucket: time.Second, Buckets: 100})
	if err := m.SetRelease(Release{Digest: digest, Model: "m"}, nil); err != nil {
		t.Fatal(err)
	}
	m.Apply(1, hello(1, 0, start.UnixMilli()))
	var rows uint64
	for i := range uint64(2000) {
		d := digest
		if i%2 == 1 { // a device that makes releases up
			d = release.Digest{1, byte(i), byte(i >> 8)}
		}
		rows += i
		a := windowOf(1, i*400, i*400+400, &protocol.Window{Model: "m", Release: d[:], Rows: i})
		a.ReceivedMs = start.UnixMilli() + int64(i)*400 + 500
		m.Apply(i+2, a)
	}
	d := m.devices["dev-0"]
	if len(d.tracks) > maxTracks || len(d.tracks[digest].state.Segments) > maxSegments {
		t.Errorf("kept %d tracks and %d segments", len(d.tracks), len(d.tracks[digest].state.Segments))
	}
	points := m.Series("m")[0].Points
	if len(points) > 100+chunkBuckets || len(m.series) != 1 {
		t.Errorf("kept %d points in %d series", len(points), len(m.series))
	}
	var sum uint64
	for _, x := range m.Totals() {
		sum += x.Rows
	}
	if sum != rows {
		t.Errorf("rows: got %d, want %d", sum, rows)
	}
	if e := m.Evidence("m", digest, time.Time{}, time.Time{})["dev-0"]; e.Rows != 999_000 {
		t.Errorf("evidence after joining: got %d rows, want 999000", e.Rows)
	}
	for i := range byte(40) {
		m.Apply(uint64(3000+int(i)), hello(100+i, 0, start.UnixMilli()))
	}
	if n := len(d.state.Clock.Boots); n > bootclock.MaxBoots {
		t.Errorf("kept %d boots", n)
	}
}

func TestForget(t *testing.T) {
	m := fresh(t)
	m.Apply(1, hello(1, 0, start.UnixMilli()))
	m.Apply(2, windowOf(1, 1, 2, &protocol.Window{Model: "m", Release: digest[:], Rows: 3}))
	disk := map[string][]byte{}
	write(disk, m.Dirty(), nil)
	m.Forget("dev-0")
	write(disk, m.Dirty(), nil)
	if len(m.Totals()) != 0 {
		t.Errorf("totals: got %+v, want none", m.Totals())
	}
	for k := range disk {
		if k[:5] != "chunk" {
			t.Errorf("record %s is still on disk", k)
		}
	}
}

func TestLoadRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, data := range map[string]string{
		"device-2.x": "{}", "device-1.x": "{", "track-1.x.y": "[]", "chunk-1.x": `"`, "watch-1.x": "[1]",
	} {
		if err := New(Config{}).Load(map[string][]byte{name: []byte(data)}); err == nil {
			t.Errorf("%s %s: loaded", name, data)
		}
	}
}
