package drift

import (
	"cmp"
	"slices"

	"github.com/vedette-edge/vedette/protocol/release"
)

// GroupDetail is a group with the histograms behind its comparison.
type GroupDetail struct {
	GroupScore

	Features []FeatureDetail `json:"features"` // those apart first, then the furthest from training
}

// FeatureDetail is one stream with the shares of its bins. The fleet has none:
// the bins of versions differ.
type FeatureDetail struct {
	FeatureScore

	Bins []BinShare `json:"bins,omitempty"`
}

// BinShare is one scored bin. The last two are missing and new values, left out
// where both samples have none.
type BinShare struct {
	Label  string  `json:"label"`
	Before float64 `json:"before"` // share of the training rows
	After  float64 `json:"after"`
}

// Group returns one group with its histograms, ok when there is such a group. A
// zero release means the newest version that has the group.
func (m *Monitor) Group(model string, by Level, digest release.Digest, name string) (d GroupDetail, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.level(model, by) {
		if g.Name == name && (digest.IsZero() || g.Release == digest || by == LevelFleet) {
			d.GroupScore, ok = g, true
			break
		}
	}
	if !ok {
		return d, false
	}
	d.Features = make([]FeatureDetail, len(d.Training.Features))
	for i, f := range d.Training.Features {
		d.Features[i].FeatureScore = f
	}
	if x := m.sampleOf(model, &d.GroupScore); x != nil {
		m.releases[d.Release].layout.describe(d.Features, x, d.Training.Condition)
	}
	slices.SortStableFunc(d.Features, func(a, b FeatureDetail) int {
		return cmp.Or(oneIf(b.Apart)-oneIf(a.Apart), cmp.Compare(b.PSI, a.PSI))
	})
	return d, true
}

// sampleOf is what a group's score was made of, nil when that is gone or there
// is no such thing.
func (m *Monitor) sampleOf(model string, g *GroupScore) *sample {
	k := m.releases[g.Release]
	if k == nil || k.layout == nil {
		return nil
	}
	if g.Level == LevelDevice {
		d := m.devices[g.Name]
		if d == nil || d.tracks[g.Release] == nil {
			return nil
		}
		return recent(d.tracks[g.Release].state.Segments, k.layout, k.need, m.atMS-m.cfg.MaxAge.Milliseconds())
	}
	for _, x := range m.gather(model, g.Level) {
		if x.known == k && x.name == g.Name {
			return x.sample()
		}
	}
	return nil
}
