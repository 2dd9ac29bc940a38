package outbox

import (
	"maps"
	"slices"

	"github.com/vedette-edge/vedette/protocol"
)

// Ack takes the server's cursor of one epoch [P-4.4]. The change is false when
// nothing has to be written; After then still holds.
func (b *Book) Ack(a *protocol.Ack) (after *Book, c Change, write bool) {
	if len(a.GetEpoch()) != protocol.EpochSize || a.GetCloned() {
		return b, Change{}, false
	}
	id := EpochID(a.GetEpoch())
	switch {
	case id != b.head.Epoch:
		return b.ackFormer(id, a.GetSeq()), Change{}, false
	case a.GetClosed():
		c := b.resolve(a)
		return c.After, c, true
	case b.head.Closing:
		return b, Change{}, false // only the final cursor answers the question
	default:
		return b.ackCurrent(a)
	}
}

func (b *Book) ackFormer(id EpochID, seq uint64) *Book {
	i := slices.IndexFunc(b.head.Former, func(f Former) bool { return f.Epoch == id })
	if i < 0 {
		return b
	}
	next := b.copy()
	next.former = maps.Clone(b.former)
	if seq >= b.head.Former[i].Final.Seq {
		delete(next.former, id)
		return next
	}
	if next.former == nil {
		next.former = map[EpochID]uint64{}
	}
	next.former[id] = seq
	return next
}

func (b *Book) ackCurrent(a *protocol.Ack) (after *Book, c Change, write bool) {
	next := b.copy()
	if a.GetSeq() > b.head.Sent.Seq {
		// The server holds numbers that were never given out here: a copy of this
		// outbox did. Going on as if nothing was heard makes it see both [P-4.10].
		return b, Change{}, false
	}
	m, known := b.markAt(a.GetSeq())
	if known && len(a.GetChain()) == protocol.ChainSize && chainValue(a.GetChain()) != m.Chain {
		next.base = min(b.head.Acked.Seq, a.GetSeq()) // the same: send, so that the server sees it
		return next, Change{}, false
	}
	if !known {
		m, known = markOf(a)
	}
	next.base = a.GetSeq()
	if !known || m.Seq <= b.head.Acked.Seq {
		return next, Change{}, false
	}
	next.head.Acked = m
	next.sent = nil
	kept := map[uint64]bool{}
	for _, s := range b.sent {
		if s.Seq > m.Seq {
			next.sent = append(next.sent, s)
			kept[s.batch] = true
		}
	}
	c = b.change(next, Frame{Kind: kindHead}, b.batchKeys(kept)...)
	return c.After, c, true
}

// batchKeys are the keys of sent batches that are not kept.
func (b *Book) batchKeys(kept map[uint64]bool) []string {
	var drop []string
	for i, s := range b.sent {
		if !kept[s.batch] && (i == 0 || b.sent[i-1].batch != s.batch) {
			drop = append(drop, keyOf(kindSent, s.batch))
		}
	}
	return drop
}

// markOf is the cursor that an ack states.
func markOf(a *protocol.Ack) (Mark, bool) {
	m := Mark{Seq: a.GetSeq(), Total: sumOf(a.GetTotal())}
	if m.Seq > 0 && len(a.GetChain()) != protocol.ChainSize {
		return m, false
	}
	copy(m.Chain[:], a.GetChain())
	return m, true
}

// markAt is what this device knows of the epoch at seq.
func (b *Book) markAt(seq uint64) (Mark, bool) {
	switch seq {
	case 0:
		return Mark{}, true
	case b.head.Acked.Seq:
		return b.head.Acked, true
	case b.head.Sent.Seq:
		return b.head.Sent, true
	}
	for _, s := range b.sent {
		switch seq {
		case s.Seq:
			return s.Mark, true
		case s.Seq - 1:
			return s.before(), true
		}
	}
	return Mark{}, false
}

// outcome is what closing an epoch comes to.
type outcome struct {
	back    []Entry // numbered records that the server does not hold and never will under that number
	gone    int     // pending records, from the oldest, that it does hold
	lost    Sum
	records uint64
	unknown bool
}

