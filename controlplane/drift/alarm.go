package drift

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// What is kept of alarms.
const (
	alarmFeatures = 5 // the furthest features named by an alarm
	alarmHistory  = 8 // cleared alarms remembered of one subject
	// alarmKeep is how long a subject that is well is remembered.
	alarmKeep = 7 * 24 * time.Hour
)

// Reasons for clearing an alarm.
const (
	Recovered  = "recovered"  // looks in a row saw no problem any more
	Superseded = "superseded" // another release is served there now
	NoData     = "no_data"    // nothing was heard within the maximum age
)

// subject is what an alarm can be about.
type subject struct {
	Kind    AlarmKind      `json:"kind"`
	Model   string         `json:"model"`
	Release release.Digest `json:"release"`
	Cohort  string         `json:"cohort,omitempty"`
	Device  string         `json:"device,omitempty"`
}

func (s subject) hash(extra string) string {
	h := sha256.Sum256([]byte(strings.Join([]string{string(s.Kind), s.Model, s.Release.String(), s.Cohort, s.Device, extra}, "\x00")))
	return hex.EncodeToString(h[:12])
}

// watch is the hysteresis of one subject, and its checkpoint.
type watch struct {
	Subject subject `json:"subject"`
	Bad     int     `json:"bad"`  // looks in a row that saw the problem
	Good    int     `json:"good"` // looks in a row that saw none
	Seq     uint64  `json:"seq"`  // news at the last look that counted
	Alarms  []Alarm `json:"alarms,omitempty"`

	dirty bool
}

// raised returns the alarm that stands, nil for none.
func (w *watch) raised() *Alarm {
	if n := len(w.Alarms); n > 0 && w.Alarms[n-1].Raised() {
		return &w.Alarms[n-1]
	}
	return nil
}

// finding is what one look at a subject saw.
type finding struct {
	verdict  look
	seq      uint64 // of the newest message seen
	version  string
	features []FeatureScore
	accuracy *AccuracyScore
	message  string
}

type look int

const (
	unclear look = iota
	good
	bad
)

// step is the hysteresis: a look without news, or an unclear one, changes
// nothing. It returns the alarm when it was raised or cleared.
func (w *watch) step(f *finding, cfg *Config, nowMS int64) *Alarm {
	if f.verdict == unclear || f.seq <= w.Seq {
		return nil
	}
	w.Seq, w.dirty = f.seq, true
	if f.verdict == good {
		w.Good, w.Bad = w.Good+1, 0
		if w.Good >= cfg.ClearAfter {
			return w.clear(Recovered, nowMS)
		}
		return nil
	}
	w.Bad, w.Good = w.Bad+1, 0
	if w.Bad < cfg.RaiseAfter || w.raised() != nil {
		return nil
	}
	s := w.Subject
	w.Alarms = append(w.Alarms, Alarm{
		ID: s.hash(strconv.FormatInt(nowMS, 10)), Kind: s.Kind, Model: s.Model, Release: s.Release, Version: f.version,
		Cohort: s.Cohort, Device: s.Device, RaisedMS: nowMS, Features: f.features, Accuracy: f.accuracy, Message: f.message,
	})
	w.Alarms = w.Alarms[max(0, len(w.Alarms)-alarmHistory):]
	return w.raised()
}

// clear ends the alarm that stands, if any.
func (w *watch) clear(reason string, nowMS int64) *Alarm {
	a := w.raised()
	if a == nil {
		return nil
	}
	a.ClearedMS, a.Reason = nowMS, reason
	w.dirty = true
	return a
}

// watch looks at everything that a judged cohort says.
func (m *Monitor) watch(k *known, j *judged, seen map[subject]bool, nowMS int64) []Alarm {
	var changes []Alarm
	look := func(kind AlarmKind, cohort, device string, f finding) {
		s := subject{kind, k.Model, k.Digest, cohort, device}
		seen[s] = true
		f.version = k.Version
		if a := m.look(s, &f, nowMS); a != nil {
			changes = append(changes, *a)
		}
	}
	seqs := map[string]uint64{}
	var newest uint64
	for _, x := range j.members {
		seqs[x.device] = x.seq
		newest = max(newest, x.seq)
	}
	c := &j.cohort
	if c.Rows > 0 {
		for _, f := range m.cohortFindings(c, newest) {
			look(f.kind, c.Cohort, "", f.finding)
		}
	}
	for i := range j.devices {
		if d := &j.devices[i]; d.Rows > 0 {
			for _, f := range deviceFindings(d, c, seqs[d.Device]) {
				look(f.kind, d.Cohort, d.Device, f.finding)
			}
		}
	}
	return changes
}

