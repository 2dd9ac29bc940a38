package runner

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// gated is spec with a person between the waves.
func gated(version string) rollout.Spec {
	s := spec(version)
	s.Waves[1].Approval = true
	return s
}

func queueing(version, selector string) rollout.Spec {
	s := spec(version)
	s.Selector, s.OnConflict = selector, rollout.Queue
	return s
}

// nextMillisecond lets the clock go on: of two rollouts that were started in one
// millisecond the one that is first by id has the earlier claim.
func (h *house) nextMillisecond() {
	for at := rollout.Moment(time.Now()); rollout.Moment(time.Now()).Equal(at); {
		runtime.Gosched()
	}
}

// Who waits begins when those before have ended, in the order in which people
// started them, and no device is ever in two.
func TestQueuedRolloutsTakeTurns(t *testing.T) {
	h := newHouse(t, "a1", "a2", "b1", "b2")
	first := h.create(gated("v2"))
	second := h.create(queueing("v3", ""))
	third := h.create(queueing("v2", "site=a"))
	if third > second {
		t.Fatalf("%s is looked at after %s anyway", third, second)
	}
	h.act(first, rollout.Start)
	h.until(first, is(rollout.StatusAwaiting))
	h.act(second, rollout.Start)
	h.nextMillisecond()
	h.act(third, rollout.Start)
	for id, behind := range map[string][]string{second: {first}, third: {first}} {
		v, err := h.runner.Get(id)
		if err != nil || v.State.Header.Status != rollout.StatusQueued || !slices.Equal(v.State.Header.Behind, behind) || !strings.Contains(v.State.Header.Cause, first) {
			t.Fatalf("%s is %+v, %v, want it queued behind %v", id, v.State.Header, err, behind)
		}
	}
	h.act(first, rollout.Approve)
	h.until(third, is(rollout.StatusCompleted))
	var ends time.Time
	for _, id := range []string{first, second, third} {
		v := h.until(id, is(rollout.StatusCompleted))
		if v.State.Header.Started.Before(ends) {
			t.Errorf("%s began at %v, the one before it ended at %v", id, v.State.Header.Started, ends)
		}
		ends = v.State.Header.Since
		for _, e := range v.Timeline {
			if e.At.Before(v.State.Header.Started) && slices.ContainsFunc(e.Changes, func(c rollout.Change) bool { return len(c.Devices) > 0 }) {
				t.Errorf("%s did something to devices while it waited: %+v", id, e.Changes)
			}
		}
		h.verify(id)
	}
	for _, id := range []string{"a1", "b1"} {
		if got, want := h.told[id].running, map[string]release.Digest{"a1": versions["v2"], "b1": versions["v3"]}[id]; got != want {
			t.Errorf("%s runs %s, want %s", id, got.Short(), want.Short())
		}
	}
}

// A child takes the devices over as they are. Those on the parent's release go
// back to that one, not to the one before.
func TestSupersede(t *testing.T) {
	h := newHouse(t, "a1", "a2", "b1")
	parent := h.create(gated("v2"))
	child := spec("v3")
	child.Supersedes = parent
	middle := h.create(child)
	child.Supersedes = middle // and through it the parent: the middle one never starts
	last := h.create(child)
	h.act(parent, rollout.Start)
	h.until(parent, is(rollout.StatusAwaiting))
	h.act(last, rollout.Start)
	v := h.until(last, is(rollout.StatusCompleted))
	olds := map[release.Digest]int{}
	for _, d := range v.State.Devices {
		olds[d.Old]++
	}
	if olds[versions["v1"]] != 2 || olds[versions["v2"]] != 1 {
		t.Errorf("devices would go back to %v, want the canary of the parent to v2 and the others to v1", olds)
	}
	for _, id := range []string{parent, middle} {
		p, err := h.runner.Get(id)
		if err != nil || p.State.Header.Status != rollout.StatusReplaced || p.State.Header.By != last {
			t.Errorf("%s is %+v, %v, want it replaced by %s", id, p.State.Header, err, last)
		}
		newest := p.Timeline[len(p.Timeline)-1]
		if newest.Action != rollout.Replace || newest.Actor != "ada" || newest.Reason != "test" {
			t.Errorf("newest record of %s is %+v, want a replacement by who started %s, for the same reason", id, newest, last)
		}
		if newest.At.After(v.State.Header.Started) {
			t.Errorf("%s ended at %v, after %s began", id, newest.At, last)
		}
		h.verify(id)
	}
	h.verify(last)
	h.act(last, rollout.Rollback)
	h.until(last, is(rollout.StatusReverted))
	running := map[release.Digest]int{}
	for _, s := range h.told {
		running[s.running]++
	}
	if running[versions["v1"]] != 2 || running[versions["v2"]] != 1 {
		t.Errorf("after the rollback devices run %v", running)
	}
}

