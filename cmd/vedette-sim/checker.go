package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// checker knows what must always hold. It learns from the ledger's records as
// they are appended, from what is published, and from what devices do, and
// keeps a picture of its own; it never asks the server what is right.
type checker struct {
	w        *world
	interval time.Duration // between two reports of a device, at most
	window   time.Duration // of traffic
	floor    uint64        // lowest sequence that publishers allow

	rollouts map[string]*watched
	wishes   map[string]*wish           // by device: what the ledger makes of it
	said     map[string]map[uint64]said // by device and generation
	totals   map[string]*total          // by device: what the server holds
	seq      uint64                     // of the newest ledger record
	acts     int                        // decisions that changed a state or told a device something
}

// watched is one rollout as its ledger chain makes it.
type watched struct {
	state   *rollout.State
	told    map[string]bool // devices that are to run its release because of it
	runs    map[string]bool // and those that were, and go on although they were revoked
	allowed int             // of them, by the waves opened so far
	stop    time.Duration   // after that no new offer may be sent, negative for none
	why     string          // a gate fails
	orders  []time.Time     // to run the release, of the last minute
	limit   int             // orders a minute by which they were given
}

// take notes what has become of a device.
func (x *watched) take(id string, d *rollout.Device) {
	if delete(x.told, id); tells(d) {
		x.told[id] = true
	}
	if delete(x.runs, id); tells(d) || d.State == rollout.DeviceSuperseded && d.Code == rollout.CodeRevoked && on(d) && !d.Already {
		x.runs[id] = true
	}
}

// wish is the desired state of one device by the ledger.
type wish struct {
	generation uint64
	releases   map[string]rollout.Assigned // by model and role
	by         string                      // rollout that assigned the primary release
	decision   uint64
	shadowed   uint64 // by which decision it was to run a shadow
	labels     map[string]string
}

// said is a desired state as a device heard it.
type said struct{ content string }

// total is what the server counts of a device.
type total struct{ held, lost outbox.Sum }

func newChecker(w *world) *checker {
	c := &checker{
		w: w, interval: w.between(2*time.Minute, 6*time.Minute), window: w.between(5*time.Minute, 15*time.Minute),
		rollouts: map[string]*watched{}, wishes: map[string]*wish{}, said: map[string]map[uint64]said{}, totals: map[string]*total{},
	}
	if w.plan.devices >= manyDevices || w.length > days(1) {
		c.interval, c.window = 15*time.Minute, time.Hour
	}
	return c
}

// ids are the rollouts in order, but for the one of the factory.
func (c *checker) ids() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.rollouts)), func(id string) bool { return id == "factory" })
}

func (c *checker) wish(device string) *wish {
	if c.wishes[device] == nil {
		c.wishes[device] = &wish{releases: map[string]rollout.Assigned{}}
	}
	return c.wishes[device]
}

// committed is told of every record of the ledger, at the moment of its append.
func (c *checker) committed(rec ledger.Record, body any) {
	if rec.Seq != c.seq+1 {
		c.w.fail("ledger record %d follows %d", rec.Seq, c.seq)
	}
	c.seq = rec.Seq
	switch body := body.(type) {
	case runner.Created:
		c.rollouts[body.State.ID] = &watched{state: body.State, told: map[string]bool{}, runs: map[string]bool{}, stop: -1}
	case runner.Record:
		c.decided(rec, &body)
	case *runner.Record:
		c.decided(rec, body)
	case fleet.Noted:
		if rec.Kind == fleet.KindLabels || rec.Kind == fleet.KindEnrolled {
			wi := c.wish(body.Device)
			wi.generation, wi.labels = rec.Seq, body.Labels
		}
	default:
		c.w.fail("nobody knows a ledger body of type %T", body)
	}
}

// rebuild learns everything anew from a ledger and a stream that have become
// shorter. What devices have heard of records that are gone says nothing about
// those to come.
func (c *checker) rebuild() {
	c.rollouts, c.wishes, c.said, c.totals = map[string]*watched{}, map[string]*wish{}, map[string]map[uint64]said{}, map[string]*total{}
	c.seq = 0
	_, err := c.w.server.ledger.Replay(c.w.ctx, 1, func(r ledger.Record) error {
		body, err := bodyOf(&r)
		if err == nil {
			c.relearn(r, body)
		}
		return err
	})
	if err != nil {
		c.w.fail("read the ledger of a backup: %w", err)
	}
	for _, m := range c.w.server.stream {
		c.counted(c.w.byID[m.GetDevice()], m)
	}
}

// bodyOf reads the body of a record as it was appended.
func bodyOf(r *ledger.Record) (any, error) {
	switch r.Kind {
	case runner.KindCreated:
		var b runner.Created
		err := r.Decode(&b)
		return b, err
	case runner.KindStep, runner.KindAction:
		var b runner.Record
		err := r.Decode(&b)
		return b, err
	}
	var b fleet.Noted
	err := r.Decode(&b)
	return b, err
}

