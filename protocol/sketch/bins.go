package sketch

import "math"

// cells is the size of the table that a value is looked up in.
const cells = 1024

// bins finds the bin of a value: a table over the ordered bits of the float
// gives the first bin that can be meant, comparing exact edges from there on
// the one that is. Floats are dense near zero, and so is the table, which suits
// edges that are quantiles.
type bins struct {
	first [cells]uint8
	base  uint32 // ordered bits of the first edge
	shift uint8
	n     int                   // edges
	edges [maxEdges + 1]float32 // n of them, then +Inf, which no value exceeds
}

// maxEdges is enough for 32 open bins and for 32 discrete values.
const maxEdges = MaxBins

// ordered maps a float's bits so that they compare as the floats do.
func ordered(v float32) uint32 {
	b := math.Float32bits(v)
	return b ^ (-(b >> 31) | 1<<31)
}

// newBins takes strictly rising finite edges without negative zero, 32 at most.
func newBins(edges []float32) *bins {
	b := &bins{n: len(edges)}
	for i := range b.edges {
		b.edges[i] = float32(math.Inf(1))
	}
	copy(b.edges[:], edges)
	if b.n == 0 {
		return b
	}
	b.base = ordered(edges[0])
	for (ordered(edges[b.n-1])-b.base)>>b.shift >= cells-1 {
		b.shift++
	}
	for c := range b.first {
		b.first[c] = b.below(uint64(b.base) + uint64(c)<<b.shift)
	}
	return b
}

// below counts the edges whose ordered bits are under a cell's first.
func (b *bins) below(start uint64) uint8 {
	var n uint8
	for _, e := range b.edges[:b.n] {
		if uint64(ordered(e)) < start {
			n++
		}
	}
	return n
}

// of returns the bin of a value that is a number: the count of edges below it.
func (b *bins) of(v float32) int {
	var c uint32
	if k := ordered(v); k > b.base {
		c = min((k-b.base)>>b.shift, cells-1)
	}
	i := int(b.first[c])
	for v > b.edges[i] {
		i++
	}
	return i
}
