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

// simDevice is a device as it really is, whatever the engine knows of it.
type simDevice struct {
	id      string
	kind    string
	online  bool
	want    release.Digest
	wantSeq uint64
	running release.Digest
	phase   int // of the update, 0 when idle
	pace    int // ticks a phase takes
	wait    int
	age     int // ticks since activation
	refused uint64
	outcome *Outcome
}

var phases = []string{"idle", "resolving", "downloading", "verifying", "trialing", "activating"}

// kinds of devices with how many of a hundred there are.
var kinds = []struct {
	name  string
	share int
}{
	{"good", 60},   // does what it is told
	{"flaky", 12},  // loses its link and finds it again
	{"dead", 6},    // never heard of
	{"liar", 6},    // claims success, serves nothing
	{"golden", 4},  // computes other outputs
	{"broken", 6},  // cannot install
	{"crashes", 6}, // falls back some time after activation
}

// sim is a fleet with a rollout over it.
type sim struct {
	*world
	rnd     *rand.Rand
	devices []*simDevice
	seqOf   map[string]uint64 // newest decision that assigned something to a device
	differs bool              // the release answers otherwise than the old one
	beside  map[string]bool   // devices that are to run the release as a shadow

	switched, stopped int // devices after their shadow phase, rollouts by it

	forward []given
	back    []given
	after   int // ticks since it was complete
}

func newSim(t *testing.T, seed uint64) *sim {
	t.Helper()
	s := &sim{world: newWorld(t), rnd: rand.New(rand.NewPCG(seed, 7)), seqOf: map[string]uint64{}, beside: map[string]bool{}}
	healthy := s.rnd.IntN(3) == 0 // a third of the fleets have no bad devices
	for i := range 3 + s.rnd.IntN(25) {
		d := &simDevice{id: fmt.Sprintf("d%d", i), kind: s.kind(healthy), online: true, running: v1, pace: 1 + s.rnd.IntN(4)}
		s.devices = append(s.devices, d)
		s.set(d.id, func(f *DeviceFacts) {
			f.Selected, f.Profile, f.Assigned = true, fmt.Sprintf("p%d", s.rnd.IntN(3)), v1
			s.around(f)
		})
	}
	spec := s.spec()
	spec.Shadow, s.differs = s.shadowing(), s.rnd.IntN(5) == 0
	s.create(spec, Requirements{})
	return s
}

func (s *sim) kind(healthy bool) string {
	n := s.rnd.IntN(100)
	for _, k := range kinds {
		if n -= k.share; n < 0 && (!healthy || k.name == "flaky" || k.name == "dead") {
			return k.name
		}
	}
	return "good"
}

func (s *sim) spec() Spec {
	soak := release.Duration(time.Duration(s.rnd.IntN(20)) * time.Minute)
	late := release.Duration(time.Duration(15+s.rnd.IntN(60)) * time.Minute)
	spec := Spec{
		Control: new(s.rnd.Float64() / 2), Budget: Budget{InFlight: s.rnd.IntN(5)},
		OnFailure: []OnFailure{Pause, Revert}[s.rnd.IntN(2)],
		Deadline:  release.Duration(time.Duration(2+s.rnd.IntN(40)) * time.Hour), DecisionDeadline: release.Duration(3 * time.Hour),
		DeviceDeadline: release.Duration(time.Duration(40+s.rnd.IntN(100)) * time.Minute),
		Gates: []GateSpec{
			{Kind: Errors, Inconclusive: Pass},
			{Kind: Install, Limit: new(s.rnd.Float64() / 2)},
			{Kind: Crash, Limit: new(s.rnd.Float64() / 2)},
		},
	}
	waves := []WaveSpec{{Count: 1 + s.rnd.IntN(2)}, {Percent: 20 + s.rnd.Float64()*60}, {Percent: 100}}
	for _, w := range waves[s.rnd.IntN(3):] {
		w.Soak, w.Lateness, w.Quorum = &soak, late, 0.3+s.rnd.Float64()*0.7
		spec.Waves = append(spec.Waves, w)
	}
	s.bind(&spec)
	return spec
}

// revised is the spec with some of what may always change changed.
func (s *sim) revised() *Spec {
	spec := s.state.Spec
	spec.Waves = slices.Clone(spec.Waves)
	for i := range spec.Waves {
		spec.Waves[i].Soak = new(release.Duration(time.Duration(s.rnd.IntN(20)) * time.Minute))
		spec.Waves[i].Quorum = 0.3 + s.rnd.Float64()*0.7
	}
	spec.Budget.InFlight++
	spec.OnFailure = []OnFailure{Pause, Revert}[s.rnd.IntN(2)]
	if s.rnd.IntN(2) == 0 {
		spec.Shadow = s.shadowing()
	}
	return &spec
}

