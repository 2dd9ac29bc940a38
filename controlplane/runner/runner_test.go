package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// versions are what was published.
var versions = map[string]release.Digest{}

func init() { //nolint:gochecknoinits // a table
	for _, v := range []string{"v1", "v2", "v3"} {
		versions[v] = release.DigestOf([]byte(v))
	}
}

// shop is a Releases.
type shop struct{}

func (shop) Release(_ context.Context, model, version string) (release.Digest, *release.Manifest, error) {
	d, ok := versions[version]
	if !ok {
		return d, nil, errors.New("no such version")
	}
	return d, &release.Manifest{Model: model, Version: version, Variants: []release.Variant{{Name: "fp32", Graph: release.File{Size: 1000}}}}, nil
}

// counted is an Evidence.
type counted struct {
	news  chan struct{}
	mu    sync.Mutex
	found map[release.Digest]map[string]drift.Evidence // guarded by mu
}

func (c *counted) Counted() <-chan struct{} { return c.news }

func (c *counted) EvidenceOf(device, _ string, _, _ time.Time) map[release.Digest]drift.Evidence {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[release.Digest]drift.Evidence{}
	for d, by := range c.found {
		if e, ok := by[device]; ok {
			out[d] = e
		}
	}
	return out
}

func (c *counted) ShadowOf(string, string, release.Digest, time.Time) (drift.BesideCounts, bool) {
	return drift.BesideCounts{}, false
}

func (c *counted) Touched() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for _, by := range c.found {
		ids = slices.AppendSeq(ids, maps.Keys(by))
	}
	return ids
}

// house is a control plane with scripted devices: they report what a script
// says as soon as they are told what to be.
type house struct {
	t        *testing.T
	broker   *broker.Broker
	ledger   *ledger.Ledger
	fleet    *fleet.Fleet
	desired  *desired.Desired
	evidence *counted
	runner   *Runner
	changed  chan struct{} // a rollout has changed
	stop     func()

	mu   sync.Mutex
	seq  uint64                  // guarded by mu: of the uplink stream
	told map[string]*deviceState // guarded by mu
	deaf map[string]bool         // guarded by mu: devices that are away
	bad  map[release.Digest]bool // guarded by mu: releases whose golden vectors disagree
}

type deviceState struct {
	running release.Digest
	seen    []release.Digest // all it was ever asked to run
	told    []uint64         // generations, each once
}

func newHouse(t *testing.T, devices ...string) *house {
	t.Helper()
	h := &house{
		t: t, broker: brokertest.Start(t), evidence: &counted{news: make(chan struct{}, 1)},
		told: map[string]*deviceState{}, deaf: map[string]bool{}, bad: map[release.Digest]bool{},
	}
	var err error
	if h.fleet, err = fleet.Open(t.Context(), kvstore.NewMemory(), fleet.Config{}); err != nil {
		t.Fatal(err)
	}
	for _, id := range devices {
		if err := h.fleet.Enrolled(t.Context(), id, map[string]string{"site": id[:1]}); err != nil {
			t.Fatal(err)
		}
		h.told[id] = &deviceState{running: versions["v1"]}
		h.report(id, &protocol.Report{Models: []*protocol.ModelState{{Model: "digits", Active: versions["v1"].Bytes(), Serving: true}}})
	}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

// start opens the control plane on what the broker keeps.
func (h *house) start() {
	h.t.Helper()
	var err error
	if h.ledger, err = ledger.Open(h.t.Context(), h.broker.Conn(), ledger.Options{}); err != nil {
		h.t.Fatal(err)
	}
	h.desired = desired.New(h, h.ledger, desired.Config{})
	h.changed = make(chan struct{}, 1)
	h.runner = h.open()
	ctx, cancel := context.WithCancel(h.t.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{h.desired.Run, h.runner.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				h.t.Errorf("run: %v", err)
			}
		})
	}
	h.stop = func() { cancel(); running.Wait() }
	<-h.desired.Ready()
}

func (h *house) open() *Runner { return h.openWith(func(*Config) {}) }

