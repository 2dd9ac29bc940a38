package drift

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// driftFinding is about the inputs of a cohort. Where its predictions alone left
// training, predictionFinding says so.
func driftFinding(c *CohortScore, by string, seq uint64) finding {
	f := finding{seq: seq, features: c.Training.Furthest(alarmFeatures)}
	switch {
	case c.Verdict == Drift && c.Training.ApartOn(sketch.Input) > 0:
		f.verdict = bad
		f.message = fmt.Sprintf("%s %s has left the training data: %d of %d devices, %s", by, c.Cohort, c.Drifted, c.Devices, farthest(&c.Training))
	case c.Verdict != Insufficient:
		f.verdict = good
	}
	return f
}

// predictionFinding is bad where the predictions left training and no input
// did: otherwise they follow their inputs, which have a finding of their own.
func predictionFinding(c *CohortScore, by string, seq uint64) finding {
	f := finding{seq: seq, features: c.Training.Furthest(alarmFeatures)}
	switch {
	case c.Prediction == Drift && c.Training.ApartOn(sketch.Input) == 0:
		f.verdict = bad
		f.message = fmt.Sprintf("predictions at %s %s have left those of training while the inputs have not: %s", by, c.Cohort, farthest(&c.Training))
	case c.Prediction == OK:
		f.verdict = good
	}
	return f
}

// shares is a kind of share that a finding is about.
type shares struct {
	alarm AlarmKind
	of    func(*FeatureScore) *divergence.Share
	what  string
}

var (
	missingShares = shares{MissingAlarm, func(f *FeatureScore) *divergence.Share { return f.Missing }, "missing values"}
	newShares     = shares{NewAlarm, func(f *FeatureScore) *divergence.Share { return f.New }, "values that training did not know"}
)

// finding says of a cohort or a device whether such shares have changed. Where
// its comparison is bad as a whole another alarm has told the cause.
func (x *shares) finding(who string, c *Comparison, found, told bool, seq uint64) kindFinding {
	f := finding{seq: seq}
	switch {
	case found && told:
	case found:
		f.verdict, f.features = bad, x.furthest(c)
		worst := x.of(&f.features[0])
		f.message = fmt.Sprintf("%s at %s: %.1f%% of %s, in training %.1f%%", x.what, who, 100*worst.After, f.features[0].Name, 100*worst.Before)
	case c.M > 0:
		f.verdict = good
	}
	return kindFinding{x.alarm, f}
}

// furthest are the features whose share has changed most.
func (x *shares) furthest(c *Comparison) []FeatureScore {
	fs := slices.Clone(c.Features)
	fs = slices.DeleteFunc(fs, func(f FeatureScore) bool { return x.of(&f) == nil || !x.of(&f).Apart })
	slices.SortStableFunc(fs, func(a, b FeatureScore) int { return cmp.Compare(x.of(&b).Moved(), x.of(&a).Moved()) })
	return fs[:min(len(fs), alarmFeatures)]
}

func accuracyFinding(c *CohortScore, by string, seq uint64) finding {
	a := c.Accuracy
	f := finding{seq: seq, accuracy: &a}
	switch a.Verdict {
	case Breach:
		f.verdict = bad
		f.message = fmt.Sprintf("accuracy at %s %s is %.3f (%.3f to %.3f over %d labels), below its floor of %.3f%s",
			by, cmp.Or(c.Cohort, "(none)"), a.Accuracy, a.Lower, a.Upper, a.Labels, a.Floor, because[a.Cause])
	case OK:
		f.verdict = good
	case Undecided:
		// an accuracy close above its floor may never be proven to be
		if a.Labels >= minBlockLabels && a.Accuracy >= a.Floor {
			f.verdict = good
		}
	case SensorFault, Apart, Drift, Insufficient:
	}
	return f
}

// because says what a breach of accuracy comes from.
var because = map[string]string{
	CauseConcept: "; the inputs are as in training, so they mean something else now: concept drift",
	CauseInputs:  "; its inputs have left the training data",
}

func sensorFinding(d *DeviceScore, seq uint64) finding {
	f := finding{seq: seq}
	switch d.Verdict {
	case SensorFault:
		f.verdict, f.features = bad, d.Neighbours.Furthest(alarmFeatures)
		f.message = fmt.Sprintf("device %s has left its cohort %s, which is fine: check its sensor; %s", d.Device, d.Cohort, farthest(d.Neighbours))
	case OK, Drift:
		f.verdict = good
	case Apart, Breach, Undecided, Insufficient:
	}
	return f
}

func apartFinding(d *DeviceScore, seq uint64) finding {
	f := finding{seq: seq}
	switch d.Verdict {
	case Apart:
		f.verdict, f.features = bad, d.Training.Furthest(alarmFeatures)
		f.message = fmt.Sprintf("device %s has left the training data and has no cohort that could tell why; %s", d.Device, farthest(&d.Training))
	case OK, SensorFault, Drift:
		f.verdict = good
	case Breach, Undecided, Insufficient:
	}
	return f
}

// farthest names the feature furthest apart.
func farthest(c *Comparison) string {
	fs := c.Furthest(1)
	if len(fs) == 0 {
		return "no feature stands out"
	}
	return fmt.Sprintf("%d of %d features apart, the furthest %s with PSI %.2f (noise %.2f)",
		c.Apart, len(c.Features), fs[0].Name, fs[0].PSI, fs[0].Noise) + missingShares.aside(&fs[0]) + newShares.aside(&fs[0])
}

// aside says of a feature that its share has changed too.
func (x *shares) aside(f *FeatureScore) string {
	if s := x.of(f); s != nil && s.Apart {
		return fmt.Sprintf(", %s %.1f%%", x.what, 100*s.After)
	}
	return ""
}