func TestWhatCannotBeSuperseded(t *testing.T) {
	h := newHouse(t, "a1")
	of := func(parent string) rollout.Spec {
		s := spec("v2")
		s.Supersedes = parent
		return s
	}
	create := func(s rollout.Spec) error {
		_, err := h.runner.Create(t.Context(), "ada", "test", s)
		return err
	}
	if err := create(of("digits-v9-1")); !errors.Is(err, rollout.ErrSpec) || !errors.Is(err, ErrNotFound) {
		t.Errorf("none: got %v, want %v", err, ErrNotFound)
	}
	other := spec("v2")
	other.Model = "letters"
	if err := create(of(h.create(other))); !errors.Is(err, rollout.ErrSpec) || !strings.Contains(err.Error(), "letters") {
		t.Errorf("another model: got %v", err)
	}
	first := h.create(spec("v2"))
	second := h.create(of(first))
	third := h.create(of(second))
	for _, parent := range []string{first, second, third} {
		s := of(parent)
		_, err := h.runner.Act(t.Context(), first, rollout.Command{Action: rollout.Revise, Actor: "ada", Reason: "test", Spec: &s})
		if !errors.Is(err, rollout.ErrSpec) || !strings.Contains(err.Error(), "supersede") {
			t.Errorf("in a circle through %s: got %v", parent, err)
		}
	}
	if _, err := h.runner.Act(t.Context(), first, rollout.Command{Action: rollout.Replace, Actor: "ada", Reason: "test", By: second}); !errors.Is(err, rollout.ErrNotNow) {
		t.Errorf("replaced by a person: got %v, want %v", err, rollout.ErrNotNow)
	}
	h.act(first, rollout.Abort)
	h.act(second, rollout.Start) // a parent that has ended is no hindrance
	h.until(second, is(rollout.StatusCompleted))
}

// What a device says of the release as a shadow stops the rollout as well, and
// no device has ever been asked to answer with it.
func TestShadowIsRefused(t *testing.T) {
	h := newHouse(t, "a1", "a2", "b1")
	h.bad[versions["v3"]] = true
	s := spec("v3")
	s.Shadow = &rollout.ShadowSpec{Rows: 100}
	id := h.create(s)
	h.act(id, rollout.Start)
	v := h.until(id, is(rollout.StatusHalted))
	if !strings.Contains(v.State.Header.Cause, "gate golden failed") {
		t.Errorf("halted because %q, want the golden gate", v.State.Header.Cause)
	}
	for device, s := range h.told {
		if slices.Contains(s.seen, versions["v3"]) {
			t.Errorf("%s was asked to answer with v3", device)
		}
	}
	h.verify(id)
}

// Facts of a device that a budget and a shadow phase rest on.
func TestFactsOfGroupsAndShadows(t *testing.T) {
	h := newHouse(t, "a1")
	h.stop()
	d := versions["v2"]
	h.report("a1", &protocol.Report{Models: []*protocol.ModelState{{
		Model: "digits", Active: versions["v1"].Bytes(), Serving: true,
		Outcome:    &protocol.Outcome{Release: d[:], Result: "refused", Code: "load_failed", Generation: 1},
		Challenger: &protocol.Challenger{Role: protocol.RoleShadow, State: &protocol.ModelState{Model: "digits", Outcome: &protocol.Outcome{Release: d[:], Result: "failed", Code: "disk_full", Generation: 2}}},
	}}})
	s := spec("v2")
	s.Release = d
	s.Budget.Unavailable = []rollout.Unavailable{{Label: "site", Max: 1}, {Label: "floor", Max: 1}}
	requires := rollout.Requirements{Variants: []rollout.Variant{{Name: "fp32", Bytes: 1000}, {Name: "int8", Bytes: 300}}}
	r := h.openWith(func(cfg *Config) { cfg.Sizes = less{"fp32": 200} })
	f, ok := r.gather(rollout.New("digits-v2-1", "ada", s.WithDefaults(), requires, time.Now())).Device("a1")
	want := []rollout.Outcome{{Result: "refused", Code: "load_failed", Generation: 1}, {Result: "failed", Code: "disk_full", Generation: 2}}
	if !ok || !slices.Equal(f.Outcomes, want) {
		t.Errorf("outcomes are %+v, want those of both places, %+v", f.Outcomes, want)
	}
	if len(f.Groups) != 2 || f.Groups["site"] != "a" || f.Groups["floor"] != "" {
		t.Errorf("groups are %v, want site a and no floor", f.Groups)
	}
	if f.Bytes != 300 {
		t.Errorf("it downloads %d bytes, want the 300 of the variant that is largest now", f.Bytes)
	}
}

// less is a Sizes.
type less map[string]int64

func (l less) Less(release.Digest, release.Digest) map[string]int64 { return l }

