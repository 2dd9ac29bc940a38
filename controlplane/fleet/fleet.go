// Package fleet knows the devices: what they report of themselves, what
// operators say of them, and whether they are connected.
//
// The reported part is a fold of the hellos and reports in the uplink stream.
// It is level-triggered: a newer report replaces an older one whole, and what
// belongs to an earlier moment of a boot, or to a former boot, is dropped. The
// operator's part (labels, revocation) is kept in a bucket and changed by
// compare-and-set, each change also noted in the ledger. Presence lives in
// memory only: after a start of the server it is unknown until something is
// heard, and nothing but display depends on it.
package fleet

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
)

// MaxEvents is how many events are kept of one device.
const MaxEvents = 20

// What a change may be told.
var (
	// ErrNotFound says that no such device is known.
	ErrNotFound = errors.New("no such device: list them with `vedette device list`")
	// ErrStale says that the device was changed since it was read.
	ErrStale = errors.New("the device was changed by someone else: read it again and repeat")
)

// Journal notes what operators do to devices.
type Journal interface {
	Append(ctx context.Context, chain string, expect uint64, kind, actor string, body any) (ledger.Record, error)
}

// Config of a Fleet.
type Config struct {
	// Journal is where changes by operators are noted; nil notes nothing.
	Journal Journal
	// OnEvent is told of every event that comes in after Live; nil: nobody. It
	// must not call the fleet back.
	OnEvent func(e Event)
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

// Fleet is all devices. Its methods may be called from several goroutines.
type Fleet struct {
	bucket kvstore.Bucket
	cfg    Config

	mu      sync.RWMutex
	devices map[string]*entry          // guarded by mu
	dirty   map[string]bool            // guarded by mu: reported parts not yet written down
	live    bool                       // guarded by mu: what comes in is news, not history
	subs    map[*Subscription]struct{} // guarded by mu
}

// entry is one device with what the fold needs beside it.
type entry struct {
	device   Device
	reported bool // the uplink stream has something of it
	fold     position
	heard    history
}

// Open returns the fleet with the operators' facts of a bucket. What devices
// report comes through Load and Apply.
func Open(ctx context.Context, bucket kvstore.Bucket, cfg Config) (*Fleet, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{
		bucket: bucket, cfg: cfg,
		devices: map[string]*entry{}, dirty: map[string]bool{}, subs: map[*Subscription]struct{}{},
	}
	entries, err := bucket.List(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := f.take(e); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Device returns one device.
func (f *Fleet) Device(id string) (Device, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	e, ok := f.devices[id]
	if !ok {
		return Device{}, false
	}
	return e.device.clone(), true
}

// Devices returns the devices whose labels match, by id; nil matches all.
func (f *Fleet) Devices(match func(labels map[string]string) bool) []Device {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var out []Device
	for _, id := range slices.Sorted(maps.Keys(f.devices)) {
		if e := f.devices[id]; match == nil || match(e.device.Labels) {
			out = append(out, e.device.clone())
		}
	}
	return out
}

// Labels returns a device's labels, nil when it is not known.
func (f *Fleet) Labels(id string) map[string]string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if e, ok := f.devices[id]; ok {
		return maps.Clone(e.device.Labels)
	}
	return nil
}

// entryOf returns a device's entry, a new one if there is none. The caller
// holds mu.
func (f *Fleet) entryOf(id string) *entry {
	e, ok := f.devices[id]
	if !ok {
		e = &entry{device: Device{ID: id, Presence: PresenceUnknown}}
		f.devices[id] = e
	}
	return e
}

// clone copies what may be changed in place. Everything else is replaced whole.
func (d *Device) clone() Device {
	c := *d
	c.Labels = maps.Clone(d.Labels)
	c.Events = slices.Clone(d.Events)
	return c
}

// SetPresence takes in that a device came or went.
func (f *Fleet) SetPresence(id string, online bool, at time.Time) {
	presence := Offline
	if online {
		presence = Online
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entryOf(id)
	if online && at.After(e.device.LastSeen) {
		e.device.LastSeen = moment(at)
	}
	if e.device.Presence == presence {
		return
	}
	e.device.Presence = presence
	f.tell(id)
}

// Presences counts the devices by presence.
func (f *Fleet) Presences() map[Presence]int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	out := map[Presence]int{}
	for _, e := range f.devices {
		out[e.device.Presence]++
	}
	return out
}

// Subscribe tells about changed devices from now on. Close ends it.
func (f *Fleet) Subscribe() *Subscription {
	s := &Subscription{fleet: f, news: make(chan struct{}, 1), changed: map[string]struct{}{}}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[s] = struct{}{}
	return s
}

// tell notes a change for every subscriber. The caller holds mu.
func (f *Fleet) tell(id string) {
	for s := range f.subs {
		s.add(id)
	}
}

// Subscription is a set of devices that have changed. Changes of one device are
// coalesced, so it holds at most one entry for each and never falls behind.
type Subscription struct {
	fleet *Fleet
	news  chan struct{}

	mu      sync.Mutex
	changed map[string]struct{} // guarded by mu
}

func (s *Subscription) add(id string) {
	s.mu.Lock()
	s.changed[id] = struct{}{}
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// Changed is readable when Take has something to give.
func (s *Subscription) Changed() <-chan struct{} { return s.news }

// Take returns the devices that changed since the last call, by id.
func (s *Subscription) Take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := slices.Sorted(maps.Keys(s.changed))
	clear(s.changed)
	return ids
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	delete(s.fleet.subs, s)
}

// moment is a time as it is kept: UTC, whole milliseconds.
func moment(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func ofMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
