package sketch

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/axiomhq/hyperloglog"
)

// A distinct sketch has 2^distinctPrecision registers: 6.5% standard error, which
// is plenty for the cap it is there for, in 100 bytes on the wire; with 1.6% it
// would be most of a window.
const (
	distinctPrecision = 8
	registers         = 1 << distinctPrecision
	maxRegister       = 64 - distinctPrecision + 1
	hllHeader         = 8 // version, precision, two zero bytes, big-endian register count
)

// Encodings of a distinct sketch, told by the first byte.
const (
	sparseDistinct = 1 // then per register that is not zero: uvarint distance from the one before, value
	packedDistinct = 2 // then the registers' sum in gamma code, and all of them as packed counts
)

// ErrDistinct says that the bytes are no distinct sketch of this protocol.
var ErrDistinct = errors.New("distinct sketch is not well formed")

// Distinct estimates how many different rows were added: a HyperLogLog
// (Flajolet et al. 2007, estimated after Qin, Kim and Tung 2016) over 64-bit
// hashes. Adding allocates nothing.
type Distinct struct{ sk *hyperloglog.Sketch }

// NewDistinct makes an empty sketch.
func NewDistinct() *Distinct {
	sk, err := hyperloglog.NewSketch(distinctPrecision, false)
	if err != nil {
		panic(err) // the precision above is out of range: no input can do this
	}
	return &Distinct{sk}
}

// Add adds a row by its hash.
func (d *Distinct) Add(hash uint64) { d.sk.InsertHash(hash) }

// Estimate is the number of different rows.
func (d *Distinct) Estimate() uint64 { return d.sk.Estimate() }

// Reset empties the sketch and keeps its memory.
func (d *Distinct) Reset() { d.sk.Reset() }

// Merge makes d the sketch of both.
func (d *Distinct) Merge(o *Distinct) error {
	if err := d.sk.Merge(o.sk); err != nil {
		return fmt.Errorf("merge distinct: %w", err)
	}
	return nil
}

// Registers copies the registers into dst, which has room for NumRegisters.
// The union of sketches is the largest value of each register.
func (d *Distinct) Registers(dst []byte) error {
	all, err := d.sk.MarshalBinary()
	if err != nil {
		return fmt.Errorf("read distinct: %w", err)
	}
	copy(dst, all[hllHeader:])
	return nil
}

// NumRegisters is how many registers a Distinct has.
const NumRegisters = registers

// DistinctOf makes a sketch of registers.
func DistinctOf(regs []byte) (*Distinct, error) {
	if len(regs) != registers {
		return nil, fmt.Errorf("%w: %d registers, not %d", ErrDistinct, len(regs), registers)
	}
	all := make([]byte, hllHeader, hllHeader+registers)
	all[0], all[1] = 2, distinctPrecision
	binary.BigEndian.PutUint32(all[4:], registers)
	sk := new(hyperloglog.Sketch)
	if err := sk.UnmarshalBinary(append(all, regs...)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDistinct, err)
	}
	return &Distinct{sk}, nil
}

// Encode returns the shorter of both encodings, nil when empty.
func (d *Distinct) Encode() ([]byte, error) {
	regs := make([]byte, registers)
	if err := d.Registers(regs); err != nil {
		return nil, err
	}
	return encodeRegisters(regs), nil
}

func encodeRegisters(regs []byte) []byte {
	sparse := []byte{sparseDistinct}
	last := -1
	var counts [registers]uint64
	for i, r := range regs {
		if counts[i] = uint64(r); r != 0 {
			sparse = append(binary.AppendUvarint(sparse, uint64(i-last)), r) //nolint:gosec // rises
			last = i
		}
	}
	if last < 0 {
		return nil
	}
	w := bitWriter{out: []byte{packedDistinct}}
	total := sumOf(counts[:])
	w.gamma(total)
	if w.counts(counts[:], total); len(w.out) < len(sparse) {
		return w.out
	}
	return sparse
}

// DecodeDistinct reads what Encode wrote. No bytes are an empty sketch.
func DecodeDistinct(b []byte) (*Distinct, error) {
	if len(b) == 0 {
		return NewDistinct(), nil
	}
	regs := make([]byte, registers)
	if err := MaxRegisters(regs, b); err != nil {
		return nil, err
	}
	return DistinctOf(regs)
}

// MaxRegisters raises dst to the registers of an encoded sketch, which is the
// union. dst has room for NumRegisters; it is unspecified after an error.
func MaxRegisters(dst, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	switch b[0] {
	case packedDistinct:
		return maxRegisters(dst, b[1:])
	case sparseDistinct:
		return maxSparse(dst, b[1:])
	default:
		return fmt.Errorf("%w: encoding %d", ErrDistinct, b[0])
	}
}

func maxRegisters(dst, b []byte) error {
	var counts [registers]uint64
	r := bitReader{in: b}
	r.counts(counts[:], r.gamma())
	if !r.end() {
		return fmt.Errorf("%w: %w", ErrDistinct, errPacked)
	}
	for i, c := range counts {
		if c > maxRegister {
			return fmt.Errorf("%w: register %d is %d", ErrDistinct, i, c)
		}
		dst[i] = max(dst[i], byte(c))
	}
	return nil
}

func maxSparse(dst, b []byte) error {
	at := uint64(0) // one past the register before
	for len(b) > 0 {
		step, n := binary.Uvarint(b)
		if n <= 0 || n >= len(b) || step == 0 || step > registers || at+step > registers {
			return fmt.Errorf("%w: step after register %d", ErrDistinct, at)
		}
		at += step
		r := b[n]
		if r == 0 || r > maxRegister {
			return fmt.Errorf("%w: register %d is %d", ErrDistinct, at-1, r)
		}
		dst[at-1] = max(dst[at-1], r)
		b = b[n+1:]
	}
	return nil
}
