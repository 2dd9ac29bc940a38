package main

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/agent/uplink"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// agent is one simulated device: the real uplink over MQTT and TLS with an
// accounting in memory, and in place of models a script of what their updates
// take and show.
type agent struct {
	id, site string
	fleet    *fleet
	pair     tls.Certificate
	box      *box
	link     *uplink.Uplink
	boot     []byte
	started  time.Time

	mu         sync.Mutex // guards all below
	generation uint64
	work       *time.Timer // the next state of the update, nil when idle
	update     update
	window     time.Time // since when predictions are counted
}

// update is what the agent reports of its one model.
type update struct {
	active, previous, target release.Digest
	decision                 uint64 // that asked for target
	state                    string
	since                    time.Time
	outcome                  *protocol.Outcome
	refused                  []*protocol.Outcome
}

// Codes and results as agents report them.
const (
	stateIdle     = "idle"
	resultActive  = "active"
	resultFailed  = "failed"
	codeGolden    = "golden_mismatch"
	agentVersion  = "1.0.0"
	rowsAWindow   = 200
	failedPercent = 30 // of the rows of a release that has turned bad
)

// step is a state of an update and how long it takes at the least and at the
// most, on a device that reports every minute.
type step struct {
	state       string
	least, most time.Duration
}

// forward is a version that has to be fetched; back is one that lies in the
// other slot.
var (
	forward = []step{
		{"resolving", 100 * time.Millisecond, 500 * time.Millisecond},
		{"downloading", 2 * time.Second, 8 * time.Second},
		{"verifying", 100 * time.Millisecond, 500 * time.Millisecond},
		{"trialing", time.Second, 4 * time.Second},
		{"activating", 50 * time.Millisecond, 200 * time.Millisecond},
	}
	back = []step{{"activating", 100 * time.Millisecond, 500 * time.Millisecond}}
)

func (a *agent) connect(f *fleet) (err error) {
	a.link, err = uplink.New(uplink.Config{
		Device: a.id, Brokers: f.brokers, Outbox: a.box,
		TLS: func() *tls.Config {
			return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{a.pair}, RootCAs: f.ca}
		},
		Hello: a.hello, Report: a.report, Stamp: a.stamp, Desired: a.desired,
		ReportEvery: f.size.report, MinBackoff: f.size.jitter,
	})
	return err
}

func (a *agent) stamp() *protocol.Stamp { return a.stampAt(time.Now()) }

func (a *agent) stampAt(at time.Time) *protocol.Stamp {
	return &protocol.Stamp{Boot: a.boot, MonotonicMs: millis(at.Sub(a.started)), WallMs: at.UnixMilli()}
}

func millis(d time.Duration) uint64 { return uint64(max(d, 0).Milliseconds()) } //nolint:gosec // never negative

func (a *agent) hello() *protocol.Hello {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &protocol.Hello{
		AgentVersion: agentVersion, BootCount: 1, Generation: a.generation, Facts: a.fleet.facts, RootDigest: a.fleet.root,
	}
}

func (a *agent) report() *protocol.Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	r := &protocol.Report{Generation: a.generation, DiskFreeBytes: 8 << 30, RssBytes: 30 << 20}
	u := &a.update
	if u.state == "" {
		return r
	}
	r.Models = []*protocol.ModelState{{
		Model: model, Active: bytesOf(u.active), Previous: bytesOf(u.previous), Target: bytesOf(u.target),
		State: u.state, StateForMs: millis(now.Sub(u.since)), Serving: !u.active.IsZero(), Outcome: u.outcome, Refused: u.refused,
		Provider: "CPUExecutionProvider",
	}}
	a.fleet.log.reported(a.id, u, now)
	return r
}

func bytesOf(d release.Digest) []byte {
	if d.IsZero() {
		return nil
	}
	return d.Bytes()
}

