package observe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// ringFile holds the newest predictions, one slot of slotSize bytes each, the
// oldest overwritten by the newest. Slots are not synced one by one: after a
// power cut a torn one fails its checksum and is skipped, which costs a label
// its match and nothing else.
const ringFile = "predictions"

// gather is how many slots are written to the file at once: a write of its own
// for every prediction was two thirds of what watching one costs. A kill loses
// the labels of those gathered, which is within what it costs anyway: they are
// written down with every snapshot of the windows, too.
const gather = 64

// A slot, little-endian:
//
//	 0  CRC-32C of the rest     24  release tag      48  monotonic ms
//	 4  1 when it has its label 32  boot tag         56  class, −1 unknown
//	 5  1 when a share answered
//	 8  number, first is 1      40  wall ms          60  confidence, float32
//	16  hash of model and id
const slotSize = 64

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errNoPrediction says that a prediction is not held.
var errNoPrediction = errors.New("prediction is not held")

// moment is a time on the clocks of a boot.
type moment struct {
	boot      uint64
	monotonic uint64
	wall      int64
}

// prediction is what a slot tells.
type prediction struct {
	labelled   bool
	share      bool // answered by a challenger
	number     uint64
	id         uint64
	release    uint64
	at         moment
	class      int32
	confidence float32
}

// bootTag and tagOf shorten ids to what a slot has room for.
func bootTag(boot []byte) uint64 { return xxhash.Sum64(boot) }

func tagOf(d release.Digest) uint64 { return binary.LittleEndian.Uint64(d[:8]) }

// cells is where the slots are: the file, or memory in its place.
type cells interface {
	io.ReaderAt
	io.WriterAt
}

// memory stands in for the file. What is never written costs no memory.
type memory []byte

// ReadAt implements io.ReaderAt.
func (m memory) ReadAt(p []byte, at int64) (n int, err error) {
	if n = copy(p, m[at:]); n < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt implements io.WriterAt for what lies within the slots.
func (m memory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }

// ring finds predictions by id. Slots stay in the file; memory holds 12 bytes
// and the index's 8 for each.
type ring struct {
	mu     sync.Mutex // guards everything below
	cells  cells
	file   *os.File // nil when cells is memory
	slots  int
	last   uint64   // number of the newest prediction
	ids    []uint64 // by slot
	index  *index
	buf    []byte // of slots from slot number first on, not yet written
	first  int
	digest xxhash.Digest
	failed uint64 // writes that failed: their predictions will not be found
}

// openRing opens the ring in dir, or makes one. When the disk does not take it,
// the ring is in memory until the next start: a device must not stop serving
// because labels cannot be matched after a restart.
func openRing(dir string, slots int, log *slog.Logger) *ring {
	r := &ring{slots: slots, ids: make([]uint64, slots), index: newIndex(slots)}
	err := r.openFile(dir)
	if err == nil {
		return r
	}
	log.Error("predictions are remembered in memory only until the next start: labels that arrive after it find none of them", "error", err)
	r.cells = r.readOnly(filepath.Join(dir, ringFile))
	_ = r.load() // memory gives all it has
	return r
}

// openFile takes up the file. One of another size was made with another number
// of slots and starts over.
func (r *ring) openFile(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make predictions folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ringFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open predictions: %w", err)
	}
	r.cells, r.file = f, f
	if err = r.fit(); err == nil {
		err = r.load()
	}
	if err != nil {
		r.file = nil
		return errors.Join(err, f.Close())
	}
	return nil
}

// fit gives the file its size.
func (r *ring) fit() error {
	st, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("read predictions: %w", err)
	}
	if st.Size() == r.bytes() {
		return nil
	}
	if err := errors.Join(r.file.Truncate(0), r.file.Truncate(r.bytes())); err != nil {
		return fmt.Errorf("make predictions: %w", err)
	}
	return nil
}

