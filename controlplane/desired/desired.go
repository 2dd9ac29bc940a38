// Package desired derives what every device should be from the decisions in
// the ledger, and tells the devices.
//
// It is a fold: rollout decisions assign releases, challenges and lab trials put
// another one beside them, settings records change how often devices report, label records
// what they are called. A device's
// generation is the ledger sequence of the newest record that touched it, so
// the same ledger gives the same desired state with the same numbers on any
// server. Telling is level-triggered: a change is published at once to the
// devices concerned, and a device that says hello with another generation gets
// the newest state again. Nothing is queued for devices that are away.
package desired

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Publisher sends a message to the broker.
type Publisher interface {
	Publish(subject string, data []byte) error
}

// Ledger is where decisions come from and changes of settings go.
type Ledger interface {
	Replay(ctx context.Context, from uint64, fn func(ledger.Record) error) (next uint64, err error)
	Follow(ctx context.Context, from uint64, fn func(ledger.Record) error) error
	Append(ctx context.Context, chain string, expect uint64, kind, actor string, body any) (ledger.Record, error)
}

// Settings are what devices are asked to keep. Zero fields leave the default,
// or in the settings of one device the fleet's value.
type Settings struct {
	Window   release.Duration `json:"window,omitempty"`   // length of a window
	Report   release.Duration `json:"report,omitempty"`   // longest time between two reports
	Snapshot release.Duration `json:"snapshot,omitempty"` // how often the open window is written down

	SamplingOff bool `json:"sampling_off,omitempty"` // no row leaves a device, whatever manifests allow
	SampleRows  int  `json:"sample_rows,omitempty"`  // at most so many rows of a window are sampled, 0 for what manifests allow
}

// Assignment is one model on one device.
type Assignment struct {
	Model   string         `json:"model"`
	Release release.Digest `json:"release"`           // zero: taken off the device
	Seq     uint64         `json:"seq"`               // ledger sequence of the decision
	Rollout string         `json:"rollout,omitempty"` // that asked for it
}

// State is what one device should be.
type State struct {
	Generation  uint64            `json:"generation"` // 0 for nothing asked yet
	Assignments []Assignment      `json:"assignments,omitempty"`
	Challengers []Challenger      `json:"challengers,omitempty"`
	Settings    Settings          `json:"settings"`
	Labels      map[string]string `json:"labels,omitempty"`
}

// Config of a Desired.
type Config struct {
	// Truths is the number of the newest batch of truths that waits for a device, 0
	// for none. It is told with the desired state and is no part of the generation
	// [P-9.3]. Nil is none.
	Truths func(device string) uint64
	// Now is the clock, time.Now if nil: devices are told the server's time.
	Now func() time.Time
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Desired is what every device should be. Its methods may be called from
// several goroutines.
type Desired struct {
	pub    Publisher
	ledger Ledger
	cfg    Config
	ready  chan struct{}

	applying sync.Mutex // held from folding a record until its devices are told, so that whoever brings it again finds them told
	telling  sync.Mutex // held while a state is read and sent, so that no older one is sent after it

	mu         sync.Mutex
	devices    map[string]*device    // guarded by mu
	challenges map[string]*challenge // guarded by mu: by model
	lab        map[string]LabTrial   // guarded by mu: by model
	fleet      settings              // guarded by mu: of all devices
	held       map[string]uint64     // guarded by mu: hellos that came before the ledger was read, with their generations; nil after
	last       uint64                // guarded by mu: newest ledger record folded
	ahead      map[string]uint64     // guarded by mu: generations above last, by the device that said hello with it
}

// settings are values with the record they come from.
type settings struct {
	Settings
	seq uint64
}

// device is the fold of what concerns one device. Parts are replaced by newer
// records only, so records may come more than once.
type device struct {
	assigned map[string]Assignment // by model
	shadows  map[string]Challenger // by model: of rollouts, over when a newer decision assigns the model
	settings settings
	labels   map[string]string
	labelSeq uint64
}

// New makes a fold that knows nothing yet. Run fills it.
func New(pub Publisher, l Ledger, cfg Config) *Desired {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Desired{
		pub: pub, ledger: l, cfg: cfg, ready: make(chan struct{}),
		devices: map[string]*device{}, challenges: map[string]*challenge{}, lab: map[string]LabTrial{}, held: map[string]uint64{},
		ahead: map[string]uint64{},
	}
}

// Run reads the ledger, answers the devices that have said hello meanwhile, and
// then follows the ledger until ctx ends, when it returns nil. Until the ledger
// is read nothing is published: an old desired state would move a device back.
func (d *Desired) Run(ctx context.Context) error {
	next, err := d.ledger.Replay(ctx, 1, func(r ledger.Record) error {
		_, err := d.fold(r)
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the caller ended it
		}
		return err
	}
	d.open()
	if err := d.ledger.Follow(ctx, next, d.Apply); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// Ready is closed when the ledger has been read and the devices that said hello
// before have been answered.
func (d *Desired) Ready() <-chan struct{} { return d.ready }

// open answers the hellos that waited.
func (d *Desired) open() {
	d.mu.Lock()
	held := d.held
	d.held = nil
	d.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(held)) {
		d.OnHello(id, held[id])
	}
	close(d.ready)
}

// Apply folds one ledger record and tells the devices it concerns. The runner
// calls it with what it has just committed, Run with what the ledger brings: the
// second time nothing changes. Either way the devices are told when it returns.
func (d *Desired) Apply(r ledger.Record) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	touched, err := d.catchUp(r)
	for _, id := range touched { // after an error, too: what was folded is not folded again
		d.tell(id)
	}
	return err
}

