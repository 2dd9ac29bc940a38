package drift

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Two versions whose training data lie a standard deviation apart, on bins of
// their own: version 2 has one more.
var (
	v1, v2 = release.Digest{1}, release.Digest{2}
	world1 = []float64{0.25, 0.25, 0.25, 0.25}
	world2 = []float64{0.2, 0.2, 0.2, 0.2, 0.2}
	other1 = []float64{0.05, 0.1, 0.25, 0.6} // far from version 1
	other2 = []float64{0.05, 0.05, 0.1, 0.2, 0.6}
)

// twoVersions is a monitor that knows both, and a device that has said hello.
func twoVersions(t *testing.T) *Monitor {
	t.Helper()
	m := New(Config{MaxAge: 2 * time.Hour, Bucket: time.Minute, Block: time.Hour})
	for i, d := range []release.Digest{v1, v2} {
		shares, edges := [][]float64{world1, world2}[i], [][]float32{{1, 2, 3}, {1.5, 2, 2.5, 4}}[i]
		b := &sketch.Baseline{Format: sketch.BaselineFormat, Rows: 2000, Streams: []sketch.Stream{{
			Name: "x", Side: sketch.Input, Kind: sketch.Continuous, Source: sketch.Feature, Tensor: "X", Edges: edges,
			Counts: drawCounts(rand.New(rand.NewPCG(1, uint64(i))), shares, 2000),
		}}}
		if err := m.SetRelease(Release{Digest: d, Model: "m", Version: []string{"1", "2"}[i], Sequence: uint64(i + 1)}, b); err != nil {
			t.Fatal(err)
		}
	}
	m.SetLabels("dev-0", map[string]string{"site": "a"})
	m.Apply(1, hello(1, 0, start.UnixMilli()))
	return m
}

// counted is a window of 400 rows of a world, five minutes from a minute on.
func counted(d release.Digest, minute int, shares []float64, rng *rand.Rand) *protocol.Accepted {
	w := &protocol.Window{Model: "m", Release: d[:], Rows: 400, Streams: []*protocol.Histogram{{Bins: drawCounts(rng, shares, 400)}}}
	a := windowOf(1, uint64(minute)*60_000, uint64(minute+5)*60_000, w)
	a.ReceivedMs = start.UnixMilli() + 24*3600_000 // whenever an outbox let it go
	return a
}

func scoreOf(t *testing.T, m *Monitor, d release.Digest) (DeviceScore, bool) {
	t.Helper()
	for _, s := range m.Scores("m") {
		if s.Release == d && len(s.Devices) == 1 {
			return s.Devices[0], true
		}
	}
	return DeviceScore{}, false
}

// A window is scored against the training data of the version that it names,
// never that of another one, whatever else the fleet reports meanwhile.
func TestEveryVersionHasItsOwnBaseline(t *testing.T) {
	for _, c := range []struct {
		name         string
		seen1, seen2 []float64
		want1, want2 Verdict
	}{
		{"both are at home", world1, world2, OK, OK},
		{"the world of version 1 has changed", other1, world2, Apart, OK},
		{"the world of version 2 has changed", world1, other2, OK, Apart},
	} {
		m, rng := twoVersions(t), rand.New(rand.NewPCG(5, 5))
		m.SetLabels("dev-1", map[string]string{"site": "a"})
		second := hello(1, 0, start.UnixMilli())
		second.Device = "dev-1"
		m.Apply(2, second)
		for i := range 4 {
			m.Apply(uint64(2*i+3), counted(v1, 5*i, c.seen1, rng))
			b := counted(v2, 5*i, c.seen2, rng)
			b.Device = "dev-1"
			m.Apply(uint64(2*i+4), b)
			m.Evaluate(start.Add(time.Duration(5*i+5) * time.Minute))
		}
		a, _ := scoreOf(t, m, v1)
		b, _ := scoreOf(t, m, v2)
		if a.Device != "dev-0" || b.Device != "dev-1" || a.Verdict != c.want1 && c.want1 == OK || a.Training.Apart > 0 != (c.want1 == Apart) || b.Training.Apart > 0 != (c.want2 == Apart) {
			t.Errorf("%s: got %s (%d apart) and %s (%d apart)", c.name, a.Verdict, a.Training.Apart, b.Verdict, b.Training.Apart)
		}
		if a.Training.Features[0].Bins != 4 || b.Training.Features[0].Bins != 5 {
			t.Errorf("%s: scored on %d and %d bins, want 4 and 5", c.name, a.Training.Features[0].Bins, b.Training.Features[0].Bins)
		}
		fleet := m.Groups("m", LevelFleet)
		if len(fleet) != 1 || fleet[0].Devices != 2 || fleet[0].Rows != a.Rows+b.Rows {
			t.Errorf("%s: fleet %+v", c.name, fleet)
		}
		for _, v := range m.Groups("m", LevelVersion) {
			if d, _ := scoreOf(t, m, v.Release); v.Devices != 1 || v.Training.MaxPSI != d.Training.MaxPSI {
				t.Errorf("%s: version %s: got %+v, want what its device has", c.name, v.Version, v)
			}
		}
	}
}

