package drift

import (
	"slices"
	"testing"
	"time"
)

const (
	demoWindow = 4500 * time.Millisecond
	demoRows   = 270 // 60 a second; cameras have seen all images after two windows
	demoWhile  = 20  // windows: longer than anything is judged by
)

func verdicts(s Score) (devices, cohorts map[string]Verdict) {
	devices, cohorts = map[string]Verdict{}, map[string]Verdict{}
	for _, d := range s.Devices {
		devices[d.Device] = d.Verdict
	}
	for _, c := range s.Cohorts {
		cohorts[c.Cohort] = c.Verdict
	}
	return devices, cohorts
}

// until ticks and evaluates until an alarm of the kind is raised, within limit.
// Others raised meanwhile are errors, unless they are of an expected kind.
func (f *fleet) until(kind AlarmKind, limit time.Duration, expected ...AlarmKind) (Alarm, time.Duration) {
	f.t.Helper()
	began := f.now
	for f.now.Sub(began) < limit {
		f.tick(demoWindow, demoRows)
		for _, a := range f.m.Evaluate(f.now) {
			if a.Kind == kind && a.Raised() {
				return a, f.now.Sub(began)
			}
			if slices.Contains(expected, a.Kind) {
				continue
			}
			f.t.Errorf("unexpected alarm %s at %v: %s", a.Kind, f.now.Sub(began), a.Message)
		}
	}
	f.t.Fatalf("no %s alarm within %v", kind, limit)
	return Alarm{}, 0
}

func TestCleanImagesRaiseNothing(t *testing.T) {
	for version := 1; version <= 2; version++ {
		f := demo(t, version)
		f.m.SetFloor("digits", 0.84)
		for i := range demoWhile {
			f.tick(demoWindow, demoRows)
			for _, a := range f.m.Evaluate(f.now) {
				t.Errorf("version %d, window %d: %s %s", version, i, a.Kind, a.Message)
			}
		}
		devices, cohorts := verdicts(f.score())
		for name, v := range devices {
			if v != OK {
				t.Errorf("version %d: %s is %s, want ok", version, name, v)
			}
		}
		for name, v := range cohorts {
			if v != OK {
				t.Errorf("version %d: site %s is %s, want ok", version, name, v)
			}
		}
		for _, c := range f.score().Cohorts {
			t.Logf("version %d site %s: max PSI %.3f, m %d, condition %q, accuracy %.3f (%.3f–%.3f)",
				version, c.Cohort, c.Training.MaxPSI, c.Training.M, c.Training.Condition, c.Accuracy.Accuracy, c.Accuracy.Lower, c.Accuracy.Upper)
		}
	}
}

func TestFadedSiteIsDriftAndDeadRowIsSensorFault(t *testing.T) {
	f := demo(t, 1)
	for range 6 {
		f.tick(demoWindow, demoRows)
		f.m.Evaluate(f.now)
	}
	f.cameras[1].through = deadRow
	sensor, took := f.until(SensorAlarm, 25*time.Second)
	t.Logf("dead row found after %v: %s", took, sensor.Message)
	if sensor.Device != "cam-a1" || sensor.Cohort != "a" {
		t.Errorf("sensor fault of %s at %s, want cam-a1 at a", sensor.Device, sensor.Cohort)
	}
	f.m.SetFloor("digits", 0.84)
	for _, c := range f.cameras[3:6] {
		c.through = fade
	}
	drift, took := f.until(DriftAlarm, 25*time.Second)
	t.Logf("drift found after %v: %s", took, drift.Message)
	accuracy, took := f.until(AccuracyAlarm, 2*time.Minute)
	t.Logf("accuracy below floor found %v later: %s", took, accuracy.Message)
	if drift.Cohort != "b" || accuracy.Cohort != "b" || drift.Device != "" {
		t.Errorf("drift of %q, accuracy of %q, want b", drift.Cohort, accuracy.Cohort)
	}
	devices, cohorts := verdicts(f.score())
	want := map[string]Verdict{
		"cam-a0": OK, "cam-a1": SensorFault, "cam-a2": OK, "cam-b3": Drift, "cam-b4": Drift, "cam-b5": Drift, "cam-c6": OK, "cam-c7": OK,
	}
	for name, v := range want {
		if devices[name] != v {
			t.Errorf("%s is %s, want %s", name, devices[name], v)
		}
	}
	if cohorts["a"] != OK || cohorts["b"] != Drift || cohorts["c"] != OK {
		t.Errorf("sites: got %v, want b alone in drift", cohorts)
	}
	// the lens is cleaned: alarms clear
	for _, c := range f.cameras {
		c.through = clean
	}
	for range demoWhile {
		f.tick(demoWindow, demoRows)
		f.m.Evaluate(f.now)
	}
	for _, a := range f.m.Alarms("digits") {
		if a.Raised() || a.Reason != Recovered {
			t.Errorf("%s of %s%s: raised %v, reason %q; want it recovered", a.Kind, a.Cohort, a.Device, a.Raised(), a.Reason)
		}
	}
	if n := len(f.m.Alarms("digits")); n != 3 {
		t.Errorf("alarms remembered: got %d, want 3", n)
	}
}

