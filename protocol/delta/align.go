package delta

// How the counterpart of a block is looked for.
const (
	// probe is how many bytes of a block are compared. Where a weight changed by
	// some per mille, the upper two of its bytes are mostly the same.
	probe = 4096
	// swing is how far from the expected place it is looked for: a changed name,
	// version or description moves what follows by less.
	swing = 4096
	// alike is a share of equal bytes that no misplaced weights reach.
	alike = probe * 3 / 10
)

// aligner finds where in the old file a block of the new one has its
// counterpart. Blocks usually follow each other in both.
type aligner struct {
	old   source
	shift int64 // of the block before, from new to old
	area  [probe + 2*swing]byte
}

// find returns the offset in the old file that fits b, which begins at an offset
// of the new one, best: the expected one, unless another is clearly better.
func (a *aligner) find(b []byte, at int64) (from int64, err error) {
	sample := b
	skip := 0
	if len(b) > probe {
		skip = (len(b) - probe) / 2
		sample = b[skip : skip+probe]
	}
	begin := a.inside(at+a.shift) + int64(skip) - swing
	area := a.area[:len(sample)+2*swing]
	if err := a.old.read(area, begin); err != nil {
		return 0, err
	}
	best := swing
	score := equal(sample, area[best:])
	if score*probe < alike*len(sample) {
		for i := range 2*swing + 1 {
			if n := equal(sample, area[i:]); n > score+score/4 {
				best, score = i, n
			}
		}
	}
	from = a.inside(begin + int64(best) - int64(skip))
	a.shift = from - at
	return from, nil
}

// inside keeps an offset where a record may point to.
func (a *aligner) inside(from int64) int64 { return min(max(from, -Block), a.old.size) }

// equal counts the places at which both have the same byte.
func equal(a, b []byte) (n int) {
	b = b[:len(a)]
	for i, v := range a {
		if v == b[i] {
			n++
		}
	}
	return n
}
