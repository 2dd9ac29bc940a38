package drift

import (
	"maps"
	"math"
	"strings"
	"testing"
)

// One cause raises one alarm, of the kind that says what it is.
func TestOneAlarmForOneCause(t *testing.T) {
	all := func(of []float64, v float64) {
		for i := range of {
			of[i] = v
		}
	}
	for _, c := range []struct {
		name   string
		change func(s *site)
		want   map[AlarmKind]int
		text   string // of the alarm
	}{
		{"nothing", func(*site) {}, map[AlarmKind]int{}, ""},
		{"the classes predicted are others, the inputs are not", func(s *site) { s.classes = []float64{0.2, 0.3, 0.5} }, map[AlarmKind]int{PredictionAlarm: 1}, "while the inputs have not"},
		{"inputs and predictions", func(s *site) {
			all(s.shift, 1)
			s.classes = []float64{0.2, 0.3, 0.5}
		}, map[AlarmKind]int{DriftAlarm: 1}, "4 of 4 devices"},
		{"26 of a thousand values are missing everywhere", func(s *site) { all(s.missing, 0.026) }, map[AlarmKind]int{MissingAlarm: 1}, "missing values at site a: "},
		{"26 of a thousand values are missing on one device", func(s *site) { s.missing[1] = 0.026 }, map[AlarmKind]int{MissingAlarm: 1}, "device dev-01: "},
		{"a third of the values is missing on one device", func(s *site) { s.missing[1] = 0.33 }, map[AlarmKind]int{SensorAlarm: 1}, "missing values 3"},
		{"a third of the values is missing everywhere", func(s *site) { all(s.missing, 0.33) }, map[AlarmKind]int{DriftAlarm: 1}, "missing values 3"},
		{"classes that training did not know", func(s *site) { s.unknown = 0.026 }, map[AlarmKind]int{NewAlarm: 1}, "values that training did not know at site a: "},
	} {
		s := newSite(t, 11, 4)
		for i := range s.traffic {
			s.traffic[i] = 20 * plainRows // 26 of a thousand are never far from it
		}
		s.pass(6, nil)
		c.change(s)
		got := s.pass(12, nil)
		// what is bad enough for drift is missing in one look before it is apart
		if c.want[DriftAlarm]+c.want[SensorAlarm] > 0 {
			delete(got, MissingAlarm)
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: raised %v, want %v", c.name, got, c.want)
		}
		if alarms := s.m.Alarms("m"); c.text != "" && (len(alarms) == 0 || !strings.Contains(alarms[0].Message, c.text)) {
			t.Errorf("%s: got %+v, want %q", c.name, alarms, c.text)
		}
	}
}

// An accuracy below its floor with inputs as in training is concept drift.
func TestConceptDrift(t *testing.T) {
	for _, c := range []struct {
		shift float64
		cause string
		text  string
	}{
		{0, CauseConcept, "concept drift"},
		{1, CauseInputs, "inputs have left the training data"},
	} {
		s := newSite(t, 12, 3)
		s.m.SetFloor("m", 0.2)
		s.m.SetGate("m", 0.9)
		if got := s.m.Floor("m"); got != 0.2 {
			t.Errorf("floor of the policy and of the gates: got %v, want the policy's", got)
		}
		s.m.SetFloor("m", 0) // the policy asks for nothing any more: the gates' floor holds
		for i := range s.shift {
			s.shift[i] = c.shift
		}
		for range 6 {
			s.pass(1, nil)
			at := start.Add(window * 1).UnixMilli()
			for _, name := range s.devices {
				labels := &s.m.devices[name].tracks[digest].state.Labels
				*labels = insert(*labels, span{at, at + 1, 100, 70}, maxSegments)
			}
		}
		got := s.m.Scores("m")[0].Cohorts[0].Accuracy
		if got.Verdict != Breach || got.Cause != c.cause || got.Upper >= 0.9 {
			t.Errorf("shift %v: got %+v, want a breach by %s", c.shift, got, c.cause)
		}
		found := false
		for _, a := range s.m.Alarms("m") {
			found = found || a.Kind == AccuracyAlarm && strings.Contains(a.Message, c.text)
		}
		if !found {
			t.Errorf("shift %v: no alarm says %q", c.shift, c.text)
		}
	}
}

