package ingest

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// ErrMalformed says that a message breaks the shape of the protocol. Nothing is
// stored or answered: no device of ours sends such a thing.
var ErrMalformed = errors.New("message does not have the shape of the protocol")

// Verdict says what to do with a message: store Accepted if it is there, and
// only then answer with the acks.
type Verdict struct {
	Accepted *protocol.Accepted // without device, time and cursor, which the caller adds
	Acks     []*protocol.Ack
}

// Accept judges one record against the device's cursor. It is pure; after is
// what holds once the verdict's message is stored [P-4.4].
func Accept(c Cursor, r *protocol.Record) (after Cursor, v Verdict, err error) {
	if err := checkRecord(r); err != nil {
		return c, Verdict{}, err
	}
	if c.cloned {
		return c, Verdict{Acks: []*protocol.Ack{{Epoch: r.GetEpoch(), Cloned: true}}}, nil
	}
	e, known := c.find(epochID(r.GetEpoch()))
	if !known && c.full() {
		return c, Verdict{Acks: []*protocol.Ack{{Epoch: r.GetEpoch(), Refused: "this device has used too many epochs"}}}, nil
	}
	switch {
	case usedTwice(e, r):
		c.cloned = true
		return c, Verdict{
			Accepted: &protocol.Accepted{Cloned: true},
			Acks:     []*protocol.Ack{{Epoch: r.GetEpoch(), Seq: e.last, Cloned: true}},
		}, nil
	case r.GetPrev() != e.last || e.closed && r.GetSkip().GetReason() != protocol.SkipClosed:
		return c, Verdict{Acks: []*protocol.Ack{e.ack()}}, nil
	}
	a, next := e.take(r)
	ack := next.ack()
	ack.Refused = a.GetRefused()
	return c.with(next), Verdict{Accepted: a, Acks: []*protocol.Ack{ack}}, nil
}

func checkRecord(r *protocol.Record) error {
	skip := r.GetSkip()
	switch {
	case len(r.GetEpoch()) != protocol.EpochSize, len(r.GetChain()) != protocol.ChainSize:
		return fmt.Errorf("%w: record names no epoch or chain", ErrMalformed)
	case r.GetSeq() == 0, r.GetPrev() >= r.GetSeq():
		return fmt.Errorf("%w: record %d follows %d", ErrMalformed, r.GetSeq(), r.GetPrev())
	case skip == nil && r.GetPrev() != r.GetSeq()-1:
		return fmt.Errorf("%w: record %d leaves records out without a skip", ErrMalformed, r.GetSeq())
	case skip != nil && (len(r.GetBody()) > 0 || skip.GetTo() != r.GetSeq() || !bytes.Equal(skip.GetChain(), r.GetChain())):
		return fmt.Errorf("%w: skip to %d does not fit its record %d", ErrMalformed, skip.GetTo(), r.GetSeq())
	}
	return nil
}

// usedTwice finds two histories under one epoch: another record under a number
// that is taken, or a body that does not follow from the last one [P-4.10].
func usedTwice(e epochCursor, r *protocol.Record) bool {
	if r.GetSeq() <= e.last {
		chain, known := e.chainAt(r.GetSeq())
		return known && chain != chainValue(r.GetChain())
	}
	return r.GetSkip() == nil && r.GetPrev() == e.last &&
		!bytes.Equal(protocol.NextChain(e.chain[:], r.GetBody()), r.GetChain())
}

// take stores a record that follows. What breaks a rule of content is stored as
// lost, under what the device says it counted: so one bad record neither blocks
// the device nor bends the totals [P-4.11].
func (e epochCursor) take(r *protocol.Record) (*protocol.Accepted, epochCursor) {
	total := sumOf(r.GetTotal())
	a := &protocol.Accepted{Body: &protocol.Accepted_Record{Record: r}}
	if r.GetSkip() != nil {
		total = sumOf(r.GetSkip().GetTotal())
		a.LostRecords = r.GetSeq() - r.GetPrev()
		a.Lost = total.over(e.total).tally()
		if !total.covers(e.total) {
			a.Refused = "the total of a skip lies below the total before it"
		}
	} else if err := e.checkBody(r); err != nil {
		// The body is left out, so that no fold can read it by mistake.
		a.Body = &protocol.Accepted_Record{Record: &protocol.Record{
			Epoch: r.GetEpoch(), Seq: r.GetSeq(), Prev: r.GetPrev(), Chain: r.GetChain(), Total: r.GetTotal(),
		}}
		a.Refused = err.Error()
		a.LostRecords = 1
		a.Lost = total.over(e.total).tally()
	}
	highest := e.total.plus(total.over(e.total)) // a total never falls, whatever a device says
	return a, e.advance(r.GetSeq(), chainValue(r.GetChain()), highest)
}

