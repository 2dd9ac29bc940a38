// Package runner drives the rollouts. It gathers the facts that a rollout
// rests on, lets the pure engine decide, and commits what it decided by one
// append to the rollout's ledger chain: with that append the decision is taken,
// and only then are devices told.
//
// What is in memory is a fold of the chains and nothing more, so a restart, or
// another server that was faster, costs a read. The runner sleeps until a
// device says something, an operator acts or the nearest deadline passes.
package runner

import (
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// Ledger kinds of a rollout's records.
const (
	KindCreated = "rollout.created" // Created
	KindStep    = "rollout.step"    // Record, decided by the engine
	KindAction  = "rollout.action"  // Record, with an operator's command
)

// Actor is the ledger's name for the engine.
const Actor = "engine"

// Created is the first record of a rollout's chain.
type Created struct {
	Reason string         `json:"reason,omitempty"`
	State  *rollout.State `json:"state"`
}

// Record is every further record of a rollout's chain.
type Record struct {
	Decision rollout.Decision   `json:"decision"`
	Facts    rollout.FactsPatch `json:"facts"`  // changes since the record before
	Digest   string             `json:"digest"` // SHA-256 of state and facts after it, hex
}

// Entry is one record of a rollout's timeline.
type Entry struct {
	Seq     uint64           `json:"seq"` // in the ledger
	At      time.Time        `json:"at"`
	Actor   string           `json:"actor"`
	Kind    string           `json:"kind"`
	Reason  string           `json:"reason,omitempty"`
	Hash    string           `json:"hash"` // of the record in its chain
	Action  rollout.Action   `json:"action,omitempty"`
	Changes []rollout.Change `json:"changes,omitempty"`
}

// View is one rollout as it stands, with what its gates say at this moment.
type View struct {
	State    *rollout.State       `json:"state"`
	Revision uint64               `json:"revision"`        // ledger sequence of its newest record
	Gates    []rollout.GateResult `json:"gates,omitempty"` // of the newest wave, judged now
	Actions  []rollout.Action     `json:"actions"`         // possible now
	Timeline []Entry              `json:"timeline"`        // oldest first
}
