// Package outbox keeps what a device has to tell until the control plane holds
// it. It has an open region (windows still being counted, replaced under their
// key), a pending region (closed, without a number; may be merged) and a sent
// region (numbered, frozen, at most protocol.MaxSent records). Nothing leaves it
// but through an acknowledgement, or counted and reported as lost.
//
// It lies on flash that loses power: every change is one synced write of one
// framed key, and Open recovers from the frames alone (see DESIGN.md beside
// this file).
package outbox

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// What an outbox may answer.
var (
	// ErrTooLarge says that a body is over MaxBody: no message could carry it.
	ErrTooLarge = errors.New("record is too large for one message")
	// ErrStorage says that the device's disk did not take a write. What was
	// stored before is safe; the outbox goes on trying at every later call.
	ErrStorage = errors.New("outbox could not write to disk, the device goes on trying")
	// ErrFull is an ErrStorage for lack of space.
	ErrFull = fmt.Errorf("%w: the disk is full: free some space", ErrStorage)
	// ErrReadOnly is an ErrStorage of a disk that takes no writes at all.
	ErrReadOnly = fmt.Errorf("%w: the file system is read-only: look for its errors in the system's log (a worn card?), then mount it for writing", ErrStorage)
	// ErrClosed says that the outbox was closed.
	ErrClosed = errors.New("outbox is closed")
	// ErrInUse says that another process holds the outbox.
	ErrInUse = errors.New("outbox is in use by another process: stop the other agent first")
)

// Defaults of Options.
const (
	// DefaultModelBytes lets one model stay offline for more than a week at one
	// 2 KiB window in 5 minutes before windows are merged.
	DefaultModelBytes = 4 << 20
	// DefaultTotalBytes bounds memory too: a stored byte costs 1.1 bytes of it.
	DefaultTotalBytes = 20 << 20
	// MaxBody bounds one encoded body. The rest of a payload is for its envelope.
	MaxBody = protocol.MaxPayload - 4<<10
)

