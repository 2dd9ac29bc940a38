package rollout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// heardAt is the presence of devices by id; those it does not name are always
// there.
type heardAt map[string]Hours

func (h heardAt) Heard(device string, _ time.Time) Hours {
	if hours, ok := h[device]; ok {
		return hours
	}
	return allHours
}

// hoursOf is the presence of a device that is there at the hours that there
// accepts, as seen at now and known for so many hours.
func hoursOf(now time.Time, known int, there func(t time.Time) bool) Hours {
	h := Hours{Known: known}
	for ago := range known {
		if there(now.Truncate(time.Hour).Add(-time.Duration(ago) * time.Hour)) {
			h.Bits[ago/64] |= 1 << (ago % 64)
		}
	}
	return h
}

// between says whether an hour of the day lies between two, over midnight too.
func between(from, to int) func(t time.Time) bool {
	return func(t time.Time) bool {
		if from <= to {
			return t.Hour() >= from && t.Hour() < to
		}
		return t.Hour() >= from || t.Hour() < to
	}
}

func duration(d time.Duration) *release.Duration { return new(release.Duration(d)) }

// planned makes a plan at 12:00 for n devices that download for ten minutes.
func planned(t *testing.T, n int, spec Spec, presence Presence, change func(i int, f *DeviceFacts)) Plan {
	t.Helper()
	f := &Facts{Devices: map[string]*DeviceFacts{}}
	for i := range n {
		d := DeviceFacts{Selected: true, Profile: "pi", Site: fmt.Sprint("s", i%4), Bytes: 10 * 60 * PlanRate, Active: v1, Serving: true}
		if change != nil {
			change(i, &d)
		}
		f.Devices[fmt.Sprintf("d%03d", i)] = &d
	}
	spec.Model, spec.Version, spec.Release = "digits", "v2", v2
	if spec.Control == nil {
		spec.Control = new(0.0)
	}
	for i := range spec.Waves {
		if spec.Waves[i].Soak == nil {
			spec.Waves[i].Soak = duration(20 * time.Minute)
		}
	}
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	return MakePlan("digits-v2-1", spec, Requirements{}, f, presence, begin)
}

// everybody has the presence of all of n devices.
func everybody(n int, hours Hours) heardAt {
	h := heardAt{}
	for i := range n {
		h[fmt.Sprintf("d%03d", i)] = hours
	}
	return h
}

