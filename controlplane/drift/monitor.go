package drift

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// maxTracks bounds the releases that one device is kept apart by. What comes
// beyond is counted under no model, so that totals stay whole.
const maxTracks = 256

// Monitor folds what devices report. Tell it releases, labels and floors
// before the first Apply: windows of a release it does not know count in totals
// only.
type Monitor struct {
	cfg     Config
	counted chan struct{} // that touched has grown

	mu       sync.Mutex // guards everything below
	releases map[release.Digest]*known
	floors   map[string]float64 // accuracy by model, as policies of retraining ask for
	gates    map[string]float64 // and as its gates do
	labels   map[string]map[string]string
	devices  map[string]*device
	series   map[seriesKey]*series
	watches  map[subject]*watch
	scores   []Score
	atMS     int64 // of the newest Evaluate, Unix milliseconds
	cache    map[cohortKey]*judged
	deleted  map[string]bool     // checkpoint keys to be deleted
	touched  map[string]struct{} // what Touched returns
}

// known is a release with the layout of its baseline.
type known struct {
	Release

	layout *layout
	need   uint64 // effective rows for a verdict
}

// device is what is known of one device apart from releases.
type device struct {
	name   string
	tracks map[release.Digest]*track
	state  deviceState
	dirty  bool
}

// track is one device on one release.
type track struct {
	digest release.Digest
	state  trackState
	dirty  bool
	judged *sample    // newest evidence, while its cohort is judged: it takes more than its segments
	score  Comparison // of the newest evidence against training
	seq    uint64     // state.Seq that score was made of
	from   int64      // start of the oldest window in it, Unix milliseconds
	apart  int64      // end of the evidence that first left training without coming back since, 0 for none
}

// New makes an empty monitor.
func New(cfg Config) *Monitor {
	return &Monitor{
		cfg:      cfg.withDefaults(),
		counted:  make(chan struct{}, 1),
		releases: map[release.Digest]*known{},
		floors:   map[string]float64{},
		gates:    map[string]float64{},
		labels:   map[string]map[string]string{},
		devices:  map[string]*device{},
		series:   map[seriesKey]*series{},
		watches:  map[subject]*watch{},
		cache:    map[cohortKey]*judged{},
		deleted:  map[string]bool{},
		touched:  map[string]struct{}{},
	}
}

func (c Config) withDefaults() Config {
	c.Threshold = cmp.Or(c.Threshold, DefaultThreshold)
	c.Alpha = cmp.Or(c.Alpha, DefaultAlpha)
	c.RowsPerBin = cmp.Or(c.RowsPerBin, DefaultRowsPerBin)
	c.Share = cmp.Or(c.Share, DefaultShare)
	c.MaxAge = cmp.Or(c.MaxAge, DefaultMaxAge)
	// a fleet that is judged by seconds is looked at by seconds too
	c.Bucket = max(cmp.Or(c.Bucket, min(DefaultBucket, max(c.MaxAge/8, minBucket))), time.Millisecond)
	c.Block = max(cmp.Or(c.Block, min(DefaultBlock, c.MaxAge)), c.Bucket)
	c.Buckets = cmp.Or(c.Buckets, DefaultBuckets)
	c.CohortBy = cmp.Or(c.CohortBy, DefaultCohortBy)
	c.RaiseAfter = cmp.Or(c.RaiseAfter, DefaultRaiseAfter)
	c.ClearAfter = cmp.Or(c.ClearAfter, DefaultClearAfter)
	return c
}

// Config returns the configuration in force, defaults filled in.
func (m *Monitor) Config() Config { return m.cfg }

