package rollout

import (
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// What is newly known of a device is taken up when a decision could turn on it.
func TestWhatMatters(t *testing.T) {
	soak := release.Duration(time.Hour)
	spec := Spec{Model: "m", Version: "v", Release: v2, Waves: []WaveSpec{{Percent: 100, Soak: &soak}}, Shadow: &ShadowSpec{Rows: 300}}.WithDefaults()
	for i := range spec.Gates {
		spec.Gates[i].Min = 100
	}
	state := func(d Device) *State {
		s := New("r", "ada", spec, Requirements{}, begin)
		s.Devices["dev"] = &d
		return s
	}
	base := DeviceFacts{
		Selected: true, Reported: begin, Active: v2, Serving: true, Battery: 80,
		New: &Evidence{Rows: 1000, P95US: 10, Labels: 200, Correct: 150, Classes: []uint64{500, 500}}, Shadow: &Agreement{Rows: 200, Agreed: 190},
	}
	minute := func(f *DeviceFacts) { f.Reported = begin.Add(time.Minute) }
	healthy := Device{State: DeviceHealthy, Wave: 1, Since: begin}
	for name, tc := range map[string]struct {
		device Device
		change func(f *DeviceFacts)
		now    time.Duration
		want   bool
	}{
		"nothing":                     {healthy, func(*DeviceFacts) {}, 0, false},
		"a healthy device reports":    {healthy, minute, 0, false},
		"a soaking device reports":    {Device{State: DeviceActive, Wave: 1, Since: begin}, minute, 0, false},
		"it has soaked":               {Device{State: DeviceActive, Wave: 1, Since: begin.Add(-time.Hour + time.Second)}, minute, 0, true},
		"before a deadline":           {Device{State: DeviceOffered, Wave: 1, Deadline: begin.Add(time.Hour)}, minute, 59 * time.Minute, false},
		"at a deadline":               {Device{State: DeviceOffered, Wave: 1, Deadline: begin.Add(time.Hour)}, minute, time.Hour, true},
		"another state of the update": {healthy, func(f *DeviceFacts) { f.Update = "downloading" }, 0, true},
		"an outcome":                  {healthy, func(f *DeviceFacts) { f.Outcomes = []Outcome{{Result: "failed"}} }, 0, true},
		"another holder":              {healthy, func(f *DeviceFacts) { f.Holder = "r-2" }, 0, true},
		"a battery nobody asks for":   {healthy, func(f *DeviceFacts) { f.Battery = 3 }, 0, false},
		"a few rows more": {healthy, func(f *DeviceFacts) {
			f.New = &Evidence{Rows: 1250, P95US: 11, Labels: 200, Correct: 150, Classes: []uint64{500, 750}}
		}, 0, false},
		"more than a quarter more": {healthy, func(f *DeviceFacts) {
			f.New = &Evidence{Rows: 1251, P95US: 11, Labels: 200, Correct: 150, Classes: []uint64{500, 751}}
		}, 0, true},
		"the first failed row":          {healthy, func(f *DeviceFacts) { f.New = with(f.New, func(e *Evidence) { e.FailedRows = 1 }) }, 0, true},
		"wrong labels":                  {healthy, func(f *DeviceFacts) { f.New = with(f.New, func(e *Evidence) { e.Correct = 100 }) }, 0, true},
		"the first evidence":            {healthy, func(f *DeviceFacts) { f.Old = &Evidence{Rows: 1} }, 0, true},
		"evidence is gone":              {healthy, func(f *DeviceFacts) { f.New = nil }, 0, true},
		"a shadow has compared a bit":   {healthy, func(f *DeviceFacts) { f.Shadow = &Agreement{Rows: 210, Agreed: 200} }, 0, false},
		"a shadow has compared enough":  {healthy, func(f *DeviceFacts) { f.Shadow = &Agreement{Rows: 300, Agreed: 290} }, 0, true},
		"a shadow disagrees more often": {healthy, func(f *DeviceFacts) { f.Shadow = &Agreement{Rows: 210, Agreed: 190} }, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			is := base
			tc.change(&is)
			if got := state(tc.device).Matters("dev", &base, &is, begin.Add(tc.now)); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func with(e *Evidence, change func(*Evidence)) *Evidence {
	c := *e
	change(&c)
	return &c
}

// A gate counts rows from its least number on: crossing it matters, however
// little is added.
func TestCrossingAGatesLeastRowsMatters(t *testing.T) {
	spec := Spec{Model: "m", Version: "v", Release: v2}.WithDefaults()
	for i := range spec.Gates {
		spec.Gates[i].Min = 1000
	}
	s := New("r", "ada", spec, Requirements{}, begin)
	was := &DeviceFacts{New: &Evidence{Rows: 999}}
	if s.Matters("dev", was, &DeviceFacts{New: &Evidence{Rows: 999}}, begin) {
		t.Error("the same rows matter")
	}
	if !s.Matters("dev", was, &DeviceFacts{New: &Evidence{Rows: 1000}}, begin) {
		t.Error("the least number of rows does not matter")
	}
	if !s.Matters("dev", nil, was, begin) || !s.Matters("dev", was, nil, begin) {
		t.Error("a device that came or went does not matter")
	}
}
