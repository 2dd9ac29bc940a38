package drift

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// showAll is the largest cohort in which every device is compared with the rest,
// for people to look at. In a larger one only those are whose verdict depends on it.
const showAll = 8

type cohortKey struct {
	release release.Digest
	cohort  string
}

// judged is one cohort's verdicts, good until a member has news or time has
// moved on by a part of the maximum age.
type judged struct {
	members []member
	atMS    int64
	devices []DeviceScore
	cohort  CohortScore
	parts   []part
	reach   uint64 // distinct rows of the cohort, which caps its labels too
}

type member struct {
	device string
	seq    uint64
}

// Evaluate scores everything and returns the alarms raised or cleared by it.
func (m *Monitor) Evaluate(now time.Time) []Alarm {
	m.mu.Lock()
	defer m.mu.Unlock()
	nowMS := now.UnixMilli()
	groups := m.groups()
	scores := map[release.Digest]*Score{}
	seen := map[subject]bool{}
	var changes []Alarm
	for _, key := range sortedKeys(groups) {
		k := m.releases[key.release]
		j := m.judge(key, k, groups[key], nowMS)
		j.cohort.Accuracy = m.accuracy(k.Model, j.sound(groups[key]), j.reach, nowMS)
		j.cohort.Accuracy.explain(j.cohort.Verdict, &j.cohort.Training)
		m.chart(key, j, nowMS)
		s := scores[key.release]
		if s == nil {
			s = &Score{Model: k.Model, Release: key.release, Version: k.Version, AtMS: nowMS}
			scores[key.release] = s
		}
		s.Devices = append(s.Devices, j.devices...)
		s.Cohorts = append(s.Cohorts, j.cohort)
		changes = append(changes, m.watch(k, j, seen, nowMS)...)
	}
	m.scores, m.atMS = sortedScores(scores), nowMS
	m.dropCache(groups)
	return append(changes, m.unwatch(seen, nowMS)...)
}

// groups gathers, by release and cohort, the devices that serve the release now.
func (m *Monitor) groups() map[cohortKey][]*track {
	groups := map[cohortKey][]*track{}
	for _, name := range slices.Sorted(maps.Keys(m.devices)) {
		d := m.devices[name]
		d.forgetVerdicts()
		for _, c := range d.state.Current {
			k, t := m.releases[c.Release], d.tracks[c.Release]
			if k == nil || k.layout == nil || t == nil {
				continue
			}
			key := cohortKey{c.Release, m.cohort(name)}
			groups[key] = append(groups[key], t)
		}
	}
	return groups
}

// forgetVerdicts drops what is kept of releases that the device has left: the
// comparison of a model with many inputs takes more than its counts.
func (d *device) forgetVerdicts() {
	for digest, t := range d.tracks {
		if t.score.Features != nil && d.state.Current[t.state.Model].Release != digest {
			t.score = Comparison{}
		}
	}
}

func sortedKeys(groups map[cohortKey][]*track) []cohortKey {
	return slices.SortedFunc(maps.Keys(groups), func(a, b cohortKey) int {
		return cmp.Or(slices.Compare(a.release[:], b.release[:]), cmp.Compare(a.cohort, b.cohort))
	})
}

func sortedScores(scores map[release.Digest]*Score) []Score {
	out := make([]Score, 0, len(scores))
	for _, s := range scores {
		slices.SortFunc(s.Devices, func(a, b DeviceScore) int { return cmp.Compare(a.Device, b.Device) })
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Score) int {
		return cmp.Or(cmp.Compare(a.Model, b.Model), slices.Compare(a.Release[:], b.Release[:]))
	})
	return out
}

func (m *Monitor) dropCache(groups map[cohortKey][]*track) {
	maps.DeleteFunc(m.cache, func(k cohortKey, _ *judged) bool { return groups[k] == nil })
}

// Scores are those of the newest Evaluate, by model and release; model "" means all.
func (m *Monitor) Scores(model string) []Score {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Score
	for _, s := range m.scores {
		if model == "" || s.Model == model {
			out = append(out, s)
		}
	}
	return out
}

// judge compares one cohort, or returns what it found the last time.
func (m *Monitor) judge(key cohortKey, k *known, tracks []*track, nowMS int64) *judged {
	members := make([]member, len(tracks))
	for i, t := range tracks {
		members[i] = member{t.state.Device, t.state.Seq}
	}
	if j := m.cache[key]; j != nil && slices.Equal(j.members, members) && nowMS-j.atMS < m.cfg.MaxAge.Milliseconds()/16 {
		return j
	}
	for _, t := range tracks {
		t.judge(k, &m.cfg, nowMS-m.cfg.MaxAge.Milliseconds())
	}
	g := newCohort(k.layout, tracks, &m.cfg)
	j := g.judge(key.cohort)
	j.parts = g.parts(m.site)
	for _, t := range tracks {
		t.judged = nil
	}
	j.members, j.atMS = members, nowMS
	m.cache[key] = j
	return j
}