// catchUp folds a record, and before it those that the ledger has not brought
// yet: otherwise a device could be told a generation now, and told it again with
// other labels when an older record comes in.
func (d *Desired) catchUp(r ledger.Record) (touched []string, err error) {
	d.mu.Lock()
	next := d.last + 1
	d.mu.Unlock()
	if r.Seq <= next {
		return d.fold(r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), catchUpTimeout)
	defer cancel()
	_, err = d.ledger.Replay(ctx, next, func(r ledger.Record) error {
		more, err := d.fold(r)
		touched = append(touched, more...)
		return err
	})
	if err != nil {
		return touched, fmt.Errorf("catch up with the ledger from record %d: %w", next, err)
	}
	more, err := d.fold(r) // the server that was read from may not have it yet
	return append(touched, more...), err
}

// catchUpTimeout bounds the reading of records that were missed.
const catchUpTimeout = 15 * time.Second

// OnHello tells a device its desired state unless it holds it already. It does
// not block on anything but the broker's connection.
func (d *Desired) OnHello(id string, generation uint64) {
	d.mu.Lock()
	if d.held != nil {
		d.held[id] = generation
		d.mu.Unlock()
		return
	}
	newest := d.generation(id)
	foreign := newest < generation && d.foreign(id, generation)
	d.mu.Unlock()
	if newest < generation {
		d.cfg.Logger.Error("device holds a newer desired state than the ledger: was the ledger restored from a backup?",
			slog.String("device", id), slog.Uint64("device_generation", generation), slog.Uint64("generation", newest), slog.Bool("told", foreign))
	}
	if newest > generation || foreign {
		d.tell(id)
	}
}

// foreign says whether a generation above the device's newest cannot come from
// this ledger: its record is there and not about the device, or the ledger has
// not reached it since the device's last hello. Another server that was faster
// is caught up with in a moment. The caller holds mu.
func (d *Desired) foreign(id string, generation uint64) bool {
	if generation <= d.last {
		delete(d.ahead, id)
		return true
	}
	again := d.ahead[id] == generation
	d.ahead[id] = generation
	return again
}

// State returns what a device should be.
func (d *Desired) State(id string) State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state(id)
}

// Assigned returns what a device should run of one model. Seq is 0 when no
// decision was made.
func (d *Desired) Assigned(id, model string) Assignment {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dev, ok := d.devices[id]; ok {
		return dev.assigned[model]
	}
	return Assignment{}
}

// FleetSettings returns the settings of all devices.
func (d *Desired) FleetSettings() Settings {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fleet.Settings
}

