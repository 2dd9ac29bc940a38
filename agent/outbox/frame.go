package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/vedette-edge/vedette/protocol"
)

// Head is the accounting as it is after one change. Every frame carries it, so
// any frame that survives damage proves the counters up to its moment.
type Head struct {
	LSN     uint64   // counts changes; the highest one found is the newest state
	Next    uint64   // index of the next record
	Moved   uint64   // pending records up to this index have left the region
	Suspect uint64   // while Closing: records below this index may have been sent by a forgotten change
	Epoch   EpochID  // the current one
	Closing bool     // the counter is not proven: ask for the server's cursor, send nothing
	Sent    Mark     // last number given out
	Acked   Mark     // last number known to be held by the server
	Waiting Sum      // counted by open and pending records: what is found must add up to it
	Count   uint64   // open and pending records
	Open    []uint64 // indices of the open ones
	Former  []Former // closed epochs, oldest first
	Unknown bool     // more was lost than can be proven; stays set, so that it cannot be lost itself
}

// Former is an epoch that was closed, with the server's last word on it.
type Former struct {
	Epoch EpochID
	Final Mark
}

// maxFormer bounds the memory of closed epochs. Each one stands for a damage
// that touched the end of the file, so a device sees few in its life.
const maxFormer = 8

// Kinds of frames.
const (
	kindHead    = 'h'
	kindOpen    = 'o'
	kindPending = 'p'
	kindSent    = 's'
)

// Frame is one synced write: one key with the state after it.
type Frame struct {
	Head     Head
	Kind     byte
	Index    uint64 // open, pending: of the record; sent: first sequence of the batch
	Name     string // open: the caller's key
	Absorbed []uint64
	Body     string // open, pending
	Before   Mark   // sent: the mark before the batch
	Bodies   []string
	Sums     []Sum
}

// key is the frame's key in BuntDB.
func (f *Frame) key() string { return keyOf(f.Kind, f.Index) }

func keyOf(kind byte, index uint64) string {
	if kind == kindHead {
		return "h"
	}
	return fmt.Sprintf("%c/%016x", kind, index)
}

// frameMagic starts every frame; it is searched for in damaged files.
const frameMagic = "\x89vob1\r\x1a\n"

// A frame is: magic, length of the payload (4 bytes), CRC-32C of length and
// payload (4 bytes), payload. All integers are little-endian or varints.
const frameHeader = len(frameMagic) + 8

// maxFrame bounds what a length may claim: a full sent batch of largest bodies.
const maxFrame = protocol.MaxSent*(MaxBody+64) + 1<<20