// Options of Open. The zero value is usable.
type Options struct {
	// ModelBytes bounds open and pending records of one model, DefaultModelBytes if 0.
	ModelBytes int
	// TotalBytes bounds the whole outbox, DefaultTotalBytes if 0.
	TotalBytes int
	// Stamp dates the events the outbox itself reports (salvage, overflow); nil leaves them undated.
	Stamp func() *protocol.Stamp
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Salvage says what Open found wrong with the file. Nil means nothing.
type Salvage struct {
	Quarantine   string          // the damaged file, kept beside the new one
	DamagedBytes int64           // that no good frame covers
	LostRecords  uint64          // pending records known to be gone
	Lost         *protocol.Tally // what they counted
	LostUnknown  bool            // more may be gone than can be proven
	SentHoles    int             // numbered records gone; reported by skip
	Unproven     bool            // the counter may lie behind: the server is asked before anything is sent
}

// Stats is what the outbox holds now.
type Stats struct {
	Bytes   int64 // of records, open ones included
	File    int64 // bytes on disk
	Open    int
	Pending int
	Sent    int
	Merged  uint64 // merges since Open
	Asking  bool   // waits for the server's cursor before it sends
	Error   error  // why the disk took nothing when last asked, wraps ErrStorage; nil when it did
}

// Outbox is safe for concurrent use.
type Outbox struct {
	opt     Options
	log     *slog.Logger
	changed chan struct{}
	lock    *os.File

	mu     sync.Mutex // guards what follows
	book   *Book
	store  store
	broken bool  // the file may not hold the book: write it anew before anything else
	failed error // why the last write failed, nil when it did not; logged once
	closed bool
	merged uint64
}

// Open opens the outbox at path, or makes one; its folder must exist. Open
// records left by a kill become pending. A damaged file is kept beside
// (path + ".damaged") and every good record of it is taken over.
func Open(path string, opt Options) (*Outbox, *Salvage, error) {
	o := newOutbox(path, opt)
	if err := o.hold(path + ".lock"); err != nil {
		return nil, nil, err
	}
	salvage, err := o.load()
	if err != nil {
		return nil, nil, errors.Join(err, o.Close())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.closeLeft(); err != nil {
		o.log.Warn("outbox could not close records of the last boot, trying again later", "error", err)
	}
	o.tidy()
	o.trim()
	return o, salvage, nil
}

func newOutbox(path string, opt Options) *Outbox {
	opt.ModelBytes = cmp.Or(opt.ModelBytes, DefaultModelBytes)
	opt.TotalBytes = cmp.Or(opt.TotalBytes, DefaultTotalBytes)
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return &Outbox{
		opt: opt, log: opt.Logger,
		changed: make(chan struct{}, 1), store: store{path: path, flush: (*os.File).Sync},
	}
}

// hold takes the lock that keeps a second agent out. A disk that takes no
// writes has no second one on it either, unless it was there before.
func (o *Outbox) hold(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, syscall.EROFS) {
		f, err = os.Open(path)
	}
	switch {
	case err != nil && (isFull(err) || errors.Is(err, syscall.EROFS) || errors.Is(err, os.ErrNotExist)):
		return nil
	case err != nil:
		return fmt.Errorf("make outbox lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(ErrInUse, f.Close())
	}
	o.lock = f
	return nil
}

// load reads the file, repairs it where needed and opens it. A disk that takes
// no writes is no reason not to start: the records are kept in memory until it does.
func (o *Outbox) load() (*Salvage, error) {
	o.store.found()
	sound, err := o.sound()
	switch {
	case errors.Is(err, os.ErrNotExist):
		o.book = NewBook(randomEpoch())
		o.replaceAll("")
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read outbox file: %w", err)
	case sound && o.adopt():
		return nil, nil
	}
	return o.salvage()
}

// tape is the file for reading, as much of it as can be ours.
func (o *Outbox) tape() (*tape, io.Closer, error) {
	return openTape(o.store.path, 2*fileLimit(int64(o.opt.TotalBytes)))
}

// sound reads the file through and says whether there is nothing to repair.
func (o *Outbox) sound() (bool, error) {
	t, file, err := o.tape()
	if err != nil {
		return false, err
	}
	return scanFile(t, func(*Frame) {}).sound(), file.Close()
}

// adopt opens a sound file and takes its records over where they are. False
// when BuntDB sees something else there than the frames say.
func (o *Outbox) adopt() bool {
	if err := o.store.open(); err != nil {
		return false
	}
	live, err := o.store.frames()
	if err == nil {
		book, s := Recover(slices.Collect(maps.Values(live)), Whole)
		if s.clean() && sameKeys(live, book) {
			o.book = book
			return true
		}
	}
	_ = o.store.close() // it is written anew
	return false
}

// salvage takes every good record of the file over and writes it anew, keeping
// a damaged one beside.
func (o *Outbox) salvage() (*Salvage, error) {
	t, file, err := o.tape()
	if err != nil {
		return nil, fmt.Errorf("read outbox file: %w", err)
	}
	defer file.Close()
	book, s := salvageTape(t)
	o.book = book
	if s.clean() {
		o.replaceAll("")
		return nil, nil
	}
	s.Quarantine = o.store.path + ".damaged"
	if e, ok := s.Report(); ok {
		o.book = o.book.Append(o.dated(e)).After
	}
	o.log.Warn("outbox file was damaged and has been salvaged", "kept", s.Quarantine, "damaged_bytes", s.DamagedBytes,
		"lost_records", s.LostRecords, "lost_unknown", s.LostUnknown, "sent_holes", s.SentHoles)
	o.replaceAll(s.Quarantine)
	return s, nil
}

// replaceAll writes the file anew. What the disk does not take stays in memory
// and is written as soon as it does.
func (o *Outbox) replaceAll(keep string) {
	o.broken = true
	o.note(storageError(o.rewrite(o.book, keep)))
}

// sameKeys says whether the file, as BuntDB reads it, is what the frames say.
func sameKeys(live map[string]*Frame, b *Book) bool {
	want := map[string]bool{}
	for _, it := range slices.Concat(b.open, b.pending) {
		want[it.key()] = true
	}
	for _, s := range b.sent {
		want[keyOf(kindSent, s.batch)] = true
	}
	for key, f := range live {
		if f.Kind != kindHead && !want[key] {
			return false
		}
		delete(want, key)
	}
	return len(want) == 0
}

func randomEpoch() (id EpochID) {
	rand.Read(id[:]) // never fails
	return id
}

// dated puts the outbox's stamp on an event of its own.
func (o *Outbox) dated(e Entry) Entry {
	if o.opt.Stamp == nil {
		return e
	}
	b, err := sketch.DecodeBody([]byte(e.Body))
	if err != nil {
		return e
	}
	b.At = o.opt.Stamp()
	dated, err := NewEntry(b)
	if err != nil {
		return e
	}
	return dated
}

// errNoKey is a programming error of the caller.
var errNoKey = errors.New("an open record needs a key without a zero byte")

// PutOpen writes a record that is still growing down under a key, replacing
// what was there. It is synced when PutOpen returns.
func (o *Outbox) PutOpen(key string, b *protocol.Body) error {
	return o.put(key, b, (*Book).PutOpen)
}

// CloseOpen hands the record under key over for sending, with b as its last
// content, in one synced write. The key need not be there.
func (o *Outbox) CloseOpen(key string, b *protocol.Body) error {
	defer o.signal()
	return o.put(key, b, (*Book).CloseOpen)
}

func (o *Outbox) put(key string, b *protocol.Body, how func(*Book, string, Entry) Change) error {
	if key == "" || strings.ContainsRune(key, 0) {
		return fmt.Errorf("%w: %q", errNoKey, key)
	}
	e, err := NewEntry(b)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.apply(func(w *work) { w.do(how(w.book, key, e)) })
}

// Append hands records over for sending. They are synced when it returns; on an
// error none of them was taken.
func (o *Outbox) Append(bodies ...*protocol.Body) error {
	entries := make([]Entry, len(bodies))
	for i, b := range bodies {
		e, err := NewEntry(b)
		if err != nil {
			return err
		}
		entries[i] = e
	}
	defer o.signal()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.apply(func(w *work) {
		for _, e := range entries {
			w.do(w.book.Append(e))
		}
	})
}

// Send gives the oldest pending records their numbers, as far as limit records
// fit the sent region (at most protocol.MaxSent), in one synced write. It
// returns everything the server is not known to hold, in order, skips included,
// also beside an error. While the outbox asks for a cursor it numbers nothing.
func (o *Outbox) Send(limit int) ([]*protocol.Record, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.apply(func(w *work) {
		o.expireSamples(w)
		if c, ok := w.book.Send(limit); ok {
			w.do(c)
		}
	})
	return o.book.Records(), err
}

// Ack takes what the server holds. It may go backwards: then Send returns what
// the server lost, or a skip where that is gone.
func (o *Outbox) Ack(a *protocol.Ack) error {
	defer o.signal()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.apply(func(w *work) {
		after, c, write := w.book.Ack(a)
		if write {
			w.do(c)
			return
		}
		o.book = after
	})
}

// Epochs is what hello tells: the closed epochs that the server may have lost
// parts of, and the current one.
func (o *Outbox) Epochs() []*protocol.Epoch {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.book.Epochs()
}

// Stats returns what the outbox holds now.
func (o *Outbox) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return Stats{
		Bytes: o.book.size(), File: o.store.size(), Open: len(o.book.open), Pending: len(o.book.pending),
		Sent: len(o.book.sent), Merged: o.merged, Asking: o.book.head.Closing, Error: o.failed,
	}
}

// Changed receives a value when there may be something to send.
func (o *Outbox) Changed() <-chan struct{} { return o.changed }

func (o *Outbox) signal() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// Close closes the file. Everything is on disk already.
func (o *Outbox) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	err := o.store.close()
	if o.lock != nil {
		err = errors.Join(err, o.lock.Close())
	}
	return err
}