// faulty is a ledger that fails when it is told to, before or after the append.
type faulty struct {
	Ledger

	mu     sync.Mutex
	before func(chain string) error // guarded by mu; nil for nothing
}

func (f *faulty) Append(ctx context.Context, chain string, expect uint64, kind, actor string, body any) (ledger.Record, error) {
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(chain); err != nil {
			return ledger.Record{}, err
		}
	}
	return f.Ledger.Append(ctx, chain, expect, kind, actor, body)
}

func (f *faulty) set(before func(chain string) error) {
	f.mu.Lock()
	f.before = before
	f.mu.Unlock()
}

var errPower = errors.New("the power went")

// The server ends between the end of the parent and the beginning of the child.
// The next one begins it, in the name of who wanted it.
func TestSupersedeIsFinishedAfterARestart(t *testing.T) {
	h := newHouse(t, "a1", "a2")
	parent := h.create(gated("v2"))
	h.act(parent, rollout.Start)
	h.until(parent, is(rollout.StatusAwaiting))
	s := spec("v3")
	s.Supersedes = parent
	child := h.create(s)
	h.stop()

	f := &faulty{Ledger: h.ledger}
	f.set(func(chain string) error {
		if chain == desired.RolloutChain(child) {
			return errPower
		}
		return nil
	})
	dying := h.openWith(func(cfg *Config) { cfg.Ledger = f })
	_, err := dying.Act(t.Context(), child, rollout.Command{Action: rollout.Start, Actor: "bob", Reason: "v2 was wrong"})
	if !errors.Is(err, errPower) {
		t.Fatalf("got %v, want %v", err, errPower)
	}
	h.start()
	v := h.until(child, is(rollout.StatusCompleted))
	if start := v.Timeline[1]; start.Actor != "bob" || start.Reason != "v2 was wrong" || start.Action != rollout.Start {
		t.Errorf("started by %+v, want by bob", start)
	}
	h.until(parent, is(rollout.StatusReplaced))
	h.verify(parent)
	h.verify(child)
}

// silent is a server that ends after the append of each decision, before
// anybody was told.
type silent struct{ Desired }

func (silent) Apply(ledger.Record) error { return errPower }

// The server ends after every single append, or another server is faster at
// every single one: devices are told each decision once, with one number.
func TestEveryDecisionIsToldOnce(t *testing.T) {
	for name, drive := range map[string]func(h *house, id string){"restarts": restarts, "another server": rivalry} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, "a1", "a2", "b1", "b2")
			id := h.create(spec("v2"))
			h.act(id, rollout.Start)
			drive(h, id)
			h.until(id, is(rollout.StatusCompleted))
			h.toldOnce(h.verify(id))
		})
	}
}

// restarts lets servers decide once each and end before they tell anybody.
func restarts(h *house, id string) {
	h.t.Helper()
	h.stop()
	defer h.start()
	for range 100 {
		h.desired = desired.New(h, h.ledger, desired.Config{})
		ctx, cancel := context.WithCancel(h.t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := h.desired.Run(ctx); err != nil {
				h.t.Errorf("run: %v", err)
			}
		})
		<-h.desired.Ready()
		h.alive()
		for _, d := range h.fleet.Devices(nil) {
			h.desired.OnHello(d.ID, d.Generation)
		}
		dying := h.openWith(func(cfg *Config) { cfg.Desired = silent{h.desired} })
		dying.Look(h.t.Context())
		cancel()
		running.Wait()
		if v, err := dying.Get(id); err != nil || v.State.Header.Status == rollout.StatusCompleted {
			return
		}
	}
	h.t.Error("the rollout does not come to its end")
}

// rivalry lets another server decide before every append of this one.
func rivalry(h *house, id string) {
	h.t.Helper()
	f, rival := &faulty{Ledger: h.ledger}, h.open()
	f.set(func(string) error { rival.Look(h.t.Context()); return nil })
	slow := h.openWith(func(cfg *Config) { cfg.Ledger = f })
	for range 1000 {
		if v, err := slow.Get(id); err != nil || v.State.Header.Status == rollout.StatusCompleted {
			return
		}
		h.alive()
		slow.Look(h.t.Context())
	}
	h.t.Error("the rollout does not come to its end")
}

// toldOnce checks that the generations devices were told are those of the
// decisions about them.
func (h *house) toldOnce(records []ledger.Record) {
	h.t.Helper()
	decided := map[string][]uint64{}
	for _, rec := range records[1:] {
		var body Record
		if err := rec.Decode(&body); err != nil {
			h.t.Fatal(err)
		}
		for _, a := range body.Decision.Assign {
			for _, id := range a.Devices {
				decided[id] = append(decided[id], rec.Seq)
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, s := range h.told {
		if !slices.Equal(s.told, decided[id]) {
			h.t.Errorf("%s was told generations %v, decisions about it are %v", id, s.told, decided[id])
		}
	}
}