// remember counts what has come of shadow phases.
func (s *sim) remember(changes []Change) {
	for _, c := range changes {
		switch {
		case c.From == string(DeviceShadowing) && c.To == string(DeviceOffered):
			s.switched++
		case c.Subject == SubjectRollout && c.To == string(StatusHalted) && strings.Contains(c.Why, "gate shadow failed"):
			s.stopped++
		}
	}
}

// shadowing is a shadow phase, for every other rollout none.
func (s *sim) shadowing() *ShadowSpec {
	if s.rnd.IntN(2) == 0 {
		return nil
	}
	return (&ShadowSpec{Rows: uint64(1 + s.rnd.IntN(200)), Deadline: release.Duration(time.Duration(10+s.rnd.IntN(60)) * time.Minute)}).withDefaults()
}

// compared is what the shadow on a device has compared by now: some more rows,
// in every fifth fleet with different answers.
func (s *sim) compared(f *DeviceFacts) {
	more := Agreement{}
	if f.Shadow != nil {
		more = *f.Shadow
	}
	n := uint64(s.rnd.IntN(60))
	more.Rows += n
	if !s.differs {
		more.Agreed += n
	}
	f.Shadow = &more
}

// tick lets five minutes pass in a device.
func (s *sim) tick(d *simDevice) {
	switch {
	case d.kind == "dead":
		d.online = false
	case d.kind == "flaky" && s.rnd.IntN(10) == 0:
		d.online = !d.online
	}
	if d.online {
		d.want, d.wantSeq = s.facts.Devices[d.id].Assigned, s.seqOf[d.id]
	}
	d.work(s.rnd)
	if d.online && s.rnd.IntN(3) > 0 {
		s.tell(d)
	}
}

// work moves the device's update on. It works without a link, too.
func (d *simDevice) work(rnd *rand.Rand) {
	d.age++
	if d.kind == "crashes" && d.running == v2 && d.age > 3+rnd.IntN(12) {
		d.running, d.phase = v1, 0
		d.end("reverted", CodeCrashLoop)
	}
	if d.want == d.running || d.want == v2 && d.refused >= d.wantSeq {
		d.phase = 0
		return
	}
	if d.wait++; d.wait < d.pace {
		return
	}
	d.wait = 0
	d.phase++
	switch {
	case d.want == v2 && d.phase == 4 && d.kind == "golden":
		d.end("refused", CodeGolden)
	case d.want == v2 && d.phase == 4 && d.kind == "broken":
		d.end("refused", "load_failed")
	case d.phase == len(phases):
		d.running, d.phase, d.age, d.outcome = d.want, 0, 0, nil
	}
}

func (d *simDevice) end(result, code string) {
	d.phase, d.refused = 0, d.wantSeq
	d.outcome = &Outcome{Result: result, Code: code, Generation: d.wantSeq}
}

// tell is a report.
func (s *sim) tell(d *simDevice) {
	s.set(d.id, func(f *DeviceFacts) {
		s.drift(f)
		f.Generation, f.Reported = d.wantSeq, s.now
		f.Active, f.Serving, f.Update = d.running, d.kind != "liar" || d.running != v2, phases[d.phase]
		f.Target, f.Outcomes = release.Digest{}, nil
		if d.phase > 0 {
			f.Target = d.want
		}
		if d.outcome != nil {
			f.Outcomes = []Outcome{*d.outcome}
		}
		if d.kind == "liar" && d.want == v2 {
			f.Outcomes = []Outcome{{Result: "active", Generation: d.wantSeq}}
		}
		if s.beside[d.id] && d.running == v1 {
			s.compared(f)
		}
	})
}

// decide lets the engine step until it has nothing to say, and checks.
func (s *sim) decide(cmd *Command) {
	s.t.Helper()
	for range 20 {
		before := s.state
		d, err := s.step(cmd)
		if err != nil {
			s.t.Fatal(err)
		}
		if d.Empty() {
			return
		}
		for _, a := range d.Assign {
			for _, id := range a.Devices {
				s.seqOf[id] = s.seq
				s.beside[id] = a.Role != ""
			}
		}
		s.remember(d.Changes)
		s.check(before, cmd)
		cmd = nil
	}
	s.t.Fatal("the engine does not come to rest")
}

