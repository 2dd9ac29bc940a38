package retrain

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Memory is what the conditions of one policy have seen so far.
type Memory struct {
	Policy string         `json:"policy"`  // fingerprint of when: another policy begins anew
	LookMS int64          `json:"look_ms"` // last look
	Runs   map[string]Run `json:"runs"`    // by condition and group
	// ScheduledMS is up to when the schedule was looked at.
	ScheduledMS int64 `json:"scheduled_ms,omitempty"`
}

// Run is a condition that holds for a group without a break.
type Run struct {
	StartMS int64 `json:"start_ms"`
	HeldMS  int64 `json:"held_ms"` // for how long it was seen to hold
}

// maxStep is the most that lies between two looks and still counts as held: a
// server that was away longer, or a clock that jumped, does not know what was
// in between.
const maxStep = 15 * time.Minute

// Causes of requests, beside those of alarms.
const (
	CauseDrift      = "drift"
	CausePrediction = "prediction"
	CauseAccuracy   = "accuracy"
	CauseSchedule   = "schedule"
	CauseAsked      = "asked" // by a person
)

// want is a request that a policy asks for.
type want struct {
	id        string
	cause     string
	condition string
	message   string
	subjects  []string           // the runs it is about
	groups    []drift.GroupScore // that hold
}

// situation is all that a decision depends on.
type situation struct {
	policy    *Policy
	memory    Memory
	groups    func(drift.Level) []drift.GroupScore
	asked     map[string]bool // runs that were asked for already, see subjectOf
	openCount int             // requests that nothing has answered
	lastMS    int64           // the newest request
	now       time.Time
}

// decide is pure: the same situation gives the same memory and wish. At most one
// request comes of one look; what had to wait is looked at again.
func decide(s *situation) (Memory, *want) {
	m := s.advance()
	due := s.due(&m)
	w := s.conditionDue(&m)
	if w == nil && due {
		w = s.scheduled(&m)
	}
	if due {
		m.ScheduledMS = s.now.UnixMilli()
	}
	if w != nil && !s.allowed() {
		return m, nil
	}
	return m, w
}

// allowed holds back what comes too soon or is too much.
func (s *situation) allowed() bool {
	return s.now.UnixMilli() >= s.lastMS+cooldown(s.policy).Milliseconds() &&
		(s.policy.MaxOpen == 0 || s.openCount < s.policy.MaxOpen)
}

