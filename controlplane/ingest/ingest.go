// Package ingest is where what devices send becomes fact. It validates
// envelopes, keeps a cursor for each device and epoch, appends accepted
// messages to the stream UPLINK and acknowledges them; folds follow the stream.
//
// Accept is pure: every rule of the exact accounting [P-4] that binds the
// server is in it. The rest of the package moves bytes.
package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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

// Defaults of Config.
const (
	DefaultMaxAge   = 7 * 24 * time.Hour
	DefaultMaxBytes = 20 << 30
	// DefaultRate and DefaultBurst let a device empty its sent region at once and
	// repeat it every second; what is over is dropped and comes again.
	DefaultRate  = 2 * protocol.MaxSent
	DefaultBurst = 4 * protocol.MaxSent
	// DefaultWorkers is how many appends wait for the disk at the same time.
	DefaultWorkers = 32
	// DefaultCheckpoint is how much a fold has to do again after a crash.
	DefaultCheckpoint = 10 * time.Second
	// cursorEvery is how often a cursor is copied to the bucket. The stream holds
	// it too, for MaxAge: only a device silent for longer needs the copy.
	cursorEvery = time.Hour
)

// Names of the stream [P-4.5].
const (
	streamName    = "UPLINK"
	streamSubject = "in."
)

// Config of an Ingest. Zero fields mean the defaults.
type Config struct {
	// Cursors keeps each device's cursor beyond the age of the stream.
	Cursors kvstore.Bucket
	// OnHello is told of every hello that was stored. It must not block.
	OnHello func(device string, h *protocol.Hello)
	// Samples keeps the rows that devices send for labelling; nil: nobody does.
	Samples Samples
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
type Ingest struct {
	cfg     Config
	log     *slog.Logger
	nc      *nats.Conn
	js      jetstream.JetStream
	stream  jetstream.Stream
	subs    []*nats.Subscription
	workers []*worker
	done    sync.WaitGroup
	stop    sync.Once
	stats   counters
	failing atomic.Bool // the last append failed
	storage storageCache
	folds   positions
}

// Start makes the stream where it is not there, subscribes and begins to take.
func Start(ctx context.Context, nc *nats.Conn, cfg Config) (*Ingest, error) {
	cfg = cfg.withDefaults()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	i := &Ingest{cfg: cfg, log: cfg.Logger, nc: nc, js: js}
	i.stream, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{streamSubject + "*"}, Storage: jetstream.FileStorage,
		MaxAge: cfg.MaxAge, MaxBytes: cfg.MaxBytes, AllowDirect: true,
		Compression: jetstream.S2Compression, // of blocks that are full: messages of one fleet share names and digests
		Discard:     jetstream.DiscardNew,    // a full stream takes nothing, so devices keep what they have
	})
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", streamName, err)
	}
	for range cfg.Workers {
		w := newWorker(i)
		i.workers = append(i.workers, w)
		i.done.Go(w.run)
	}
	for _, topic := range []string{protocol.UpTopic("+"), protocol.StatusTopic("+")} {
		if err := i.subscribe(protocol.Subject(topic)); err != nil {
			return nil, errors.Join(err, i.Stop(ctx))
		}
	}
	return i, nil
}

func (cfg Config) withDefaults() Config {
	cfg.MaxAge = cmp.Or(cfg.MaxAge, DefaultMaxAge)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, DefaultMaxBytes)
	cfg.Rate = cmp.Or(cfg.Rate, DefaultRate)
	cfg.Burst = cmp.Or(cfg.Burst, DefaultBurst)
	cfg.Workers = cmp.Or(cfg.Workers, DefaultWorkers)
	if cfg.OnHello == nil {
		cfg.OnHello = func(string, *protocol.Hello) {}
	}
	if cfg.OnPresence == nil {
		cfg.OnPresence = func(string, bool, time.Time) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// maxQueued bounds what waits in the client library, in bytes and messages.
const (
	maxQueuedMessages = 64 << 10
	maxQueuedBytes    = 128 << 20
)

func (i *Ingest) subscribe(subject string) error {
	sub, err := i.nc.Subscribe(subject, i.dispatch)
	if err != nil {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	i.subs = append(i.subs, sub)
	if err := sub.SetPendingLimits(maxQueuedMessages, maxQueuedBytes); err != nil {
		return fmt.Errorf("bound %s: %w", subject, err)
	}
	return nil
}

// dispatch gives a message to the worker of its device: one device's messages
// stay in order, and one slow append does not hold up the others. Where a worker
// has too much to do, the message is dropped; the device sends it again.
func (i *Ingest) dispatch(m *nats.Msg) {
	device, leaf, err := protocol.DeviceOfSubject(m.Subject)
	if err != nil {
		i.stats.malformed.Add(1)
		return
	}
	select {
	case i.workerOf(device).in <- incoming{device: device, leaf: leaf, data: m.Data}:
	default:
		i.stats.dropped.Add(1)
	}
}

func (i *Ingest) workerOf(device string) *worker {
	return i.workers[crc32.ChecksumIEEE([]byte(device))%uint32(len(i.workers))] //nolint:gosec // a few workers
}

// Stop takes nothing more, finishes what it has begun and writes the cursors down.
func (i *Ingest) Stop(ctx context.Context) error {
	var err error
	i.stop.Do(func() {
		for _, sub := range i.subs {
			err = errors.Join(err, sub.Unsubscribe())
		}
		for _, w := range i.workers {
			close(w.quit)
		}
		i.done.Wait()
		for _, w := range i.workers {
			err = errors.Join(err, w.flush(ctx, time.Time{}))
		}
	})
	return err
}

// Clear lifts the mark "cloned" from a device, as an operator decided it.
func (i *Ingest) Clear(ctx context.Context, device string) error {
	if err := protocol.CheckDeviceID(device); err != nil {
		return err
	}
	answer := make(chan error, 1)
	select {
	case i.workerOf(device).in <- incoming{device: device, clear: answer}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
