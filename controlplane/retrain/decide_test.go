package retrain

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// group is a cohort of eight devices with one input and one output.
func group(name string, psi float64, drifted int) drift.GroupScore {
	v := drift.OK
	if psi > 0.2 {
		v = drift.Drift
	}
	return drift.GroupScore{
		Level: drift.LevelCohort, Name: name, Release: release.Digest{1}, Version: "1", Verdict: v, Prediction: drift.OK, Devices: 8, Drifted: drifted,
		Rows: 4000, FromMS: noon.Add(-time.Hour).UnixMilli(), ToMS: noon.UnixMilli(),
		Training: drift.Comparison{MaxPSI: psi, Features: []drift.FeatureScore{
			{Name: "p00", Side: "input", PSI: psi, JS: psi / 3, Noise: 0.05, Enough: true},
			{Name: "p01", Side: "input", PSI: psi / 2, JS: psi / 6, Noise: 0.05, Enough: true},
			{Name: "label", Side: "output", PSI: psi / 4, Noise: 0.05, Enough: true},
		}},
		Accuracy: drift.AccuracyScore{Labels: 200, Accuracy: 0.85, Lower: 0.78, Upper: 0.91},
	}
}

// looker decides again and again, as Trigger does but without a store.
type looker struct {
	policy Policy
	memory Memory
	asked  map[string]bool
	lastMS int64
	open   int
	ids    []string
}

func (l *looker) look(at time.Time, groups ...drift.GroupScore) *want {
	s := &situation{
		policy: &l.policy, memory: l.memory, asked: l.asked, openCount: l.open, lastMS: l.lastMS, now: at,
		groups: func(by drift.Level) (out []drift.GroupScore) {
			for _, g := range groups {
				if g.Level == by {
					out = append(out, g)
				}
			}
			return out
		},
	}
	m, w := decide(s)
	l.memory = m
	if w != nil {
		l.ids = append(l.ids, w.id)
		l.lastMS, l.open = at.UnixMilli(), l.open+1
		for _, one := range w.subjects {
			l.asked[one] = true
		}
	}
	return w
}

func newLooker(p Policy) *looker {
	p.Model = "digits"
	if p.Cooldown == 0 {
		p.Cooldown = release.Duration(time.Millisecond)
	}
	return &looker{policy: p, asked: map[string]bool{}, lastMS: -1 << 62}
}

func drifts(above float64, lasts time.Duration) operator.RetrainWhen {
	return operator.RetrainWhen{Name: "moved", Drift: &operator.DriftWhen{Above: above}, For: release.Duration(lasts)}
}