// kindFinding is a finding with the kind of alarm that it may raise.
type kindFinding struct {
	kind AlarmKind
	finding
}

// cohortFindings are all that can be said of a cohort.
func (m *Monitor) cohortFindings(c *CohortScore, seq uint64) [5]kindFinding {
	by := m.cfg.CohortBy
	told, who := c.Verdict == Drift, by+" "+c.Cohort
	return [...]kindFinding{
		{DriftAlarm, driftFinding(c, by, seq)},
		{PredictionAlarm, predictionFinding(c, by, seq)},
		{AccuracyAlarm, accuracyFinding(c, by, seq)},
		missingShares.finding(who, &c.Training, c.Missing, told, seq),
		newShares.finding(who, &c.Training, c.New, told, seq),
	}
}

// deviceFindings are all that can be said of one device. What its whole cohort
// has is no finding of the device.
func deviceFindings(d *DeviceScore, c *CohortScore, seq uint64) [4]kindFinding {
	told, who := d.Training.Apart > 0, "device "+d.Device
	return [...]kindFinding{
		{SensorAlarm, sensorFinding(d, seq)},
		{ApartAlarm, apartFinding(d, seq)},
		missingShares.finding(who, &d.Training, d.Training.Missing > 0 && !c.Missing, told, seq),
		newShares.finding(who, &d.Training, d.Training.New > 0 && !c.New, told, seq),
	}
}

// look steps a subject's hysteresis; a subject that was never bad is not kept.
func (m *Monitor) look(s subject, f *finding, nowMS int64) *Alarm {
	w := m.watches[s]
	if w == nil {
		if f.verdict != bad {
			return nil
		}
		w = &watch{Subject: s}
		m.watches[s] = w
		delete(m.deleted, s.key())
	}
	return w.step(f, &m.cfg, nowMS)
}

// unwatch ends alarms whose subject is not there any more and forgets subjects
// that have been well for long.
func (m *Monitor) unwatch(seen map[subject]bool, nowMS int64) []Alarm {
	var changes []Alarm
	for s, w := range m.watches {
		if !seen[s] {
			if w.raised() != nil {
				changes = append(changes, *w.clear(m.absence(s), nowMS))
			}
			if w.Bad+w.Good > 0 {
				w.Bad, w.Good, w.dirty = 0, 0, true
			}
		}
		if w.stale(nowMS) {
			m.deleted[s.key()] = true
			delete(m.watches, s)
		}
	}
	slices.SortFunc(changes, func(a, b Alarm) int { return cmp.Compare(a.ID, b.ID) })
	return changes
}

// stale tells whether a subject has nothing left worth keeping.
func (w *watch) stale(nowMS int64) bool {
	if w.Bad > 0 || w.raised() != nil {
		return false
	}
	n := len(w.Alarms)
	return n == 0 || nowMS-w.Alarms[n-1].ClearedMS > alarmKeep.Milliseconds()
}

// absence says why a subject is not looked at any more.
func (m *Monitor) absence(s subject) string {
	for name, d := range m.devices {
		if (name == s.Device || s.Device == "" && m.cohort(name) == s.Cohort) && d.state.Current[s.Model].Release == s.Release {
			return NoData
		}
	}
	return Superseded
}

// Alarms returns the raised alarms first, then the cleared ones that are still
// remembered, each newest first; model "" means all.
func (m *Monitor) Alarms(model string) []Alarm {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Alarm
	for s, w := range m.watches {
		if model == "" || s.Model == model {
			out = append(out, w.Alarms...)
		}
	}
	slices.SortFunc(out, func(a, b Alarm) int {
		if a.Raised() != b.Raised() {
			if a.Raised() {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.RaisedMS, a.RaisedMS), cmp.Compare(a.ID, b.ID))
	})
	return out
}