// desired takes what the control plane wants the device to be.
func (a *agent) desired(d *protocol.Desired) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.GetGeneration() <= a.generation {
		return
	}
	a.generation = d.GetGeneration()
	for _, as := range d.GetAssignments() {
		if as.GetModel() == model && as.GetRole() == protocol.RolePrimary {
			a.follow(release.Digest(as.GetRelease()), as.GetDecision())
		}
	}
	a.link.Nudge()
}

// follow begins the update to a release, unless it is there or under way. The
// caller holds mu.
func (a *agent) follow(to release.Digest, decision uint64) {
	u := &a.update
	if decision == u.decision {
		return
	}
	u.decision = decision
	a.fleet.log.ordered(a.id, to, decision, time.Now())
	if to == u.target {
		return
	}
	if a.work != nil {
		a.work.Stop()
		a.work = nil
	}
	if u.target = to; to == u.active {
		u.target = release.Digest{}
		a.enter(stateIdle)
		return
	}
	steps := forward
	if to == u.previous {
		steps = back
	}
	a.walk(steps)
}

func (a *agent) enter(state string) { a.update.state, a.update.since = state, time.Now() }

// walk goes through the states of an update in their time. The caller holds mu.
func (a *agent) walk(steps []step) {
	if len(steps) == 0 {
		a.switchOver()
		a.link.Nudge()
		return
	}
	s := steps[0]
	a.enter(s.state)
	a.link.Nudge()
	target := a.update.target
	a.work = time.AfterFunc(a.fleet.size.pace(s.least+rand.N(s.most-s.least)), func() { //nolint:gosec // spreads load, keeps no secret
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case a.update.target != target: // another decision came
		case s.state == "trialing" && a.fleet.behaves(target).golden:
			a.refuse()
			a.link.Nudge()
		default:
			a.walk(steps[1:])
		}
	})
}

// refuse ends an update whose golden vectors disagree. The caller holds mu.
func (a *agent) refuse() {
	u := &a.update
	u.outcome = &protocol.Outcome{
		Release: u.target.Bytes(), Result: resultFailed, Code: codeGolden, Generation: a.generation,
		Message: "3 of 64 golden rows differ by more than the tolerance", At: a.stamp(),
	}
	u.refused = append(u.refused, u.outcome)
	u.target = release.Digest{}
	a.enter(stateIdle)
}

// switchOver makes the target the release that serves. The caller holds mu.
func (a *agent) switchOver() {
	a.count(time.Now())
	u := &a.update
	u.active, u.previous, u.target = u.target, u.active, release.Digest{}
	u.outcome = &protocol.Outcome{Release: u.active.Bytes(), Result: resultActive, Generation: a.generation, At: a.stamp()}
	a.enter(stateIdle)
	a.window = time.Now()
}

// close ends the open window, as it is done at the end of every interval.
func (a *agent) close(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count(now)
}

// count puts what the active release predicted since the last window into the
// outbox. The caller holds mu.
func (a *agent) count(now time.Time) {
	u := &a.update
	if u.active.IsZero() || a.window.IsZero() {
		return
	}
	if now.Sub(a.window) < a.fleet.size.report/10 {
		return // cut short by an update: the next window holds it
	}
	w := a.fleet.behaves(u.active).window()
	w.Release = u.active.Bytes()
	w.StartMonotonicMs, w.EndMonotonicMs = millis(a.window.Sub(a.started)), millis(now.Sub(a.started))
	w.StartWallMs, w.EndWallMs = a.window.UnixMilli(), now.UnixMilli()
	a.window = now
	body := &protocol.Body{At: a.stampAt(now), Kind: &protocol.Body_Window{Window: w}}
	raw, err := sketch.EncodeBody(body)
	if err != nil {
		a.fleet.fail(fmt.Errorf("count on %s: %w", a.id, err))
		return
	}
	if w.GetFailedRows() > 0 {
		a.fleet.log.sick(u.active, now)
	}
	a.box.add(raw, protocol.TallyOf(body))
}