func TestConditions(t *testing.T) {
	few, none := group("b", 0.5, 1), group("b", 0.5, 8)
	none.Verdict = drift.Insufficient
	predicts := group("b", 0.1, 0)
	predicts.Prediction, predicts.Training.Features[2].PSI = drift.Drift, 0.6
	noisy := group("b", 0.5, 8)
	noisy.Training.Features[0].Noise = 0.7
	small := group("b", 0.1, 0)
	small.Accuracy.Labels = 50
	fleet := group("", 0.5, 8)
	fleet.Level, fleet.Release = drift.LevelFleet, release.Digest{}
	when := func(w operator.RetrainWhen) Policy {
		w.Name = "c"
		return Policy{When: []operator.RetrainWhen{w}}
	}
	moved := &operator.DriftWhen{Above: 0.3}
	for name, c := range map[string]struct {
		when operator.RetrainWhen
		seen []drift.GroupScore
		asks bool
	}{
		"above":                      {operator.RetrainWhen{Drift: moved}, []drift.GroupScore{group("b", 0.5, 8)}, true},
		"not above":                  {operator.RetrainWhen{Drift: moved}, []drift.GroupScore{group("b", 0.25, 8)}, false},
		"the monitor's verdict":      {operator.RetrainWhen{Drift: &operator.DriftWhen{}}, []drift.GroupScore{group("b", 0.25, 8)}, true},
		"within the noise":           {operator.RetrainWhen{Drift: moved}, []drift.GroupScore{noisy}, false},
		"too little evidence":        {operator.RetrainWhen{Drift: moved}, []drift.GroupScore{none}, false},
		"two features":               {operator.RetrainWhen{Drift: &operator.DriftWhen{Above: 0.2, Features: 2}}, []drift.GroupScore{group("b", 0.5, 8)}, true},
		"three features":             {operator.RetrainWhen{Drift: &operator.DriftWhen{Above: 0.2, Features: 3}}, []drift.GroupScore{group("b", 0.5, 8)}, false},
		"another feature":            {operator.RetrainWhen{Drift: &operator.DriftWhen{Above: 0.3, Of: []string{"p01"}}}, []drift.GroupScore{group("b", 0.5, 8)}, false},
		"by Jensen–Shannon":          {operator.RetrainWhen{Drift: &operator.DriftWhen{Above: 0.2, Measure: MeasureJS}}, []drift.GroupScore{group("b", 0.7, 8)}, true},
		"not by Jensen–Shannon":      {operator.RetrainWhen{Drift: &operator.DriftWhen{Above: 0.2, Measure: MeasureJS}}, []drift.GroupScore{group("b", 0.5, 8)}, false},
		"few devices":                {operator.RetrainWhen{Drift: moved, Devices: 2}, []drift.GroupScore{few}, false},
		"enough devices":             {operator.RetrainWhen{Drift: moved, Devices: 2}, []drift.GroupScore{group("b", 0.5, 2)}, true},
		"a small share":              {operator.RetrainWhen{Drift: moved, Share: 0.5}, []drift.GroupScore{group("b", 0.5, 3)}, false},
		"half of them":               {operator.RetrainWhen{Drift: moved, Share: 0.5}, []drift.GroupScore{group("b", 0.5, 4)}, true},
		"one cohort of two":          {operator.RetrainWhen{Drift: moved, Groups: 2}, []drift.GroupScore{group("a", 0.1, 0), group("b", 0.5, 8)}, false},
		"two cohorts":                {operator.RetrainWhen{Drift: moved, Groups: 2}, []drift.GroupScore{group("a", 0.5, 8), group("b", 0.5, 8)}, true},
		"predictions":                {operator.RetrainWhen{Prediction: &operator.DriftWhen{}}, []drift.GroupScore{predicts}, true},
		"predictions above":          {operator.RetrainWhen{Prediction: &operator.DriftWhen{Above: 0.5}}, []drift.GroupScore{predicts}, true},
		"inputs are no predictions":  {operator.RetrainWhen{Prediction: &operator.DriftWhen{}}, []drift.GroupScore{group("b", 0.5, 8)}, false},
		"of the fleet":               {operator.RetrainWhen{Drift: moved, Level: operator.LevelFleet}, []drift.GroupScore{fleet}, true},
		"cohorts are not the fleet":  {operator.RetrainWhen{Drift: moved, Level: operator.LevelFleet}, []drift.GroupScore{group("b", 0.5, 8)}, false},
		"proven below":               {operator.RetrainWhen{Accuracy: &operator.AccuracyWhen{Below: 0.95}}, []drift.GroupScore{group("b", 0.1, 0)}, true},
		"below, not proven":          {operator.RetrainWhen{Accuracy: &operator.AccuracyWhen{Below: 0.9}}, []drift.GroupScore{group("b", 0.1, 0)}, false},
		"the estimate is below":      {operator.RetrainWhen{Accuracy: &operator.AccuracyWhen{Below: 0.9, Proof: ProofPoint}}, []drift.GroupScore{group("b", 0.1, 0)}, true},
		"an estimate of few labels":  {operator.RetrainWhen{Accuracy: &operator.AccuracyWhen{Below: 0.9, Proof: ProofPoint}}, []drift.GroupScore{small}, false},
		"few labels, as asked":       {operator.RetrainWhen{Accuracy: &operator.AccuracyWhen{Below: 0.9, Proof: ProofPoint, Labels: 50}}, []drift.GroupScore{small}, true},
		"proven, and too few labels": {operator.RetrainWhen{Accuracy: &operator.AccuracyWhen{Below: 0.95, Labels: 300}}, []drift.GroupScore{group("b", 0.1, 0)}, false},
	} {
		p := when(c.when)
		p.Model = "digits"
		if err := checkConditions(p.When); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if w := newLooker(p).look(noon, c.seen...); (w != nil) != c.asks {
			t.Errorf("%s: got %+v, want it to ask: %v", name, w, c.asks)
		}
	}
}

func TestForWithoutABreak(t *testing.T) {
	l := newLooker(Policy{When: []operator.RetrainWhen{drifts(0.3, 30*time.Minute)}})
	bad, good, dark := group("b", 0.5, 8), group("b", 0.1, 0), group("b", 0.5, 8)
	dark.Verdict = drift.Insufficient
	at := noon
	every := func(d time.Duration, n int, g drift.GroupScore) (asked int) {
		for range n {
			at = at.Add(d)
			if l.look(at, g) != nil {
				asked++
			}
		}
		return asked
	}
	if n := every(5*time.Minute, 6, bad); n != 0 {
		t.Errorf("after 25 minutes: asked %d times", n)
	}
	every(5*time.Minute, 1, good) // it flaps
	if n := every(5*time.Minute, 6, bad); n != 0 {
		t.Errorf("25 minutes after a break: asked %d times", n)
	}
	if n := every(time.Hour, 5, dark); n != 0 {
		t.Errorf("hours without evidence: asked %d times", n)
	}
	if n := every(5*time.Minute, 2, bad); n != 1 {
		t.Errorf("30 minutes seen: asked %d times, want 1", n)
	}
	if n := every(5*time.Minute, 100, bad); n != 0 {
		t.Errorf("the same finding: asked %d times again", n)
	}
	every(5*time.Minute, 1, good)
	if n := every(5*time.Minute, 100, bad); n != 1 {
		t.Errorf("it came back: asked %d times, want 1", n)
	}
	other := bad
	other.Release = release.Digest{2} // rolled out, and drifts as well
	if n := every(5*time.Minute, 100, other); n != 1 || len(l.ids) != 3 || l.ids[0] == l.ids[1] || l.ids[1] == l.ids[2] {
		t.Errorf("another release: asked %d times, ids %v", n, l.ids)
	}
}