// relearn takes in a record that was checked when it was appended.
func (c *checker) relearn(r ledger.Record, body any) {
	b, decision := body.(runner.Record)
	if !decision {
		c.committed(r, body)
		return
	}
	c.seq = r.Seq
	id := strings.TrimPrefix(r.Chain, "rollout.")
	x := c.rollouts[id]
	next, err := x.state.Apply(b.Decision.Patch, r.Seq)
	if err != nil {
		c.w.fail("decision %d: %w", r.Seq, err)
		return
	}
	x.state = next
	for device, d := range next.Devices {
		x.take(device, d)
	}
	x.allowed = 0
	for _, w := range next.Waves {
		x.allowed += w.Planned
	}
	for _, a := range b.Decision.Assign {
		for _, device := range a.Devices {
			c.assign(device, id, r.Seq, a)
		}
	}
}

// decided takes in a decision of a rollout.
func (c *checker) decided(rec ledger.Record, body *runner.Record) {
	id := strings.TrimPrefix(rec.Chain, "rollout.")
	x := c.rollouts[id]
	if x == nil {
		c.w.fail("decision %d of rollout %s, which was never created", rec.Seq, id)
		return
	}
	before := x.state
	after, err := before.Apply(body.Decision.Patch, rec.Seq)
	if err != nil {
		c.w.fail("decision %d: %w", rec.Seq, err)
		return
	}
	x.state = after
	if len(body.Decision.Changes)+len(body.Decision.Assign) > 0 {
		c.acts++
	}
	c.trace(rec, id, &body.Decision)
	c.judge(x, before, &body.Decision, rec.Seq)
	for _, a := range body.Decision.Assign {
		for _, device := range a.Devices {
			c.assign(device, id, rec.Seq, a)
		}
	}
}

func (c *checker) assign(device, id string, seq uint64, a rollout.Assigned) {
	wi := c.wish(device)
	wi.generation = seq
	if a.Role == protocol.RoleShadow {
		wi.releases[a.Model+" "+a.Role], wi.shadowed = a, seq
		return
	}
	if wi.shadowed < seq { // a later decision ends a shadow, whatever it is
		delete(wi.releases, a.Model+" "+protocol.RoleShadow)
	}
	wi.releases[a.Model] = a
	wi.by, wi.decision = id, seq
	d := c.w.byID[device]
	if d.fronts == nil {
		d.fronts = map[release.Digest]bool{}
	}
	d.fronts[a.Release] = true
}

func (c *checker) trace(rec ledger.Record, id string, d *rollout.Decision) {
	for _, ch := range d.Changes {
		c.w.note("server", "%d %s: %s %d %v: %s -> %s: %s", rec.Seq, id, ch.Subject, ch.Wave, ch.Devices, ch.From, ch.To, ch.Why)
		for _, device := range ch.Devices {
			c.w.note(device, "%d %s: %s -> %s", rec.Seq, id, ch.From, ch.To)
		}
		if ch.Subject == rollout.SubjectRollout {
			c.w.count("rollout " + ch.To)
		}
	}
}

// published is told of every desired state that the server sends.
func (c *checker) published(d *device, s *protocol.Desired) {
	if s == nil {
		return
	}
	wi := c.wish(d.id)
	primaries := 0
	for _, a := range s.GetAssignments() {
		if a.GetModel() == model && a.GetRole() == protocol.RolePrimary {
			primaries++
		}
	}
	switch {
	case primaries > 1:
		c.w.fail("%s is sent %d primary releases of one model", d.id, primaries)
	case s.GetGeneration() > c.seq:
		c.w.fail("%s is sent generation %d, the ledger has %d records", d.id, s.GetGeneration(), c.seq)
	case s.GetGeneration() != wi.generation:
		c.w.fail("%s is sent generation %d, the newest record about it is %d", d.id, s.GetGeneration(), wi.generation)
	case contentOf(s) != wi.content():
		c.w.fail("%s is sent %q with generation %d, the ledger makes it %q", d.id, contentOf(s), s.GetGeneration(), wi.content())
	}
}

// contentOf is what a desired state asks for, as text.
func contentOf(s *protocol.Desired) string {
	var parts []string
	for _, a := range s.GetAssignments() {
		parts = append(parts, fmt.Sprintf("%s %s %s %d", a.GetModel(), a.GetRole(), digestOf(a.GetRelease()).Short(), a.GetShare()))
	}
	slices.Sort(parts)
	return fmt.Sprint(parts, s.GetSettings().GetLabels())
}

func (wi *wish) content() string {
	var parts []string
	for _, a := range wi.releases {
		role := a.Role
		if role == "" {
			role = protocol.RolePrimary
		}
		if front := wi.releases[model].Release; a.Role == protocol.RoleShadow && (front.IsZero() || front == a.Release) {
			continue // there is nothing to compare it with
		}
		if !a.Release.IsZero() {
			parts = append(parts, fmt.Sprintf("%s %s %s %d", a.Model, role, a.Release.Short(), a.Share))
		}
	}
	slices.Sort(parts)
	return fmt.Sprint(parts, wi.labels)
}