// fingerprint tells policies apart whose memories do not fit each other.
func fingerprint(p *Policy) string {
	h := sha256.New()
	for i := range p.When {
		fmt.Fprintf(h, "%s\n", mustJSON(&p.When[i]))
	}
	fmt.Fprintf(h, "%s", mustJSON(p.Schedule))
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// advance makes the memory of this look.
func (s *situation) advance() Memory {
	m := Memory{Policy: fingerprint(s.policy), LookMS: s.now.UnixMilli(), Runs: map[string]Run{}, ScheduledMS: s.memory.ScheduledMS}
	before := s.memory.Runs
	if s.memory.Policy != m.Policy {
		before, m.ScheduledMS = nil, 0
	}
	step := min(max(m.LookMS-s.memory.LookMS, 0), maxStep.Milliseconds())
	for i := range s.policy.When {
		c := &s.policy.When[i]
		for _, g := range s.groups(levelOf(c)) {
			key := runKey(c, &g)
			run, going := before[key]
			switch state := holds(c, &g); {
			case state == yes && going:
				m.Runs[key] = Run{run.StartMS, run.HeldMS + step}
			case state == yes:
				m.Runs[key] = Run{StartMS: m.LookMS}
			case state == unclear && going:
				m.Runs[key] = run // neither confirmed nor refuted
			}
		}
	}
	return m
}

// runKey names a condition in a group.
func runKey(c *operator.RetrainWhen, g *drift.GroupScore) string {
	id := ""
	if g.Release != (release.Digest{}) {
		id = g.Release.Short()
	}
	return strings.Join([]string{c.Name, string(g.Level), g.Name, id}, "/")
}

// subjectOf names one run for ever, so that it asks once.
func subjectOf(key string, r Run) string { return key + "@" + strconv.FormatInt(r.StartMS, 10) }

// conditionDue is the first condition that has held long enough and was not
// asked for.
func (s *situation) conditionDue(m *Memory) *want {
	for i := range s.policy.When {
		c := &s.policy.When[i]
		w := want{condition: c.Name, cause: causeOf(c)}
		fresh := false
		for _, g := range s.groups(levelOf(c)) {
			key := runKey(c, &g)
			run, going := m.Runs[key]
			if !going || run.HeldMS < time.Duration(c.For).Milliseconds() || holds(c, &g) != yes {
				continue
			}
			subject := subjectOf(key, run)
			fresh = fresh || !s.asked[subject]
			w.subjects, w.groups = append(w.subjects, subject), append(w.groups, g)
		}
		if fresh && len(w.groups) >= max(1, c.Groups) {
			w.message = describe(c, w.groups)
			w.id = s.idOf(w.subjects)
			return &w
		}
	}
	return nil
}

// idOf follows from what was not asked for before: a request that was stored
// without an answer is the same when it is decided again.
func (s *situation) idOf(subjects []string) string {
	fresh := slices.DeleteFunc(slices.Clone(subjects), func(one string) bool { return s.asked[one] })
	slices.Sort(fresh)
	return eventID(s.policy.Model, fresh...)
}

func eventID(model string, parts ...string) string {
	h := sha256.Sum256([]byte(model + "\x00" + strings.Join(parts, "\x00")))
	return requestID(hex.EncodeToString(h[:8]))
}

func causeOf(c *operator.RetrainWhen) string {
	switch {
	case c.Prediction != nil:
		return CausePrediction
	case c.Accuracy != nil:
		return CauseAccuracy
	}
	return CauseDrift
}

// answer is what a group says to a condition.
type answer int

const (
	unclear answer = iota // too little evidence
	no
	yes
)

func holds(c *operator.RetrainWhen, g *drift.GroupScore) answer {
	switch {
	case c.Accuracy != nil:
		return accuracyHolds(c.Accuracy, &g.Accuracy)
	case c.Prediction != nil:
		return driftHolds(c, c.Prediction, g, "output", g.Prediction)
	}
	return driftHolds(c, c.Drift, g, "input", g.Verdict)
}

func accuracyHolds(c *operator.AccuracyWhen, a *drift.AccuracyScore) answer {
	point := c.Proof == ProofPoint
	need := cmp.Or(c.Labels, 1)
	if point {
		need = cmp.Or(c.Labels, pointLabels)
	}
	switch {
	case a.Labels < need:
		return unclear
	case point && a.Accuracy < c.Below, !point && a.Upper < c.Below:
		return yes
	case !point && a.Accuracy < c.Below:
		return unclear // below, and not yet proven
	}
	return no
}

func driftHolds(c *operator.RetrainWhen, d *operator.DriftWhen, g *drift.GroupScore, side string, verdict drift.Verdict) answer {
	if verdict == drift.Insufficient || verdict == "" {
		return unclear
	}
	if !enoughDevices(c, g) {
		return no
	}
	if d.Above == 0 {
		if verdict == drift.Drift {
			return yes
		}
		return no
	}
	far := 0
	for i := range g.Training.Features {
		f := &g.Training.Features[i]
		if f.Side == side && f.Enough && (len(d.Of) == 0 || slices.Contains(d.Of, f.Name)) && beyond(d, f) {
			far++
		}
	}
	if far >= max(1, d.Features) {
		return yes
	}
	return no
}

// beyond tells whether one feature is further than the condition allows, and
// further than chance explains.
func beyond(d *operator.DriftWhen, f *drift.FeatureScore) bool {
	value := f.PSI
	if d.Measure == MeasureJS {
		value = f.JS
	}
	return value > d.Above && f.PSI > f.Noise
}

func enoughDevices(c *operator.RetrainWhen, g *drift.GroupScore) bool {
	return g.Drifted >= c.Devices && (c.Share == 0 || g.Devices > 0 && float64(g.Drifted) >= c.Share*float64(g.Devices))
}

// due tells whether a time of the schedule has come. The first look only
// remembers the time, and of times that were missed together one counts.
func (s *situation) due(m *Memory) bool {
	if s.policy.Schedule == nil {
		m.ScheduledMS = 0
		return false
	}
	if m.ScheduledMS == 0 {
		m.ScheduledMS = s.now.UnixMilli()
		return false
	}
	next := nextTime(s.policy.Schedule, time.UnixMilli(m.ScheduledMS))
	return !next.IsZero() && !next.After(s.now)
}

// scheduled is the request of a time that has come. What the cohorts show goes
// with it.
func (s *situation) scheduled(m *Memory) *want {
	at := nextTime(s.policy.Schedule, time.UnixMilli(m.ScheduledMS))
	return &want{
		id: eventID(s.policy.Model, CauseSchedule, at.Format(time.RFC3339)), cause: CauseSchedule, condition: CauseSchedule,
		message: "asked for by schedule: " + s.policy.Schedule.Cron + " " + cmp.Or(s.policy.Schedule.TimeZone, "UTC"),
		groups:  s.groups(drift.LevelCohort),
	}
}

// spanText is a duration without units of which there are none: 1h, not 1h0m0s.
func spanText(d time.Duration) string {
	s := d.String()
	if d%time.Minute == 0 {
		s = strings.TrimSuffix(s, "0s")
	}
	if d%time.Hour == 0 {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// describe says for people what holds.
func describe(c *operator.RetrainWhen, groups []drift.GroupScore) string {
	names := map[string]bool{}
	for i := range groups {
		names[cmp.Or(groups[i].Name, string(groups[i].Level))] = true
	}
	where := strings.Join(slices.Sorted(maps.Keys(names)), ", ")
	g := &groups[0]
	lasted := ""
	if c.For > 0 {
		lasted = " for " + spanText(time.Duration(c.For))
	}
	if a := &g.Accuracy; c.Accuracy != nil {
		return fmt.Sprintf("accuracy of %s was below %v%s: %.3f (%.3f to %.3f over %d labels)", where, c.Accuracy.Below, lasted, a.Accuracy, a.Lower, a.Upper, a.Labels)
	}
	what := "inputs"
	if c.Prediction != nil {
		what = "predictions"
	}
	text := fmt.Sprintf("%s of %s are away from training%s", what, where, lasted)
	if f := g.Training.Furthest(1); len(f) > 0 {
		text += fmt.Sprintf(": %d of %d devices, the furthest %s with PSI %.2f (noise %.2f)", g.Drifted, g.Devices, f[0].Name, f[0].PSI, f[0].Noise)
	}
	return text
}