// SetRelease makes a release's windows scorable. The same release again is a
// no-op. A nil baseline leaves a release that is counted and never scored.
func (m *Monitor) SetRelease(r Release, b *sketch.Baseline) error {
	k := &known{Release: r}
	if b != nil {
		if err := b.Validate(); err != nil {
			return fmt.Errorf("watch release %s of %s: %w", r.Version, r.Model, err)
		}
		k.layout = newLayout(b)
		k.need = uint64(m.cfg.RowsPerBin * min(k.layout.bins+divergence.Reserved, MaxBins)) //nolint:gosec // small and positive
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.releases[r.Digest]; !ok {
		m.releases[r.Digest] = k
	}
	return nil
}

// SetLabels replaces a device's labels.
func (m *Monitor) SetLabels(device string, labels map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.labels[device] = labels
}

// SetFloor sets the lowest accuracy a model may have, 0 for none. Then the one
// of its gates holds.
func (m *Monitor) SetFloor(model string, accuracy float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.floors[model] = accuracy
}

// SetGate sets the accuracy that the gates of a model ask for, 0 for none.
func (m *Monitor) SetGate(model string, accuracy float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gates[model] = accuracy
}

// Floor is the accuracy that a model is held to, 0 for none.
func (m *Monitor) Floor(model string) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.floor(model)
}

func (m *Monitor) floor(model string) float64 { return cmp.Or(m.floors[model], m.gates[model]) }

// Forget drops everything known of a device that was removed from the fleet.
// What it counted stays in series.
func (m *Monitor) Forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.devices[name]
	if d == nil {
		return
	}
	m.touch(name)
	m.deleted[deviceKey(name)] = true
	for _, t := range d.tracks {
		m.deleted[trackKey(name, t.digest)] = true
	}
	delete(m.devices, name)
	delete(m.labels, name)
	for s := range m.watches {
		if s.Device == name {
			m.deleted[s.key()] = true
			delete(m.watches, s)
		}
	}
}

// cohort is the value of the label that makes cohorts, "" without it.
func (m *Monitor) cohort(device string) string { return m.labels[device][m.cfg.CohortBy] }

// siteLabel is the device label of the site level.
const siteLabel = "site"

// site is where a device stands, "" when nobody said.
func (m *Monitor) site(device string) string { return m.labels[device][siteLabel] }

// device returns a device, a new one at first.
func (m *Monitor) device(name string) *device {
	d := m.devices[name]
	if d == nil {
		d = &device{name: name, tracks: map[release.Digest]*track{}}
		m.devices[name] = d
		delete(m.deleted, deviceKey(name))
	}
	return d
}

// track returns a device's track of a release, a new one at first, nil when
// that is no release or the device has too many.
func (m *Monitor) track(d *device, raw []byte, model string) *track {
	digest, err := release.DigestFromBytes(raw)
	if err != nil {
		return nil
	}
	if t := d.tracks[digest]; t != nil {
		return t
	}
	if len(d.tracks) >= maxTracks {
		return nil
	}
	if k := m.releases[digest]; k != nil {
		model = k.Model
	}
	t := &track{digest: digest, state: trackState{Device: d.name, Model: model, Release: digest}}
	d.tracks[digest] = t
	delete(m.deleted, trackKey(d.name, digest))
	return t
}

// Totals returns what every device reported, by device, model and release.
func (m *Monitor) Totals() []Total {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ts []Total
	for _, d := range m.devices {
		if t := d.state.total(d.name); t != (Total{Device: d.name}) {
			ts = append(ts, t)
		}
		for _, t := range d.tracks {
			ts = append(ts, t.state.total())
		}
	}
	slices.SortFunc(ts, func(a, b Total) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Model, b.Model), slices.Compare(a.Release[:], b.Release[:]))
	})
	return ts
}

// Evidence returns by device what a release showed in windows that began at
// since or later, and before until unless that is zero. Old windows are kept
// joined: they count whole where the first of them began.
func (m *Monitor) Evidence(model string, digest release.Digest, since, until time.Time) map[string]Evidence {
	from, to := since.UnixMilli(), int64(math.MaxInt64)
	if !until.IsZero() {
		to = until.UnixMilli()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var l *layout
	if k := m.releases[digest]; k != nil {
		l = k.layout
	}
	out := map[string]Evidence{}
	for name, d := range m.devices {
		t := d.tracks[digest]
		if t == nil || t.state.Model != model {
			continue
		}
		if e, ok := t.state.evidence(l, from, to); ok {
			out[name] = e
		}
	}
	return out
}