func (h *house) openWith(change func(cfg *Config)) *Runner {
	h.t.Helper()
	changed := h.changed
	cfg := Config{
		Ledger: h.ledger, Fleet: h.fleet, Evidence: h.evidence, Releases: shop{}, Desired: h.desired,
		Gap: time.Millisecond, Settle: time.Millisecond,
		OnChange: func(string) {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
	}
	change(&cfg)
	r, err := Open(h.t.Context(), cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// Publish is the way to the devices.
func (h *house) Publish(subject string, data []byte) error {
	id, _, err := protocol.DeviceOfSubject(subject)
	if err != nil {
		return err
	}
	var down protocol.Down
	if err := proto.Unmarshal(data, &down); err != nil {
		return err
	}
	h.obey(id, down.GetDesired())
	return nil
}

// obey is a device that does at once what it is told.
func (h *house) obey(id string, d *protocol.Desired) {
	h.mu.Lock()
	state := h.told[id]
	if state == nil || h.deaf[id] {
		h.mu.Unlock()
		return
	}
	if g := d.GetGeneration(); !slices.Contains(state.told, g) {
		state.told = append(state.told, g)
	}
	model := &protocol.ModelState{Model: "digits", State: "idle", Serving: true}
	for _, a := range d.GetAssignments() {
		want := release.Digest(a.GetRelease())
		if a.GetRole() == protocol.RoleShadow {
			model.Challenger = h.shadow(want, d.GetGeneration())
			continue
		}
		state.seen = append(state.seen, want)
		if h.bad[want] {
			model.Outcome = &protocol.Outcome{Release: want[:], Result: "refused", Code: rollout.CodeGolden, Generation: d.GetGeneration()}
			continue
		}
		state.running = want
	}
	model.Active = state.running.Bytes()
	h.mu.Unlock()
	h.report(id, &protocol.Report{Generation: d.GetGeneration(), Models: []*protocol.ModelState{model}})
}

func (h *house) report(id string, r *protocol.Report) {
	h.mu.Lock()
	h.seq++
	seq := h.seq
	h.mu.Unlock()
	h.fleet.Apply(seq, &protocol.Accepted{
		Device: id, ReceivedMs: time.Now().UnixMilli(), Sent: &protocol.Stamp{Boot: []byte{1}, MonotonicMs: seq},
		Body: &protocol.Accepted_Report{Report: r},
	})
}

// shadow is what a device reports of a release beside its primary one. The
// caller holds mu.
func (h *house) shadow(want release.Digest, generation uint64) *protocol.Challenger {
	own := &protocol.ModelState{Model: "digits", State: "idle", Active: want[:]}
	if h.bad[want] {
		own.Active, own.Outcome = nil, &protocol.Outcome{Release: want[:], Result: "refused", Code: rollout.CodeGolden, Generation: generation}
	}
	return &protocol.Challenger{State: own, Role: protocol.RoleShadow}
}

// alive lets every device report again what it runs.
func (h *house) alive() {
	for _, d := range h.fleet.Devices(nil) {
		h.mu.Lock()
		state, deaf := h.told[d.ID], h.deaf[d.ID]
		h.mu.Unlock()
		if !deaf {
			m, _ := d.Model("digits")
			model := &protocol.ModelState{Model: "digits", State: "idle", Serving: true, Active: state.running.Bytes()}
			if m.Outcome != nil {
				model.Outcome = &protocol.Outcome{Release: m.Outcome.Release.Bytes(), Result: m.Outcome.Result, Code: m.Outcome.Code, Generation: m.Outcome.Generation}
			}
			if c := m.Challenger; c != nil && c.Outcome != nil {
				h.mu.Lock()
				model.Challenger = h.shadow(c.Outcome.Release, c.Outcome.Generation)
				h.mu.Unlock()
			}
			h.report(d.ID, &protocol.Report{Generation: d.Generation, Models: []*protocol.ModelState{model}})
		}
	}
}

// until waits for a rollout to get somewhere, while devices go on reporting.
func (h *house) until(id string, holds func(s *rollout.State) bool) View {
	h.t.Helper()
	return h.await(id, holds, h.alive)
}

// quietly waits for a rollout to get somewhere, while no device reports: what
// wakes the runner is all that makes it look.
func (h *house) quietly(id string, holds func(s *rollout.State) bool) View {
	h.t.Helper()
	return h.await(id, holds, func() {})
}

// await looks at a rollout whenever it has changed, and gives the devices their
// turns meanwhile.
func (h *house) await(id string, holds func(s *rollout.State) bool, turn func()) View {
	h.t.Helper()
	beat, limit := time.NewTicker(5*time.Millisecond), time.NewTimer(20*time.Second)
	defer beat.Stop()
	defer limit.Stop()
	for {
		v, err := h.runner.Get(id)
		if err != nil {
			h.t.Fatal(err)
		}
		if holds(v.State) {
			return v
		}
		select {
		case <-h.changed:
		case <-beat.C:
			turn()
		case <-limit.C:
			h.t.Fatalf("rollout %s stays %s", id, v.State.Header.Status)
		}
	}
}

func is(status rollout.Status) func(s *rollout.State) bool {
	return func(s *rollout.State) bool { return s.Header.Status == status }
}

// spec is a quick rollout in two waves.
func spec(version string) rollout.Spec {
	soak := release.Duration(0)
	return rollout.Spec{
		Model: "digits", Version: version, Control: new(0.0),
		Waves: []rollout.WaveSpec{{Count: 1, Soak: &soak}, {Percent: 100, Soak: &soak}},
		Gates: []rollout.GateSpec{{Kind: rollout.Errors, Inconclusive: rollout.Pass}},
	}
}

func (h *house) create(s rollout.Spec) string {
	h.t.Helper()
	v, err := h.runner.Create(h.t.Context(), "ada", "test", s)
	if err != nil {
		h.t.Fatal(err)
	}
	return v.State.ID
}

func (h *house) act(id string, a rollout.Action) {
	h.t.Helper()
	if _, err := h.runner.Act(h.t.Context(), id, rollout.Command{Action: a, Actor: "ada", Reason: "test"}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) verify(id string) []ledger.Record {
	h.t.Helper()
	records, err := h.ledger.Read(h.t.Context(), desired.RolloutChain(id))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := Verify(records); err != nil {
		h.t.Fatal(err)
	}
	return records
}

func TestRolloutRunsToItsEnd(t *testing.T) {
	h := newHouse(t, "a1", "a2", "b1", "b2")
	id := h.create(spec("v2"))
	if id != "digits-v2-1" {
		t.Errorf("id is %q, want digits-v2-1", id)
	}
	h.act(id, rollout.Start)
	v := h.until(id, is(rollout.StatusCompleted))
	for device, d := range v.State.Devices {
		if d.State != rollout.DeviceHealthy || d.Old != versions["v1"] || h.told[device].running != versions["v2"] {
			t.Errorf("%s is %+v running %s, want healthy on v2, from v1", device, d, h.told[device].running.Short())
		}
	}
	if got, want := v.Timeline[1].Actor+" "+string(v.Timeline[1].Action), "ada start"; got != want {
		t.Errorf("second record is by %q, want %q", got, want)
	}
	if v.Revision != v.Timeline[len(v.Timeline)-1].Seq || v.Revision == 0 {
		t.Errorf("revision is %d, want that of the newest record", v.Revision)
	}
	h.verify(id)

	h.act(id, rollout.Rollback)
	h.until(id, is(rollout.StatusReverted))
	for device, s := range h.told {
		if s.running != versions["v1"] {
			t.Errorf("%s runs %s after the rollback, want v1", device, s.running.Short())
		}
	}
	h.verify(id)
}

func TestBadCanaryStopsTheRollout(t *testing.T) {
	h := newHouse(t, "a1", "a2", "b1", "b2")
	h.bad[versions["v3"]] = true
	id := h.create(spec("v3"))
	h.act(id, rollout.Start)
	v := h.until(id, is(rollout.StatusHalted))
	if !strings.Contains(v.State.Header.Cause, "gate golden failed") {
		t.Errorf("halted because %q, want the golden gate", v.State.Header.Cause)
	}
	asked := 0
	h.mu.Lock() // devices are told after the rollout is seen to halt
	for _, s := range h.told {
		if slices.Contains(s.seen, versions["v3"]) {
			asked++
		}
	}
	h.mu.Unlock()
	if asked != 1 {
		t.Errorf("%d devices were asked to run v3, want the canary alone", asked)
	}
	e, err := h.runner.Explain(id)
	if err != nil || len(e.Waiting) == 0 || !strings.Contains(e.Summary, "golden") {
		t.Errorf("explanation is %+v, %v, want the gate and what to do", e.Explanation, err)
	}
	for device, d := range v.State.Devices {
		if text, err := h.runner.ExplainDevice(id, device); err != nil || !strings.Contains(text, string(d.State)) {
			t.Errorf("%s is explained as %q, %v", device, text, err)
		}
	}
}

func TestRestartGoesOn(t *testing.T) {
	h := newHouse(t, "a1", "a2", "b1")
	waiting := spec("v2")
	waiting.Waves[1].Approval = true
	id := h.create(waiting)
	h.act(id, rollout.Start)
	before := h.until(id, is(rollout.StatusAwaiting))
	h.stop()
	h.start()
	after, err := h.runner.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := rollout.Digest(after.State, &rollout.Facts{})
	want, _ := rollout.Digest(before.State, &rollout.Facts{})
	if got != want || len(after.Timeline) != len(before.Timeline) {
		t.Errorf("after the restart the state is %+v, want %+v", after.State, before.State)
	}
	h.act(id, rollout.Approve)
	h.until(id, is(rollout.StatusCompleted))
	h.verify(id)
}

// A second server decides about the same rollout. Nobody's decision is lost.
func TestTwoRunners(t *testing.T) {
	h := newHouse(t, "a1", "a2")
	id := h.create(spec("v2"))
	other := h.open()
	h.act(id, rollout.Start)
	h.until(id, is(rollout.StatusCompleted))
	if v, err := other.Get(id); err != nil || v.State.Header.Status != rollout.StatusDraft {
		t.Fatalf("the other server has %v, %v, want the draft it has read", v.State.Header.Status, err)
	}
	_, err := other.Act(t.Context(), id, rollout.Command{Action: rollout.Start, Actor: "bob", Reason: "test"})
	if !errors.Is(err, rollout.ErrNotNow) {
		t.Errorf("starting it again there: got %v, want %v", err, rollout.ErrNotNow)
	}
	if v, err := other.Get(id); err != nil || v.State.Header.Status != rollout.StatusCompleted {
		t.Errorf("the other server has %v, %v, want completed", v.State.Header.Status, err)
	}
	taken, err := other.Create(t.Context(), "bob", "test", spec("v2"))
	if err != nil || taken.State.ID != "digits-v2-2" {
		t.Errorf("created %v, %v, want digits-v2-2", taken.State, err)
	}
	if again := h.create(spec("v2")); again != "digits-v2-3" {
		t.Errorf("created %s, want digits-v2-3: the id was taken elsewhere", again)
	}
}

func TestOneModelOneRollout(t *testing.T) {
	h := newHouse(t, "a1", "a2", "b1")
	all := spec("v2")
	all.Waves[0].Approval = true
	first := h.create(all)
	h.act(first, rollout.Start)
	narrow := spec("v3")
	narrow.Selector = "site=b"
	second := h.create(narrow)
	_, err := h.runner.Act(t.Context(), second, rollout.Command{Action: rollout.Start, Actor: "ada", Reason: "test"})
	if !errors.Is(err, rollout.ErrHeld) || !strings.Contains(err.Error(), first) {
		t.Errorf("got %v, want %v by %s", err, rollout.ErrHeld, first)
	}
	p, err := h.runner.Plan(t.Context(), narrow)
	if err != nil || p.Held["b1"] != first {
		t.Errorf("plan says held %v, %v, want b1 by %s", p.Held, err, first)
	}
	h.act(first, rollout.Abort)
	h.act(second, rollout.Start)
	h.until(second, is(rollout.StatusCompleted))
	if h.told["b1"].running != versions["v3"] || h.told["a1"].running != versions["v1"] {
		t.Error("want v3 on site b alone")
	}
}

// The canary is away. Time alone brings another device in.
func TestDeadlinesWake(t *testing.T) {
	h := newHouse(t, "a1", "a2", "a3")
	s := spec("v2")
	s.Waves[0].Lateness = release.Duration(50 * time.Millisecond)
	s.Waves[1].Lateness = release.Duration(50 * time.Millisecond)
	p, err := h.runner.Plan(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	canary := p.Waves[0].Devices[0]
	h.mu.Lock()
	h.deaf[canary] = true
	h.mu.Unlock()
	id := h.create(s)
	h.act(id, rollout.Start)
	v := h.until(id, is(rollout.StatusCompleted))
	if d := v.State.Devices[canary]; !d.Late || d.State != rollout.DeviceOffered || d.Wave != 2 {
		t.Errorf("%s is %+v, want late in the last wave", canary, d)
	}
}

func TestEvidenceStopsARollout(t *testing.T) {
	h := newHouse(t, "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8")
	s := spec("v2")
	long := release.Duration(time.Hour)
	s.Waves = []rollout.WaveSpec{{Percent: 50, Soak: &long}, {Percent: 100, Soak: &long}}
	id := h.create(s)
	h.act(id, rollout.Start)
	h.until(id, func(s *rollout.State) bool { return len(s.Waves) > 0 && s.Waves[0].State == rollout.WaveSoaking })
	h.evidence.mu.Lock()
	h.evidence.found = map[release.Digest]map[string]drift.Evidence{versions["v1"]: {}, versions["v2"]: {}}
	for i := range 8 {
		device := fmt.Sprintf("a%d", i+1)
		h.evidence.found[versions["v1"]][device] = drift.Evidence{Rows: 500, Labels: 400, Correct: 390, P95: time.Millisecond, Classes: []uint64{250, 250}}
		h.evidence.found[versions["v2"]][device] = drift.Evidence{Rows: 500, FailedRows: 200, Labels: 400, Correct: 390, P95: time.Millisecond, Classes: []uint64{250, 250}}
	}
	h.evidence.mu.Unlock()
	h.evidence.news <- struct{}{}
	v := h.quietly(id, is(rollout.StatusHalted))
	if !strings.Contains(v.State.Header.Cause, "gate errors failed") {
		t.Errorf("halted because %q, want the gate of errors", v.State.Header.Cause)
	}
	h.verify(id)
}

func TestWhatIsRefused(t *testing.T) {
	h := newHouse(t, "a1")
	if _, err := h.runner.Create(t.Context(), "ada", " ", spec("v2")); !errors.Is(err, rollout.ErrReason) {
		t.Errorf("without a reason: got %v, want %v", err, rollout.ErrReason)
	}
	if _, err := h.runner.Create(t.Context(), "ada", "test", spec("v9")); err == nil || !strings.Contains(err.Error(), "digits v9") {
		t.Errorf("unknown version: got %v", err)
	}
	bad := spec("v2")
	bad.Release = versions["v1"]
	if _, err := h.runner.Create(t.Context(), "ada", "test", bad); !errors.Is(err, rollout.ErrSpec) {
		t.Errorf("digest of another version: got %v, want %v", err, rollout.ErrSpec)
	}
	bad = spec("v2")
	bad.Waves[1].Percent = 50
	if _, err := h.runner.Plan(t.Context(), bad); !errors.Is(err, rollout.ErrSpec) {
		t.Errorf("last wave of 50 percent: got %v, want %v", err, rollout.ErrSpec)
	}
	for _, err := range []error{
		func() error { _, err := h.runner.Get("x"); return err }(),
		func() error { _, err := h.runner.Explain("x"); return err }(),
		func() error { _, err := h.runner.Act(t.Context(), "x", rollout.Command{}); return err }(),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want %v", err, ErrNotFound)
		}
	}
}

// Whoever can write the store cannot change a decision unseen, even with the
// hashes of the chain made to fit.
func TestVerifyFindsWhatWasChanged(t *testing.T) {
	h := newHouse(t, "a1", "a2")
	id := h.create(spec("v2"))
	h.act(id, rollout.Start)
	h.until(id, is(rollout.StatusCompleted))
	records := h.verify(id)
	for _, c := range []struct{ name, old, new string }{
		{"a device's state", `"state":"healthy"`, `"state":"failed"`},
		{"a fact", `"serving":true`, `"serving":false`},
		{"the time", `"at":"20`, `"at":"19`},
		{"who acted", `"actor":"ada"`, `"actor":"eve"`},
		{"what was asked of devices", versions["v2"].String(), versions["v3"].String()},
		{"the digest", `"digest":"`, `"digest":"00`},
	} {
		t.Run(c.name, func(t *testing.T) {
			forged := slices.Clone(records)
			for i := range forged[1:] {
				forged[i+1].Body = []byte(strings.ReplaceAll(string(forged[i+1].Body), c.old, c.new))
			}
			if err := Verify(forged); err == nil {
				t.Error("not noticed")
			}
		})
	}
}

func TestListIsNewestFirst(t *testing.T) {
	h := newHouse(t, "a1")
	first, second := h.create(spec("v2")), h.create(spec("v3"))
	var got []string
	for _, v := range h.runner.List() {
		got = append(got, v.State.ID)
	}
	if want := []string{second, first}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
