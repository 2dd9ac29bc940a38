package delta

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Decode writes to w what the delta makes of the old file. want is what the
// caller knows from elsewhere about both files; a delta that says anything else
// is refused before a byte is written, and no delta can make more than
// want.New.Size bytes. It takes about 8 MiB of memory. The result is not
// verified: the caller holds it against want.New.Digest while it is written.
//
// Whatever is wrong with the delta wraps ErrDamaged, ErrFormat or ErrOther, with
// the old file ErrOld; any other error is one of reading the delta or of w.
func Decode(w io.Writer, delta io.Reader, old io.ReaderAt, want Header) error {
	d := &decoder{in: bufio.NewReader(delta), old: source{old, want.Old.Size}}
	if err := readHeader(d.in, want); err != nil {
		return err
	}
	if err := d.open(min(Block, want.New.Size)); err != nil {
		return err
	}
	defer d.zstd.Close()
	for at := int64(0); at < want.New.Size; at += Block {
		b, err := d.block(int(min(Block, want.New.Size-at)))
		if err != nil {
			return fmt.Errorf("block at %d: %w", at, err)
		}
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
	if _, err := d.in.ReadByte(); err == nil {
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read delta: %w", err)
	}
	return nil
}

// decoder reads one block after the other.
type decoder struct {
	in   *bufio.Reader
	old  source
	zstd *zstd.Decoder

	frame, diff, out []byte
	window           []byte // the counterpart, or the dictionary
}

// open makes ready for blocks of at most so many bytes.
func (d *decoder) open(block int64) (err error) {
	d.zstd, err = zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(Block), zstd.WithDecoderMaxWindow(8*Block),
		zstd.WithDecodeAllCapLimit(true)) // a frame that wants to be more than a block is refused
	if err != nil {
		return fmt.Errorf("make decoder: %w", err)
	}
	d.diff, d.out = make([]byte, block), make([]byte, block)
	d.window = make([]byte, min(Block+2*reach, max(block, d.old.size)))
	return nil
}

// block returns the next n bytes of the new file, good until the next call.
func (d *decoder) block(n int) ([]byte, error) {
	m, from, frame, err := d.read()
	if err != nil {
		return nil, err
	}
	switch m {
	case Plain:
		return d.decompress(frame, d.out[:n])
	case Dictionary:
		at, end := d.old.around(from, n)
		if err := d.old.read(d.window[:end-at], at); err != nil {
			return nil, err
		}
		if err := d.zstd.ResetWithOptions(nil, zstd.WithDecoderDictRaw(dictionaryID, d.window[:end-at])); err != nil {
			return nil, fmt.Errorf("set dictionary: %w", err)
		}
		return d.decompress(frame, d.out[:n])
	case XOR4, XOR2, Subtract:
		diff, err := d.decompress(frame, d.diff[:n])
		if err != nil {
			return nil, err
		}
		if err := d.old.read(d.window[:n], from); err != nil {
			return nil, err
		}
		restore(m, d.out[:n], diff, d.window[:n])
		return d.out[:n], nil
	default:
		return nil, fmt.Errorf("%w: %s is unknown", ErrDamaged, m)
	}
}

// read takes the next record apart.
func (d *decoder) read() (m Method, from int64, frame []byte, err error) {
	var head [recordSize]byte
	if _, err := io.ReadFull(d.in, head[:]); err != nil {
		return 0, 0, nil, ended("read record", err)
	}
	from = int64(binary.BigEndian.Uint64(head[1:])) //nolint:gosec // signed on the wire
	length := binary.BigEndian.Uint32(head[9:])
	if from < -Block || from > d.old.size || length > maxFrame {
		return 0, 0, nil, fmt.Errorf("%w: a record names %d bytes and offset %d", ErrDamaged, length, from)
	}
	d.frame = slices.Grow(d.frame[:0], int(length))
	frame = d.frame[:length]
	if _, err := io.ReadFull(d.in, frame); err != nil {
		return 0, 0, nil, ended("read frame", err)
	}
	return Method(head[0]), from, frame, nil
}

// decompress fills into, no more and no less.
func (d *decoder) decompress(frame, into []byte) ([]byte, error) {
	got, err := d.zstd.DecodeAll(frame, into[:0:len(into)])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(got) != len(into) {
		return nil, fmt.Errorf("%w: a block has %d bytes, not %d", ErrDamaged, len(got), len(into))
	}
	return got, nil
}