// state joins what is known of a device. The caller holds mu.
func (d *Desired) state(id string) State {
	s := State{Generation: d.generation(id), Settings: d.fleet.Settings}
	dev, ok := d.devices[id]
	if !ok {
		return s
	}
	for _, a := range dev.assigned {
		s.Assignments = append(s.Assignments, a)
	}
	slices.SortFunc(s.Assignments, func(a, b Assignment) int { return cmp.Compare(a.Model, b.Model) })
	s.Challengers = d.challengers(id, dev, s.Assignments)
	s.Settings = dev.settings.over(d.fleet.Settings)
	s.Labels = maps.Clone(dev.labels)
	return s
}

// over returns the settings with a fallback for what they leave open.
func (s Settings) over(fallback Settings) Settings {
	return Settings{
		Window:   cmp.Or(s.Window, fallback.Window),
		Report:   cmp.Or(s.Report, fallback.Report),
		Snapshot: cmp.Or(s.Snapshot, fallback.Snapshot),
		// Neither may widen what the other one narrows.
		SamplingOff: s.SamplingOff || fallback.SamplingOff,
		SampleRows:  narrower(s.SampleRows, fallback.SampleRows),
	}
}

// narrower is the smaller of two bounds, of which 0 is none.
func narrower(a, b int) int {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// generation is the newest record that touched a device. The caller holds mu.
func (d *Desired) generation(id string) uint64 {
	newest := d.fleet.seq
	if dev, ok := d.devices[id]; ok {
		newest = max(newest, dev.settings.seq, dev.labelSeq)
		for model, a := range dev.assigned {
			newest = max(newest, a.Seq, dev.shadows[model].Seq, d.lab[model].Seq)
			if c := d.challenges[model]; c != nil {
				newest = max(newest, c.newest)
			}
		}
	}
	return newest
}

// Tell sends a device its desired state although it may hold it: truths wait.
func (d *Desired) Tell(id string) { d.tell(id) }

// tell publishes a device's desired state. A message that is lost is made good
// by the device's next hello.
func (d *Desired) tell(id string) {
	d.telling.Lock()
	defer d.telling.Unlock()
	d.mu.Lock()
	if d.held != nil {
		d.mu.Unlock()
		return
	}
	s := d.state(id)
	d.mu.Unlock()
	wire := d.wire(s)
	if d.cfg.Truths != nil {
		wire.Settings.Truths = d.cfg.Truths(id)
	}
	data, err := proto.Marshal(&protocol.Down{Body: &protocol.Down_Desired{Desired: wire}})
	if err == nil {
		err = d.pub.Publish(protocol.Subject(protocol.DesiredTopic(id)), data)
	}
	if err != nil {
		d.cfg.Logger.Error("desired state not sent", slog.String("device", id), slog.Any("error", err))
	}
}

func (d *Desired) wire(s State) *protocol.Desired {
	out := &protocol.Desired{
		Generation: s.Generation,
		ServerMs:   d.cfg.Now().UnixMilli(),
		Settings: &protocol.Settings{
			WindowMs: millis(s.Settings.Window), ReportMs: millis(s.Settings.Report), SnapshotMs: millis(s.Settings.Snapshot),
			Labels: s.Labels, SamplingOff: s.Settings.SamplingOff, SampleRows: uint32(max(0, s.Settings.SampleRows)), //nolint:gosec // bounded by SetSettings
		},
	}
	for _, a := range s.Assignments {
		if a.Release.IsZero() {
			continue // a model that is not named is taken off the device
		}
		out.Assignments = append(out.Assignments, &protocol.Assignment{
			Model: a.Model, Release: a.Release.Bytes(), Role: protocol.RolePrimary, Decision: a.Seq,
		})
	}
	for i := range s.Challengers {
		out.Assignments = append(out.Assignments, s.Challengers[i].wire())
	}
	return out
}

func millis(d release.Duration) uint32 {
	return uint32(min(time.Duration(d).Milliseconds(), maxMillis)) //nolint:gosec // bounded by SetSettings and here
}
