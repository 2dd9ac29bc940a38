package ingest

import (
	"slices"

	"github.com/vedette-edge/vedette/protocol"
)

// Bounds of a cursor.
const (
	// maxEpochs is how many epochs of one device are remembered. A healthy device
	// has one in its life; each damage or reinstallation adds one.
	maxEpochs = 32
	// storedHistory is how many chain values of an epoch are stored with every
	// message: with all of them a cursor would be a third of the stream. After a
	// restart a clone that repeats older records is found when it comes to these.
	storedHistory = 4
	// maxLineage is how many successors of a listed epoch are followed.
	maxLineage = maxEpochs
)

type (
	epochID    [protocol.EpochSize]byte
	chainValue [protocol.ChainSize]byte
	sum        struct{ rows, labels uint64 }
)

func (e epochID) successor() epochID { return epochID(protocol.Successor(e[:])) }

func sumOf(t *protocol.Tally) sum { return sum{t.GetRows(), t.GetLabels()} }

func (s sum) tally() *protocol.Tally { return &protocol.Tally{Rows: s.rows, Labels: s.labels} }

func (s sum) plus(o sum) sum { return sum{s.rows + o.rows, s.labels + o.labels} }

func (s sum) covers(o sum) bool { return s.rows >= o.rows && s.labels >= o.labels }

// over is what s has beyond o in each part.
func (s sum) over(o sum) sum {
	return sum{s.rows - min(s.rows, o.rows), s.labels - min(s.labels, o.labels)}
}

// Cursor is how far the server holds a device's records. It is a value: Accept
// never changes the one it is given. The zero value knows nothing.
type Cursor struct {
	epochs []epochCursor
	cloned bool
}

// epochCursor is a cursor within one epoch.
type epochCursor struct {
	id        epochID
	last      uint64
	chain     chainValue
	total     sum
	history   []chainValue // of the newest sequences, ending at last; zero where unknown
	closed    bool
	abandoned bool
}

// Cloned says that the identity was used twice and nothing more is taken.
func (c Cursor) Cloned() bool { return c.cloned }

// cleared is the cursor after an operator lifted the mark.
func (c Cursor) cleared() Cursor {
	c.cloned = false
	return c
}

// Proto is the cursor as the stream and the bucket hold it.
func (c Cursor) Proto() *protocol.Cursor {
	out := &protocol.Cursor{Cloned: c.cloned}
	for _, e := range c.epochs {
		p := &protocol.EpochCursor{
			Id: e.id[:], Last: e.last, Chain: e.chain[:], Total: e.total.tally(), Closed: e.closed, Abandoned: e.abandoned,
		}
		for _, h := range e.history[max(0, len(e.history)-storedHistory):] {
			p.History = append(p.History, h[:]...)
		}
		out.Epochs = append(out.Epochs, p)
	}
	return out
}

// CursorOf reads a stored cursor.
func CursorOf(p *protocol.Cursor) Cursor {
	c := Cursor{cloned: p.GetCloned()}
	for _, e := range p.GetEpochs() {
		o := epochCursor{last: e.GetLast(), total: sumOf(e.GetTotal()), closed: e.GetClosed(), abandoned: e.GetAbandoned()}
		copy(o.id[:], e.GetId())
		copy(o.chain[:], e.GetChain())
		for h := range slices.Chunk(e.GetHistory(), protocol.ChainSize) {
			var v chainValue
			copy(v[:], h)
			o.history = append(o.history, v)
		}
		c.epochs = append(c.epochs, o)
	}
	return c
}

// find returns the cursor of an epoch; a new one where there is none.
func (c Cursor) find(id epochID) (epochCursor, bool) {
	for _, e := range c.epochs {
		if e.id == id {
			return e, true
		}
	}
	return epochCursor{id: id}, false
}

// with is the cursor with one epoch changed or added. Where there are too many,
// the oldest finished one makes room.
func (c Cursor) with(e epochCursor) Cursor {
	c.epochs = slices.Clone(c.epochs)
	i := slices.IndexFunc(c.epochs, func(o epochCursor) bool { return o.id == e.id })
	if i >= 0 {
		c.epochs[i] = e
		return c
	}
	if len(c.epochs) >= maxEpochs {
		i := slices.IndexFunc(c.epochs, epochCursor.finished)
		c.epochs = slices.Delete(c.epochs, i, i+1)
	}
	c.epochs = append(c.epochs, e)
	return c
}

func (e epochCursor) finished() bool { return e.closed || e.abandoned }

// full says that no further epoch can be taken.
func (c Cursor) full() bool {
	return len(c.epochs) >= maxEpochs && !slices.ContainsFunc(c.epochs, epochCursor.finished)
}

// chainAt is the chain value at seq, if it is remembered.
func (e epochCursor) chainAt(seq uint64) (chainValue, bool) {
	back := e.last - seq
	if seq == 0 || seq > e.last || back >= uint64(len(e.history)) {
		return chainValue{}, false
	}
	v := e.history[uint64(len(e.history))-1-back]
	return v, v != chainValue{}
}

// advance is the epoch after a record up to seq.
func (e epochCursor) advance(seq uint64, chain chainValue, total sum) epochCursor {
	skipped := min(seq-e.last-1, protocol.MaxSent)
	e.history = append(slices.Clone(e.history), make([]chainValue, skipped)...)
	e.history = append(e.history, chain)
	if n := len(e.history) - protocol.MaxSent; n > 0 {
		e.history = e.history[n:]
	}
	e.last, e.chain, e.total = seq, chain, total
	return e
}

// ack is what the device is told of the epoch.
func (e epochCursor) ack() *protocol.Ack {
	return &protocol.Ack{Epoch: e.id[:], Seq: e.last, Chain: e.chain[:], Total: e.total.tally(), Closed: e.closed}
}