// resolve closes the current epoch at the server's final cursor and begins its
// successor. Everything that was numbered and did not arrive gets a new number;
// what is gone is reported by an event in the new epoch [P-4.9].
func (b *Book) resolve(a *protocol.Ack) Change {
	final, ok := markOf(a)
	var o outcome
	if final.Seq <= b.head.Sent.Seq {
		o = b.settle(final)
	} else {
		o = b.forgotten(final)
	}
	o.unknown = o.unknown || !ok
	return b.successor(final, o, a.GetSuperseded())
}

// settle compares what was numbered with what arrived.
func (b *Book) settle(final Mark) outcome {
	var o outcome
	m, known := b.markAt(final.Seq)
	o.unknown = known && m.Chain != final.Chain
	rest, ok := b.head.Sent.Total.minus(final.Total)
	for _, s := range b.sent {
		if s.Seq <= final.Seq {
			continue
		}
		e, err := entryOf(s.body)
		if err != nil {
			e = Entry{Body: s.body, size: len(s.body), Sum: s.sum} // numbered as it is; it merges with nothing
		}
		o.back = append(o.back, e)
		var enough bool
		rest, enough = rest.minus(s.sum)
		ok = ok && enough
	}
	o.records = b.head.Sent.Seq - final.Seq - uint64(len(o.back))
	o.lost, o.unknown = rest, o.unknown || !ok
	return o
}

// forgotten finds the pending records that were sent by changes this device
// lost. The chain proves it; without proof nothing that may have been sent is
// sent again, because counting twice is worse than saying that one does not know.
func (b *Book) forgotten(final Mark) outcome {
	m, suspects := b.head.Sent, 0
	line := b.head.Suspect
	if !b.head.Closing {
		line = b.head.Next // a copy closed the epoch: it may have sent all of them
	}
	for i, it := range b.pending {
		if it.Index >= line {
			break
		}
		suspects++
		m = m.then(it.Body, it.Sum)
		if m == final {
			return outcome{gone: i + 1}
		}
	}
	return outcome{gone: suspects, unknown: true}
}

func (b *Book) successor(final Mark, o outcome, superseded bool) Change {
	next := b.copy()
	h := &next.head
	h.Former = append(slices.Clone(h.Former), Former{Epoch: h.Epoch, Final: final})
	if len(h.Former) > maxFormer {
		h.Former = h.Former[len(h.Former)-maxFormer:]
	}
	h.Epoch = h.Epoch.successor()
	h.Sent, h.Acked, next.base, next.sent = Mark{}, Mark{}, 0, nil
	if o.gone > 0 {
		h.Moved = b.pending[o.gone-1].Index
	}
	next.pending = slices.Clone(b.pending[o.gone:])
	for _, e := range o.back {
		next.pending = append(next.pending, &Item{Entry: e, Index: h.Next})
		h.Next++
	}
	h.Closing, h.Suspect, h.Unknown = superseded, 0, h.Unknown || o.unknown
	if superseded {
		h.Suspect = h.Next
	}
	if o.records > 0 || o.lost != (Sum{}) || o.unknown {
		next.pending = append(next.pending, &Item{Entry: lossEvent("epoch_closed", o.records, o.lost, o.unknown), Index: h.Next})
		h.Next++
	}
	next.count()
	return Change{After: next, Rewrite: true}
}

// count sets the sums to what is there.
func (b *Book) count() {
	b.head.Waiting, b.head.Count, b.use = Sum{}, 0, nil
	for _, it := range slices.Concat(b.open, b.pending) {
		b.enter(it.Entry)
	}
}

// lossEvent reports records that never got a number, or lost it [P-4.7].
func lossEvent(kind string, records uint64, lost Sum, unknown bool) Entry {
	v := &protocol.Event{Kind: kind, LostRecords: records, Lost: lost.Tally(), LostUnknown: unknown}
	e, err := NewEntry(&protocol.Body{Kind: &protocol.Body_Event{Event: v}})
	if err != nil {
		panic(err) // a message of four small fields always encodes
	}
	return e
}
