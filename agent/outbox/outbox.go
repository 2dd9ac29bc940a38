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
	"errors"
	"log/slog"

	"github.com/vedette-edge/vedette/protocol"
)

// What an outbox may answer.
var (
	// ErrTooLarge says that a body is over MaxBody: no message could carry it.
	ErrTooLarge = errors.New("record is too large for one message")
	// ErrStorage says that the device's disk did not take a write, most often
	// because it is full. What was stored before is safe; the outbox goes on
	// trying at every later call.
	ErrStorage = errors.New("outbox could not write to disk: free some space, the device goes on trying")
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
	// Merge adds a window into another of the same model, release, role and
	// boot that ends before it begins. Nil adds counts and drops the latency and
	// distinct sketches: pass what protocol/sketch offers.
	Merge func(into, from *protocol.Window) error
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
}
