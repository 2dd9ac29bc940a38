package rollout

import (
	"slices"
)

// Sums are what the control group had counted, all devices together, when a
// wave opened: what they count afterwards tells how the world is during it.
type Sums struct {
	Rows       uint64   `json:"rows,omitempty"`
	FailedRows uint64   `json:"failed_rows,omitempty"`
	Micros     uint64   `json:"micros,omitempty"` // p95 latency times rows
	Labels     uint64   `json:"labels,omitempty"`
	Correct    uint64   `json:"correct,omitempty"`
	Classes    []uint64 `json:"classes,omitempty"`
}

// mostMicros bounds the part of one device.
const mostMicros = 1e15

func (s *Sums) add(e *Evidence) {
	s.Rows = plusCapped(s.Rows, e.Rows)
	s.FailedRows = plusCapped(s.FailedRows, e.FailedRows)
	s.Labels = plusCapped(s.Labels, e.Labels)
	s.Correct = plusCapped(s.Correct, e.Correct)
	if micros := e.P95US * float64(e.Rows); micros > 0 {
		s.Micros = plusCapped(s.Micros, uint64(min(micros, mostMicros)))
	}
	for i := range min(len(s.Classes), len(e.Classes)) {
		s.Classes[i] = plusCapped(s.Classes[i], e.Classes[i])
	}
}

// minus is what came after. Counts can fall when old windows are joined: then
// nothing is known.
func (s *Sums) minus(before *Sums) (after Sums, ok bool) {
	if before == nil {
		return *s, true
	}
	less := before.Rows > s.Rows || before.FailedRows > s.FailedRows || before.Micros > s.Micros ||
		before.Labels > s.Labels || before.Correct > s.Correct || len(before.Classes) != len(s.Classes)
	if less {
		return Sums{}, false
	}
	after = Sums{
		Rows: s.Rows - before.Rows, FailedRows: s.FailedRows - before.FailedRows, Micros: s.Micros - before.Micros,
		Labels: s.Labels - before.Labels, Correct: s.Correct - before.Correct, Classes: slices.Clone(s.Classes),
	}
	for i, n := range before.Classes {
		after.Classes[i] -= min(n, after.Classes[i])
	}
	return after, true
}

// evidence takes the sums as if one device had counted them.
func (s *Sums) evidence() *Evidence {
	e := &Evidence{Rows: s.Rows, FailedRows: s.FailedRows, Labels: s.Labels, Correct: s.Correct, Classes: s.Classes}
	if s.Rows > 0 {
		e.P95US = float64(s.Micros) / float64(s.Rows)
	}
	return e
}

// shift is by how much the world changed without the release, in the unit of a
// change: up is what may have got worse, at least 0, down what may have got
// better, at most 0. When two ways of looking differ, both may be true.
type shift struct{ up, down float64 }

func (s shift) and(rise float64) shift { return shift{max(s.up, rise), min(s.down, rise)} }

// worldwide is what happened to everybody: how the control group, on the old
// release, changed from its past.
type worldwide struct {
	s         *State
	group     []*DeviceFacts // of the control devices that can be compared, in no order
	past, old Sums           // of the group
	medians   map[GateKind]float64
}

func newWorldwide(s *State, all []pair) *worldwide {
	w := &worldwide{s: s, medians: map[GateKind]float64{}}
	if s.count(func(d *Device) bool { return d.Control }) == 0 {
		return w
	}
	for _, e := range all {
		if e.d == nil || !e.d.Control || e.d.Already {
			continue
		}
		if f := e.f; f != nil && !f.Revoked && f.Past != nil && f.Old != nil {
			w.group = append(w.group, f)
		}
	}
	if classes := w.classes(); classes > 0 {
		w.past.Classes, w.old.Classes = make([]uint64, classes), make([]uint64, classes)
	}
	for _, f := range w.group {
		w.past.add(f.Past)
		w.old.add(f.Old)
	}
	return w
}

// classes is how many classes all of the group predict, 0 when they differ.
func (w *worldwide) classes() int {
	for _, f := range w.group {
		if n := len(w.group[0].Old.Classes); len(f.Old.Classes) != n || len(f.Past.Classes) != n {
			return 0
		}
	}
	if len(w.group) == 0 {
		return 0
	}
	return len(w.group[0].Old.Classes)
}

// remember keeps what the control group had counted when a wave opened. Before
// the first it had counted nothing since the start.
func (t *turn) remember(w *lazyWorld) {
	n := t.Header.Wave
	if n > 1 && t.Waves[n-1].Control == nil && w.get().old.Rows > 0 {
		sums := w.get().old
		t.Waves[n-1].Control = &sums
	}
}

// lazyWorld is made when it is first needed: most steps take no sign.
type lazyWorld struct {
	s     *State
	all   []pair
	world *worldwide
}

func (l *lazyWorld) get() *worldwide {
	if l.world == nil {
		l.world = newWorldwide(l.s, l.all)
	}
	return l.world
}

// of is the shift of a gate while a wave was open: as the group sees it since
// then, and as the device in its middle saw it since the start. The group takes
// no account of how devices change by themselves, the device none of when.
func (w *worldwide) of(g GateSpec, wave int) shift {
	if len(w.group) == 0 {
		return shift{}
	}
	out := shift{}.and(w.median(g))
	if wave < 1 || wave > len(w.s.Waves) {
		return out
	}
	if since, ok := w.old.minus(w.s.Waves[wave-1].Control); ok {
		if c, ok := changed(g, w.past.evidence(), since.evidence()); ok {
			out = out.and(c.rise)
		}
	}
	return out
}

// median is the middle change over the control devices, 0 without any.
func (w *worldwide) median(g GateSpec) float64 {
	if rise, known := w.medians[g.Kind]; known {
		return rise
	}
	var all []float64
	for _, f := range w.group {
		if c, ok := changed(g, f.Past, f.Old); ok {
			all = append(all, c.rise)
		}
	}
	w.medians[g.Kind] = median(all)
	return w.medians[g.Kind]
}

// median is the middle one, the mean of the middle two, 0 of none.
func median(of []float64) float64 {
	n := len(of)
	if n == 0 {
		return 0
	}
	slices.Sort(of)
	return of[(n-1)/2]/2 + of[n/2]/2
}

// control counts how the control devices changed by themselves. Unlike those of
// devices on the release these signs may change their mind: they only excuse.
func (w *worldwide) control(g GateSpec) (worse, all int) {
	for _, f := range w.group {
		if c, ok := changed(g, f.Past, f.Old); ok {
			all++
			if c.sign(g.bar(), shift{}) == Worse {
				worse++
			}
		}
	}
	return worse, all
}

// during are the shifts of a gate by wave.
func (w *worldwide) during(g GateSpec) map[int]shift {
	out := map[int]shift{}
	for n := range w.s.Header.Wave {
		out[n+1] = w.of(g, n+1)
	}
	return out
}
