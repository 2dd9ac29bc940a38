package delta

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// dictionaryID is what frames say that need a dictionary.
const dictionaryID = 1

// Encode writes to w what makes the file of h.New, read from fresh, of the file of
// h.Old, read from old. Every block takes the best of the methods given; with
// none given, of all. The same input gives the same bytes. It writes once for
// every block, so an error of w's ends it soon. It takes about 60 MiB of memory.
func Encode(w io.Writer, h Header, old, fresh io.ReaderAt, methods ...Method) error {
	if len(methods) == 0 {
		methods = All()
	}
	e, err := newEncoder(source{old, h.Old.Size}, h.New.Size, methods)
	if err != nil {
		return err
	}
	defer e.close()
	if _, err := w.Write(h.append(nil)); err != nil {
		return fmt.Errorf("write delta: %w", err)
	}
	for at := int64(0); at < h.New.Size; at += Block {
		b := e.block[:min(Block, h.New.Size-at)]
		if n, err := fresh.ReadAt(b, at); n < len(b) {
			return fmt.Errorf("read new file at %d: %w", at, err)
		}
		record, err := e.encode(b, at)
		if err != nil {
			return fmt.Errorf("encode block at %d: %w", at, err)
		}
		if _, err := w.Write(record); err != nil {
			return fmt.Errorf("write delta: %w", err)
		}
	}
	return nil
}

// encoder describes one block after the other.
type encoder struct {
	old        source
	methods    []Method
	align      aligner
	zstd       *zstd.Encoder
	dictionary *zstd.Encoder // nil when no method needs it

	block, counterpart, diff, temp []byte // of Block bytes
	window                         []byte // the dictionary
	best, next, record             []byte
}

func newEncoder(old source, size int64, methods []Method) (*encoder, error) {
	options := []zstd.EOption{
		zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), // the result is verified as a whole
	}
	e := &encoder{
		old: old, methods: methods, align: aligner{old: old, grown: size - old.size},
		block: make([]byte, Block), counterpart: make([]byte, Block),
		diff: make([]byte, Block), temp: make([]byte, Block), window: make([]byte, Block+2*reach),
	}
	var err error
	if e.zstd, err = zstd.NewWriter(nil, options...); err != nil {
		return nil, fmt.Errorf("make encoder: %w", err)
	}
	if slices.Contains(methods, Dictionary) { // it takes half of the memory
		e.dictionary, err = zstd.NewWriter(nil, append(options, zstd.WithWindowSize(4*Block))...)
		if err != nil {
			return nil, fmt.Errorf("make encoder: %w", err)
		}
	}
	return e, nil
}

// close frees what the compressors hold; they have no output of their own.
func (e *encoder) close() {
	_ = e.zstd.Close()
	if e.dictionary != nil {
		_ = e.dictionary.Close()
	}
}

// encode describes the block b that begins at an offset of the new file.
func (e *encoder) encode(b []byte, at int64) (record []byte, err error) {
	from, err := e.align.find(b, at)
	if err != nil {
		return nil, err
	}
	if err := e.old.read(e.counterpart[:len(b)], from); err != nil {
		return nil, err
	}
	var method Method
	for _, m := range e.methods {
		if e.next, err = e.compress(m, e.next[:0], b, from); err != nil {
			return nil, err
		}
		if method == 0 || len(e.next) < len(e.best) {
			method, e.best, e.next = m, e.next, e.best
		}
	}
	e.record = append(e.record[:0], byte(method))
	e.record = binary.BigEndian.AppendUint64(e.record, uint64(from))        //nolint:gosec // an offset
	e.record = binary.BigEndian.AppendUint32(e.record, uint32(len(e.best))) //nolint:gosec // at most maxFrame
	return append(e.record, e.best...), nil
}

// compress appends to dst a frame that describes b by one method.
func (e *encoder) compress(m Method, dst, b []byte, from int64) ([]byte, error) {
	if m != Dictionary {
		diff := e.diff[:len(b)]
		difference(m, diff, b, e.counterpart[:len(b)], e.temp[:len(b)])
		return e.zstd.EncodeAll(diff, dst), nil
	}
	at, end := e.old.around(from, len(b))
	window := e.window[:end-at]
	if err := e.old.read(window, at); err != nil {
		return nil, err
	}
	if err := e.dictionary.ResetWithOptions(nil, zstd.WithEncoderDictRaw(dictionaryID, window)); err != nil {
		return nil, fmt.Errorf("set dictionary: %w", err)
	}
	return e.dictionary.EncodeAll(b, dst), nil
}
