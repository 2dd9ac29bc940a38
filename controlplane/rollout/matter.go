package rollout

import (
	"reflect"
	"time"
)

// Matters says whether what has become known of a device could change a
// decision. Devices report every minute for ever; if each report were a new
// fact, every record of the ledger would hold the whole fleet. So two kinds of
// news wait until they can matter:
//
//   - The time of a report. It matters where a clock runs on it: when it makes a
//     device healthy, when a deadline has passed and only a late word tells that
//     the device lives, and when it shows that the device has left the release.
//   - Counts that have grown by less than a quarter and do not cross the number
//     of rows that a gate asks for. So what a decision rests on is never more
//     than a fifth behind what is known, and a first failure is taken in at once.
//
// It is no part of a decision: what a decision saw is in the record either way.
func (s *State) Matters(id string, was, is *DeviceFacts, now time.Time) bool {
	if was == nil || is == nil {
		return was != is
	}
	return s.differs(*was, *is) || s.Due(id, was, is, now) ||
		s.evidenceMatters(was.New, is.New) || s.evidenceMatters(was.Old, is.Old) || s.evidenceMatters(was.Past, is.Past) ||
		s.shadowMatters(was.Shadow, is.Shadow)
}

// differs compares everything but times and counts.
func (s *State) differs(was, is DeviceFacts) bool {
	need := s.Spec.Require.Battery
	if need == 0 || (was.Battery >= need) == (is.Battery >= need) {
		was.Battery = is.Battery
	}
	for _, f := range []*DeviceFacts{&was, &is} {
		f.Reported, f.New, f.Old, f.Past, f.Shadow = time.Time{}, nil, nil, nil, nil
	}
	return !reflect.DeepEqual(was, is)
}

// Due says whether the time of a report that did not matter when it came does
// now, because the clock has gone on.
func (s *State) Due(id string, was, is *DeviceFacts, now time.Time) bool {
	d := s.device(id)
	soak := s.waveSpec(d.Wave).soak()
	healthy := func(f *DeviceFacts) bool { return f.Reported.Sub(d.Since) >= soak }
	switch {
	case is.Reported.Equal(was.Reported):
		return false
	case was.Reported.IsZero(), is.Reported.IsZero():
		return true
	case d.State == DeviceActive && healthy(was) != healthy(is):
		return true
	case d.State.arrived() && is.Active != s.Spec.Release:
		return true
	}
	return !d.Deadline.IsZero() && !now.Before(d.Deadline)
}

func (s *State) evidenceMatters(was, is *Evidence) bool {
	if was == nil || is == nil {
		return was != is
	}
	for i := range s.Spec.Gates {
		g := &s.Spec.Gates[i]
		n, m := was.Rows+was.FailedRows, is.Rows+is.FailedRows
		if g.Kind == Accuracy {
			n, m = was.Labels, is.Labels
		}
		if (n < g.Min) != (m < g.Min) {
			return true
		}
	}
	return grown(was.Rows, is.Rows) || grown(was.FailedRows, is.FailedRows) ||
		grown(was.Labels, is.Labels) || grown(was.Labels-was.Correct, is.Labels-is.Correct) ||
		len(was.Classes) != len(is.Classes) || (was.P95US == 0) != (is.P95US == 0)
}

func (s *State) shadowMatters(was, is *Agreement) bool {
	if was == nil || is == nil {
		return was != is
	}
	if shadow := s.Spec.Shadow; shadow != nil && (was.Rows < shadow.Rows) != (is.Rows < shadow.Rows) {
		return true
	}
	return grown(was.Rows, is.Rows) || grown(was.Rows-was.Agreed, is.Rows-is.Agreed) || grown(was.Failed, is.Failed)
}

// grown says that a count is no longer about what it was. Counts can fall, too:
// old windows are joined, and one that began before a bound is left out whole.
func grown(was, is uint64) bool { return max(was, is)-min(was, is) > was/4 }
