package outbox

import "github.com/vedette-edge/vedette/protocol"

// Sum is a protocol.Tally by value.
type Sum struct{ Rows, Labels uint64 }

func sumOf(t *protocol.Tally) Sum { return Sum{Rows: t.GetRows(), Labels: t.GetLabels()} }

// Tally is the sum as the wire has it.
func (s Sum) Tally() *protocol.Tally { return &protocol.Tally{Rows: s.Rows, Labels: s.Labels} }

func (s Sum) plus(o Sum) Sum { return Sum{s.Rows + o.Rows, s.Labels + o.Labels} }

// minus returns s − o; ok is false when o is larger in any part.
func (s Sum) minus(o Sum) (d Sum, ok bool) {
	if o.Rows > s.Rows || o.Labels > s.Labels {
		return Sum{}, false
	}
	return Sum{s.Rows - o.Rows, s.Labels - o.Labels}, true
}

// EpochID names one unbroken counter of records.
type EpochID [protocol.EpochSize]byte

func (e EpochID) successor() EpochID { return EpochID(protocol.Successor(e[:])) }

// chainValue is the chain of all bodies of an epoch up to one.
type chainValue [protocol.ChainSize]byte

func (c chainValue) next(body string) chainValue {
	return chainValue(protocol.NextChain(c[:], []byte(body)))
}

// Mark is a point in an epoch: everything up to Seq.
type Mark struct {
	Seq   uint64
	Chain chainValue
	Total Sum
}

// then is the mark after one more body.
func (m Mark) then(body string, s Sum) Mark {
	return Mark{Seq: m.Seq + 1, Chain: m.Chain.next(body), Total: m.Total.plus(s)}
}

func (m Mark) skip(epoch EpochID, prev uint64, reason string) *protocol.Record {
	return &protocol.Record{
		Epoch: epoch[:], Seq: m.Seq, Prev: prev, Chain: m.Chain[:], Total: m.Total.Tally(),
		Skip: &protocol.Skip{To: m.Seq, Chain: m.Chain[:], Total: m.Total.Tally(), Reason: reason},
	}
}