// readOnly is memory with what can be read of the file.
func (r *ring) readOnly(path string) memory {
	m := make(memory, r.bytes())
	f, err := os.Open(path)
	if err != nil {
		return m
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err == nil && st.Size() == r.bytes() {
		_, _ = io.ReadFull(f, m) // a slot that was not read whole fails its checksum
	}
	return m
}

// bytes is the size of all slots.
func (r *ring) bytes() int64 { return int64(r.slots) * slotSize }

// load indexes the good slots.
func (r *ring) load() error {
	numbers := make([]uint64, r.slots)
	block := make([]byte, 1024*slotSize)
	for first := 0; first < r.slots; first += 1024 {
		n, err := r.cells.ReadAt(block, int64(first)*slotSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read predictions: %w", err)
		}
		for i := range n / slotSize {
			p, ok := parse(block[i*slotSize : (i+1)*slotSize])
			if slot := first + i; ok && slot == r.slot(p.number) {
				r.ids[slot], numbers[slot] = p.id, p.number
				r.last = max(r.last, p.number)
			}
		}
	}
	for slot, n := range numbers {
		if n == 0 {
			continue
		}
		if other, ok := r.index.get(r.ids, r.ids[slot]); !ok || numbers[other] < n {
			r.index.put(r.ids, slot)
		}
	}
	return nil
}

func (r *ring) slot(number uint64) int { return int((number - 1) % uint64(r.slots)) } //nolint:gosec // below slots

func parse(b []byte) (p prediction, ok bool) {
	if crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return p, false
	}
	p = prediction{
		labelled: b[4] == 1,
		share:    b[5] == 1,
		number:   binary.LittleEndian.Uint64(b[8:]),
		id:       binary.LittleEndian.Uint64(b[16:]),
		release:  binary.LittleEndian.Uint64(b[24:]),
		at: moment{
			boot:      binary.LittleEndian.Uint64(b[32:]),
			wall:      int64(binary.LittleEndian.Uint64(b[40:])), //nolint:gosec // as written
			monotonic: binary.LittleEndian.Uint64(b[48:]),
		},
		class:      int32(binary.LittleEndian.Uint32(b[56:])), //nolint:gosec // as written
		confidence: math.Float32frombits(binary.LittleEndian.Uint32(b[60:])),
	}
	return p, p.number > 0 // a file that was never written is zeros, whose checksum is not 0
}

func (p *prediction) write(b []byte) {
	clear(b[:slotSize])
	if p.labelled {
		b[4] = 1
	}
	if p.share {
		b[5] = 1
	}
	binary.LittleEndian.PutUint64(b[8:], p.number)
	binary.LittleEndian.PutUint64(b[16:], p.id)
	binary.LittleEndian.PutUint64(b[24:], p.release)
	binary.LittleEndian.PutUint64(b[32:], p.at.boot)
	binary.LittleEndian.PutUint64(b[40:], uint64(p.at.wall)) //nolint:gosec // bits
	binary.LittleEndian.PutUint64(b[48:], p.at.monotonic)
	binary.LittleEndian.PutUint32(b[56:], uint32(p.class)) //nolint:gosec // bits
	binary.LittleEndian.PutUint32(b[60:], math.Float32bits(p.confidence))
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:slotSize], castagnoli))
}

// append remembers the rows of a call. Of more rows than the ring has slots the
// last ones stay.
func (r *ring) append(c *infer.Call, b *sketch.Batch, at moment, release uint64) {
	if c.ID == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for row := max(0, b.Rows-r.slots); row < b.Rows; row++ {
		r.last++
		slot := r.slot(r.last)
		if slot == 0 || len(r.buf) == gather*slotSize {
			r.flush()
		}
		if len(r.buf) == 0 {
			r.first = slot
		}
		p := prediction{number: r.last, id: r.hashRow(c.Model, c.ID, row, b.Rows), release: release, at: at, share: c.Role == infer.RoleShare}
		p.class, p.confidence = Predicted(b, row)
		r.index.remove(r.ids, slot)
		r.ids[slot] = p.id
		r.index.put(r.ids, slot)
		n := len(r.buf)
		r.buf = append(r.buf, make([]byte, slotSize)...)
		p.write(r.buf[n:])
	}
}

// flush writes the slots gathered.
func (r *ring) flush() {
	if len(r.buf) == 0 {
		return
	}
	if _, err := r.cells.WriteAt(r.buf, int64(r.first)*slotSize); err != nil {
		r.failed++ // what the slots held before is found out by its number
	}
	r.buf = r.buf[:0]
}

// settle writes what was gathered.
func (r *ring) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flush()
}