// check is what must hold after every decision.
func (s *sim) check(before *State, cmd *Command) {
	s.t.Helper()
	s.invariants()
	st := s.state
	forward, planned, offers := 0, 0, 0
	for _, w := range st.Waves {
		planned += w.Planned
	}
	for id, d := range st.Devices {
		was := before.device(id)
		if d.Order.Kind == Forward {
			forward++
		}
		if d.Tries > was.Tries {
			offers++
		}
		if d.Order.Kind == Forward && d.Order != was.Order && st.Header.Status != StatusRunning && st.Header.Status != StatusCompleted &&
			before.Header.Status != StatusRunning && cmd == nil {
			s.t.Errorf("%s is offered the release while the rollout is %s", id, st.Header.Status)
		}
	}
	if !st.last() && forward > planned {
		s.t.Errorf("%d devices are to run the release, the open waves have %d", forward, planned)
	}
	if budget := st.Spec.Budget.InFlight; budget > 0 && offers > 0 { // silent devices that come back are not counted before
		if under := (&turn{State: st}).underWay(); under > budget {
			s.t.Errorf("%d devices are under way, the budget is %d", under, budget)
		}
	}
	for _, d := range s.devices {
		if s.facts.Devices[d.id].Assigned == v2 && st.Devices[d.id].Order.Kind == Beside {
			s.t.Errorf("%s is to answer with the release before its shadow phase is over", d.id)
		}
		if d.running == v2 && st.Devices[d.id].Tries == 0 {
			s.t.Errorf("%s runs the release without an offer", d.id)
		}
		if st.Header.Status == StatusReverted && d.running == v2 {
			s.t.Errorf("reverted, but %s runs the release", d.id)
		}
		if f := s.facts.Devices[d.id]; len(f.Outcomes) > 0 && f.Outcomes[0].Code == CodeGolden &&
			f.Outcomes[0].Generation >= st.Devices[d.id].Order.Seq && st.Devices[d.id].Order.Kind == Forward && st.Header.Status == StatusRunning {
			s.t.Errorf("running although golden vectors disagree on %s", d.id)
		}
	}
	s.checkBounds(before)
	if st.Header.Status == StatusCompleted && slices.ContainsFunc(st.Waves, func(w Wave) bool { return w.State != WavePassed }) {
		s.t.Error("completed with a wave that has not passed")
	}
}

// ended says that a rollout is over. Complete ones are watched for some hours,
// in which devices join.
func (s *sim) ended() bool {
	if s.state.Header.Status != StatusCompleted {
		return s.state.Header.Status.Final()
	}
	if s.after++; s.after == 10 {
		s.arrive(3)
	}
	return s.after > 60
}

// sleep lets the time pass, and the engine decide when it wants to.
func (s *sim) sleep(until time.Time) {
	for wake := s.state.Wake(s.now); !wake.IsZero() && wake.Before(until); wake = s.state.Wake(s.now) {
		s.now = wake
		s.decide(nil)
	}
	s.now = until
}

// run drives a rollout to its end. Nothing may wait for ever.
func (s *sim) run() {
	s.decide(&Command{Action: Start, Actor: "sim", Reason: "simulation"})
	for range 2000 {
		if s.ended() {
			s.restart()
			return
		}
		s.sleep(s.now.Add(5 * time.Minute))
		for _, d := range s.devices {
			s.tick(d)
		}
		var cmd *Command
		if a := s.state.Actions(); s.rnd.IntN(160) == 0 && len(a) > 0 {
			cmd = &Command{Action: a[s.rnd.IntN(len(a))], Actor: "sim", Reason: "simulation"}
		}
		if cmd != nil && cmd.Action == Revise {
			cmd.Spec = s.revised()
		}
		if cmd != nil && (cmd.Action == Next || cmd.Action == Retry || cmd.Action == Resume) {
			cmd = nil // they overrule what is checked here; the scripts cover them
		}
		s.decide(cmd)
		if s.rnd.IntN(150) == 0 {
			s.restart()
		}
		if s.t.Failed() {
			return
		}
	}
	s.t.Errorf("still %s after a week", s.state.Header.Status)
}

// Fleets with slow, silent, lying, crashing and broken devices; operators that
// pause, abort and roll back at random. The invariants hold after every
// decision, every rollout ends, and the ledger replays to the same state.
func TestSimulation(t *testing.T) {
	seeds := 200
	if raced || testing.Short() {
		seeds = 40
	}
	ends, switched, stopped := map[Status]int{}, 0, 0
	for seed := range seeds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			s := newSim(t, uint64(seed))
			s.run()
			ends[s.state.Header.Status]++
			switched, stopped = switched+s.switched, stopped+s.stopped
		})
	}
	t.Logf("ends: %v, %d devices switched after their shadow phase, %d rollouts were stopped by it", ends, switched, stopped)
	if !raced && (switched == 0 || stopped == 0) {
		t.Error("no shadow phase had an end of its own: the simulation has become too narrow")
	}
	for _, status := range []Status{StatusCompleted, StatusReverted, StatusAborted} {
		if !raced && ends[status] == 0 {
			t.Errorf("no simulated rollout ended %s: the simulation has become too narrow", status)
		}
	}
}
