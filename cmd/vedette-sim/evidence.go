package main

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// evidence adds up what devices counted, by device and release. It is a model of
// package drift's fold with its rules for counts (a record is added once, by the
// time its window began) and without its sketches, which would cost more than
// all the rest of the simulation.
type evidence struct {
	counted map[string]map[release.Digest][]window // oldest first
	beside  map[string]map[release.Digest][]window // of shadows
	touched map[string]bool
}

// window is the sum of the windows up to one of them.
type window struct {
	start time.Time
	sum   counts
}

// counts are what drift.Evidence and drift.BesideCounts are made of here.
type counts struct {
	rows, failed, labels, correct, compared, agreed uint64
}

func (c counts) plus(o counts) counts {
	return counts{
		c.rows + o.rows, c.failed + o.failed, c.labels + o.labels, c.correct + o.correct, c.compared + o.compared, c.agreed + o.agreed,
	}
}

func (c counts) minus(o counts) counts {
	return counts{
		c.rows - o.rows, c.failed - o.failed, c.labels - o.labels, c.correct - o.correct, c.compared - o.compared, c.agreed - o.agreed,
	}
}

func newEvidence() *evidence {
	return &evidence{
		counted: map[string]map[release.Digest][]window{}, beside: map[string]map[release.Digest][]window{}, touched: map[string]bool{},
	}
}

// apply takes in one message of the uplink stream.
func (e *evidence) apply(a *protocol.Accepted) {
	if a.GetRefused() != "" || len(a.GetRecord().GetBody()) == 0 {
		return
	}
	b := &protocol.Body{}
	if err := proto.Unmarshal(a.GetRecord().GetBody(), b); err != nil {
		return // ingest has read it before
	}
	w, l, to := b.GetWindow(), b.GetLabels(), e.counted
	var more counts
	var raw []byte
	var start int64
	switch {
	case w != nil:
		raw, start = w.GetRelease(), w.GetStartWallMs()
		more.rows, more.failed = w.GetRows(), w.GetFailedRows()
		if w.GetRole() == protocol.RoleShadow {
			to = e.beside
			more.compared, more.agreed = w.GetComparison().GetRows(), w.GetComparison().GetAgreed()
		}
	case l != nil:
		raw, start = l.GetRelease(), l.GetStartWallMs()
		more.labels, more.correct = l.GetMatched(), l.GetCorrect()
	default:
		return
	}
	digest, err := release.DigestFromBytes(raw)
	if err != nil {
		return
	}
	own := to[a.GetDevice()]
	if own == nil {
		own = map[release.Digest][]window{}
		to[a.GetDevice()] = own
	}
	own[digest] = insert(own[digest], time.UnixMilli(start).UTC(), more)
	e.touched[a.GetDevice()] = true
}

// insert keeps windows in order of their beginning; most come in that order.
func insert(ws []window, start time.Time, more counts) []window {
	at, _ := slices.BinarySearchFunc(ws, start, func(w window, t time.Time) int {
		if w.start.After(t) {
			return 1
		}
		return -1
	})
	before := counts{}
	if at > 0 {
		before = ws[at-1].sum
	}
	ws = slices.Insert(ws, at, window{start: start, sum: before})
	for i := at; i < len(ws); i++ {
		ws[i].sum = ws[i].sum.plus(more)
	}
	return ws
}

// within is what was counted in windows that began in a span; a zero until is
// the end of time.
func within(ws []window, since, until time.Time) (c counts, ok bool) {
	before := func(t time.Time) int {
		at, _ := slices.BinarySearchFunc(ws, t, func(w window, t time.Time) int { return w.start.Compare(t) })
		return at
	}
	from, to := before(since), len(ws)
	if !until.IsZero() {
		to = before(until)
	}
	if from >= to {
		return counts{}, false
	}
	c = ws[to-1].sum
	if from > 0 {
		c = c.minus(ws[from-1].sum)
	}
	return c, true
}

// EvidenceOf implements runner.Evidence.
func (e *evidence) EvidenceOf(device, _ string, since, until time.Time) map[release.Digest]drift.Evidence {
	var out map[release.Digest]drift.Evidence
	for digest, ws := range e.counted[device] {
		c, ok := within(ws, since, until)
		if !ok {
			continue
		}
		if out == nil {
			out = map[release.Digest]drift.Evidence{}
		}
		out[digest] = drift.Evidence{Rows: c.rows, FailedRows: c.failed, Labels: c.labels, Correct: c.correct}
	}
	return out
}

// ShadowOf implements runner.Evidence.
func (e *evidence) ShadowOf(device, _ string, d release.Digest, since time.Time) (drift.BesideCounts, bool) {
	c, ok := within(e.beside[device][d], since, time.Time{})
	return drift.BesideCounts{Rows: c.rows, FailedRows: c.failed, Compared: c.compared, Agreed: c.agreed}, ok
}

// Touched implements runner.Evidence.
func (e *evidence) Touched() []string {
	out := slices.Sorted(maps.Keys(e.touched))
	clear(e.touched)
	return out
}

// Counted implements runner.Evidence. Nobody waits for it: the simulation says
// when the runner looks.
func (e *evidence) Counted() <-chan struct{} { return nil }
