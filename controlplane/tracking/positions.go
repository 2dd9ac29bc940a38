package tracking

import (
	"encoding/binary"
	"iter"
)

const (
	// maxPositions bounds the memory of where one run's history lies, in bytes: some
	// hundred thousand messages exactly. Beyond that it is known less exactly.
	maxPositions = 256 << 10
	coarser      = 3
)

// positions are the messages of the journal that hold a run's history, ascending:
// blocks of 2^shift messages, each as the distance to the one before. A copy and
// what is added to it share memory, as with append.
type positions struct {
	_     struct{} `cbor:",toarray"`
	Shift uint8
	Last  uint64 // the last block
	Raw   []byte
}

// add is the positions with another message, which is the last.
func (p positions) add(seq uint64) positions {
	block := seq >> p.Shift
	if len(p.Raw) > 0 && block == p.Last {
		return p
	}
	p.Raw = binary.AppendUvarint(p.Raw, block-p.Last)
	p.Last = block
	if len(p.Raw) <= maxPositions {
		return p
	}
	out := positions{Shift: p.Shift + coarser}
	for first := range p.blocks() {
		out = out.add(first)
	}
	return out
}

// blocks are the first message of each block and the last.
func (p positions) blocks() iter.Seq2[uint64, uint64] {
	return func(yield func(first, last uint64) bool) {
		block := uint64(0)
		for raw := p.Raw; len(raw) > 0; {
			n, size := binary.Uvarint(raw)
			if size <= 0 {
				return
			}
			raw, block = raw[size:], block+n
			if !yield(block<<p.Shift, (block+1)<<p.Shift-1) {
				return
			}
		}
	}
}

// near is how many messages of others are read rather than asking anew.
const near = 16

// ranges are the messages from a sequence on that have to be read, to the end of
// the journal at most.
func (p positions) ranges(from, end uint64) iter.Seq2[uint64, uint64] {
	return func(yield func(first, last uint64) bool) {
		var first, last uint64
		for a, b := range p.blocks() {
			a, b = max(a, from, 1), min(b, end)
			switch {
			case a > b:
			case first == 0:
				first, last = a, b
			case a <= last+near:
				last = b
			default:
				if !yield(first, last) {
					return
				}
				first, last = a, b
			}
		}
		if first != 0 {
			yield(first, last)
		}
	}
}
