package runner

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// maxCommit is how far the time of a record may be from that of its decision. An
// append gives up after seconds; in between, a clock may be set.
const maxCommit = 10 * time.Minute

// Broken says which record of a rollout does not follow from those before it.
type Broken struct {
	Chain string
	Seq   uint64    // in the ledger
	At    time.Time // of the record
	Err   error     // what is wrong; a *rollout.Divergence when the engine decides otherwise
}

// Error names the record and what is wrong. A divergence says both by itself.
func (b *Broken) Error() string {
	if d, ok := errors.AsType[*rollout.Divergence](b.Err); ok {
		return d.Error()
	}
	return fmt.Sprintf("ledger record %d of %s, %s: %v", b.Seq, strings.TrimPrefix(b.Chain, desired.RolloutChain("")), b.At.Format(time.RFC3339), b.Err)
}

// Unwrap returns what is wrong.
func (b *Broken) Unwrap() error { return b.Err }

// Verify replays a rollout's chain: every decision must follow from the facts
// recorded with it, and lead to the state whose digest it states. The error is
// a *Broken that names the first that does not.
func Verify(records []ledger.Record) error {
	if len(records) == 0 {
		return ErrNotFound
	}
	v := &replay{}
	for _, rec := range records {
		if err := v.next(rec); err != nil {
			return err
		}
	}
	return nil
}

// replay takes the decisions of one chain again, one record after the other.
type replay struct {
	chain *chain // nil before the first record
	again int    // decisions taken again
	older int    // decisions of an older format, which are taken as they are
}

// next takes the record that follows.
func (v *replay) next(rec ledger.Record) error {
	check := v.later
	if v.chain == nil {
		check = v.first
	}
	if err := check(rec); err != nil {
		return &Broken{Chain: rec.Chain, Seq: rec.Seq, At: rec.At, Err: err}
	}
	return nil
}

// first checks that a rollout begins as a new one.
func (v *replay) first(rec ledger.Record) error {
	c, err := begin(rec)
	if err != nil {
		return err
	}
	s := c.state
	if desired.RolloutChain(s.ID) != rec.Chain {
		return fmt.Errorf("it makes rollout %q", s.ID)
	}
	if s.Header.Creator != rec.Actor {
		return fmt.Errorf("the record is by %q, the rollout by %q", rec.Actor, s.Header.Creator)
	}
	v.chain = c
	if s.Format != rollout.Format {
		return nil
	}
	if err := punctual(rec, s.Header.Created); err != nil {
		return err
	}
	different, err := rollout.Differences(s, rollout.New(s.ID, s.Header.Creator, s.Spec, s.Requires, s.Header.Created))
	if err != nil {
		return err
	}
	if len(different) > 0 {
		return &rollout.Divergence{Rollout: s.ID, Seq: rec.Seq, At: s.Header.Created, Differences: different}
	}
	return nil
}

// later checks any record but the first.
func (v *replay) later(rec ledger.Record) error {
	body, err := decode(rec)
	if err != nil {
		return err
	}
	if body.Decision.Format == rollout.Format {
		if err := v.check(rec, body); err != nil {
			return err
		}
		v.again++
	} else {
		v.older++
	}
	v.chain, err = v.chain.add(rec, body)
	return err
}

func (v *replay) check(rec ledger.Record, body *Record) error {
	kind, actor := KindStep, Actor
	if cmd := body.Decision.Command; cmd != nil {
		kind, actor = KindAction, cmd.Actor
	}
	if rec.Kind != kind || rec.Actor != actor {
		return fmt.Errorf("the record is a %s by %q, its decision a %s by %q", rec.Kind, rec.Actor, kind, actor)
	}
	if err := punctual(rec, body.Decision.At); err != nil {
		return err
	}
	c := v.chain
	_, err := rollout.Replay(c.state, c.facts.Apply(body.Facts), &body.Decision, body.Digest, rec.Seq)
	return err
}

// punctual checks that a record was written when its decision was taken.
func punctual(rec ledger.Record, decided time.Time) error {
	if off := rec.At.Sub(decided); off.Abs() > maxCommit {
		return fmt.Errorf("the record is of %s, its decision of %s", rec.At.Format(time.RFC3339), decided.Format(time.RFC3339))
	}
	return nil
}

// errNoBody says that the body of a record is not in the export.
var errNoBody = errors.New("its body is not in the export")