// A device takes version 2 up; its outbox still holds windows of version 1, of
// another world. They land in their own time and their own version: not one bit
// of what is said of version 2 changes.
func TestLateWindowsOfTheOldVersion(t *testing.T) {
	m, rng := twoVersions(t), rand.New(rand.NewPCG(6, 6))
	seq := uint64(1)
	apply := func(a *protocol.Accepted) {
		seq++
		m.Apply(seq, a)
	}
	for i := range 3 {
		apply(counted(v1, 5*i, world1, rng))
	}
	for i := 6; i < 10; i++ { // minutes 30 to 50
		apply(counted(v2, 5*i, world2, rng))
	}
	now := start.Add(50 * time.Minute)
	m.Evaluate(now)
	before, ok := scoreOf(t, m, v2)
	if _, old := scoreOf(t, m, v1); !ok || old || before.Verdict != OK {
		t.Fatalf("version 2 is served: got %+v", before)
	}
	evidence := m.Evidence("m", v2, time.Time{}, time.Time{})["dev-0"]
	for i := 3; i < 6; i++ { // minutes 15 to 30
		apply(counted(v1, 5*i, other1, rng))
	}
	m.Evaluate(now)
	after, _ := scoreOf(t, m, v2)
	if !reflect.DeepEqual(before, after) {
		t.Errorf("late windows of version 1 changed version 2:\n%+v\n%+v", before, after)
	}
	if _, old := scoreOf(t, m, v1); old || m.devices["dev-0"].state.Current["m"].Release != v2 {
		t.Error("late windows of version 1 made it the one that is served")
	}
	if got := m.Evidence("m", v2, time.Time{}, time.Time{})["dev-0"]; !reflect.DeepEqual(got, evidence) {
		t.Errorf("evidence of version 2: got %+v, want %+v", got, evidence)
	}
	for _, s := range m.Series("m") {
		first, last := s.Points[0].AtMS, s.Points[len(s.Points)-1].AtMS
		want := map[string][2]int{"1": {5, 30}, "2": {35, 50}}[s.Version] // a window counts at its end
		if first != start.Add(time.Duration(want[0])*time.Minute).UnixMilli() || last != start.Add(time.Duration(want[1])*time.Minute).UnixMilli() {
			t.Errorf("series of version %s: from %v to %v, want minutes %v", s.Version, time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC(), want)
		}
	}
	early := m.Evidence("m", v1, start.Add(14*time.Minute), start.Add(31*time.Minute))["dev-0"]
	if early.Rows != 1200 || early.ToMS != start.Add(30*time.Minute).UnixMilli() {
		t.Errorf("evidence of version 1 from its last quarter of an hour: got %+v, want 1200 rows", early)
	}
}

// The same windows in whatever order their outbox let them go end in the same
// evidence, scores and charts.
func TestLateWindowsOfOneVersion(t *testing.T) {
	windows := make([]*protocol.Accepted, 12)
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range windows {
		shares := world1
		if i < 6 {
			shares = other1 // the world was another one, an hour ago
		}
		windows[i] = counted(v1, 5*i, shares, rng)
	}
	now := start.Add(time.Hour)
	run := func(order []int) (DeviceScore, []Series) {
		m := twoVersions(t)
		for i, at := range order {
			m.Apply(uint64(i+2), windows[at])
		}
		m.Evaluate(now)
		d, _ := scoreOf(t, m, v1)
		series := m.Series("m")
		for i := range series {
			for j := range series[i].Points {
				series[i].Points[j].MaxPSI = -1 // is of the look, not of the window
			}
		}
		return d, series
	}
	inOrder := make([]int, len(windows))
	for i := range inOrder {
		inOrder[i] = i
	}
	want, series := run(inOrder)
	if want.Training.Apart != 0 || want.ToMS != now.UnixMilli() {
		t.Fatalf("the newest windows are as in training: got %+v", want)
	}
	for range 5 {
		order := slices.Clone(inOrder)
		rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		if got, charts := run(order); !reflect.DeepEqual(got, want) || !reflect.DeepEqual(charts, series) {
			t.Errorf("order %v: got %+v, want %+v", order, got, want)
		}
	}
}