func TestClockJumpsAndRestarts(t *testing.T) {
	bad := group("b", 0.5, 8)
	policy := Policy{When: []operator.RetrainWhen{drifts(0.3, time.Hour)}}
	l := newLooker(policy)
	l.look(noon, bad)
	if l.look(noon.Add(1000*time.Hour), bad) != nil {
		t.Error("a jump forward counted as held")
	}
	if l.look(noon, bad) != nil || l.look(noon.Add(-time.Hour), bad) != nil {
		t.Error("a jump back asked")
	}
	at := noon
	for range 3 { // 15 minutes were counted at the jump
		at = at.Add(15 * time.Minute)
		if l.look(at, bad) != nil && !at.Equal(noon.Add(45*time.Minute)) {
			t.Errorf("asked at %v", at)
		}
	}
	if len(l.ids) != 1 {
		t.Errorf("asked %d times after an hour that was seen, want once", len(l.ids))
	}
	// A restart in the middle goes on where it was; another policy begins anew.
	l = newLooker(policy)
	for i := range 4 {
		l.look(noon.Add(time.Duration(i)*15*time.Minute), bad)
	}
	again := newLooker(policy)
	again.memory = l.memory
	if again.look(noon.Add(time.Hour), bad) == nil {
		t.Error("after a restart: an hour was seen, and it did not ask")
	}
	edited := newLooker(Policy{When: []operator.RetrainWhen{drifts(0.31, time.Hour)}})
	edited.memory = l.memory
	if edited.look(noon.Add(time.Hour), bad) != nil {
		t.Error("another condition took the time over")
	}
}

func TestCooldownAndLimit(t *testing.T) {
	l := newLooker(Policy{When: []operator.RetrainWhen{drifts(0.3, 0)}, Cooldown: release.Duration(time.Hour), MaxOpen: 2})
	a, b, c := group("a", 0.5, 8), group("b", 0.5, 8), group("c", 0.5, 8)
	if l.look(noon, a) == nil || l.look(noon.Add(30*time.Minute), a, b) != nil {
		t.Error("asked within the cooldown")
	}
	if w := l.look(noon.Add(time.Hour), a, b); w == nil || len(w.groups) != 2 {
		t.Errorf("b still stands after the cooldown: got %+v", w)
	}
	if l.look(noon.Add(5*time.Hour), a, b, c) != nil {
		t.Error("asked beyond the limit")
	}
	l.open = 1 // one was answered
	if l.look(noon.Add(6*time.Hour), a, b, c) == nil {
		t.Error("did not ask when there was room")
	}
}

