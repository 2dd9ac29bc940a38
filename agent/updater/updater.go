// Package updater carries updates out. It owns one update.Machine per model and
// another one for the model's challenger, writes each step to the journal before acting on it, keeps the deadlines, and
// enters every machine again after a power cut. What is active on disk is
// loaded first, before anything needs the network.
package updater

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Puller brings releases from the control plane. An error with a method
// Retryable() bool that reports true may pass by itself; one with a method
// Code() string names its reason.
type Puller interface {
	// Resolve returns the manifest of a release that the device may trust now.
	Resolve(ctx context.Context, model string, d release.Digest) (*release.Manifest, error)
	// Fetch puts the files of m and manifest.json into dir, going on with what
	// is there already.
	Fetch(ctx context.Context, m *release.Manifest, dir string, progress func(done, total int64)) error
}

// Trier proves a release outside of the serving process. An error says that the
// trial itself could not be held.
type Trier interface {
	Try(ctx context.Context, c trial.Candidate) (trial.Verdict, error)
}

// Engine serves releases.
type Engine interface {
	// Activate loads r and switches to it; after an error the release before
	// goes on serving.
	Activate(ctx context.Context, r infer.Release) error
	// Remove stops serving the model; an unknown one is no error.
	Remove(ctx context.Context, model string) error
	// Retire stops the model's challenger; none is no error.
	Retire(ctx context.Context, model string) error
}

// Config is what an Updater works with. FS, Slots, Puller, Trier and Engine are
// required.
type Config struct {
	FS     slots.FS // the state folder; the journal lies in Folder of it
	Slots  *slots.Slots
	Puller Puller
	Trier  Trier
	Engine Engine

	// Unclean says that the start before this one did not end by itself.
	Unclean bool
	// MemoryBudget bounds the bytes that all models may take together, by what
	// their trials measured; 0 for no bound.
	MemoryBudget uint64
	// OnActive is told of a release just before it begins to serve, so that its
	// first prediction is already counted against its own baseline. An error
	// keeps the release from serving.
	OnActive func(r infer.Release) error
	// Events takes what is worth telling. It must not block for long.
	Events func(e *protocol.Event)
	// Stamp is the present moment on the device's clocks.
	Stamp func() *protocol.Stamp
	// Now is time.Now when nil.
	Now func() time.Time
	// Limits are update.DefaultLimits when zero.
	Limits update.Limits
	// Random spreads retries, in [0, 1).
	Random func() float64
	Log    *slog.Logger
}

// Updater keeps the models of one device as they are desired.
type Updater struct {
	cfg     Config
	inbox   chan *protocol.Desired // holds the newest one alone
	asks    chan ask
	results chan result
	changed chan struct{}
	trials  chan struct{} // one trial at a time: two would measure each other
	loaded  chan struct{} // closed when what was active serves again
	stuck   chan error    // the runtime did not return from a load whose time was up
	order   atomic.Uint64 // activations so far
	workers sync.WaitGroup
	entered bool // each machine was entered again after the start; Run's own

	mu     sync.Mutex // guards models, what is in them, wishes and held; only Run writes, so it reads freely
	models map[lane]*model
	wishes map[string]wish   // of held, by model
	held   *protocol.Desired // newest desired state, nil for none

	// A desired state that could not be written down is not followed either, or
	// the next start would take it back.
	unheld *protocol.Desired // nil for none
	holdAt time.Time         // when to try that again
}

// model is one lane of a model on its way.
type model struct {
	lane
	slots   *slots.Slots
	machine update.Machine
	trial   *protocol.Trial // of the last release tried
	at      *protocol.Stamp // of the machine's last outcome

	serving release.Digest // answered by the engine now
	since   time.Time      // when that began
	load    progress       // of the download
	waits   wait           // why the machine does not move on
	part    part           // of the calls, when serving began
	idle    string         // why an assigned challenger does not run, empty when it does

	// Of the worker carrying out the newest actions.
	token  uint64
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended

	restored chan struct{} // closed when the try to serve what is active has ended
	mendAt   time.Time     // when to try again, zero for never
	mends    int           // tries that failed in a row
	hangs    error         // why only another process can try again, nil if this one can

	written  []byte         // last journal entry, but for its clocks
	backlog  []update.Event // not yet taken because the journal cannot be written
	again    time.Time      // when to try that again
	manifest atomic.Pointer[release.Manifest]
}

// progress of a download in bytes.
type progress struct{ done, total atomic.Int64 }

// ask is a call to a release that did not return, to be journaled.
type ask struct {
	model   string
	release release.Digest
	reply   chan error
}

// result is news from a worker.
type result struct {
	lane  lane
	token uint64
	event update.Event
	trial *protocol.Trial

	// News of what is active count whatever the token.
	restored bool
	mend     error // why it does not serve, nil when it does
}

var (
	// ErrJournal says that a step could not be made durable, so it was not taken.
	ErrJournal = errors.New("the journal cannot be written")
	// ErrStuck says that the runtime did not return from loading a release in
	// time. What follows from it is journaled: the process should be replaced, and
	// the next one does not load that release.
	ErrStuck = errors.New("the runtime does not return from loading a release")
)

// New reads the journal and makes ready to run. Nothing serves before Run.
func New(cfg Config) (*Updater, error) {
	u := &Updater{
		cfg:     cfg.withDefaults(),
		inbox:   make(chan *protocol.Desired, 1),
		asks:    make(chan ask),
		results: make(chan result),
		changed: make(chan struct{}, 1),
		trials:  make(chan struct{}, 1),
		loaded:  make(chan struct{}),
		stuck:   make(chan error, 1),
		models:  map[lane]*model{},
	}
	if err := u.readJournal(); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return u, nil
}

func (c Config) withDefaults() Config {
	if c.Limits == (update.Limits{}) {
		c.Limits = update.DefaultLimits()
	}
	if c.OnActive == nil {
		c.OnActive = func(infer.Release) error { return nil }
	}
	if c.Events == nil {
		c.Events = func(*protocol.Event) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Stamp == nil {
		c.Stamp = func() *protocol.Stamp { return &protocol.Stamp{WallMs: c.Now().UnixMilli()} }
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Desired hands over what the control plane wants. It does not block; of two
// that arrive before the first was looked at, only the second counts.
func (u *Updater) Desired(d *protocol.Desired) {
	for {
		select {
		case u.inbox <- d:
			return
		default:
		}
		select {
		case <-u.inbox:
		default:
		}
	}
}

// Hung notes that a call to a release did not return, and goes back to the
// release before it. It returns when that is journaled, so that the process may
// be replaced at once: the next start serves the other release.
func (u *Updater) Hung(ctx context.Context, name string, d release.Digest) error {
	a := ask{model: name, release: d, reply: make(chan error, 1)}
	select {
	case u.asks <- a:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-a.reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Changed has a value when a state, an outcome or what serves has changed since
// it was last received from: it is time to report.
func (u *Updater) Changed() <-chan struct{} { return u.changed }

// Loaded is closed when what was active at the start serves again or was found
// unable to; at the latest after Patience, so that one model keeps no other
// from being served.
func (u *Updater) Loaded() <-chan struct{} { return u.loaded }

// Held is the newest desired state, also across restarts; nil for none.
func (u *Updater) Held() *protocol.Desired {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.held
}

func (u *Updater) nudge() {
	select {
	case u.changed <- struct{}{}:
	default:
	}
}
