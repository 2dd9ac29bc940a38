package update_test

import (
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol/release"
)

// into brings a machine that serves v1 into each state of an update to v2, and
// of switching the model off.
var into = map[update.State][]update.Event{
	update.Resolving:   {},
	update.Downloading: {update.Resolved{Release: digest("v2")}},
	update.Verifying:   {update.Resolved{Release: digest("v2")}, update.Fetched{Release: digest("v2")}},
	update.Trialing:    {update.Resolved{Release: digest("v2")}, update.Fetched{Release: digest("v2")}, update.Verified{Release: digest("v2")}},
	update.Activating:  {update.Resolved{Release: digest("v2")}, update.Fetched{Release: digest("v2")}, update.Verified{Release: digest("v2")}, update.Judged{Release: digest("v2"), OK: true}},
	update.Watching:    {update.Resolved{Release: digest("v2")}, update.Fetched{Release: digest("v2")}, update.Verified{Release: digest("v2")}, update.Judged{Release: digest("v2"), OK: true}, update.Activated{Release: digest("v2"), Order: 1}},
	update.Reverting:   {update.Resolved{Release: digest("v2")}, update.Fetched{Release: digest("v2")}, update.Verified{Release: digest("v2")}, update.Judged{Release: digest("v2"), OK: true}, update.Failed{Release: digest("v2"), Code: "activate_failed", Message: "scripted"}},
}

// Each state but idle has an end, restarts and jumps of the clock or not. It is
// left then, with a reason that is told.
func TestEveryStateHasADeadline(t *testing.T) {
	for _, state := range update.States() {
		for _, restarts := range []int{0, 5} {
			if state == update.Idle {
				continue
			}
			t.Run(string(state), func(t *testing.T) {
				events, ok := into[state]
				if !ok {
					t.Fatal("no way into the state: say one")
				}
				p := newPlay()
				p.step(update.Started{Active: digest("v1")})
				p.step(update.Desired{Want: update.Want{Release: digest("v2"), Decision: 2}})
				for _, e := range events {
					p.step(e)
				}
				if p.machine.State != state {
					t.Fatalf("in %s", p.machine.State)
				}
				overdue(t, p, state, restarts)
			})
		}
	}
}

// overdue lets a state's time pass in equal parts between clean restarts.
func overdue(t *testing.T, p *play, state update.State, restarts int) {
	t.Helper()
	at, ok := p.machine.Wake(p.limits)
	whole := at.Sub(p.now)
	if !ok || whole <= 0 || whole > 24*time.Hour {
		t.Fatalf("%s ends in %v, %v", state, whole, ok)
	}
	for n := range restarts {
		p.now = p.now.Add(whole / time.Duration(restarts+1))
		p.machine = journaled(t, p.machine.At(p.now))
		p.now = p.now.AddDate(10*(1-n%3), 0, 0) // ten years ahead, none, ten back
		p.step(update.Started{Active: p.machine.Active, Previous: p.machine.Previous})
	}
	if at, ok = p.machine.Wake(p.limits); !ok || at.Sub(p.now) > whole/time.Duration(restarts+1)+time.Second {
		t.Fatalf("%s ends in %v after %d restarts, want what is left of %v", state, at.Sub(p.now), restarts, whole)
	}
	p.now = at
	p.step(update.Tick{})
	m := p.machine
	if m.State == state {
		t.Fatalf("still %s", state)
	}
	switch reason := reasonOf(m); {
	case reason == nil:
		t.Errorf("%s is left without a word: %+v", state, m)
	case reason.Result != update.ResultActive && (reason.Code == "" || reason.Message == ""):
		t.Errorf("%s is left for no reason: %+v", state, reason)
	}
}

func reasonOf(m update.Machine) *update.Outcome {
	if m.Cause != nil {
		return m.Cause
	}
	return m.Last
}

// Switching a model off ends too, and is tried again at the next wish.
func TestSwitchingOffHasADeadline(t *testing.T) {
	p := newPlay()
	p.step(update.Started{Active: digest("v1")})
	off := update.Desired{Want: update.Want{Release: release.Digest{}, Decision: 2}}
	p.step(off)
	p.step(update.Failed{Code: update.CodeReadOnly, Message: "scripted", Retryable: true})
	p.wait(time.Hour)
	if m := p.machine; m.State != update.Idle || m.Last == nil || m.Last.Code != update.CodeReadOnly {
		t.Errorf("in %s, outcome %+v, want idle and the reason", m.State, m.Last)
	}
	if p.step(off); p.machine.State != update.Activating {
		t.Errorf("in %s after the next wish", p.machine.State)
	}
}

// A disk at fault is no reason to give a release up: after a rest it is tried
// again under the same decision.
func TestDiskAtFaultBarsNothing(t *testing.T) {
	for _, code := range []string{update.CodeDiskFull, update.CodeReadOnly, update.CodeStorage} {
		p := newPlay()
		p.step(update.Started{Active: digest("v1")})
		wish := update.Desired{Want: update.Want{Release: digest("v2"), Decision: 2}}
		p.step(wish)
		for _, e := range into[update.Activating] {
			p.step(e)
		}
		for p.machine.State == update.Activating {
			p.step(update.Failed{Release: digest("v2"), Code: code, Message: "scripted", Retryable: true})
			at, _ := p.machine.Wake(p.limits)
			p.now = at
			p.step(update.Tick{})
		}
		p.step(update.Reverted{Release: digest("v2"), Active: digest("v1")})
		if m := p.machine; m.State != update.Idle || m.Last.Code != code || len(m.Refused) != 0 {
			t.Fatalf("%s: in %s, outcome %+v, refused %v", code, m.State, m.Last, m.Refused)
		}
		if p.step(wish); p.machine.State != update.Idle {
			t.Errorf("%s: tried again without a rest", code)
		}
		p.wait(p.limits.Cooldown)
		if p.step(wish); p.machine.State != update.Resolving {
			t.Errorf("%s: in %s after a rest, want another try", code, p.machine.State)
		}
	}
}
