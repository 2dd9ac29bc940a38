package delta

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
)

// source is the old file.
type source struct {
	r    io.ReaderAt
	size int64
}

// read fills b from an offset on, which may lie before the file's beginning.
// What is outside of the file is zero.
func (s source) read(b []byte, at int64) error {
	clear(b)
	if at < 0 {
		b = b[min(-at, int64(len(b))):]
		at = 0
	}
	n := max(0, min(int64(len(b)), s.size-at))
	if n == 0 {
		return nil
	}
	if got, err := s.r.ReadAt(b[:n], at); int64(got) < n {
		return fmt.Errorf("%w: %d of %d bytes at %d: %w", ErrOld, got, n, at, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// around is the part of the old file that serves as dictionary for a block of n
// bytes whose counterpart begins at from.
func (s source) around(from int64, n int) (at, end int64) {
	return max(0, from-reach), min(s.size, max(0, from+int64(n)+reach))
}

// difference writes to dst how src differs from old. All have the same length;
// temp has too, and its content is lost.
func difference(m Method, dst, src, old, temp []byte) {
	switch m {
	case XOR4:
		subtle.XORBytes(temp, src, old)
		shuffle(dst, temp, 4)
	case XOR2:
		subtle.XORBytes(temp, src, old)
		shuffle(dst, temp, 2)
	case Subtract:
		for i := range dst {
			dst[i] = src[i] - old[i]
		}
	case Plain, Dictionary:
		copy(dst, src)
	}
}

// restore undoes difference.
func restore(m Method, dst, diff, old []byte) {
	switch m {
	case XOR4:
		unshuffle(dst, diff, 4)
		subtle.XORBytes(dst, dst, old)
	case XOR2:
		unshuffle(dst, diff, 2)
		subtle.XORBytes(dst, dst, old)
	case Subtract:
		for i := range dst {
			dst[i] = diff[i] + old[i]
		}
	case Plain, Dictionary:
		copy(dst, diff)
	}
}

// shuffle puts byte k of each group of width bytes at the k-th plane of dst.
// What is left of the last group keeps its place.
func shuffle(dst, src []byte, width int) {
	n := len(src) / width
	for k := range width {
		plane := dst[k*n : (k+1)*n]
		for i, j := 0, k; i < n; i, j = i+1, j+width {
			plane[i] = src[j]
		}
	}
	copy(dst[n*width:], src[n*width:])
}

func unshuffle(dst, src []byte, width int) {
	n := len(src) / width
	for k := range width {
		plane := src[k*n : (k+1)*n]
		for i, j := 0, k; i < n; i, j = i+1, j+width {
			dst[j] = plane[i]
		}
	}
	copy(dst[n*width:], src[n*width:])
}
