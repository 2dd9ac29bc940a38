package drift

import (
	"maps"
	"slices"

	"github.com/vedette-edge/vedette/protocol/sketch"
)

// minBlockLabels is how many labels a new block needs before it is looked at
// instead of an older one.
const minBlockLabels = 20

// block sums the labels of the newest block of time that has enough of them, and
// is no older than evidence may be: truths may come a day after their
// predictions. Blocks are fixed spans: a confidence sequence holds for every look
// at one, but not for a span that slides. Where none has enough it is the newest
// that has any.
func (m *Monitor) block(tracks []*track, nowMS int64) (labels, correct uint64) {
	length := m.cfg.Block.Milliseconds()
	oldest := (nowMS - m.cfg.MaxAge.Milliseconds()) / length
	sums := map[int64]*span{}
	for _, t := range tracks {
		t.state.addLabels(sums, length)
	}
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(sums))) {
		if n < oldest {
			break
		}
		if x := sums[n]; labels == 0 || x.Matched >= minBlockLabels {
			labels, correct = x.Matched, x.Correct
		}
		if labels >= minBlockLabels {
			break
		}
	}
	return labels, correct
}

// addLabels adds the device's labels to their blocks. A record may span several,
// because it was uploaded in bulk or merged while the device was offline, and
// says no more of them than its sum: it counts in the one in which it ends.
func (s *trackState) addLabels(sums map[int64]*span, length int64) {
	for _, x := range s.Labels {
		n := x.End / length
		if sums[n] == nil {
			sums[n] = &span{}
		}
		sums[n].Matched += x.Matched
		sums[n].Correct += x.Correct
	}
}

// accuracy holds the labels of the newest block against the model's floor.
// Labels of repeated rows tell nothing new either: reach is how many distinct
// ones there are, 0 when that is not known.
func (m *Monitor) accuracy(model string, tracks []*track, reach uint64, nowMS int64) AccuracyScore {
	labels, correct := m.block(tracks, nowMS)
	a := AccuracyScore{Labels: labels, Correct: correct, Upper: 1, Floor: m.floor(model), Verdict: Insufficient}
	if labels == 0 {
		return a
	}
	a.Accuracy = float64(correct) / float64(labels)
	n := float64(labels)
	if reach > 0 {
		n = min(n, float64(reach))
	}
	a.Lower, a.Upper = interval(n*a.Accuracy, n*(1-a.Accuracy), m.cfg.Alpha)
	switch {
	case a.Floor > 0 && a.Upper < a.Floor:
		a.Verdict = Breach
	case a.Lower >= a.Floor:
		a.Verdict = OK
	default:
		a.Verdict = Undecided
	}
	return a
}

// sound are the members of a cohort without a sensor fault: what a faulty one
// gets wrong says nothing of the model.
func (j *judged) sound(tracks []*track) []*track {
	out := make([]*track, 0, len(tracks))
	for i, t := range tracks {
		if j.devices[i].Verdict != SensorFault {
			out = append(out, t)
		}
	}
	return out
}

// explain says what is behind an accuracy below its floor: inputs that left the
// training data, or a relation of inputs and truths that is another one now.
func (a *AccuracyScore) explain(v Verdict, training *Comparison) {
	inputs := training.ApartOn(sketch.Input)
	switch {
	case a.Verdict != Breach || !training.Enough:
	case inputs == 0:
		a.Cause = CauseConcept
	case v == Drift:
		a.Cause = CauseInputs
	}
}