func TestOneOfTwoIsFaultBothAreDrift(t *testing.T) {
	f := demo(t, 1)
	f.cameras[6].through = deadRow
	for range 6 {
		f.tick(demoWindow, demoRows)
	}
	f.m.Evaluate(f.now)
	devices, cohorts := verdicts(f.score())
	if devices["cam-c6"] != SensorFault || devices["cam-c7"] != OK || cohorts["c"] != OK {
		t.Errorf("one of two: got %v %v", devices, cohorts)
	}
	f.cameras[7].through = deadRow
	for range 6 {
		f.tick(demoWindow, demoRows)
	}
	f.m.Evaluate(f.now)
	devices, cohorts = verdicts(f.score())
	if devices["cam-c6"] != Drift || devices["cam-c7"] != Drift || cohorts["c"] != Drift {
		t.Errorf("both of two: got %v %v", devices, cohorts)
	}
}

// Version 2 was trained under two conditions: a site wholly under one of them is
// at home, one under a third is not.
func TestConditionsOfTraining(t *testing.T) {
	f := demo(t, 2)
	for _, c := range f.cameras[3:6] {
		c.through = fade
	}
	for _, c := range f.cameras[6:] {
		c.through = func(x []float32) []float32 { return fade(fade(x)) }
	}
	for range 6 {
		f.tick(demoWindow, demoRows)
	}
	f.m.Evaluate(f.now)
	_, cohorts := verdicts(f.score())
	if cohorts["a"] != OK || cohorts["b"] != OK || cohorts["c"] != Drift {
		t.Errorf("sites clean, faded and faded twice: got %v, want ok, ok, drift", cohorts)
	}
	if c := f.score().Cohorts; c[0].Training.Condition != "clean" || c[1].Training.Condition != "faded" {
		t.Errorf("nearest conditions: got %q and %q, want clean and faded", c[0].Training.Condition, c[1].Training.Condition)
	}
}

func TestDeviceWithoutCohort(t *testing.T) {
	f := demo(t, 1)
	f.m.SetLabels("cam-c6", map[string]string{"site": "d"})
	f.cameras[6].through = fade
	alarm, _ := f.until(ApartAlarm, 30*time.Second)
	if alarm.Device != "cam-c6" {
		t.Errorf("apart: got %s, want cam-c6", alarm.Device)
	}
	devices, cohorts := verdicts(f.score())
	if devices["cam-c6"] != Apart || cohorts["d"] != Insufficient {
		t.Errorf("got %s and %s, want apart and insufficient", devices["cam-c6"], cohorts["d"])
	}
}

// What a faulty sensor makes a device get wrong asks nobody for a new model.
func TestSensorFaultIsNoBreachOfAccuracy(t *testing.T) {
	f := demo(t, 1)
	f.m.SetFloor("digits", 0.84)
	f.cameras[0].through = func(x []float32) []float32 {
		out := deadRow(x)
		clear(out[16:48])
		return out
	}
	for range demoWhile {
		f.tick(demoWindow, demoRows)
		for _, a := range f.m.Evaluate(f.now) {
			if a.Kind != SensorAlarm {
				t.Errorf("alarm %s: %s", a.Kind, a.Message)
			}
		}
	}
	c := f.score().Cohorts[0]
	if c.Cohort != "a" || c.Accuracy.Verdict == Breach || c.Accuracy.Accuracy < 0.85 {
		t.Errorf("accuracy of the site without its faulty device: got %+v", c.Accuracy)
	}
}

func TestTooFewDistinctRowsSayNothing(t *testing.T) {
	f := demo(t, 1)
	f.images = f.images[:40] // each camera sees the same forty for ever
	for range 12 {
		f.tick(demoWindow, demoRows)
		if as := f.m.Evaluate(f.now); len(as) > 0 {
			t.Fatalf("alarm from forty images: %s", as[0].Message)
		}
	}
	devices, _ := verdicts(f.score())
	if devices["cam-a0"] != Insufficient {
		t.Errorf("got %s, want insufficient", devices["cam-a0"])
	}
	if m := f.score().Devices[0].Training.M; m < 38 || m > 42 {
		t.Errorf("effective rows: got %d, want about 40", m)
	}
}

// A fleet that moved on to another release is not haunted by alarms of the old one.
func TestNewReleaseSupersedesAlarms(t *testing.T) {
	f := demo(t, 1)
	for _, c := range f.cameras[3:6] {
		c.through = fade
	}
	f.until(DriftAlarm, 40*time.Second)
	two := demo(t, 2)
	base := two.m.releases[two.release]
	f.m.releases[two.release] = base
	f.release = two.release
	for i, c := range f.cameras {
		c.counter = two.cameras[i].counter
	}
	f.tick(demoWindow, demoRows)
	var reasons []string
	for _, a := range f.m.Evaluate(f.now) {
		reasons = append(reasons, string(a.Kind)+" "+a.Reason)
	}
	if len(reasons) != 1 || reasons[0] != "drift superseded" {
		t.Errorf("after the move: got %v, want drift superseded", reasons)
	}
}