// Levels hold the same evidence, added up: cohorts by another label than the
// site, sites, the version, the fleet.
func TestLevels(t *testing.T) {
	s := newSite(t, 13, 8)
	s.m.cfg.CohortBy = "line"
	for i, name := range s.devices {
		s.m.SetLabels(name, map[string]string{"site": []string{"a", "b"}[i/4], "line": []string{"x", "y"}[i%2]})
		s.shift[i] = []float64{0, 1}[i/4] // site b has changed
	}
	s.pass(6, nil)
	verdicts := func(by Level) string {
		out := []string{}
		rows, devices := uint64(0), 0
		for _, g := range s.m.Groups("m", by) {
			out = append(out, g.Name+" "+string(g.Verdict))
			rows += g.Rows
			devices += g.Devices
		}
		if devices != 8 || rows != s.m.Groups("m", LevelFleet)[0].Rows {
			t.Errorf("%s: %d devices with %d rows", by, devices, rows)
		}
		return strings.Join(out, ", ")
	}
	for by, want := range map[Level]string{
		LevelSite: "a ok, b drift", LevelCohort: "x ok, y ok", LevelVersion: "1 ok", LevelFleet: " ok",
	} {
		got := verdicts(by)
		// half of the rows have moved: whether that is apart as a whole is not the point
		if got = strings.ReplaceAll(got, "apart", "ok"); got != want {
			t.Errorf("%s: got %s, want %s", by, got, want)
		}
	}
	if got := len(s.m.Groups("m", LevelDevice)); got != 8 {
		t.Errorf("got %d devices, want 8", got)
	}
	if got := s.m.Groups("m", "continent"); got != nil {
		t.Errorf("no such level: got %+v", got)
	}
	if got := s.m.Groups("other", LevelFleet); got != nil {
		t.Errorf("no such model: got %+v", got)
	}
}

// A level that is the same as cohorts says what cohorts say.
func TestLevelsAgreeWithCohorts(t *testing.T) {
	for _, shift := range [][]float64{{0, 0, 0}, {2, 0, 0}, {1, 1, 1}} {
		s := newSite(t, 15, 3)
		copy(s.shift, shift)
		s.pass(6, nil)
		c := s.m.Scores("m")[0].Cohorts[0]
		for _, by := range []Level{LevelCohort, LevelSite} {
			g := s.m.Groups("m", by)[0]
			if g.Verdict != c.Verdict || g.Prediction != c.Prediction || g.Training.MaxPSI != c.Training.MaxPSI || g.Rows != c.Rows || g.Drifted != c.Drifted {
				t.Errorf("shift %v: %s is %s with PSI %.3f, its cohort %s with %.3f", shift, by, g.Verdict, g.Training.MaxPSI, c.Verdict, c.Training.MaxPSI)
			}
		}
	}
}

// The histograms of a group are what its scores were made of.
func TestGroupHasTheHistogramsOfItsScore(t *testing.T) {
	s := newSite(t, 14, 3)
	for i := range s.shift {
		s.shift[i], s.missing[i] = 1, 0.04
	}
	s.pass(6, nil)
	for by, name := range map[Level]string{LevelDevice: "dev-01", LevelCohort: "a", LevelSite: "a", LevelVersion: "1"} {
		d, ok := s.m.Group("m", by, digest, name)
		if !ok || len(d.Features) != features+1 || d.Features[0].Name != "x0" || !d.Features[0].Apart {
			t.Errorf("%s: got %+v, want x0 first", by, d)
			continue
		}
		for _, f := range d.Features {
			var before, after, widest float64
			for _, b := range f.Bins {
				before, after = before+b.Before, after+b.After
				widest = max(widest, math.Abs(b.After-b.Before))
			}
			if math.Abs(before-1) > 1e-9 || math.Abs(after-1) > 1e-9 || math.Abs(widest-f.LInf) > 1e-9 {
				t.Errorf("%s, %s: shares add up to %v and %v, the largest change is %v, scored %v", by, f.Name, before, after, widest, f.LInf)
			}
		}
		x0 := d.Features[0].Bins
		if len(x0) != 8 || x0[0].Label != "≤ 1" || x0[1].Label != "1 – 2" || x0[7].Label != "> 7" || x0[0].After >= x0[0].Before {
			t.Errorf("%s: bins of x0 are %+v", by, x0)
		}
		for _, f := range d.Features {
			if last := f.Bins[len(f.Bins)-1]; f.Name == "x5" && (last.Label != "missing" || last.After != f.Missing.After) || f.Name == "class" && f.Bins[2].Label != "c" {
				t.Errorf("%s: bins of %s are %+v", by, f.Name, f.Bins)
			}
		}
	}
	if d, ok := s.m.Group("m", LevelFleet, digest, ""); !ok || len(d.Features) != features+1 || d.Features[0].Bins != nil {
		t.Errorf("fleet: got %+v", d)
	}
	if _, ok := s.m.Group("m", LevelSite, digest, "z"); ok {
		t.Error("there is a site z")
	}
}
