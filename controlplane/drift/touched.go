package drift

import (
	"math"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// EvidenceOf returns by release what one device showed with a model in windows
// that began at since or later, and before until unless that is zero. Old
// windows are kept joined: they count whole where the first of them began.
func (m *Monitor) EvidenceOf(device, model string, since, until time.Time) map[release.Digest]Evidence {
	from, to := since.UnixMilli(), int64(math.MaxInt64)
	if !until.IsZero() {
		to = until.UnixMilli()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.devices[device]
	if d == nil {
		return nil
	}
	out := make(map[release.Digest]Evidence, len(d.tracks))
	for digest, t := range d.tracks {
		if t.state.Model != model {
			continue
		}
		var l *layout
		if k := m.releases[digest]; k != nil {
			l = k.layout
		}
		if e, ok := t.state.evidence(l, from, to); ok {
			out[digest] = e
		}
	}
	return out
}

// ShadowOf returns what one device counted with a release as a shadow since a
// moment, ok when it counted anything.
func (m *Monitor) ShadowOf(device, model string, digest release.Digest, since time.Time) (c BesideCounts, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.devices[device]
	if d == nil || d.tracks[digest] == nil || d.tracks[digest].state.Model != model {
		return c, false
	}
	return d.tracks[digest].state.shadowed(since.UnixMilli())
}

// Touched returns the devices of which something was counted, or that were
// forgotten, since the last call. It has one reader: what was returned is not
// returned again.
func (m *Monitor) Touched() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := make([]string, 0, len(m.touched))
	for id := range m.touched {
		ids = append(ids, id)
	}
	clear(m.touched)
	return ids
}

// Counted says, at least once after each call of Touched, that there are such
// devices again. It has one reader.
func (m *Monitor) Counted() <-chan struct{} { return m.counted }

// touch notes a device for Touched. The caller holds mu.
func (m *Monitor) touch(name string) {
	m.touched[name] = struct{}{}
	select {
	case m.counted <- struct{}{}:
	default:
	}
}
