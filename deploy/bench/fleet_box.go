package main

import (
	"slices"
	"sync"

	"github.com/vedette-edge/vedette/protocol"
)

// box is the outbox of a simulated agent: the exact accounting of the real one
// [P-4], kept in memory alone. Its agent never restarts, so its epoch goes on.
type box struct {
	changed chan struct{}

	mu       sync.Mutex // guards all below
	epoch    []byte
	seq      uint64 // last number given out
	acked    uint64
	chain    []byte         // at seq
	total    protocol.Tally // at seq
	pending  []entry        // without a number yet
	inFlight []*protocol.Record
	failed   string // why the server refused a record, "" for never
}

// entry is a body with what it adds to the accounting.
type entry struct {
	body  []byte
	tally *protocol.Tally
}

func newBox(epoch []byte) *box {
	return &box{changed: make(chan struct{}, 1), epoch: epoch}
}

// add puts a record at the end of the queue.
func (x *box) add(body []byte, tally *protocol.Tally) {
	x.mu.Lock()
	x.pending = append(x.pending, entry{body, tally})
	x.mu.Unlock()
	x.wake()
}

func (x *box) wake() {
	select {
	case x.changed <- struct{}{}:
	default:
	}
}

// Send implements uplink.Outbox.
func (x *box) Send(limit int) ([]*protocol.Record, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.pending) > 0 && len(x.inFlight) < protocol.MaxSent {
		x.number(x.pending[0])
		x.pending = x.pending[1:]
	}
	return slices.Clone(x.inFlight[:min(limit, len(x.inFlight))]), nil
}

// number freezes a record. The caller holds mu.
func (x *box) number(e entry) {
	x.chain = protocol.NextChain(x.chain, e.body)
	total := x.total.Add(e.tally)
	x.total.Rows, x.total.Labels = total.GetRows(), total.GetLabels()
	x.inFlight = append(x.inFlight, &protocol.Record{
		Epoch: x.epoch, Seq: x.seq + 1, Prev: x.seq, Chain: x.chain, Body: e.body, Total: total,
	})
	x.seq++
}

// Ack implements uplink.Outbox.
func (x *box) Ack(a *protocol.Ack) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if string(a.GetEpoch()) != string(x.epoch) {
		return nil
	}
	if a.GetRefused() != "" {
		x.failed = a.GetRefused()
	}
	x.acked = max(x.acked, a.GetSeq())
	x.inFlight = slices.DeleteFunc(x.inFlight, func(r *protocol.Record) bool { return r.GetSeq() <= x.acked })
	if len(x.pending) > 0 {
		x.wake()
	}
	return nil
}

// Epochs implements uplink.Outbox.
func (x *box) Epochs() []*protocol.Epoch {
	x.mu.Lock()
	defer x.mu.Unlock()
	return []*protocol.Epoch{{Id: x.epoch, Sent: x.seq, Acked: x.acked, Chain: x.chain, Current: true}}
}

// Changed implements uplink.Outbox.
func (x *box) Changed() <-chan struct{} { return x.changed }

// sizes tells what was counted and how many records wait for their receipt.
func (x *box) sizes() (rows uint64, waiting int, refused string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	rows = x.total.GetRows()
	for _, e := range x.pending {
		rows += e.tally.GetRows()
	}
	return rows, len(x.pending) + len(x.inFlight), x.failed
}