func TestPlannedTimes(t *testing.T) {
	const minute = time.Minute
	all := []WaveSpec{{Percent: 100}}
	night := hoursOf(begin, HeardHours, between(20, 6))
	weekdays := hoursOf(begin, HeardHours, func(t time.Time) bool { return t.Weekday() != time.Saturday && t.Weekday() != time.Sunday })
	for _, c := range []struct {
		name     string
		devices  int
		spec     Spec
		presence Presence
		change   func(i int, f *DeviceFacts)
		p50, p90 time.Duration
	}{
		{"everybody is there", 8, Spec{Waves: all}, nil, nil, 30 * minute, 30 * minute},
		{"one after the other wave", 8, Spec{Waves: []WaveSpec{{Count: 1}, {Percent: 50}, {Percent: 100}}}, nil, nil, 90 * minute, 90 * minute},
		{"two at a time", 8, Spec{Waves: all, Budget: Budget{InFlight: 2}}, nil, nil, 60 * minute, 60 * minute},
		{"one a minute", 8, Spec{Waves: all, Budget: Budget{PerMinute: 1}}, nil, nil, 37 * minute, 37 * minute},
		{"one download's bytes in five minutes", 8, Spec{Waves: all, Budget: Budget{BytesPerSecond: 2 * PlanRate}}, nil, nil, 65 * minute, 65 * minute},
		{"one of a site", 8, Spec{Waves: all, Budget: Budget{Unavailable: []Unavailable{{Label: "site", Max: 1}}}}, nil, func(i int, f *DeviceFacts) { f.Groups = map[string]string{"site": f.Site} }, 40 * minute, 40 * minute},
		{"one of a site, of which one is out of service", 8, Spec{Waves: all, Budget: Budget{Unavailable: []Unavailable{{Label: "site", Max: 1}}}}, nil, func(i int, f *DeviceFacts) {
			f.Groups = map[string]string{"site": f.Site}
			f.Serving = i != 0
		}, 40 * minute, 40 * minute},
		{"nobody before the evening", 8, Spec{Waves: all}, everybody(8, night), nil, 8*time.Hour + 30*minute, 8*time.Hour + 30*minute},
		{"a window at night", 8, Spec{Waves: all, Windows: []WindowSpec{{Cron: "0 22 * * *", Duration: release.Duration(4 * time.Hour)}}}, nil, nil, 10*time.Hour + 30*minute, 10*time.Hour + 30*minute},
		{"a window in the devices' own night", 8, Spec{Waves: all, Windows: []WindowSpec{{Cron: "0 22 * * *", Duration: release.Duration(4 * time.Hour), TimeZone: DeviceZone}}}, nil, func(_ int, f *DeviceFacts) { f.TimeZone = "Asia/Tokyo" }, 1*time.Hour + 30*minute, 1*time.Hour + 30*minute},
		{"a window by day for those who are there at night", 8, Spec{Waves: all, Windows: []WindowSpec{{Cron: "0 8 * * *", Duration: release.Duration(4 * time.Hour)}}}, everybody(8, night), nil, 0, 0},
		{"a download over two evenings", 8, Spec{Waves: all, DeviceDeadline: release.Duration(48 * time.Hour)}, everybody(8, hoursOf(begin, HeardHours, between(20, 21))), func(_ int, f *DeviceFacts) { f.Bytes = 90 * 60 * PlanRate }, 32*time.Hour + 50*minute, 32*time.Hour + 50*minute},
		{"not at the weekend", 8, Spec{Waves: all}, everybody(8, weekdays), nil, 30 * minute, 36*time.Hour + 30*minute},
		{"a start in the evening", 8, Spec{Waves: all, StartAt: begin.Add(10 * time.Hour)}, everybody(8, night), nil, 30 * minute, 30 * minute},
		{"hours of evidence", 8, Spec{Waves: []WaveSpec{{Percent: 100, Evidence: EvidenceSpec{Hours: 5}}}}, nil, nil, 5 * time.Hour, 5 * time.Hour},
		{"no soak time", 8, Spec{Waves: []WaveSpec{{Count: 1, Soak: duration(0)}, {Percent: 100, Soak: duration(0)}}}, nil, func(_ int, f *DeviceFacts) { f.Bytes = 0 }, 0, 0},
		{"a shadow phase", 8, Spec{Waves: all, Shadow: &ShadowSpec{Rows: 10, Deadline: release.Duration(time.Hour)}}, nil, nil, 90 * minute, 90 * minute},
		{"a silent device holds up for its lateness", 8, Spec{Waves: []WaveSpec{{Percent: 100, Lateness: release.Duration(time.Hour)}}}, heardAt{"d003": {Known: HeardHours}}, nil, time.Hour + 20*minute, time.Hour + 20*minute},
		{"a new device", 8, Spec{Waves: all}, everybody(8, hoursOf(begin, 30, between(20, 6))), nil, 8*time.Hour + 30*minute, 8*time.Hour + 30*minute},
		{"a device of this hour", 8, Spec{Waves: all}, everybody(8, hoursOf(begin, 1, between(0, 24))), nil, 30 * minute, 30 * minute},
	} {
		p := planned(t, c.devices, c.spec, c.presence, c.change)
		if p.Expected != c.p50 || p.Slow != c.p90 {
			t.Errorf("%s: takes %v, at most %v in nine of ten cases; want %v, %v (%q)", c.name, p.Expected, p.Slow, c.p50, c.p90, p.Warnings)
		}
	}
}

// A canary that is away is replaced, so the wave does not wait for its evening.
func TestPlanReplacesSilentCanaries(t *testing.T) {
	waves := []WaveSpec{{Count: 1, Lateness: release.Duration(time.Hour)}, {Percent: 100}}
	first := planned(t, 8, Spec{Waves: waves}, nil, nil).Waves[0].Devices[0]
	p := planned(t, 8, Spec{Waves: waves}, heardAt{first: hoursOf(begin, HeardHours, between(20, 6))}, nil)
	if got, want := p.Waves[0].Expected, 90*time.Minute; got != want {
		t.Errorf("the canary's wave takes %v, want %v: an hour of silence, then another device", got, want)
	}
	if got := p.Waves[1].Expected; got == 0 || got > 2*time.Hour {
		t.Errorf("the second wave takes %v, want it not to wait for one device of eight", got)
	}
}