// heard is told of every desired state that a device takes.
func (c *checker) heard(d *device, s *protocol.Desired) {
	if c.said[d.id] == nil {
		c.said[d.id] = map[uint64]said{}
	}
	now := said{contentOf(s)}
	if was, ok := c.said[d.id][s.GetGeneration()]; ok && was != now {
		c.w.fail("%s heard generation %d twice, as %q and as %q", d.id, s.GetGeneration(), was.content, now.content)
	}
	c.said[d.id][s.GetGeneration()] = now
}

// stored is told of every message that the server has stored.
func (c *checker) stored(d *device, m stored) {
	c.counted(d, m)
	if r := m.GetReport(); r != nil {
		c.reported(d, r)
	}
}

// counted keeps the totals of exact accounting: the server never has more than
// the device has generated.
func (c *checker) counted(d *device, m stored) {
	if m.GetRecord() == nil {
		return
	}
	t := c.totals[d.id]
	if t == nil {
		t = &total{}
		c.totals[d.id] = t
	}
	t.lost = add(t.lost, m.GetLost())
	if m.GetRefused() != "" {
		c.w.fail("%s: a record is refused: %s", d.id, m.GetRefused())
	}
	if raw := m.GetRecord().GetBody(); len(raw) > 0 {
		t.held = add(t.held, bodyTally(raw))
	}
	if sum := plusSum(t.held, t.lost); sum.Rows > d.generated.Rows || sum.Labels > d.generated.Labels {
		c.w.fail("%s has generated %+v, the server holds %+v and counts %+v as lost", d.id, d.generated, t.held, t.lost)
	}
}

// stepped is told of every step of a lane's machine.
func (c *checker) stepped(l *lane, old *update.Machine, e update.Event, actions []update.Action) {
	d, m := l.d, &l.machine
	at, waits := m.Wake(update.DefaultLimits())
	switch {
	case m.State != update.Idle && (!waits || at.After(d.clock().Add(days(1)))):
		c.w.fail("%s: %s has no deadline", d.id, m.State)
	case m.State == update.Idle && (waits || m.Target != (update.Want{}) || m.Cause != nil):
		c.w.fail("%s: idle is not at rest", d.id)
	case !m.Active.IsZero() && m.Active == m.Previous:
		c.w.fail("%s: %s is active and previous", d.id, c.w.version(m.Active))
	case m.Active != l.slots.active && m.State != update.Reverting:
		c.w.fail("%s: the machine says that %s is active, the disk says %s", d.id, c.w.version(m.Active), c.w.version(l.slots.active))
	}
	if a, ok := e.(update.Activated); ok && !a.Release.IsZero() {
		c.activated(l, a.Release)
	}
	for _, a := range actions {
		if _, tick := e.(update.Tick); a.Do == update.Resolve && !tick && refusedBefore(old, m.Target) {
			c.w.fail("%s: %s was refused under decision %d and is tried again under it", d.id, c.w.version(a.Release), m.Target.Decision)
		}
	}
}

// activated is told of every release that a lane has switched to.
func (c *checker) activated(l *lane, r release.Digest) {
	d, rel := l.d, c.w.release(r)
	switch {
	case !rel.signed:
		c.w.fail("%s: %s is active and nobody signed it", d.id, rel.version)
	case rel.sequence < d.disk.floor:
		c.w.fail("%s: %s is active, its sequence %d is below the floor %d", d.id, rel.version, rel.sequence, d.disk.floor)
	case l.serving != r || l.slots.active != r:
		c.w.fail("%s: %s is said to be active, %s is, and %s answers", d.id, rel.version, c.w.version(l.slots.active), c.w.version(l.serving))
	}
}

// serving is told of every release that begins to run in a lane. What answers
// was at some time to answer: a shadow never does by itself.
func (c *checker) serving(l *lane, rel *candidate) {
	switch {
	case rel.version == "nothing":
		c.w.fail("%s serves a release that was never published", l.d.id)
	case l.challenger && l.d.serving == rel.digest:
		c.w.fail("%s runs %s beside itself", l.d.id, rel.version)
	case l.challenger:
		c.w.count("shadow runs")
	case !l.d.fronts[rel.digest] && rel != c.w.releases[0]:
		c.w.fail("%s answers with %s, which was never to answer there", l.d.id, rel.version)
	}
}

// restarted compares what a server made of its disk with what the ledger said
// before.
func (c *checker) restarted() {
	if c.w.failure != nil || !c.w.server.up {
		return
	}
	for _, v := range c.w.server.runner.List() {
		if x := c.rollouts[v.State.ID]; x == nil || !sameJSON(x.state, v.State) {
			c.w.fail("rollout %s is another one after a restart", v.State.ID)
		}
	}
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// standing is where the rollouts are, for people.
func (c *checker) standing() string {
	var parts []string
	for _, id := range c.ids() {
		s := c.rollouts[id].state
		parts = append(parts, fmt.Sprintf("%s %s wave %d of %d", id, s.Header.Status, s.Header.Wave, len(s.Waves)))
	}
	if !c.w.server.up {
		parts = append(parts, "the server is down")
	}
	return strings.Join(parts, ", ")
}
