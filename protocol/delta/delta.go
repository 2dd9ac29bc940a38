// Package delta turns one file into another by what differs between them. It is
// made for the weights of neural networks: training changes every number of them
// a little, so that general tools find nothing in common, while the exclusive or
// of old and new bits is zero where signs and exponents are.
//
// A file is cut into blocks of a fixed size, and each is described by the method
// that makes it smallest, against the place of the old file that resembles it
// most. So both sides work in a few MiB of memory whatever the file's size, a
// graph's header and its weights each get what suits them, and what was inserted
// in front of the weights does not spoil them.
//
// A delta, all numbers big-endian:
//
//	"VDELTA" 0x01
//	digest of the old file [32] and its size [8]
//	digest of the new file [32] and its size [8]
//	for each Block of the new file, of which the last may be shorter:
//	    method [1]
//	    where in the old file the block's counterpart begins [8], at most Block
//	        before its beginning
//	    length of what follows [4]
//	    a Zstandard frame
//
// Bytes of the counterpart that lie outside of the old file count as zero.
package delta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Sizes in bytes.
const (
	// Block is how much of the new file is described at once. Weights compress
	// no better in larger blocks, which would only take more memory; in smaller
	// ones the dictionary method pays more for each beginning.
	Block = 1 << 20
	// MinFile is what a file needs to be worth a question: the answer and
	// its request take about 1 KiB.
	MinFile = 64 << 10

	// reach is how far before and behind the counterpart the dictionary goes.
	reach = Block
	// maxFrame bounds a frame: what cannot be compressed grows by 3 bytes for
	// each 128 KiB, and by a header.
	maxFrame = Block + 1<<10
)

// magic is what a delta begins with; its last byte is the format's version.
//
//	1  2026-11-23  first
const magic = "VDELTA\x01"

// recordSize is what stands before a block's frame.
const recordSize = 1 + 8 + 4

const headerSize = len(magic) + 2*(len(release.Digest{})+8)

var (
	// ErrDamaged says that a delta is not what an encoder wrote.
	ErrDamaged = errors.New("delta is damaged")
	// ErrFormat says that something is no delta, or one of another version.
	ErrFormat = errors.New("not a delta of this format")
	// ErrOther says that a delta leads from or to another file than asked for.
	ErrOther = errors.New("delta is of other files")
	// ErrOld says that the old file cannot be read as far as it should go.
	ErrOld = errors.New("old file cannot be read")
)

// Ref is a file by its content.
type Ref struct {
	Digest release.Digest
	Size   int64 // bytes
}

// Header says what a delta makes of what.
type Header struct{ Old, New Ref }

// Pays says whether a delta of so many bytes is worth its trouble: it has to
// save a tenth of the file, because the device reads and writes more with it.
func Pays(delta, file int64) bool { return delta < file-file/10 }

// Method is how a block is described. The numbers are on the wire.
type Method byte

// Methods. All of them end in Zstandard.
const (
	// Plain does not look at the old file.
	Plain Method = 1
	// Dictionary looks for what the block repeats of the old file around its
	// counterpart: layers that did not change.
	Dictionary Method = 2
	// XOR4 takes the exclusive or, and puts the first bytes of all groups of
	// four together, then the second ones…: weights in fp32.
	XOR4 Method = 3
	// XOR2 is XOR4 for groups of two: weights in fp16 and bf16.
	XOR2 Method = 4
	// Subtract takes the difference byte by byte: weights in int8.
	Subtract Method = 5
)

// All is every method.
func All() []Method { return []Method{Plain, Dictionary, XOR4, XOR2, Subtract} }

// String is the method's name.
func (m Method) String() string {
	switch m {
	case Plain:
		return "zstd"
	case Dictionary:
		return "dictionary + zstd"
	case XOR4:
		return "xor + shuffle 4 + zstd"
	case XOR2:
		return "xor + shuffle 2 + zstd"
	case Subtract:
		return "subtract + zstd"
	default:
		return fmt.Sprintf("method %d", byte(m))
	}
}

func (h Header) append(to []byte) []byte {
	to = append(to, magic...)
	for _, r := range []Ref{h.Old, h.New} {
		to = append(to, r.Digest[:]...)
		to = binary.BigEndian.AppendUint64(to, uint64(r.Size)) //nolint:gosec // a file's size
	}
	return to
}

// readHeader takes only the header that the caller expects, so that nothing in a
// delta can ask for more than the caller has agreed to.
func readHeader(r io.Reader, want Header) error {
	got := make([]byte, headerSize)
	if _, err := io.ReadFull(r, got); err != nil {
		return ended("read header of delta", err)
	}
	if !bytes.HasPrefix(got, []byte(magic)) {
		return ErrFormat
	}
	if !bytes.Equal(got, want.append(nil)) {
		return ErrOther
	}
	return nil
}

// ended tells a delta that ends too early from one that cannot be read.
func ended(doing string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: %w: it ends too early", doing, ErrDamaged)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