var (
	errFrame   = errors.New("not a frame")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func checksum(length uint32, payload []byte) uint32 {
	var l [4]byte
	binary.LittleEndian.PutUint32(l[:], length)
	return crc32.Update(crc32.Checksum(l[:], castagnoli), castagnoli, payload)
}

// Encode writes the frame. The bodies come last, so that they can be cut out of
// the encoded string without copying.
func (f *Frame) Encode() string {
	w := make(writer, frameHeader, frameHeader+256+len(f.Body))
	w.head(&f.Head)
	w = append(w, f.Kind)
	w.uint(f.Index)
	w.string(f.Name)
	w.uints(f.Absorbed)
	w.mark(f.Before)
	w.uint(uint64(len(f.Bodies)))
	for i, b := range f.Bodies {
		w.sum(f.Sums[i])
		w.string(b)
	}
	w = append(w, f.Body...)
	payload := w[frameHeader:]
	n := uint32(len(payload)) //nolint:gosec // bounded by maxFrame
	copy(w, frameMagic)
	binary.LittleEndian.PutUint32(w[len(frameMagic):], n)
	binary.LittleEndian.PutUint32(w[len(frameMagic)+4:], checksum(n, payload))
	return string(w)
}

// frameSize is how long the frame at the start of raw says it is, 0 for none.
func frameSize(raw string) int {
	if len(raw) < frameHeader || raw[:len(frameMagic)] != frameMagic {
		return 0
	}
	n := binary.LittleEndian.Uint32([]byte(raw[len(frameMagic) : len(frameMagic)+4]))
	if n > maxFrame {
		return 0
	}
	return frameHeader + int(n)
}

// decodeFrame reads a frame at the start of raw and says how long it is. The
// frame's strings share raw's memory.
func decodeFrame(raw string) (*Frame, int, error) {
	size := frameSize(raw)
	if size == 0 || size > len(raw) {
		return nil, 0, errFrame
	}
	sum := binary.LittleEndian.Uint32([]byte(raw[len(frameMagic)+4 : frameHeader]))
	payload := raw[frameHeader:size]
	if checksum(uint32(len(payload)), []byte(payload)) != sum { //nolint:gosec // at most maxFrame
		return nil, 0, errFrame
	}
	f, err := decodePayload(payload)
	if err != nil {
		return nil, 0, err
	}
	return f, size, nil
}

// clone is f in memory of its own.
func (f *Frame) clone() *Frame {
	own := *f
	own.Name, own.Body = strings.Clone(f.Name), strings.Clone(f.Body)
	own.Bodies = make([]string, len(f.Bodies))
	for i, b := range f.Bodies {
		own.Bodies[i] = strings.Clone(b)
	}
	return &own
}

func decodePayload(payload string) (*Frame, error) {
	r := &reader{rest: payload}
	f := &Frame{}
	r.head(&f.Head)
	f.Kind = r.byte()
	f.Index = r.uint()
	f.Name = r.string()
	f.Absorbed = r.uints()
	f.Before = r.mark()
	n := r.count(3)
	for range n {
		f.Sums = append(f.Sums, r.sum())
		f.Bodies = append(f.Bodies, r.string())
	}
	if r.failed {
		return nil, errFrame
	}
	f.Body = r.rest
	return f, nil
}

// writer appends the fields of a frame.
type writer []byte

func (w *writer) uint(v uint64) { *w = binary.AppendUvarint(*w, v) }

func (w *writer) string(s string) {
	w.uint(uint64(len(s)))
	*w = append(*w, s...)
}

func (w *writer) bool(b bool) {
	if b {
		*w = append(*w, 1)
	} else {
		*w = append(*w, 0)
	}
}

func (w *writer) uints(v []uint64) {
	w.uint(uint64(len(v)))
	for _, n := range v {
		w.uint(n)
	}
}

func (w *writer) sum(s Sum) {
	w.uint(s.Rows)
	w.uint(s.Labels)
}

func (w *writer) mark(m Mark) {
	w.uint(m.Seq)
	*w = append(*w, m.Chain[:]...)
	w.sum(m.Total)
}

func (w *writer) head(h *Head) {
	w.uint(h.LSN)
	w.uint(h.Next)
	w.uint(h.Moved)
	w.uint(h.Suspect)
	*w = append(*w, h.Epoch[:]...)
	w.bool(h.Closing)
	w.bool(h.Unknown)
	w.mark(h.Sent)
	w.mark(h.Acked)
	w.sum(h.Waiting)
	w.uint(h.Count)
	w.uints(h.Open)
	w.uint(uint64(len(h.Former)))
	for _, f := range h.Former {
		*w = append(*w, f.Epoch[:]...)
		w.mark(f.Final)
	}
}

// reader takes the fields of a frame; after a failure everything is zero.
type reader struct {
	rest   string
	failed bool
}

func (r *reader) take(n int) string {
	if r.failed || n > len(r.rest) {
		r.failed = true
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) byte() byte {
	if s := r.take(1); s != "" {
		return s[0]
	}
	return 0
}

func (r *reader) uint() uint64 {
	head := r.rest[:min(len(r.rest), binary.MaxVarintLen64)]
	v, n := binary.Uvarint([]byte(head))
	if r.failed || n <= 0 {
		r.failed = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// count reads how many elements of at least size bytes follow; a count that
// the rest cannot hold is refused before anything is allocated for it.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.rest)/size) { //nolint:gosec // a length is never negative
		r.failed = true
		return 0
	}
	return int(n) //nolint:gosec // bounded by the length of the rest
}

func (r *reader) string() string { return r.take(r.count(1)) }

func (r *reader) uints() []uint64 {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	v := make([]uint64, n)
	for i := range v {
		v[i] = r.uint()
	}
	return v
}

func (r *reader) sum() Sum { return Sum{Rows: r.uint(), Labels: r.uint()} }

func (r *reader) mark() Mark {
	m := Mark{Seq: r.uint()}
	copy(m.Chain[:], r.take(len(m.Chain)))
	m.Total = r.sum()
	return m
}

func (r *reader) head(h *Head) {
	h.LSN = r.uint()
	h.Next = r.uint()
	h.Moved = r.uint()
	h.Suspect = r.uint()
	copy(h.Epoch[:], r.take(len(h.Epoch)))
	h.Closing = r.byte() != 0
	h.Unknown = r.byte() != 0
	h.Sent = r.mark()
	h.Acked = r.mark()
	h.Waiting = r.sum()
	h.Count = r.uint()
	h.Open = r.uints()
	for range r.count(len(EpochID{}) + 10) {
		f := Former{}
		copy(f.Epoch[:], r.take(len(f.Epoch)))
		f.Final = r.mark()
		h.Former = append(h.Former, f)
	}
}
