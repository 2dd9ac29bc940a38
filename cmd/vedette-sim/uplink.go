package main

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// reportDelay is how soon a device reports what has changed.
const reportDelay = time.Second

// stamp says when something was sent, by the device's clocks.
func (d *device) stamp() *protocol.Stamp {
	return &protocol.Stamp{
		Boot: d.boot, WallMs: d.clock().UnixMilli(),
		MonotonicMs: uint64((d.w.t - d.booted).Milliseconds()), //nolint:gosec // a boot was before
	}
}

// hello says who the device is and which desired state it has, now and then
// again.
func (d *device) hello() {
	h := &protocol.Hello{
		AgentVersion: "1.0.0", BootCount: d.disk.boots, Unclean: d.disk.boots > 1,
		Generation: d.disk.held.GetGeneration(), Epochs: d.book.Epochs(),
		Facts: &protocol.Facts{Profile: d.profile, Arch: "arm64", Runtime: "onnxruntime", RuntimeVersion: "1.30.0"},
	}
	d.link.send(&protocol.Up{Body: &protocol.Up_Hello{Hello: h}})
	n := d.link.n
	every := max(helloEvery, d.w.pace())
	d.w.after(d.w.between(every/2, every*3/2), func() {
		if d.link.open && d.link.n == n {
			d.hello()
			d.sendRecords()
		}
	})
}

// pace is the longest time between two reports. When all trouble is over the
// fleet only waits for deadlines, and needs fewer.
func (w *world) pace() time.Duration {
	if w.healed {
		return 3 * w.check.interval
	}
	return w.check.interval
}

// nudge plans a report, because something has changed.
func (d *device) nudge() { d.reportIn(reportDelay) }

// reportIn plans the next report. One that comes later is not needed then.
func (d *device) reportIn(after time.Duration) {
	d.reports++
	planned := d.reports
	d.w.after(after, func() {
		if d.reports == planned && d.on {
			d.report()
		}
	})
}

// report says what the device is and does. Some devices lie.
func (d *device) report() {
	d.reportIn(d.w.between(d.w.pace()/2, d.w.pace()))
	if !d.link.open {
		return
	}
	s := d.state()
	d.deceive(s)
	r := &protocol.Report{Generation: d.disk.held.GetGeneration(), Models: []*protocol.ModelState{s}, Metered: d.metered, Power: d.power}
	d.link.send(&protocol.Up{Body: &protocol.Up_Report{Report: r}})
}

// state is what package updater reports of a model.
func (d *device) state() *protocol.ModelState {
	s := d.lane.state()
	if d.beside.used() {
		s.Challenger = &protocol.Challenger{State: d.beside.state(), Role: protocol.RoleShadow}
	}
	return s
}

func (l *lane) state() *protocol.ModelState {
	m := l.machine.At(l.d.clock())
	s := &protocol.ModelState{
		Model: model, Active: wire(m.Active), Previous: wire(m.Previous), Target: wire(m.Target.Release), State: string(m.State),
		StateForMs: uint64(max(m.Spent, 0).Milliseconds()), //nolint:gosec // not negative
		Serving:    !l.serving.IsZero() && l.serving == m.Active,
	}
	if m.Last != nil {
		s.Outcome = outcome(*m.Last)
	}
	for _, o := range m.Refused {
		s.Refused = append(s.Refused, outcome(o))
	}
	return s
}

func outcome(o update.Outcome) *protocol.Outcome {
	return &protocol.Outcome{Release: wire(o.Release), Result: o.Result, Code: o.Code, Message: o.Message, Generation: o.Generation}
}

// deceive changes a report as the device's character wants it.
func (d *device) deceive(s *protocol.ModelState) {
	want := d.machine.Want
	if d.lie == honest || want.Release.IsZero() {
		return
	}
	switch d.lie {
	case mute:
		s.Serving = d.slots.active == d.w.releases[0].digest
		if s.Serving {
			return
		}
	case parrot:
		s.Active, s.Target, s.Serving, s.State = wire(want.Release), nil, true, string(update.Idle)
		s.Outcome, s.Refused = nil, nil
	case boastful:
		s.Outcome = outcome(update.Outcome{Want: want, Result: update.ResultActive})
		s.Refused = nil
	case honest:
	}
	d.w.count("report of a liar")
}

func wire(r release.Digest) []byte {
	if r.IsZero() {
		return nil
	}
	return r.Bytes()
}

// planWindow ends a window of traffic now and then.
func (d *device) planWindow() {
	life, serving, beside, start := d.life, d.serving, d.beside.serving, d.w.now()
	d.w.after(d.w.check.window, func() {
		if !d.on || d.life != life {
			return
		}
		if d.serving == serving && !serving.IsZero() && !d.w.quiet() {
			d.count(serving, start)
			if d.on && !beside.IsZero() && d.beside.serving == beside {
				d.countBeside(beside, serving, start)
			}
		}
		d.planWindow()
	})
}

// quiet says whether the fleet is to come to rest: nobody asks it anything.
func (w *world) quiet() bool { return w.healed && w.final() }

