// Package ingest is where what devices send becomes fact. It validates
// envelopes, keeps a cursor for each device and epoch, appends accepted
// messages to the stream UPLINK and acknowledges them; folds follow the stream.
//
// Accept is pure: every rule of the exact accounting [P-4] that binds the
// server is in it. The rest of the package moves bytes.
package ingest

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
)

// What following the stream may answer.
var (
	// ErrGap says that messages after the checkpoint are gone from the stream.
	ErrGap = errors.New("the uplink stream no longer holds what follows the checkpoint: restore a backup that fits or run 'vedette-control repair'")
	// ErrIncarnation says that the checkpoint belongs to another stream.
	ErrIncarnation = errors.New("the uplink stream is not the one the checkpoint was made of: restore a backup that fits or run 'vedette-control repair'")
)

// Config of an Ingest. Zero fields mean the defaults.
type Config struct {
	// Cursors keeps each device's cursor beyond the age of the stream.
	Cursors kvstore.Bucket
	// OnHello is told of every hello that was stored, with the generation the device holds. It must not block.
	OnHello func(device string, generation uint64)
	// OnPresence is told when a device comes and goes. It must not block. For display only.
	OnPresence func(device string, online bool, at time.Time)
	// MaxAge and MaxBytes bound the stream, DefaultMaxAge and DefaultMaxBytes if 0.
	MaxAge   time.Duration
	MaxBytes int64
	// Rate is how many envelopes a second one device may send, DefaultRate if 0; Burst how many at once.
	Rate  float64
	Burst int
	// Workers append at the same time, DefaultWorkers if 0.
	Workers int
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Ingest takes what devices publish.
type Ingest struct{}

// Start makes the stream where it is not there, subscribes and begins to take.
func Start(ctx context.Context, nc *nats.Conn, cfg Config) (*Ingest, error) { return nil, nil }

// Stop takes nothing more, finishes what it has begun and writes the cursors down.
func (i *Ingest) Stop(ctx context.Context) error { return nil }

// Clear lifts the mark "cloned" from a device, as an operator decided it.
func (i *Ingest) Clear(ctx context.Context, device string) error { return nil }

// Follow calls fn for every message from the sequence from on (1 is the first),
// then for every new one, until ctx ends or fn fails. ErrGap when from was aged out.
func (i *Ingest) Follow(ctx context.Context, from uint64, fn func(seq uint64, a *protocol.Accepted) error) error {
	return nil
}

// Fold is a state computed from the stream with checkpoints in a bucket. Its
// functions are called by one goroutine.
type Fold struct {
	// Name is for logs and for the keys in Bucket.
	Name string
	// Bucket keeps the records that Dirty returns under their keys, and a marker. It belongs to this fold alone.
	Bucket kvstore.Bucket
	// Load restores what Dirty returned before; called once, before the first Apply, with nothing at the first start.
	Load func(records map[string][]byte) error
	// Apply folds one message. After a crash messages come again: a record that includes seq must skip it.
	Apply func(seq uint64, a *protocol.Accepted)
	// Dirty returns the records changed since the last call; an empty value deletes.
	Dirty func() map[string][]byte
	// Every is how often the fold is written down, DefaultCheckpoint if 0.
	Every time.Duration
	// Ready is called once when the fold has all that was stored when it began; may be nil.
	Ready func()
}

// Fold runs f until ctx ends, then writes it down. ErrGap and ErrIncarnation
// mean that the fold cannot be continued from its checkpoint.
func (i *Ingest) Fold(ctx context.Context, f Fold) error { return nil }