func TestPlanTellsStalls(t *testing.T) {
	away := heardAt{}
	for i := range 60 {
		if i%3 > 0 {
			away[fmt.Sprintf("d%03d", i)] = hoursOf(begin, HeardHours, between(20, 6))
		}
	}
	window := []WindowSpec{{Cron: "0 22 * * *", Duration: release.Duration(time.Hour)}}
	for _, c := range []struct {
		name     string
		spec     Spec
		presence Presence
		want     string // of the first wave
	}{
		{"quorum", Spec{Waves: []WaveSpec{{Percent: 100, Quorum: 0.5}}}, away, "wave 1 waits 8 h for its quorum: 40 of 60 devices are only heard of from 20:00 to 06:00 UTC"},
		{"window", Spec{Waves: []WaveSpec{{Percent: 100}}, Windows: window}, nil, "wave 1 waits 10 h for a window"},
		{"requirement", Spec{Waves: []WaveSpec{{Percent: 100, Lateness: release.Duration(4 * time.Hour)}}, Require: Require{Unmetered: true}}, nil, "wave 1 does not come to its quorum of 30 in time for what the rollout requires: 60 of 60 devices do not fulfil it now"},
		{"never", Spec{Waves: []WaveSpec{{Percent: 100, Quorum: 0.5}}}, everybody(60, Hours{Known: HeardHours}), "wave 1 does not come to its quorum of 30 in time for its quorum: 60 of 60 devices are away"},
		{"nothing", Spec{Waves: []WaveSpec{{Percent: 100, Quorum: 0.3}}}, away, ""},
	} {
		p := planned(t, 60, c.spec, c.presence, nil)
		if got := strings.Join(p.Waves[0].Stalls, "; "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestPlanWarns(t *testing.T) {
	day := release.Duration(24 * time.Hour)
	all := []WaveSpec{{Percent: 100}}
	for _, c := range []struct {
		name     string
		spec     Spec
		presence Presence
		change   func(i int, f *DeviceFacts)
		want     string
	}{
		{"not heard of", Spec{Waves: all}, heardAt{"d001": {Known: HeardHours}}, nil, "1 device was not heard of in the last 14 days"},
		{"never connected", Spec{Waves: all}, heardAt{"d001": {}}, nil, "1 device was not heard of in the last 14 days"},
		{"wave deadline", Spec{Waves: []WaveSpec{{Percent: 100, Deadline: release.Duration(25 * time.Minute)}}}, nil, nil, "wave 1 is expected to be open for longer than its deadline of 25m0s: the rollout would halt"},
		{"budget", Spec{Waves: all, Budget: Budget{InFlight: 1}, Deadline: release.Duration(2 * time.Hour)}, nil, nil, "it is the budget that makes it too long: without it takes 30m0s"},
		{"overall deadline", Spec{Waves: all, Budget: Budget{InFlight: 1}, Deadline: release.Duration(2 * time.Hour)}, nil, nil, "in 14 of 14 replays of the last 14 days it does not end before its deadline of 2h0m0s"},
		{"no window", Spec{Waves: all, Deadline: day, Windows: []WindowSpec{{Cron: "0 0 1 1 *", Duration: day}}}, nil, nil, "no window opens before the deadline for 20 devices"},
		{"no time zone", Spec{Waves: all, Windows: []WindowSpec{{Cron: "0 22 * * *", Duration: day, TimeZone: DeviceZone}}}, nil, nil, "20 devices have not told their time zone"},
		{"requirement", Spec{Waves: all, Require: Require{Mains: true}}, nil, func(i int, f *DeviceFacts) {
			if f.Power = "mains"; i < 3 {
				f.Power = "battery"
			}
		}, "3 devices do not fulfil now"},
		{"device deadline", Spec{Waves: all, DeviceDeadline: release.Duration(5 * time.Minute)}, nil, nil, "20 devices would need more than device_deadline (5m0s)"},
		{"group out of service", Spec{Waves: all, Budget: Budget{Unavailable: []Unavailable{{Label: "site", Max: 1}}}}, nil, func(i int, f *DeviceFacts) {
			f.Groups = map[string]string{"site": f.Site}
			f.Serving = i != 0
		}, "4 devices are in groups"},
		{"predictions", Spec{Waves: []WaveSpec{{Percent: 100, Evidence: EvidenceSpec{Inferences: 7}}}}, nil, nil, "wave 1 waits for 7 predictions"},
		{"another rollout", Spec{Waves: all}, nil, func(i int, f *DeviceFacts) {
			if i == 0 {
				f.Holder = "digits-v1-1"
			}
		}, "rollout digits-v1-1 has 1 of the devices: this one cannot start"},
		{"another rollout to wait for", Spec{Waves: all, OnConflict: Queue}, nil, func(i int, f *DeviceFacts) {
			if i == 0 {
				f.Holder = "digits-v1-1"
			}
		}, "rollout digits-v1-1 has 1 of the devices: this one starts when it has ended"},
		{"no control group", Spec{Waves: []WaveSpec{{Percent: 40}, {Percent: 100}}, Control: new(0.0)}, nil, nil, "there is no control group"},
		{"blind wave", Spec{Waves: []WaveSpec{{Count: 1}, {Percent: 100}}}, nil, nil, "waves 1, 2 are too small"},
		{"gate that cannot answer", Spec{Waves: all, Gates: []GateSpec{{Kind: Accuracy, Inconclusive: Hold}}}, nil, nil, "gate accuracy cannot answer in any wave and is to hold"},
	} {
		p := planned(t, 20, c.spec, c.presence, c.change)
		if !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.HasPrefix(w, c.want) }) {
			t.Errorf("%s: warnings %q lack %q", c.name, p.Warnings, c.want)
		}
	}
	quiet := planned(t, 20, Spec{Waves: []WaveSpec{{Percent: 40}, {Percent: 100}}, Control: new(0.1)}, nil, func(i int, f *DeviceFacts) {
		f.Past = &Evidence{Rows: 100_000, Labels: 10_000, Correct: 9000, P95US: 1000 + float64(i), Classes: []uint64{50_000, 50_000}}
	})
	if len(quiet.Warnings) != 0 {
		t.Errorf("a rollout without problems: warnings %q", quiet.Warnings)
	}
}

// Nobody is asked before a window opens, whenever the rollout starts.
func TestPlanTellsTheFirstOffer(t *testing.T) {
	window := []WindowSpec{{Cron: "0 22 * * *", Duration: release.Duration(time.Hour)}}
	for _, c := range []struct {
		spec Spec
		want time.Time
	}{
		{Spec{}, begin},
		{Spec{StartAt: begin.Add(time.Hour)}, begin.Add(time.Hour)},
		{Spec{Windows: window}, begin.Add(10 * time.Hour)},
		{Spec{Require: Require{Mains: true}}, time.Time{}},
	} {
		c.spec.Waves = []WaveSpec{{Percent: 100}}
		if p := planned(t, 3, c.spec, nil, nil); !p.FirstOffer.Equal(c.want) {
			t.Errorf("%+v: first offer at %v, want %v", c.spec, p.FirstOffer, c.want)
		}
	}
}

// Devices that another rollout has are planned for as if they were free.
func TestPlanOfAQueuedRollout(t *testing.T) {
	held := func(i int, f *DeviceFacts) {
		if i < 5 {
			f.Holder = "digits-v1-1"
		}
	}
	for _, c := range []struct {
		on   OnConflict
		want int
		out  string
	}{{Refuse, 20, ConflictRefused}, {Queue, 20, ConflictQueued}} {
		p := planned(t, 20, Spec{Waves: []WaveSpec{{Percent: 100}}, OnConflict: c.on}, nil, held)
		if p.Devices != c.want || len(p.Held) != 5 || len(p.Conflicts) != 1 || p.Conflicts[0] != (Conflict{"digits-v1-1", 5, c.out}) {
			t.Errorf("%s: %d devices, held %v, conflicts %+v; want %d and one %s conflict", c.on, p.Devices, p.Held, p.Conflicts, c.want, c.out)
		}
		if first := p.Warnings[0]; !strings.HasPrefix(first, "rollout digits-v1-1 has 5") || !strings.HasSuffix(first, "as if they were free") {
			t.Errorf("%s: the first warning is %q, want the conflict", c.on, first)
		}
	}
}

// A rollout that is superseded has lost its devices by the time this one plans.
func TestPlanOfASupersedingRollout(t *testing.T) {
	parent := &State{ID: "digits-v1-1", Devices: map[string]*Device{"d000": {Wave: 1}, "d001": {Wave: 2}, "d002": {}, "gone": {Wave: 1}}}
	p := planned(t, 5, Spec{Waves: []WaveSpec{{Percent: 100}}, Supersedes: parent.ID}, nil, nil)
	p.Supersede(parent)
	if want := (Conflict{parent.ID, 2, ConflictSuperseded}); len(p.Conflicts) != 1 || p.Conflicts[0] != want {
		t.Errorf("conflicts %+v, want %+v", p.Conflicts, want)
	}
	if last, want := p.Warnings[len(p.Warnings)-1], "rollout digits-v1-1 has 2 of the devices: this one takes them over"; last != want {
		t.Errorf("warns %q, want %q", last, want)
	}
}

func TestPlanCountsBytes(t *testing.T) {
	f := &Facts{Devices: map[string]*DeviceFacts{
		"whole": {Selected: true, Arch: "arm64"}, "delta": {Selected: true, Arch: "arm64", Bytes: 1 << 20},
	}}
	spec := Spec{Model: "digits", Version: "v2", Release: v2, Control: new(0.0), Waves: []WaveSpec{{Percent: 100}}}.WithDefaults()
	p := MakePlan("r", spec, Requirements{Variants: []Variant{{Name: "fp32", Bytes: 10 << 20}}}, f, nil, begin)
	if p.Bytes != 11<<20 || p.FullBytes != 20<<20 || p.Waves[0].Bytes != 11<<20 {
		t.Errorf("%d bytes, %d without deltas, %d in the wave; want 11, 20 and 11 MiB", p.Bytes, p.FullBytes, p.Waves[0].Bytes)
	}
}

// Whatever the spec and whenever devices are there, a plan comes to an end, is the
// same again, and says of a rollout that does not end in time that it does not.
func TestPlansOfAllKinds(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 7))
		pick := func(values ...int) int { return values[random.IntN(len(values))] }
		minutes := func(values ...int) release.Duration {
			return release.Duration(pick(values...)) * release.Duration(time.Minute)
		}
		spec := Spec{
			Waves:          []WaveSpec{{Count: pick(1, 3)}, {Percent: 50}, {Percent: 100}},
			Control:        new(float64(pick(0, 0, 2)) / 10),
			Budget:         Budget{InFlight: pick(0, 0, 1, 5), PerMinute: pick(0, 0, 1, 90), BytesPerSecond: int64(pick(0, 0, 1, 50)) * PlanRate},
			DeviceDeadline: minutes(5, 120, 3000), Deadline: minutes(60, 3000, 40_000),
			StartAt: begin.Add(time.Duration(pick(0, 0, 700)) * time.Minute),
		}
		for i := range spec.Waves {
			spec.Waves[i].Soak = new(minutes(0, 1, 20))
			spec.Waves[i].Lateness = minutes(1, 60, 600)
			spec.Waves[i].Quorum = float64(pick(1, 5, 10)) / 10
			spec.Waves[i].Evidence = EvidenceSpec{Hours: float64(pick(0, 0, 3)), Devices: pick(0, 0, 2)}
		}
		if pick(0, 1) == 1 {
			spec.Budget.Unavailable = []Unavailable{{Label: "site", Max: pick(1, 2)}, {Label: "rack", Percent: 20}}
		}
		if pick(0, 1) == 1 {
			spec.Windows = []WindowSpec{{Cron: fmt.Sprintf("%d %d * * *", pick(0, 17), pick(1, 13, 22)), Duration: minutes(1, 45, 400), TimeZone: []string{"", DeviceZone}[pick(0, 1)]}}
		}
		presence, made := heardAt{}, map[int]DeviceFacts{}
		change := func(i int, f *DeviceFacts) {
			from, length := random.IntN(24), pick(0, 1, 7, 24)
			presence[fmt.Sprintf("d%03d", i)] = hoursOf(begin, pick(0, 1, 30, 200, HeardHours), func(t time.Time) bool { return (t.Hour()-from+24)%24 < length && random.IntN(10) > 0 })
			f.Bytes = int64(pick(0, 1, 600, 20_000)) * PlanRate
			f.Serving = random.IntN(8) > 0
			f.TimeZone = []string{"", "Asia/Tokyo", "America/St_Johns"}[pick(0, 1, 2)]
			f.Groups = map[string]string{"site": f.Site, "rack": strconv.Itoa(i % 7)}
			made[i] = *f
		}
		p := planned(t, 40, spec, presence, change)
		deadline := time.Duration(p.Spec.Deadline)
		for i, w := range append([]PlanWave{{Expected: p.Expected, Slow: p.Slow, Unfinished: p.Unfinished}}, p.Waves...) {
			switch {
			case w.Slow != 0 && w.Slow < w.Expected, w.Expected > deadline, w.Slow > deadline:
				t.Errorf("seed %d, %d: takes %v, nine times of ten %v; deadline %v", seed, i, w.Expected, w.Slow, deadline)
			case w.Unfinished > Replays/2 && w.Expected != 0, w.Unfinished <= 1 && w.Slow == 0 && w.Expected != 0:
				t.Errorf("seed %d, %d: takes %v, nine times of ten %v, and %d of %d do not end", seed, i, w.Expected, w.Slow, w.Unfinished, Replays)
			}
		}
		again := planned(t, 40, p.Spec, presence, func(i int, f *DeviceFacts) { *f = made[i] })
		if got, want := asJSON(t, again), asJSON(t, p); got != want {
			t.Errorf("seed %d: the same plan is different the second time:\n%s\n%s", seed, got, want)
		}
	}
}