// hashRow hashes the id infer.RowID gives a row, without making it.
func (r *ring) hashRow(model, id string, row, rows int) uint64 {
	r.start(model, id)
	if rows > 1 {
		var digits [24]byte
		_, _ = r.digest.Write(strconv.AppendInt(append(digits[:0], '/'), int64(row), 10))
	}
	return r.digest.Sum64()
}

func (r *ring) start(model, id string) {
	r.digest.Reset()
	_, _ = r.digest.WriteString(model)
	_, _ = r.digest.WriteString("\x00")
	_, _ = r.digest.WriteString(id)
}

// find returns the prediction with an id.
func (r *ring) find(model, id string) (prediction, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start(model, id)
	want := r.digest.Sum64()
	r.flush()
	slot, ok := r.index.get(r.ids, want)
	if !ok {
		return prediction{}, errNoPrediction
	}
	var b [slotSize]byte
	if _, err := r.cells.ReadAt(b[:], int64(slot)*slotSize); err != nil {
		return prediction{}, fmt.Errorf("read prediction: %w", err)
	}
	p, ok := parse(b[:])
	if !ok || p.id != want || r.slot(p.number) != slot {
		return prediction{}, errNoPrediction
	}
	return p, nil
}

// label marks a prediction as having its label. It is false when it has one
// already or was overwritten since it was found.
func (r *ring) label(p prediction) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flush()
	slot := r.slot(p.number)
	var b [slotSize]byte
	if _, err := r.cells.ReadAt(b[:], int64(slot)*slotSize); err != nil {
		return false, fmt.Errorf("read prediction: %w", err)
	}
	now, ok := parse(b[:])
	if !ok || now.number != p.number || now.labelled {
		return false, nil
	}
	now.labelled = true
	now.write(b[:])
	if _, err := r.cells.WriteAt(b[:], int64(slot)*slotSize); err != nil {
		return false, fmt.Errorf("write prediction: %w", err)
	}
	return true, nil
}

func (r *ring) sync() error {
	if r == nil { // that of shadows, where there was none
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flush()
	if r.file == nil {
		return nil
	}
	if err := r.file.Sync(); err != nil {
		return fmt.Errorf("sync predictions: %w", err)
	}
	return nil
}

func (r *ring) close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flush()
	if r.file == nil {
		return nil
	}
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("close predictions: %w", err)
	}
	return nil
}

// index is a hash table from id to slot with linear probing, of fixed size: a
// map that gains and loses a key with every prediction would go on allocating.
type index struct {
	cells []uint32 // slot + 1, 0 for none
	mask  uint64
}

// newIndex is at most half full.
func newIndex(slots int) *index {
	n := 1
	for n < 2*slots {
		n *= 2
	}
	return &index{cells: make([]uint32, n), mask: uint64(n - 1)} //nolint:gosec // positive
}

func (x *index) get(ids []uint64, id uint64) (slot int, ok bool) {
	for c := id & x.mask; x.cells[c] != 0; c = (c + 1) & x.mask {
		if s := int(x.cells[c] - 1); ids[s] == id {
			return s, true
		}
	}
	return 0, false
}

// put makes a slot the one of its id, in place of an older slot of the same id.
func (x *index) put(ids []uint64, slot int) {
	c := ids[slot] & x.mask
	for ; x.cells[c] != 0; c = (c + 1) & x.mask {
		if ids[x.cells[c]-1] == ids[slot] {
			break
		}
	}
	x.cells[c] = uint32(slot + 1) //nolint:gosec // number of slots
}

// remove takes a slot out, if it is still the one of its id, and moves up what
// probed past it.
func (x *index) remove(ids []uint64, slot int) {
	c := ids[slot] & x.mask
	for ; x.cells[c] != uint32(slot+1); c = (c + 1) & x.mask { //nolint:gosec // number of slots
		if x.cells[c] == 0 {
			return
		}
	}
	for next := (c + 1) & x.mask; x.cells[next] != 0; next = (next + 1) & x.mask {
		home := ids[x.cells[next]-1] & x.mask
		if (next-home)&x.mask >= (next-c)&x.mask {
			x.cells[c] = x.cells[next]
			c = next
		}
	}
	x.cells[c] = 0
}