func TestSchedule(t *testing.T) {
	for name, c := range map[string]struct {
		schedule operator.RetrainSchedule
		from     string
		step     time.Duration
		looks    int
		want     []string // times asked at, UTC
	}{
		"weekly": {
			operator.RetrainSchedule{Cron: "0 3 * * 1"},
			"2026-03-01T00:00:00Z", 5 * time.Minute, 15 * 24 * 12,
			[]string{"2026-03-02T03:00", "2026-03-09T03:00"},
		},
		"in a zone": {
			operator.RetrainSchedule{Cron: "0 3 * * *", TimeZone: "Europe/Berlin"},
			"2026-03-28T00:00:00Z", 5 * time.Minute, 3 * 24 * 12,
			[]string{"2026-03-28T02:00", "2026-03-29T01:00", "2026-03-30T01:00"},
		},
		"an hour that is left out": {
			operator.RetrainSchedule{Cron: "30 2 * * *", TimeZone: "Europe/Berlin"},
			"2026-03-28T12:00:00Z", 5 * time.Minute, 2 * 24 * 12,
			[]string{"2026-03-29T01:30", "2026-03-30T00:30"},
		},
		"an hour that comes twice": {
			operator.RetrainSchedule{Cron: "30 2 * * *", TimeZone: "Europe/Berlin"},
			"2026-10-24T12:00:00Z", 5 * time.Minute, 2 * 24 * 12,
			[]string{"2026-10-25T00:30", "2026-10-26T01:30"},
		},
		"a server that was away": {
			operator.RetrainSchedule{Cron: "0 3 * * *"},
			"2026-03-01T00:00:00Z", 5 * 24 * time.Hour, 2,
			[]string{"2026-03-06T00:00"},
		},
	} {
		l := newLooker(Policy{Schedule: &c.schedule})
		from, err := time.Parse(time.RFC3339, c.from)
		if err != nil || checkSchedule(&c.schedule) != nil {
			t.Fatal(name, err, checkSchedule(&c.schedule))
		}
		var got []string
		for i := range c.looks {
			at := from.Add(time.Duration(i) * c.step)
			if w := l.look(at, group("b", 0.1, 0)); w != nil {
				got = append(got, at.Format("2006-01-02T15:04"))
				if w.cause != CauseSchedule || len(w.groups) != 1 {
					t.Errorf("%s: got %+v", name, w)
				}
			}
		}
		if strings.Join(got, " ") != strings.Join(c.want, " ") {
			t.Errorf("%s: asked at %v, want %v", name, got, c.want)
		}
	}
	l := newLooker(Policy{Schedule: &operator.RetrainSchedule{Cron: "0 * * * *"}, Cooldown: release.Duration(150 * time.Minute)})
	for i := range 10 * 60 {
		l.look(noon.Add(time.Duration(i) * time.Minute))
	}
	if len(l.ids) != 3 { // 13:00, 16:00, 19:00: what falls into the cooldown is left out
		t.Errorf("asked %d times in ten hours, want 3", len(l.ids))
	}
}

func TestConditionsAreChecked(t *testing.T) {
	tr := open(t, kvstore.NewMemory(), Config{})
	drift1 := &operator.DriftWhen{}
	when := func(w ...operator.RetrainWhen) Policy { return Policy{Model: "m", When: w} }
	for name, p := range map[string]Policy{
		"no name":          when(operator.RetrainWhen{Drift: drift1}),
		"two names":        when(operator.RetrainWhen{Name: "a", Drift: drift1}, operator.RetrainWhen{Name: "a", Drift: drift1}),
		"nothing":          when(operator.RetrainWhen{Name: "a"}),
		"two things":       when(operator.RetrainWhen{Name: "a", Drift: drift1, Prediction: drift1}),
		"a device":         when(operator.RetrainWhen{Name: "a", Drift: drift1, Level: "device"}),
		"negative":         when(operator.RetrainWhen{Name: "a", Drift: drift1, Devices: -1}),
		"share":            when(operator.RetrainWhen{Name: "a", Drift: drift1, Share: 2}),
		"for ever":         when(operator.RetrainWhen{Name: "a", Drift: drift1, For: release.Duration(maxFor + 1)}),
		"measure":          when(operator.RetrainWhen{Name: "a", Drift: &operator.DriftWhen{Above: 1, Measure: "ks"}}),
		"of without above": when(operator.RetrainWhen{Name: "a", Drift: &operator.DriftWhen{Of: []string{"x"}}}),
		"two of one":       when(operator.RetrainWhen{Name: "a", Drift: &operator.DriftWhen{Above: 1, Features: 2, Of: []string{"x"}}}),
		"accuracy":         when(operator.RetrainWhen{Name: "a", Accuracy: &operator.AccuracyWhen{Below: 1}}),
		"proof":            when(operator.RetrainWhen{Name: "a", Accuracy: &operator.AccuracyWhen{Below: 0.9, Proof: "hope"}}),
		"labelled devices": when(operator.RetrainWhen{Name: "a", Devices: 2, Accuracy: &operator.AccuracyWhen{Below: 0.9}}),
		"cron":             {Model: "m", Schedule: &operator.RetrainSchedule{Cron: "at noon"}},
		"never":            {Model: "m", Schedule: &operator.RetrainSchedule{Cron: "0 0 31 2 *"}},
		"zone":             {Model: "m", Schedule: &operator.RetrainSchedule{Cron: "0 0 * * *", TimeZone: "Mars/Olympus"}},
		"zone in cron":     {Model: "m", Schedule: &operator.RetrainSchedule{Cron: "TZ=UTC 0 0 * * *"}},
		"local":            {Model: "m", Schedule: &operator.RetrainSchedule{Cron: "0 0 * * *", TimeZone: "Local"}},
		"open":             {Model: "m", MaxOpen: -1},
		"destination":      {Model: "m", Destinations: []operator.RetrainDestination{{URL: "gopher://x"}}},
	} {
		if err := tr.SetPolicy(t.Context(), p); !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: got %v, want ErrPolicy", name, err)
		}
	}
}
