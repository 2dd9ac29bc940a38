package drift

import (
	"bytes"
	"math"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// What is kept of a challenger on one device: a fine recent past and a coarse
// older one, for each primary release it was beside.
const (
	maxBouts  = 12
	maxRivals = 8
)

// Beside is what a challenger showed on one device since a moment: as a shadow
// beside one primary release, or answering a share of the calls.
type Beside struct {
	Device  string
	Role    string
	Primary release.Digest // of a shadow: the release it was compared with

	BesideCounts
	Latency, PrimaryLatency *sketch.Latency // of the same calls for a shadow; none of the primary for a share
	Labels, Correct         uint64
}

// BesideCounts are what windows of a challenger counted.
type BesideCounts struct {
	Rows        uint64  `json:"rows"` // computed by the challenger
	FailedRows  uint64  `json:"failed_rows,omitempty"`
	Calls       uint64  `json:"calls,omitempty"`
	FailedCalls uint64  `json:"failed_calls,omitempty"`
	Compared    uint64  `json:"compared,omitempty"` // rows of a shadow, as the next two
	Agreed      uint64  `json:"agreed,omitempty"`
	Skipped     uint64  `json:"skipped,omitempty"`
	Worst       float64 `json:"worst,omitempty"` // largest difference of a score
}

// Add adds what other windows counted.
func (c *BesideCounts) Add(o BesideCounts) {
	c.Rows += o.Rows
	c.FailedRows += o.FailedRows
	c.Calls += o.Calls
	c.FailedCalls += o.FailedCalls
	c.Compared += o.Compared
	c.Agreed += o.Agreed
	c.Skipped += o.Skipped
	c.Worst = max(c.Worst, o.Worst)
}

// rival is a challenger beside one primary release, or in its share.
type rival struct {
	Role    string         `json:"role"`
	Primary release.Digest `json:"primary,omitzero"`
	Bouts   []bout         `json:"bouts,omitempty"`  // oldest first
	Labels  []span         `json:"labels,omitempty"` // oldest first
}

// bout is what windows of a challenger counted between two moments.
type bout struct {
	Start int64 `json:"start"` // Unix milliseconds, server time
	End   int64 `json:"end"`
	BesideCounts
	Latency        []byte `json:"latency,omitempty"`
	PrimaryLatency []byte `json:"primary_latency,omitempty"`
}

func newBout(w *protocol.Window, start, end int64) bout {
	c := w.GetComparison()
	b := bout{
		Start: start, End: end,
		BesideCounts: BesideCounts{
			Rows: w.GetRows(), FailedRows: w.GetFailedRows(), Calls: w.GetCalls(), FailedCalls: w.GetFailedCalls(),
			Compared: c.GetRows(), Agreed: min(c.GetAgreed(), c.GetRows()), Skipped: c.GetSkippedRows(),
		},
		Latency: goodLatency(w.GetLatency()), PrimaryLatency: goodLatency(c.GetLatency()),
	}
	if worst := c.GetWorst(); worst >= 0 && !math.IsInf(worst, 0) { // a NaN could not be kept
		b.Worst = worst
	}
	return b
}

// goodLatency is a copy of a sketch that can be read, else nil.
func goodLatency(data []byte) []byte {
	if _, err := sketch.DecodeLatency(data); err != nil {
		return nil
	}
	return bytes.Clone(data)
}

func (b *bout) bounds() (start, end int64) { return b.Start, b.End }

func (b *bout) join(o *bout) {
	b.Start, b.End = min(b.Start, o.Start), max(b.End, o.End)
	b.Add(o.BesideCounts)
	b.Latency, b.PrimaryLatency = joinLatency(b.Latency, o.Latency), joinLatency(b.PrimaryLatency, o.PrimaryLatency)
}

// rival returns the track's rival of a role and primary release, a new one in
// place of the oldest when there are too many.
func (s *trackState) rival(role string, primary release.Digest) *rival {
	for i := range s.Rivals {
		if r := &s.Rivals[i]; r.Role == role && r.Primary == primary {
			return r
		}
	}
	if len(s.Rivals) >= maxRivals {
		s.Rivals = slices.Delete(s.Rivals, 0, 1)
	}
	s.Rivals = append(s.Rivals, rival{Role: role, Primary: primary})
	return &s.Rivals[len(s.Rivals)-1]
}

// challenger says whether a role is that of a release beside the primary one.
// Whatever a later version may call its roles is not the primary one either.
func challenger(role string) bool { return role != "" && role != protocol.RolePrimary }

// applyChallenger folds a window of a challenger. It is kept apart from what
// the release shows as the primary one: neither a gate nor an alarm may rest on
// calls that somebody has chosen.
func (s *trackState) applyChallenger(w *protocol.Window, start, end int64, sure bool) {
	if w.GetRole() != protocol.RoleShadow {
		countWindow(&s.Total, w)
	}
	if !sure {
		if w.GetRole() != protocol.RoleShadow {
			s.Total.Uncertain += w.GetRows()
		}
		return
	}
	var primary release.Digest
	if d, err := release.DigestFromBytes(w.GetComparison().GetPrimary()); err == nil {
		primary = d
	}
	r := s.rival(w.GetRole(), primary)
	r.Bouts = insert(r.Bouts, newBout(w, start, end), maxBouts)
}

// applyChallengerLabels folds truths about a challenger's predictions. Its rival
// is the newest one of the role: labels do not say which primary release was
// beside it.
func (s *trackState) applyChallengerLabels(l *protocol.Labels, start, end int64) {
	x := span{start, end, l.GetMatched(), l.GetCorrect()}
	for i := len(s.Rivals) - 1; i >= 0; i-- {
		if r := &s.Rivals[i]; r.Role == l.GetRole() {
			r.Labels = insert(r.Labels, x, maxSegments)
			return
		}
	}
	r := s.rival(l.GetRole(), release.Digest{})
	r.Labels = insert(r.Labels, x, maxSegments)
}

// Beside returns what a challenger showed in windows that began at since or
// later, by device. Old windows are kept joined: one that began before is left
// out whole.
func (m *Monitor) Beside(model string, digest release.Digest, since time.Time) []Beside {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Beside
	for name, d := range m.devices {
		t := d.tracks[digest]
		if t == nil || t.state.Model != model {
			continue
		}
		for i := range t.state.Rivals {
			if b, ok := t.state.Rivals[i].since(since.UnixMilli()); ok {
				b.Device = name
				out = append(out, b)
			}
		}
	}
	slices.SortFunc(out, compareBeside)
	return out
}

// shadowed sums what the release counted as a shadow, beside any other, in
// windows that began at since or later.
func (s *trackState) shadowed(since int64) (c BesideCounts, ok bool) {
	for i := range s.Rivals {
		r := &s.Rivals[i]
		if r.Role != protocol.RoleShadow {
			continue
		}
		for j := range r.Bouts {
			if b := &r.Bouts[j]; b.Start >= since {
				c.Add(b.BesideCounts)
				ok = true
			}
		}
	}
	return c, ok
}

func compareBeside(a, b Beside) int {
	switch {
	case a.Device != b.Device:
		return slices.Compare([]byte(a.Device), []byte(b.Device))
	case a.Role != b.Role:
		return slices.Compare([]byte(a.Role), []byte(b.Role))
	}
	return slices.Compare(a.Primary[:], b.Primary[:])
}

func (r *rival) since(since int64) (b Beside, ok bool) {
	b = Beside{Role: r.Role, Primary: r.Primary, Latency: sketch.NewLatency(), PrimaryLatency: sketch.NewLatency()}
	for i := range r.Bouts {
		o := &r.Bouts[i]
		if o.Start < since {
			continue
		}
		ok = true
		b.Add(o.BesideCounts)
		addLatency(b.Latency, o.Latency)
		addLatency(b.PrimaryLatency, o.PrimaryLatency)
	}
	for _, x := range r.Labels {
		if x.Start >= since {
			b.Labels, b.Correct, ok = b.Labels+x.Matched, b.Correct+x.Correct, true
		}
	}
	return b, ok
}

// addLatency adds a sketch that newBout has checked.
func addLatency(to *sketch.Latency, data []byte) {
	if x, err := sketch.DecodeLatency(data); err == nil {
		_ = to.Merge(x) // of one mapping
	}
}
