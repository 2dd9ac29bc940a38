package delta

import (
	"encoding/binary"
	"math/bits"
)

// How the counterpart of a block is looked for.
const (
	// probe is how many bytes of a block are compared. Where a weight changed by
	// some per mille, the upper two of its bytes are mostly the same.
	probe = 4096
	// swing is how far from the expected place it is looked for: a changed name,
	// version or description moves what follows by less.
	swing = 4096
	// alike is a share of equal bytes that misplaced weights do not reach.
	alike = 0.3
)

// aligner finds where in the old file a block of the new one has its
// counterpart.
type aligner struct {
	old    source
	grown  int64 // bytes that the new file has more than the old one
	behind int64 // how far the block before was behind its counterpart
	area   [probe + 2*swing]byte
}

// find returns the offset in the old file that fits b best, which begins at an
// offset of the new one. Blocks usually follow each other in both files; where a
// layer grew, what follows it is as far from the end as before.
func (a *aligner) find(b []byte, at int64) (from int64, err error) {
	skip := max(0, len(b)-probe) / 2
	sample := b[skip:min(len(b), skip+probe)]
	most := -1
	for _, behind := range []int64{a.behind, a.grown} {
		expected := at - behind + int64(skip)
		place, score, err := a.search(sample, expected)
		if err != nil {
			return 0, err
		}
		if score > most {
			from, most = place-int64(skip), score
		}
		if float64(score) >= alike*float64(len(sample)) {
			break
		}
	}
	from = min(max(from, -Block), a.old.size)
	a.behind = at - from
	return from, nil
}

// search returns the place near the one expected that shares the most bytes with
// sample. Another one than expected has to be clearly better.
func (a *aligner) search(sample []byte, expected int64) (place int64, score int, err error) {
	area := a.area[:len(sample)+2*swing]
	if err := a.old.read(area, expected-swing); err != nil {
		return 0, 0, err
	}
	best := swing
	score = equal(sample, area[best:])
	if float64(score) >= alike*float64(len(sample)) {
		return expected, score, nil
	}
	for i := range 2*swing + 1 {
		if n := equal(sample, area[i:]); n > score+score/4 {
			best, score = i, n
		}
	}
	return expected + int64(best-swing), score, nil
}

// equal counts the places at which both have the same byte, eight at a time.
func equal(a, b []byte) (n int) {
	b = b[:len(a)]
	for len(a) >= 8 {
		n += zeros(binary.LittleEndian.Uint64(a) ^ binary.LittleEndian.Uint64(b))
		a, b = a[8:], b[8:]
	}
	for i, v := range a {
		if v == b[i] {
			n++
		}
	}
	return n
}

// zeros counts the bytes of x that are zero: only in those does no bit reach the
// highest one.
func zeros(x uint64) int {
	const low = 0x7f7f7f7f7f7f7f7f
	return bits.OnesCount64(^(x&low + low | x | low))
}
