package operator

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// PromotionReader reads what happens by itself after a version was published.
type PromotionReader interface {
	Promotions(ctx context.Context, model string) ([]Promotion, error)
	PromotionPolicy(ctx context.Context, model string) (*PromotionPolicy, error)
}

// PromotionCommander says what happens by itself, and approves it.
type PromotionCommander interface {
	SetPromotionPolicy(ctx context.Context, model string, c PromotionPolicyChange) (*PromotionPolicy, error)
	DecidePromotion(ctx context.Context, model, version string, d PromotionDecision) (*Promotion, error)
}

// PromotionState is where a promotion stands.
type PromotionState string

// States of a promotion. The last four are final.
const (
	PromotionGates      PromotionState = "gates"             // waits until the model's gates are cleared
	PromotionAwaiting   PromotionState = "awaiting_approval" // a person approves the rollout
	PromotionStarting   PromotionState = "starting"          // the rollout is being made
	PromotionRollingOut PromotionState = "rolling_out"
	PromotionCompleted  PromotionState = "completed"
	PromotionRejected   PromotionState = "rejected"   // by a person, by a deadline, or withdrawn
	PromotionFailed     PromotionState = "failed"     // the rollout could not be made, or ended otherwise
	PromotionSuperseded PromotionState = "superseded" // a newer version came before the rollout
)

// Final says whether nothing happens any more.
func (s PromotionState) Final() bool {
	switch s {
	case PromotionCompleted, PromotionRejected, PromotionFailed, PromotionSuperseded:
		return true
	case PromotionGates, PromotionAwaiting, PromotionStarting, PromotionRollingOut:
	}
	return false
}

// Promotion is one version on its way to the fleet.
type Promotion struct {
	Model    string         `json:"model"`
	Version  string         `json:"version"`
	Release  release.Digest `json:"release"`
	Why      string         `json:"why"`                // who proposed it, and on what grounds
	Retrain  string         `json:"retrain,omitempty"`  // request for retraining that it answers
	Evidence string         `json:"evidence,omitempty"` // of a challenger's verdict
	State    PromotionState `json:"state"`
	Text     string         `json:"text,omitempty"`     // what it waits for, or why it ended
	Approver Role           `json:"approver,omitempty"` // role that may approve it; empty when nobody needs to
	Decided  string         `json:"decided,omitempty"`  // who approved or denied it
	Rollout  string         `json:"rollout,omitempty"`  // id
	Created  time.Time      `json:"created"`
	Since    time.Time      `json:"since"`             // in this state
	Deadline time.Time      `json:"deadline,omitzero"` // of this state
}

// PromotionPolicy says what happens by itself. Text is empty when nothing does.
type PromotionPolicy struct {
	Model  string    `json:"model"`
	Text   string    `json:"text"` // YAML, as it was set
	Actor  string    `json:"actor,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at,omitzero"` // versions published after it are taken
}

// PromotionPolicyChange sets the policy of a model. An empty text removes it.
type PromotionPolicyChange struct {
	Text   string `json:"text"` // YAML; `vedette model promotion spec` explains it
	Reason string `json:"reason"`
}

// PromotionDecision approves or denies a rollout.
type PromotionDecision struct {
	Approve bool   `json:"approve"`
	Reason  string `json:"reason"`
}
