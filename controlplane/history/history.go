// Package history keeps what devices counted for longer than the uplink stream
// does: by hour for three months and by day for two years. Nothing is sampled or
// averaged. Histograms and counts add, sketches of latency and of distinct rows
// merge, so an hour is what one window of an hour would have been.
//
// It is a fold of the uplink stream with two stages behind it:
//
//	window → open part (memory, checkpointed) → hour (bucket) → day (bucket)
//
// A part is what a share of the devices counted in one hour with one release.
// An hour that is over is sealed; once the checkpoint that says so is durable,
// the part is moved into the hour, which remembers what it took last, so a move
// may be repeated after a crash. A window that comes weeks late opens the part
// of its own hour again. Days are made of hours, and made again when an hour of
// theirs changes. Windows whose time is not known are in no hour; drift counts
// them in its totals.
//
// Sizes, of a thousand devices that make ten million predictions a day in windows
// of five minutes of a model with 67 streams (make bench-registry): 288 MB a day
// in the stream, which takes less than two thirds of that on disk, 23 MB in hours
// and 1 MB in days; so 2.0 GB of messages, 2.0 GB and 0.7 GB when each is full.
//
// Time is an argument of everything but Run.
package history

import (
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/release"
)

// How long what is kept. Raw windows are the uplink stream's: ingest.DefaultMaxAge.
const (
	// KeepHours is a season: long enough to see what a quarter did to a model.
	KeepHours = 90 * 24 * time.Hour
	// KeepDays lets a month be compared with the same month of the year before.
	KeepDays = 2 * 365 * 24 * time.Hour
)

// What decides how often things are written.
const (
	// Checkpoint is how often the parts are written down: an hour is written
	// twice, not once for each of its windows, and a crash costs half an hour of
	// the stream to be folded again, which takes seconds.
	Checkpoint = 30 * time.Minute
	// grace is how long an hour stays open after its end: twice the default window.
	grace = 10 * time.Minute
	// dayGrace lets the last hour of a day be moved before the day is made.
	dayGrace = 2 * time.Hour
	// margin keeps late windows from hours that are about to be forgotten.
	margin = 2
	// shards is in how many values an hour of a release is kept. A value holds at
	// most maxPack bytes: at 1 KB a device that is room for 28,000 devices.
	shards = 32
	// maxPack leaves room below kvstore.MaxValue for the other half of a part.
	// Devices beyond it are counted together, under no name.
	maxPack = kvstore.MaxValue * 7 / 16
)

// Config of a History. Hours and Days are required.
type Config struct {
	// Hours and Days keep what is merged. Each belongs to this History alone, and
	// forgets values KeepHours and KeepDays after they were written.
	Hours, Days kvstore.Bucket
	// Cohort is the cohort of a device now, "" for none; nil when there are none.
	Cohort func(device string) string
	Now    func() time.Time // nil is time.Now
	Logger *slog.Logger     // nil discards
}

// History is the fold with its archive. It is safe for concurrent use.
type History struct {
	cfg Config

	// moving is held for writing while a part is neither only in memory nor only
	// in the archive, so that nobody counts it twice.
	moving sync.RWMutex

	mu      sync.Mutex // guards everything below
	clocks  map[string]*clockState
	parts   map[partKey]*part
	applied uint64          // last message
	flushed uint64          // applied when Dirty was last called
	safe    uint64          // no message up to this one comes again
	round   int64           // hour of the last sealing
	indexed map[string]bool // days known to be in the index
}

// New makes a History without anything in it.
func New(cfg Config) *History {
	if cfg.Cohort == nil {
		cfg.Cohort = func(string) string { return "" }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &History{
		cfg: cfg, clocks: map[string]*clockState{}, parts: map[partKey]*part{},
		indexed: map[string]bool{},
	}
}

// partKey names a part: one release, one hour, one share of the devices.
type partKey struct {
	release release.Digest
	hour    int64 // since 1970
	shard   int
}

// part is what is not in the archive yet.
type part struct {
	seq  uint64 // last message in it
	open pack   // takes windows
	// sealed goes to the archive and takes nothing any more.
	sealed    pack
	sealedSeq uint64 // seq when it was sealed
	stage     stage  // of sealed
	dirty     bool
}

// stage says how far a sealed pack is on its way.
type stage int

const (
	unsealed stage = iota
	sealed         // in memory
	flushing       // given to the checkpoint
	durable        // in it, so that a move can be repeated
)

// shardOf spreads devices evenly.
func shardOf(device string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(device))
	return int(h.Sum32() % shards)
}

const (
	hourMS = int64(time.Hour / time.Millisecond)
	perDay = 24
)

func hourOf(t time.Time) int64 { return t.UnixMilli() / hourMS }

func dayOf(t time.Time) int64 { return hourOf(t) / perDay }

// startOf is the moment at which an hour begins.
func startOf(hour int64) time.Time { return time.UnixMilli(hour * hourMS).UTC() }
