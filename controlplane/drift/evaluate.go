package drift

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// In a cohort of up to showAll devices every one is compared with the rest, for
// people to look at; in a larger one only those that left training are, whose
// verdict depends on it. Beyond smallCohort the rest is the whole cohort less the
// device, with the cohort's distinct rows: gathering it anew for each would be
// quadratic.
const (
	showAll     = 8
	smallCohort = 32
)

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
		j.cohort.Accuracy = m.accuracy(k.Model, j, groups[key], nowMS)
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
	m.scores = sortedScores(scores)
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
	j := newCohort(k.layout, tracks, &m.cfg).judge(key.cohort)
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
}

func newCohort(l *layout, tracks []*track, cfg *Config) *group {
	g := &group{layout: l, cfg: cfg, tracks: tracks, all: newSample(l)}
	for _, t := range tracks {
		if t.judged == nil {
			continue
		}
		g.all.join(t.judged)
		if t.enough() {
			g.judged++
		}
		if t.score.Apart > 0 {
			g.drifted++
		}
	}
	g.all.settle()
	return g
}

// enough tells whether the device can be judged by itself.
func (t *track) enough() bool { return t.score.Enough || t.score.Apart > 0 }

func (g *group) judge(name string) *judged {
	c := CohortScore{
		Cohort: name, Devices: len(g.tracks), Drifted: g.drifted, Verdict: Insufficient,
		Rows: g.all.rows, FromMS: g.all.from, ToMS: g.all.to,
	}
	if g.all.rows > 0 {
		c.Training = training(g.layout, g.all, g.cfg)
	}
	if name != "" && g.judged >= 2 {
		c.Verdict = OK
		if c.Training.Apart > 0 && 2*g.drifted > g.judged {
			c.Verdict = Drift
		}
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
	if c.Verdict != Insufficient && (apart || len(g.tracks) <= showAll) {
		var others *sample
		if others, fine = g.others(t); others != nil {
			n := compare(g.layout, others, t.judged, g.cfg)
			d.Neighbours = &n
		}
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

// others is the cohort without one member, and whether it is fine: fewer than
// half of it left training, so that one faulty neighbour excuses nobody. Members
// whose evidence is older than the device's say nothing about its time; others
// is nil when that leaves none.
func (g *group) others(t *track) (others *sample, fine bool) {
	if len(g.tracks) > smallCohort {
		return g.rest(t), 2*(g.drifted-1) < g.judged-1
	}
	x, enough, drifted := newSample(g.layout), 0, 0
	for _, o := range g.tracks {
		if o == t || o.judged == nil || o.judged.to < t.judged.from || !o.enough() {
			continue
		}
		x.join(o.judged)
		enough++
		if o.score.Apart > 0 {
			drifted++
		}
	}
	if enough == 0 {
		return nil, false
	}
	return x.settle(), 2*drifted < enough
}

// rest is a large cohort without one member, by subtraction.
func (g *group) rest(t *track) *sample {
	x := newSample(g.layout)
	addTo(x.in, g.all.in)
	addTo(x.out, g.all.out)
	x.span(g.all.rows-t.judged.rows, g.all.from, g.all.to)
	subtract(x.in, t.judged.in)
	subtract(x.out, t.judged.out)
	x.effective = min(x.rows, g.all.effective)
	return x
}

func subtract(dst, src []uint64) {
	for i, n := range src {
		dst[i] -= n
	}
}

// minBlockLabels is how many labels a new block needs before it is looked at
// instead of the one before.
const minBlockLabels = 20

// block sums the labels of the newest block of time that has enough of them, or
// of the one before it. Blocks are fixed spans: a confidence sequence holds for
// every look at one, but not for a span that slides. A device with a sensor
// fault is left out: what it gets wrong says nothing of the model.
func (m *Monitor) block(j *judged, tracks []*track, nowMS int64) (labels, correct uint64) {
	length := m.cfg.Block.Milliseconds()
	start := nowMS - nowMS%length
	for range 2 {
		var l, c uint64
		for i, t := range tracks {
			if j.devices[i].Verdict != SensorFault {
				n, k := t.state.labels(start, start+length)
				l, c = l+n, c+k
			}
		}
		if labels == 0 || l >= minBlockLabels {
			labels, correct = l, c
		}
		if labels >= minBlockLabels {
			break
		}
		start -= length
	}
	return labels, correct
}

// labels sums the spans that lie between two moments.
func (s *trackState) labels(from, to int64) (matched, correct uint64) {
	for _, x := range s.Labels {
		if x.Start >= from && x.End < to {
			matched += x.Matched
			correct += x.Correct
		}
	}
	return matched, correct
}

// accuracy holds the labels of the newest block against the model's floor.
// Labels of repeated rows tell nothing new either.
func (m *Monitor) accuracy(model string, j *judged, tracks []*track, nowMS int64) AccuracyScore {
	labels, correct := m.block(j, tracks, nowMS)
	a := AccuracyScore{Labels: labels, Correct: correct, Upper: 1, Floor: m.floors[model], Verdict: Insufficient}
	if labels == 0 {
		return a
	}
	a.Accuracy = float64(correct) / float64(labels)
	n := float64(labels)
	if j.reach > 0 {
		n = min(n, float64(j.reach))
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