// Truths are often found out a day later, and uploaded in one go: the floor is
// held against them all the same.
func TestLabelsOfTheDayBefore(t *testing.T) {
	const day, hour = 24 * 60, 60
	for name, c := range map[string]struct {
		from, to int // minutes of the predictions
		verdict  Verdict
	}{
		"an hour, most of a day old":         {2 * hour, 3*hour - 1, Breach},
		"a night, uploaded in one go":        {2 * hour, 10 * hour, Breach},
		"older than evidence may be":         {-4 * hour, -3 * hour, Insufficient},
		"of the newest hour":                 {day - 30, day - 1, Breach},
		"an upload that ends before the day": {-20 * hour, -2 * hour, Insufficient},
	} {
		m, rng := twoVersions(t), rand.New(rand.NewPCG(8, 9))
		m.cfg.MaxAge = DefaultMaxAge
		m.SetFloor("m", 0.9)
		m.Apply(2, counted(v1, day-5, world1, rng))
		s := m.devices["dev-0"].tracks[v1]
		at := func(minute int) int64 { return start.Add(time.Duration(minute) * time.Minute).UnixMilli() }
		s.state.Labels = insert(s.state.Labels, span{at(c.from), at(c.to), 300, 150}, maxSegments)
		m.Evaluate(start.Add(day * time.Minute))
		if a := m.Scores("m")[0].Cohorts[0].Accuracy; a.Verdict != c.verdict {
			t.Errorf("%s: got %+v, want %s", name, a, c.verdict)
		}
	}
}

// Labels count in the block of time in which their predictions were made, not
// in that in which they came.
func TestLateLabelsLandInTheirBlock(t *testing.T) {
	m, rng := twoVersions(t), rand.New(rand.NewPCG(8, 8))
	m.SetFloor("m", 0.9)
	m.Apply(2, counted(v1, 0, world1, rng))
	m.Apply(3, counted(v1, 125, world1, rng))
	label := func(seq uint64, minute int, matched, correct uint64) {
		body := &protocol.Body{At: &protocol.Stamp{Boot: bytes16(1), MonotonicMs: 150 * 60_000}, Kind: &protocol.Body_Labels{Labels: &protocol.Labels{
			Model: "m", Release: v1[:], Matched: matched, Correct: correct, StartMonotonicMs: uint64(minute) * 60_000, EndMonotonicMs: uint64(minute+1) * 60_000,
		}}}
		data, err := sketch.EncodeBody(body)
		if err != nil {
			t.Fatal(err)
		}
		m.Apply(seq, &protocol.Accepted{
			Device: "dev-0", ReceivedMs: start.UnixMilli() + 24*3600_000,
			Body: &protocol.Accepted_Record{Record: &protocol.Record{Body: data}},
		})
	}
	label(4, 130, 200, 199)
	label(5, 10, 2000, 200) // two hours late: of another block
	m.Evaluate(start.Add(140 * time.Minute))
	a := m.Scores("m")[0].Cohorts[0].Accuracy
	if a.Labels != 200 || a.Correct != 199 || a.Verdict == Breach {
		t.Errorf("accuracy of the newest block: got %+v, want 199 of 200", a)
	}
	for _, p := range m.Series("m")[0].Points {
		at := time.UnixMilli(p.AtMS).UTC().Sub(start)
		if p.Labels == 2000 && at != 11*time.Minute || p.Labels == 200 && at != 131*time.Minute {
			t.Errorf("%d labels are charted at %v", p.Labels, at)
		}
	}
}

// What was counted over other bins than those of the release it names is in
// rates and totals, and in no score.
func TestBinsOfAnotherVersion(t *testing.T) {
	m, rng := twoVersions(t), rand.New(rand.NewPCG(9, 9))
	for i := range 3 {
		m.Apply(uint64(i+2), counted(v2, 5*i, world1, rng))
	}
	m.Evaluate(start.Add(15 * time.Minute))
	d, ok := scoreOf(t, m, v2)
	if !ok || d.Verdict != Insufficient || d.Rows != 0 || len(m.Alarms("m")) != 0 {
		t.Errorf("got %+v, want nothing judged", d)
	}
	if total := m.Totals()[0]; total.Rows != 1200 {
		t.Errorf("totals: got %+v, want 1200 rows", total)
	}
}
