package drift

import (
	"cmp"
	"slices"

	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Level is how many devices are looked at together.
type Level string

// Levels, from the narrowest. Alarms are about devices and cohorts alone: the
// others show the same evidence added up, and would tell of the same cause twice.
const (
	LevelDevice  Level = "device"
	LevelCohort  Level = "cohort"  // devices of one version that share the label that makes cohorts
	LevelSite    Level = "site"    // devices of one version with one label "site"
	LevelVersion Level = "version" // all devices of one version
	LevelFleet   Level = "fleet"   // all versions of a model, each against training of its own
)

// Levels are all of them, from the narrowest.
func Levels() []Level {
	return []Level{LevelDevice, LevelCohort, LevelSite, LevelVersion, LevelFleet}
}

// GroupScore is the devices of one group at a level, as of the newest Evaluate.
// What a device with a sensor fault got wrong is in no accuracy but its own.
type GroupScore struct {
	Level       Level          `json:"level"`
	Name        string         `json:"name"`              // of the device, cohort, site or version; "" for the fleet, and for devices without the label
	Release     release.Digest `json:"release,omitzero"`  // zero for the fleet
	Version     string         `json:"version,omitempty"` // of the release
	Verdict     Verdict        `json:"verdict"`           // apart: the sum is, but not most of the devices
	Prediction  Verdict        `json:"prediction"`        // of the outputs alone
	Devices     int            `json:"devices"`
	Drifted     int            `json:"drifted"` // devices that are themselves apart from training
	Rows        uint64         `json:"rows"`
	FromMS      int64          `json:"from_ms"`
	ToMS        int64          `json:"to_ms"`
	Training    Comparison     `json:"training"`
	Accuracy    AccuracyScore  `json:"accuracy"`
	Calibration Calibration    `json:"calibration"` // of labels within the maximum age
}

// gathering is a group before it is scored.
type gathering struct {
	name   string
	known  *known
	parts  []*part
	tracks []*track // of devices without a sensor fault
}

// Groups scores a model's groups at a level, by version, newest first, and
// name. A level that there is none of has no groups.
func (m *Monitor) Groups(model string, by Level) []GroupScore {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.level(model, by)
}

func (m *Monitor) level(model string, by Level) (out []GroupScore) {
	switch by {
	case LevelDevice:
		out = m.deviceGroups(model)
	case LevelCohort, LevelSite, LevelVersion:
		for _, x := range m.gather(model, by) {
			out = append(out, m.score(x, by))
		}
	case LevelFleet:
		out = m.fleet(model)
	}
	order := func(g *GroupScore) uint64 {
		if k := m.releases[g.Release]; k != nil {
			return k.Sequence
		}
		return 0
	}
	slices.SortFunc(out, func(a, b GroupScore) int {
		return cmp.Or(cmp.Compare(order(&b), order(&a)), slices.Compare(a.Release[:], b.Release[:]), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// judgements are the cohorts of a model as they were judged last, with their
// tracks.
func (m *Monitor) judgements(model string, visit func(k *known, key cohortKey, j *judged, tracks []*track)) {
	groups := m.groups()
	for _, key := range sortedKeys(groups) {
		k, j := m.releases[key.release], m.cache[key]
		if j != nil && k.Model == model && len(j.devices) == len(groups[key]) {
			visit(k, key, j, groups[key])
		}
	}
}

func (m *Monitor) deviceGroups(model string) (out []GroupScore) {
	m.judgements(model, func(k *known, _ cohortKey, j *judged, tracks []*track) {
		for i := range j.devices {
			out = append(out, m.deviceGroup(k, &j.devices[i], tracks[i]))
		}
	})
	return out
}

func (m *Monitor) deviceGroup(k *known, d *DeviceScore, t *track) GroupScore {
	g := GroupScore{
		Level: LevelDevice, Name: d.Device, Release: k.Digest, Version: k.Version, Verdict: d.Verdict, Devices: 1,
		Rows: d.Rows, FromMS: d.FromMS, ToMS: d.ToMS, Training: d.Training,
	}
	g.Drifted = oneIf(d.Training.Apart > 0)
	g.Prediction = outputsOf(&d.Training)
	m.learn(&g, k.Model, []*track{t}, d.Training.M)
	return g
}

// outputsOf is the verdict on the predictions of one comparison.
func outputsOf(c *Comparison) Verdict {
	switch {
	case c.ApartOn(sketch.Output) > 0:
		return Drift
	case c.Enough:
		return OK
	default:
		return Insufficient
	}
}

// learn adds what labels said.
func (m *Monitor) learn(g *GroupScore, model string, tracks []*track, reach uint64) {
	g.Accuracy = m.accuracy(model, tracks, reach, m.atMS)
	g.Accuracy.explain(g.Verdict, &g.Training)
	g.Calibration = calibrationSince(tracks, m.atMS-m.cfg.MaxAge.Milliseconds(), reach)
}

// gather collects the groups of a model at a level between device and fleet.
func (m *Monitor) gather(model string, by Level) []*gathering {
	type key struct {
		release release.Digest
		name    string
	}
	at := map[key]*gathering{}
	of := func(k *known, name string) *gathering {
		x := at[key{k.Digest, name}]
		if x == nil {
			x = &gathering{name: name, known: k}
			at[key{k.Digest, name}] = x
		}
		return x
	}
	m.judgements(model, func(k *known, c cohortKey, j *judged, tracks []*track) {
		name := map[Level]func(site string) string{
			LevelCohort:  func(string) string { return c.cohort },
			LevelSite:    func(site string) string { return site },
			LevelVersion: func(string) string { return k.Version },
		}[by]
		for i := range j.parts {
			x := of(k, name(j.parts[i].site))
			x.parts = append(x.parts, &j.parts[i])
		}
		for _, t := range j.sound(tracks) {
			x := of(k, name(m.site(t.state.Device)))
			x.tracks = append(x.tracks, t)
		}
	})
	out := make([]*gathering, 0, len(at))
	for _, x := range at {
		out = append(out, x)
	}
	return out
}

// sample adds the parts up.
func (x *gathering) sample() *sample {
	all := newSample(x.known.layout)
	for _, p := range x.parts {
		if p.rows.Rows > 0 {
			all.add(&p.rows)
		}
	}
	return all.settle()
}

func (m *Monitor) score(x *gathering, by Level) GroupScore {
	all := x.sample()
	g := GroupScore{
		Level: by, Name: x.name, Release: x.known.Digest, Version: x.known.Version, Rows: all.rows, FromMS: all.from, ToMS: all.to,
	}
	if all.rows > 0 {
		g.Training = training(x.known.layout, all, &m.cfg)
	}
	var judged, predicted int
	for _, p := range x.parts {
		g.Devices += p.devices
		g.Drifted += p.drifted
		judged += p.judged
		predicted += p.predicted
	}
	if by == LevelCohort && (judged < 2 || x.name == "") {
		judged = 0 // as Evaluate has it: nobody to tell a sensor from the world by
	}
	g.Verdict = verdictOf(by, judged, g.Training.Apart, g.Drifted)
	g.Prediction = verdictOf(by, judged, g.Training.ApartOn(sketch.Output), predicted)
	m.learn(&g, x.known.Model, x.tracks, all.effective)
	return g
}

// verdictOf is drift when the sum is apart and so are most of the devices. A
// cohort or a site of which a few are is fine; a version or the fleet may have a
// site among those few, and is apart.
func verdictOf(by Level, judged, apart, drifted int) Verdict {
	switch {
	case judged == 0:
		return Insufficient
	case apart == 0:
		return OK
	case 2*drifted > judged:
		return Drift
	case by == LevelCohort || by == LevelSite:
		return OK
	default:
		return Apart
	}
}

// fleet combines the versions of a model. Each is held against training of its
// own, so what is added up is how far they are, not what they counted.
func (m *Monitor) fleet(model string) []GroupScore {
	g := GroupScore{Level: LevelFleet, Verdict: Insufficient, Prediction: Insufficient}
	var cs []Comparison
	var tracks []*track
	var drifting, predicting, judged int
	for _, x := range m.gather(model, LevelVersion) {
		v := m.score(x, LevelVersion)
		cs, tracks = append(cs, v.Training), append(tracks, x.tracks...)
		g.Devices += v.Devices
		g.Drifted += v.Drifted
		g.Rows += v.Rows
		if g.FromMS == 0 || v.FromMS > 0 && v.FromMS < g.FromMS {
			g.FromMS = v.FromMS
		}
		g.ToMS = max(g.ToMS, v.ToMS)
		for _, p := range x.parts {
			judged += p.judged
			drifting += p.drifted
			predicting += p.predicted
		}
	}
	if len(cs) == 0 {
		return nil
	}
	g.Training = divergence.Combine(cs, m.cfg.limits())
	g.Verdict = verdictOf(LevelFleet, judged, g.Training.Apart, drifting)
	g.Prediction = verdictOf(LevelFleet, judged, g.Training.ApartOn(sketch.Output), predicting)
	m.learn(&g, model, tracks, g.Training.M)
	return []GroupScore{g}
}
