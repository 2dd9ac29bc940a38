package sketch

import (
	"errors"
	"math/bits"
)

// Counts travel as a stream of bits. Within one summary they are alike (a
// baseline's bins are of equal weight), so each is told by how far it lies from
// their mean, or from zero where most are zero, in Rice's code (1979) with the
// parameter that makes the whole shortest. The last count follows from the total.

// errPacked says that bits are no packed counts.
var errPacked = errors.New("packed counts are not well formed")

const (
	maxRice    = 15 // largest parameter
	riceBits   = 4  // that tell it
	maxQuot    = 24 // ones in a row; a larger value follows in gamma code
	maxPacked  = maxCount
	packedBins = 1 << 16 // of all counts unpacked from one message
)

// bitWriter appends bits, the highest of each byte first.
type bitWriter struct {
	out  []byte
	free int // bits of the last byte not taken
}

func (w *bitWriter) bits(v uint64, n int) {
	for n > 0 {
		if w.free == 0 {
			w.out, w.free = append(w.out, 0), 8
		}
		take := min(n, w.free)
		n, w.free = n-take, w.free-take
		w.out[len(w.out)-1] |= byte(v>>n&(1<<take-1)) << w.free //nolint:gosec // at most eight bits
	}
}

// gamma writes v in Elias' code of v+1: short for small ones.
func (w *bitWriter) gamma(v uint64) {
	n := bits.Len64(v + 1)
	w.bits(0, n-1)
	w.bits(v+1, n)
}

func (w *bitWriter) rice(v uint64, k int) {
	q := v >> k
	if q >= maxQuot {
		w.bits(1<<maxQuot-1, maxQuot)
		w.gamma(v)
		return
	}
	w.bits(1<<(q+1)-2, int(q)+1)
	w.bits(v, k)
}

func riceCost(v uint64, k int) int {
	if q := v >> k; q < maxQuot {
		return int(q) + 1 + k
	}
	return maxQuot + 2*bits.Len64(v+1) - 1
}

// counts writes n counts whose number and total the reader knows.
func (w *bitWriter) counts(counts []uint64, total uint64) {
	if len(counts) < 2 {
		return
	}
	base, k := shortest(counts, total)
	w.bits(base, 1)
	w.bits(uint64(k), riceBits) //nolint:gosec // not negative
	mean := base * total / uint64(len(counts))
	for _, c := range counts[:len(counts)-1] {
		w.rice(fold(c, mean), k)
	}
}

// shortest finds whether counts are told from their mean (1) or from zero (0),
// and the parameter: near the logarithm of what is to be told.
func shortest(counts []uint64, total uint64) (base uint64, k int) {
	least := -1
	for b := range uint64(2) {
		mean, sum := b*total/uint64(len(counts)), uint64(0)
		for _, c := range counts[:len(counts)-1] {
			sum += fold(c, mean)
		}
		near := bits.Len64(sum / uint64(len(counts)))
		for p := max(near-2, 0); p <= min(near, maxRice); p++ {
			cost := 0
			for _, c := range counts[:len(counts)-1] {
				cost += riceCost(fold(c, mean), p)
			}
			if least < 0 || cost < least {
				least, base, k = cost, b, p
			}
		}
	}
	return base, k
}

// fold makes a number of the distance of c from mean: 0, 1 below, 1 above, …;
// from a mean of zero it is c itself.
func fold(c, mean uint64) uint64 {
	switch {
	case mean == 0:
		return c
	case c < mean:
		return 2*(mean-c) - 1
	default:
		return 2 * (c - mean)
	}
}

func unfold(v, mean uint64) (c uint64, ok bool) {
	if mean == 0 {
		return v, v <= maxPacked
	}
	d := v/2 + v%2
	if v%2 == 1 {
		return mean - d, d <= mean
	}
	return mean + d, mean+d <= maxPacked
}

// bitReader reads what bitWriter wrote. After a failure everything is zero.
type bitReader struct {
	in     []byte
	at     int // bits read
	failed bool
}

func (r *bitReader) bit() uint64 {
	if r.failed || r.at>>3 >= len(r.in) {
		r.failed = true
		return 0
	}
	b := r.in[r.at>>3] >> (7 - r.at&7) & 1
	r.at++
	return uint64(b)
}

func (r *bitReader) bits(n int) (v uint64) {
	if r.failed || r.at+n > len(r.in)*8 {
		r.failed = true
		return 0
	}
	for n > 0 {
		left := 8 - r.at&7
		take := min(n, left)
		v = v<<take | uint64(r.in[r.at>>3]>>(left-take))&(1<<take-1)
		r.at, n = r.at+take, n-take
	}
	return v
}

// gamma reads a number of at most maxPacked.
func (r *bitReader) gamma() uint64 {
	n := 0
	for r.bit() == 0 {
		if n++; r.failed || n > 53 {
			r.failed = true
			return 0
		}
	}
	v := 1<<n | r.bits(n)
	return v - 1
}

func (r *bitReader) rice(k int) uint64 {
	q := uint64(0)
	for q < maxQuot && r.bit() == 1 {
		q++
	}
	if q == maxQuot {
		return r.gamma()
	}
	return q<<k | r.bits(k)
}

// counts reads into dst what counts wrote of as many with the same total.
func (r *bitReader) counts(dst []uint64, total uint64) {
	if len(dst) == 0 {
		r.failed = r.failed || total != 0
		return
	}
	last := len(dst) - 1
	if last > 0 {
		base, k := r.bit(), int(r.bits(riceBits)) //nolint:gosec // four bits
		mean := base * total / uint64(len(dst))
		for i := range last {
			c, ok := unfold(r.rice(k), mean)
			if !ok || c > total || r.failed {
				r.failed = true
				return
			}
			dst[i] = c
			total -= c
		}
	}
	dst[last] = total
}

// end says whether all was read: nothing but the padding of the last byte follows.
func (r *bitReader) end() bool {
	rest := len(r.in)*8 - r.at
	return !r.failed && rest < 8 && r.bits(rest) == 0 && !r.failed
}

func sumOf(counts []uint64) (total uint64) {
	for _, c := range counts {
		total += c
	}
	return total
}
