package runner

import (
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/ledger"
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
	Digest   string             `json:"digest"` // rollout.Digest of state and facts after it
}

// Entry is one record of a rollout's timeline.
type Entry struct {
	Seq     uint64           `json:"seq"` // in the ledger
	At      time.Time        `json:"at"`
	Actor   string           `json:"actor"`
	Kind    string           `json:"kind"`
	Hash    string           `json:"hash"` // of the record in its chain
	Action  rollout.Action   `json:"action,omitempty"`
	Reason  string           `json:"reason,omitempty"`
	Changes []rollout.Change `json:"changes,omitempty"`
	Spec    *rollout.Spec    `json:"spec,omitempty"` // that holds from here on, where it is a new one
}

// chain is the fold of one rollout's records. It is never changed.
type chain struct {
	state    *rollout.State
	facts    *rollout.Facts // as of the newest record
	head     uint64         // ledger sequence of the newest record
	timeline []Entry
	digest   string // that the newest record states; "" for the first
}

// begin is the fold of the first record.
func begin(rec ledger.Record) (*chain, error) {
	var body Created
	if rec.Kind != KindCreated {
		return nil, fmt.Errorf("ledger chain %s begins with %q, not with %q", rec.Chain, rec.Kind, KindCreated)
	}
	if err := rec.Decode(&body); err != nil {
		return nil, err
	}
	if body.State == nil {
		return nil, fmt.Errorf("ledger record %d makes no rollout", rec.Seq)
	}
	if err := readable(body.State.Format, rec); err != nil {
		return nil, err
	}
	if body.State.Devices == nil {
		body.State.Devices = map[string]*rollout.Device{}
	}
	return &chain{
		state: body.State, facts: &rollout.Facts{Devices: map[string]*rollout.DeviceFacts{}}, head: rec.Seq,
		timeline: []Entry{{Seq: rec.Seq, At: rec.At, Actor: rec.Actor, Kind: rec.Kind, Hash: rec.Hash, Reason: body.Reason, Spec: &body.State.Spec}},
	}, nil
}

// add is the fold after one more record.
func (c *chain) add(rec ledger.Record, body *Record) (*chain, error) {
	state, err := c.state.Apply(body.Decision.Patch, rec.Seq)
	if err != nil {
		return nil, err
	}
	e := Entry{Seq: rec.Seq, At: rec.At, Actor: rec.Actor, Kind: rec.Kind, Hash: rec.Hash, Changes: body.Decision.Changes, Spec: body.Decision.Patch.Spec}
	if cmd := body.Decision.Command; cmd != nil {
		e.Action, e.Reason = cmd.Action, cmd.Reason
	}
	return &chain{
		state: state, facts: c.facts.Apply(body.Facts), head: rec.Seq,
		timeline: append(slices.Clip(c.timeline), e), digest: body.Digest,
	}, nil
}

// readable refuses a record of a format that this program does not know. Those
// before its own it folds: fields were only added.
func readable(format int, rec ledger.Record) error {
	if format < 1 || format > rollout.Format {
		return fmt.Errorf("ledger record %d has format %d, this program knows up to %d: a newer server wrote it, update this one", rec.Seq, format, rollout.Format)
	}
	return nil
}

// decode reads any record but the first.
func decode(rec ledger.Record) (*Record, error) {
	var body Record
	if err := rec.Decode(&body); err != nil {
		return nil, err
	}
	return &body, readable(body.Decision.Format, rec)
}

// fold reads a whole chain.
func fold(records []ledger.Record) (*chain, error) {
	if len(records) == 0 {
		return nil, ErrNotFound
	}
	c, err := begin(records[0])
	if err != nil {
		return nil, err
	}
	for _, rec := range records[1:] {
		body, err := decode(rec)
		if err != nil {
			return nil, err
		}
		if c, err = c.add(rec, body); err != nil {
			return nil, err
		}
	}
	return c, nil
}
