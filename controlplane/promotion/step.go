package promotion

import (
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// record is one promotion as it is kept. Format is the version of the form.
type record struct {
	Format int `json:"format"`
	operator.Promotion

	Sequence uint64  `json:"sequence"`          // of the release
	Policy   *Policy `json:"policy"`            // as it was when the version was taken on
	Told     string  `json:"told,omitempty"`    // state that the request for retraining was told of
	Attempt  int     `json:"attempt,omitempty"` // promotions of this release before this one
}

const recordFormat = 1

// name marks the rollout of a promotion: whoever finds a rollout of this creator
// has found the one.
func (r *record) name() string {
	if r.Attempt == 0 {
		return "promotion/" + r.Release.Short()
	}
	return fmt.Sprintf("promotion/%s.%d", r.Release.Short(), r.Attempt)
}

// facts are what is known of a promotion's version.
type facts struct {
	cleared   error  // nil when no gate stops it
	withdrawn bool   // publishers took it back, or raised the floor above it
	newer     string // version of a newer promotion of the model that goes on; empty for none
	rollout   *seen  // of this promotion; nil when there is none
	started   error  // why the last start failed; nil when none did
	lasting   bool   // trying to start again would not help
	staged    bool   // the policy's stage was set, or could not be
	unstaged  error  // why it could not
}

// seen is a rollout as a promotion sees it.
type seen struct {
	ID     string
	Status rollout.Status
	Cause  string
}

// action is what is to be done once a state is stored.
type action string

const (
	actNothing action = ""
	actStart   action = "start" // make the rollout and start it
	actStage   action = "stage" // set the policy's stage
)

// step is the next state of a promotion, and what to do in it. It is called
// again and again; without news it changes nothing.
func step(r record, f facts, now time.Time) (record, action) {
	if f.withdrawn && r.State != operator.PromotionRollingOut {
		return r.to(operator.PromotionRejected, "the version was withdrawn, or lies below the floor", now), actNothing
	}
	switch r.State {
	case operator.PromotionGates:
		return stepGates(r, f, now)
	case operator.PromotionAwaiting:
		return stepAwaiting(r, f, now)
	case operator.PromotionStarting:
		return stepStarting(r, f, now)
	case operator.PromotionRollingOut:
		return stepRollingOut(r, f, now)
	case operator.PromotionCompleted, operator.PromotionRejected, operator.PromotionFailed, operator.PromotionSuperseded:
	}
	return r, actNothing
}

// to moves a promotion into a state, or renews the text of the one it is in.
func (r record) to(s operator.PromotionState, text string, now time.Time) record {
	r.Text = brief(text)
	if r.State == s {
		return r
	}
	r.State, r.Since, r.Deadline = s, now, time.Time{}
	switch s {
	case operator.PromotionGates:
		r.Deadline = now.Add(time.Duration(r.Policy.GatesWithin))
	case operator.PromotionAwaiting:
		r.Deadline = now.Add(time.Duration(r.Policy.ApprovalWithin))
	case operator.PromotionStarting:
		r.Deadline = now.Add(StartWithin)
	case operator.PromotionRollingOut, operator.PromotionCompleted, operator.PromotionRejected, operator.PromotionFailed, operator.PromotionSuperseded:
	}
	return r
}

func (r *record) late(now time.Time) bool { return !r.Deadline.IsZero() && !now.Before(r.Deadline) }

func superseded(r record, f facts, now time.Time) (record, action) {
	return r.to(operator.PromotionSuperseded, "version "+f.newer+" came before the rollout began", now), actNothing
}

func stepGates(r record, f facts, now time.Time) (record, action) {
	switch {
	case f.newer != "":
		return superseded(r, f, now)
	case r.Policy.Gates == None || f.cleared == nil:
		if r.Approver != "" {
			return r.to(operator.PromotionAwaiting, fmt.Sprintf("waits for somebody of role %s or above", r.Approver), now), actNothing
		}
		return r.to(operator.PromotionStarting, "", now), actStart
	case r.late(now):
		return r.to(operator.PromotionRejected, fmt.Sprintf("the gates were not cleared within %v: %v", time.Duration(r.Policy.GatesWithin), f.cleared), now), actNothing
	}
	return r.to(operator.PromotionGates, f.cleared.Error(), now), actNothing
}

func stepAwaiting(r record, f facts, now time.Time) (record, action) {
	switch {
	case f.newer != "":
		return superseded(r, f, now)
	case r.late(now):
		return r.to(operator.PromotionRejected, fmt.Sprintf("nobody approved it within %v", time.Duration(r.Policy.ApprovalWithin)), now), actNothing
	}
	return r, actNothing
}

func stepStarting(r record, f facts, now time.Time) (record, action) {
	switch {
	case f.rollout != nil && f.rollout.Status != rollout.StatusDraft:
		r.Rollout = f.rollout.ID
		return r.to(operator.PromotionRollingOut, "", now), actNothing
	case f.rollout == nil && f.newer != "":
		return superseded(r, f, now)
	case f.started != nil && (f.lasting || r.late(now)):
		return r.to(operator.PromotionFailed, "the rollout could not be started: "+f.started.Error(), now), actNothing
	case f.started != nil:
		return r.to(operator.PromotionStarting, "tried again: "+f.started.Error(), now), actNothing
	}
	return r, actStart
}

func stepRollingOut(r record, f facts, now time.Time) (record, action) {
	if f.rollout == nil {
		return r.to(operator.PromotionFailed, "rollout "+r.Rollout+" is not known any more", now), actNothing
	}
	switch f.rollout.Status {
	case rollout.StatusCompleted:
		switch {
		case r.Policy.Stage == "":
			return r.to(operator.PromotionCompleted, "on the fleet", now), actNothing
		case f.unstaged != nil: // the fleet runs it: that a person has to set the stage is said, not hidden
			return r.to(operator.PromotionCompleted, "on the fleet; its stage was not set: "+f.unstaged.Error(), now), actNothing
		case f.staged:
			return r.to(operator.PromotionCompleted, "on the fleet, stage "+string(r.Policy.Stage), now), actNothing
		}
		return r, actStage
	case rollout.StatusReverted, rollout.StatusAborted, rollout.StatusReplaced:
		return r.to(operator.PromotionFailed, fmt.Sprintf("rollout %s is %s: %s", r.Rollout, f.rollout.Status, f.rollout.Cause), now), actNothing
	case rollout.StatusDraft, rollout.StatusQueued, rollout.StatusAwaiting, rollout.StatusRunning, rollout.StatusPaused, rollout.StatusHalted, rollout.StatusReverting:
	}
	return r.to(operator.PromotionRollingOut, string(f.rollout.Status)+textAfter(f.rollout.Cause), now), actNothing
}

func textAfter(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// decide takes a person's word in.
func (r record) decide(by string, approve bool, reason string, now time.Time) (record, error) {
	if r.State != operator.PromotionAwaiting {
		return r, fmt.Errorf("%w: %s %s is %s", ErrState, r.Model, r.Version, r.State)
	}
	r.Decided = by
	if approve {
		return r.to(operator.PromotionStarting, "approved: "+reason, now), nil
	}
	return r.to(operator.PromotionRejected, "denied: "+reason, now), nil
}

// Proposal asks to bring a version to the fleet.
type Proposal struct {
	Model    string
	Digest   release.Digest
	Why      string // who proposes it, and on what grounds
	Evidence string // that people can look at
	Retrain  string // request for retraining that it answers; empty for none
}