// judge gathers the device's newest evidence and compares it with training,
// unless it has done so.
func (t *track) judge(k *known, cfg *Config, oldest int64) {
	t.judged = recent(t.state.Segments, k.layout, k.need, oldest)
	switch {
	case t.judged == nil:
		t.seq, t.from, t.score = t.state.Seq, 0, Comparison{}
	case t.score.Features == nil || t.seq != t.state.Seq || t.from != t.judged.from:
		t.seq, t.from, t.score = t.state.Seq, t.judged.from, training(k.layout, t.judged, cfg)
		t.leave()
	}
}

// leave notes when the device left training, or that it came back.
func (t *track) leave() {
	switch {
	case t.score.Apart == 0:
		t.apart = 0
	case t.apart == 0:
		t.apart = t.judged.to
	}
}

// group is one cohort while it is judged.
type group struct {
	layout  *layout
	cfg     *Config
	tracks  []*track
	all     *sample // of all members
	judged  int     // members with enough rows
	drifted int     // of them, apart from training
	// Members whose predictions left training, and those with other shares of
	// missing and of new values than training had.
	predicted, missing, unknown int
}

func newCohort(l *layout, tracks []*track, cfg *Config) *group {
	g := &group{layout: l, cfg: cfg, tracks: tracks, all: newSample(l)}
	for _, t := range tracks {
		if t.judged == nil {
			continue
		}
		g.all.join(t.judged)
		g.judged += oneIf(t.enough())
		g.count(&t.score)
	}
	g.all.settle()
	return g
}

func (g *group) count(c *Comparison) {
	g.drifted += oneIf(c.Apart > 0)
	g.predicted += oneIf(c.ApartOn(sketch.Output) > 0)
	g.missing += oneIf(c.Missing > 0)
	g.unknown += oneIf(c.New > 0)
}

func oneIf(found bool) int {
	if found {
		return 1
	}
	return 0
}

// most tells whether that many are more than half of the members judged.
func (g *group) most(members int) bool { return 2*members > g.judged }

// enough tells whether the device can be judged by itself.
func (t *track) enough() bool { return t.score.Enough || t.score.Apart > 0 }

func (g *group) judge(name string) *judged {
	c := CohortScore{
		Cohort: name, Devices: len(g.tracks), Drifted: g.drifted, Verdict: Insufficient, Prediction: Insufficient,
		Rows: g.all.rows, FromMS: g.all.from, ToMS: g.all.to,
	}
	if g.all.rows > 0 {
		c.Training = training(g.layout, g.all, g.cfg)
	}
	if name != "" && g.judged >= 2 {
		c.Verdict, c.Prediction = OK, OK
		if c.Training.Apart > 0 && g.most(g.drifted) {
			c.Verdict = Drift
		}
		if c.Training.ApartOn(sketch.Output) > 0 && g.most(g.predicted) {
			c.Prediction = Drift
		}
		c.Missing = c.Training.Missing > 0 && g.most(g.missing)
		c.New = c.Training.New > 0 && g.most(g.unknown)
	}
	j := &judged{cohort: c, reach: g.all.effective}
	for _, t := range g.tracks {
		j.devices = append(j.devices, g.device(t, &c))
	}
	return j
}

// device is one member's verdict beside the others.
func (g *group) device(t *track, c *CohortScore) DeviceScore {
	d := DeviceScore{Device: t.state.Device, Cohort: c.Cohort, Verdict: Insufficient, Training: t.score}
	if t.judged == nil {
		return d
	}
	d.Rows, d.FromMS, d.ToMS = t.judged.rows, t.judged.from, t.judged.to
	if !t.enough() {
		return d
	}
	apart := t.score.Apart > 0
	fine := false
	if c.Verdict != Insufficient && (apart && c.Verdict != Drift || len(g.tracks) <= showAll) {
		d.Neighbours, fine = g.beside(t)
	}
	switch {
	case !apart:
		d.Verdict = OK
	case c.Verdict == Drift:
		d.Verdict = Drift
	case fine && d.Neighbours != nil && d.Neighbours.Apart > 0:
		d.Verdict = SensorFault
	default:
		d.Verdict = Apart
	}
	return d
}

// chart notes the cohort's PSI of this moment.
func (m *Monitor) chart(key cohortKey, j *judged, nowMS int64) {
	if !j.cohort.Training.Enough {
		return
	}
	c := m.chunk(seriesKey(key), nowMS)
	if c == nil {
		return
	}
	if p := c.point(nowMS, m.cfg.Bucket); p.MaxPSI != j.cohort.Training.MaxPSI {
		p.MaxPSI, c.dirty = j.cohort.Training.MaxPSI, true
	}
}
