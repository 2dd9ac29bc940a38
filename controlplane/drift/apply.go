package drift

import (
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/bootclock"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// deviceState is the checkpoint of a device.
type deviceState struct {
	Seq    uint64          `json:"seq"` // of the last message in it
	Device string          `json:"device"`
	Clock  bootclock.Clock `json:"clock"`
	Lost   Total           `json:"lost"` // losses, and what belongs to no track
	// Current is the release last served by model, and until when.
	Current map[string]current `json:"current,omitempty"`
}

type current struct {
	Release release.Digest `json:"release"`
	EndMS   int64          `json:"end_ms"`
}

func (s *deviceState) total(name string) Total {
	t := s.Lost
	t.Device = name
	return t
}

// trackState is the checkpoint of one device on one release.
type trackState struct {
	Seq      uint64         `json:"seq"` // of the last message in it
	Device   string         `json:"device"`
	Model    string         `json:"model"`
	Release  release.Digest `json:"release"`
	Total    Total          `json:"total"`
	Segments []segment      `json:"segments,omitempty"` // oldest first
	Labels   []span         `json:"labels,omitempty"`   // oldest first
	Rated    []rated        `json:"rated,omitempty"`    // calibration, oldest first
	Rivals   []rival        `json:"rivals,omitempty"`   // of the release as a challenger
}

func (s *trackState) total() Total {
	t := s.Total
	t.Device, t.Model, t.Release = s.Device, s.Model, s.Release
	return t
}

// Apply folds one message of the uplink stream. Every part of the state skips
// what it includes already, so messages may come again after a restart.
func (m *Monitor) Apply(seq uint64, a *protocol.Accepted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.device(a.GetDevice())
	body := bodyOf(a)
	if seq > d.state.Seq && d.state.take(seq, a, body.GetEvent()) {
		d.state.Seq, d.state.Device, d.dirty = seq, d.name, true
	}
	switch k := body.GetKind().(type) {
	case *protocol.Body_Window:
		m.touch(d.name)
		m.applyWindow(seq, d, a, body.GetAt(), k.Window)
	case *protocol.Body_Labels:
		m.touch(d.name)
		m.applyLabels(seq, d, a, body.GetAt(), k.Labels)
	}
}

// bodyOf decodes a record's body, nil when there is none: a skip has none, and
// ingest leaves out the body of a record that it refused and counts as lost.
func bodyOf(a *protocol.Accepted) *protocol.Body {
	data := a.GetRecord().GetBody()
	if len(data) == 0 {
		return nil
	}
	b, err := sketch.DecodeBody(data)
	if err != nil {
		return nil
	}
	return b
}

// take folds what concerns the device alone and tells whether anything did.
func (s *deviceState) take(seq uint64, a *protocol.Accepted, e *protocol.Event) bool {
	changed := false
	if a.GetHello() != nil || a.GetReport() != nil {
		changed = s.Clock.Sync(seq, a.GetSent(), a.GetReceivedMs())
	}
	if cursor := a.GetCursor(); cursor != nil && cursor.GetCloned() != s.Lost.Cloned {
		s.Lost.Cloned, changed = cursor.GetCloned(), true // an operator may lift the mark
	}
	if endsUncertain(a) && !s.Lost.UnknownLoss {
		s.Lost.UnknownLoss, changed = true, true
	}
	if a.GetLostRecords() > 0 || a.GetLost() != nil {
		s.lose(a.GetLostRecords(), a.GetLost())
		changed = true
	}
	if e.GetLostRecords() > 0 || e.GetLost() != nil || e.GetLostUnknown() {
		s.lose(e.GetLostRecords(), e.GetLost())
		s.Lost.UnknownLoss = s.Lost.UnknownLoss || e.GetLostUnknown()
		changed = true
	}
	return changed
}

// endsUncertain tells whether a hello leaves open what was counted in one of
// the device's epochs [P-4.12].
func endsUncertain(a *protocol.Accepted) bool {
	return len(a.GetAbandoned()) > 0 || slices.ContainsFunc(a.GetHello().GetEpochs(), (*protocol.Epoch).GetUncertain)
}

func (s *deviceState) lose(records uint64, t *protocol.Tally) {
	s.Lost.LostRecords += records
	s.Lost.LostRows += t.GetRows()
	s.Lost.LostLabels += t.GetLabels()
}

func (m *Monitor) applyWindow(seq uint64, d *device, a *protocol.Accepted, at *protocol.Stamp, w *protocol.Window) {
	shadow, beside := w.GetRole() == protocol.RoleShadow, challenger(w.GetRole())
	t := m.track(d, w.GetRelease(), w.GetModel())
	if t == nil {
		if !shadow {
			d.stray(seq, func(total *Total) { countWindow(total, w) })
		}
		return
	}
	start, end, sure := d.state.Clock.Window(seq, at, w, a.GetReceivedMs())
	if seq > t.state.Seq {
		if beside {
			t.state.applyChallenger(w, start, end, sure)
		} else {
			t.state.window(w, m.releases[t.digest], start, end, sure)
		}
		t.state.Seq, t.dirty = seq, true
	}
	if !sure || shadow {
		return
	}
	if !beside && d.state.serves(t.state.Model, t.digest, end) {
		d.dirty = true
	}
	m.point(seq, t, end, func(p *Point) {
		p.Rows += w.GetRows()
		p.Failed += w.GetFailedRows()
	})
}

// serves notes the release with the newest window of a model.
func (s *deviceState) serves(model string, digest release.Digest, end int64) bool {
	if s.Current == nil {
		s.Current = map[string]current{}
	}
	c, ok := s.Current[model]
	if ok && end < c.EndMS || !ok && len(s.Current) >= maxTracks {
		return false
	}
	s.Current[model] = current{digest, end}
	return true
}

func (m *Monitor) applyLabels(seq uint64, d *device, a *protocol.Accepted, at *protocol.Stamp, l *protocol.Labels) {
	shadow := l.GetRole() == protocol.RoleShadow
	t := m.track(d, l.GetRelease(), l.GetModel())
	if t == nil {
		if !shadow {
			d.stray(seq, func(total *Total) { countLabels(total, l) })
		}
		return
	}
	start, end, sure := d.state.Clock.Labels(seq, at, l, a.GetReceivedMs())
	if shadow {
		if seq > t.state.Seq && sure {
			t.state.applyChallengerLabels(l, start, end)
		}
		if seq > t.state.Seq {
			t.state.Seq, t.dirty = seq, true
		}
		return
	}
	if seq > t.state.Seq {
		countLabels(&t.state.Total, l)
		switch {
		case !sure:
		case challenger(l.GetRole()):
			t.state.applyChallengerLabels(l, start, end)
		default:
			t.state.Labels = insert(t.state.Labels, span{start, end, l.GetMatched(), l.GetCorrect()}, maxSegments)
			if r, ok := ratedOf(l, start, end); ok {
				t.state.Rated = insert(t.state.Rated, r, maxRated)
			}
		}
		t.state.Seq, t.dirty = seq, true
	}
	if sure {
		m.point(seq, t, end, func(p *Point) {
			p.Labels += l.GetMatched()
			p.Correct += l.GetCorrect()
			if r, ok := ratedOf(l, start, end); ok {
				p.rate(r.Bins)
			}
		})
	}
}

// stray counts what belongs to no track.
func (d *device) stray(seq uint64, count func(*Total)) {
	if seq > d.state.Seq {
		count(&d.state.Lost)
		d.state.Seq, d.state.Device, d.dirty = seq, d.name, true
	}
}

func (s *trackState) window(w *protocol.Window, k *known, start, end int64, sure bool) {
	countWindow(&s.Total, w)
	if !sure {
		s.Total.Uncertain += w.GetRows()
		return
	}
	var l *layout
	var need uint64
	if k != nil {
		l, need = k.layout, k.need
	}
	s.Segments = insert(s.Segments, newSegment(w, l, start, end), maxSegments)
	forget(s.Segments, need)
}

func countWindow(t *Total, w *protocol.Window) {
	t.Rows += w.GetRows()
	t.FailedRows += w.GetFailedRows()
	t.Calls += w.GetCalls()
	t.FailedCalls += w.GetFailedCalls()
}

func countLabels(t *Total, l *protocol.Labels) {
	t.Labels += l.GetMatched() + l.GetUnmatched()
	t.Matched += l.GetMatched()
	t.Correct += l.GetCorrect()
}

// evidence sums what began at since or later and before until, ok when there is
// anything.
func (s *trackState) evidence(l *layout, since, until int64) (e Evidence, ok bool) {
	latency := sketch.NewLatency()
	var out []uint64
	for i := range s.Segments {
		g := &s.Segments[i]
		if g.Start < since || g.Start >= until {
			continue
		}
		if !ok {
			e.FromMS, ok = g.Start, true
		}
		e.FromMS, e.ToMS = min(e.FromMS, g.Start), max(e.ToMS, g.End)
		e.Rows += g.Rows
		e.FailedRows += g.FailedRows
		e.Calls += g.Calls
		e.FailedCalls += g.FailedCalls
		if x, err := sketch.DecodeLatency(g.Latency); err == nil {
			_ = latency.Merge(x) // of one mapping, which DecodeLatency has checked
		}
		if l != nil && g.Out.len() == l.out {
			if out == nil {
				out = make([]uint64, l.out)
			}
			g.Out.addTo(out)
		}
	}
	e.P95, e.Latency = latency.Quantile(0.95).Round(time.Microsecond), latency
	for _, x := range s.Labels {
		if x.Start >= since && x.Start < until {
			e.Labels += x.Matched
			e.Correct += x.Correct
			ok = true
		}
	}
	e.outputs(l, out)
	return e, ok
}

func (e *Evidence) outputs(l *layout, out []uint64) {
	if out == nil {
		return
	}
	x := sample{out: out}
	for i := range l.streams {
		s := &l.streams[i]
		if !s.output {
			continue
		}
		kept := s.of(&x)
		c := OutputCounts{Name: s.name, Bins: kept[:s.n:s.n], Missing: kept[s.n], Other: kept[s.n+1]}
		e.Outputs = append(e.Outputs, c)
		if s.class {
			e.Classes = c.Bins
		}
	}
}