// count puts what a window counted into the outbox.
func (d *device) count(serving release.Digest, start time.Time) {
	c := d.w.release(serving)
	rows := d.traffic
	bad := d.part(rows, uint64(2+c.failing)) //nolint:gosec // positive
	d.append(&protocol.Body{Kind: &protocol.Body_Window{Window: &protocol.Window{
		Model: model, Release: wire(serving), Role: protocol.RolePrimary,
		Rows: rows - bad, FailedRows: bad, Calls: rows, StartWallMs: start.UnixMilli(),
	}}})
	if labels := rows / 4; labels > 0 && d.on {
		missed := d.part(labels, uint64(60+c.misses)) //nolint:gosec // positive
		d.append(&protocol.Body{Kind: &protocol.Body_Labels{Labels: &protocol.Labels{
			Model: model, Release: wire(serving), Matched: labels, Correct: labels - missed, StartWallMs: start.UnixMilli(),
		}}})
	}
	d.sendRecords()
}

// countBeside puts what a shadow showed into the outbox: what fails or misses
// its labels does not agree with the release that answers either.
func (d *device) countBeside(shadow, answers release.Digest, start time.Time) {
	c, rows := d.w.release(shadow), d.traffic
	failed := d.part(rows, uint64(c.failing)) //nolint:gosec // positive
	compared := rows - failed
	agreed := compared - d.part(compared, uint64(5+c.misses)) //nolint:gosec // positive
	d.append(&protocol.Body{Kind: &protocol.Body_Window{Window: &protocol.Window{
		Model: model, Release: wire(shadow), Role: protocol.RoleShadow,
		Rows: compared, FailedRows: failed, Calls: rows, StartWallMs: start.UnixMilli(),
		Comparison: &protocol.Comparison{Primary: wire(answers), Rows: compared, Agreed: agreed},
	}}})
	d.sendRecords()
}

// part is about so many of a thousand of n.
func (d *device) part(n, perThousand uint64) uint64 {
	mean := float64(n) * float64(perThousand) / 1000
	return uint64(min(max(mean+d.w.rnd.NormFloat64()*mean/4, 0), float64(n)))
}

// append makes the outbox take a record over. Power may go while it is written:
// then nobody was told that it was taken.
func (d *device) append(b *protocol.Body) {
	if !d.on {
		return
	}
	b.At = d.stamp()
	e, err := outbox.NewEntry(b)
	if err != nil {
		d.w.fail("%s: record: %w", d.id, err)
		return
	}
	if d.perhapsCut("while a record was written") {
		return
	}
	d.apply(d.book.Append(e))
	d.generated = outbox.Sum{Rows: d.generated.Rows + e.Sum.Rows, Labels: d.generated.Labels + e.Sum.Labels}
}

// framesKept bounds the frames of a scripted outbox file before it is written
// anew, as the real one shrinks.
const framesKept = 48

// apply carries a change of the outbox out: first the disk, then the memory.
func (d *device) apply(c outbox.Change) {
	d.book = c.After
	d.disk.frames = append(d.disk.frames, c.Frame)
	if c.Rewrite || len(d.disk.frames) > framesKept {
		d.rewrite()
	}
}

func (d *device) rewrite() {
	book, frames := d.book.Image()
	d.book, d.disk.frames = book, nil
	for f := range frames {
		d.disk.frames = append(d.disk.frames, *f)
	}
}

// recover is what outbox.Open does at a start.
func (d *device) recover() {
	if len(d.disk.frames) == 0 {
		d.book = outbox.NewBook(d.newEpoch())
		d.rewrite()
		return
	}
	frames := make([]*outbox.Frame, len(d.disk.frames))
	for i := range d.disk.frames {
		f := d.disk.frames[i]
		frames[i] = &f
	}
	book, salvage := outbox.Recover(frames, outbox.Whole)
	if book == nil {
		d.w.fail("%s: nothing of the outbox came back", d.id)
		return
	}
	d.book = book
	if e, ok := salvage.Report(); ok {
		d.w.fail("%s: the outbox lost something that was synced: %v", d.id, e)
	}
}

func (d *device) newEpoch() (e outbox.EpochID) {
	binary.BigEndian.PutUint64(e[:], d.w.seed)
	copy(e[8:], fmt.Appendf(nil, "%-8.8s", d.id))
	return e
}

// sendRecords numbers what waits and sends everything that is not acknowledged.
func (d *device) sendRecords() {
	if !d.link.open || !d.on {
		return
	}
	if c, ok := d.book.Send(protocol.MaxSent); ok {
		if d.perhapsCut("while records were numbered") {
			return
		}
		d.apply(c)
	}
	for _, r := range d.book.Records() {
		d.link.send(&protocol.Up{Body: &protocol.Up_Record{Record: r}})
	}
}

// acknowledged takes an ack of the server.
func (d *device) acknowledged(a *protocol.Ack) {
	if a.GetCloned() {
		d.w.fail("%s is taken for a clone", d.id)
	}
	before := d.book.Held()
	after, c, write := d.book.Ack(a)
	d.book = after
	if write {
		d.apply(c)
	}
	if d.book.Held() < before && d.book.Pending() > 0 {
		d.sendRecords()
	}
}