// checkBody refuses a body that cannot be folded.
func (e epochCursor) checkBody(r *protocol.Record) error {
	b, err := sketch.DecodeBody(r.GetBody())
	if err != nil {
		return errors.New("the body cannot be decoded")
	}
	if err := checkContent(b); err != nil {
		return err
	}
	if want, got := e.total.plus(sumOf(protocol.TallyOf(b))), sumOf(r.GetTotal()); want != got {
		return fmt.Errorf("the total says %d rows and %d labels, the records make %d and %d", got.rows, got.labels, want.rows, want.labels)
	}
	return nil
}

// AcceptHello judges a hello: it closes epochs where the device asks for it,
// finds those that the device no longer knows and answers with the cursors
// [P-4.9], [P-4.12]. A hello is always stored, except of a cloned device.
func AcceptHello(c Cursor, h *protocol.Hello) (after Cursor, v Verdict, err error) {
	if err := checkHello(h); err != nil {
		return c, Verdict{}, err
	}
	if c.cloned {
		return c, Verdict{Acks: []*protocol.Ack{{Cloned: true}}}, nil
	}
	v.Accepted = &protocol.Accepted{Body: &protocol.Accepted_Hello{Hello: h}}
	for _, said := range h.GetEpochs() {
		e, known := c.find(epochID(said.GetId()))
		if known || !c.full() {
			e.closed = e.closed || said.GetClosing()
			c = c.with(e)
		}
		ack := e.ack()
		if e.closed {
			_, ack.Superseded = c.find(e.id.successor())
		}
		v.Acks = append(v.Acks, ack)
	}
	if len(h.GetEpochs()) > 0 {
		c, v.Accepted.Abandoned = c.abandon(h)
	}
	return c, v, nil
}

// continued says that the device still is in an epoch, or has gone on from it. A
// closed epoch is judged by its successor where that is known.
func (c Cursor) continued(e epochCursor, alive map[epochID]bool) bool {
	if e.closed {
		if _, known := c.find(e.id.successor()); known {
			return true
		}
	}
	id := e.id
	for range maxLineage {
		if alive[id] {
			return true
		}
		if !e.closed {
			return false // only a closed epoch has a successor
		}
		id = id.successor()
	}
	return false
}

func listed(h *protocol.Hello, id epochID) bool {
	for _, said := range h.GetEpochs() {
		if epochID(said.GetId()) == id {
			return true
		}
	}
	return false
}

// lineage is every epoch that the device may be in: those it lists and their
// successors, which an older hello that arrives late does not know yet.
func lineage(h *protocol.Hello) map[epochID]bool {
	found := map[epochID]bool{}
	for _, said := range h.GetEpochs() {
		id := epochID(said.GetId())
		for range maxLineage {
			if found[id] {
				break
			}
			found[id] = true
			id = id.successor()
		}
	}
	return found
}

// abandon marks the epochs that do not lead to the lineage. What was still to
// come in them is unknown for ever [P-4.12].
func (c Cursor) abandon(h *protocol.Hello) (after Cursor, abandoned [][]byte) {
	var alive map[epochID]bool
	for _, e := range c.epochs {
		if e.abandoned || listed(h, e.id) {
			continue
		}
		if alive == nil {
			alive = lineage(h)
		}
		if c.continued(e, alive) {
			continue
		}
		e.abandoned = true
		c = c.with(e)
		abandoned = append(abandoned, bytes.Clone(e.id[:]))
	}
	return c, abandoned
}
