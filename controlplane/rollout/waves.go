package rollout

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// advance opens, fills and closes waves as far as they go now.
func (t *turn) advance() {
	if t.Header.Status == StatusCompleted {
		t.admit()
	}
	for t.Header.Status == StatusRunning {
		w := t.wave()
		if w == nil || w.State == WavePassed {
			if !t.openNext() {
				return
			}
			continue
		}
		if !t.overdue() {
			t.join()
			t.replaceLate()
			t.offer()
		}
		if !t.tryPass() {
			return
		}
	}
}

// openNext opens the wave after the newest one, or ends the rollout after the
// last. It says whether the rollout can go on at once.
func (t *turn) openNext() bool {
	n := t.Header.Wave + 1
	if n > len(t.Waves) {
		t.complete()
		return false
	}
	if n > t.Header.Approved && t.needsApproval(n) {
		t.setStatus(StatusAwaiting, fmt.Sprintf("wave %d opens when a person approves it", n))
		return false
	}
	if n == 1 {
		t.holdOut()
	}
	free, held := t.pool(n == len(t.Waves))
	if len(free) == 0 {
		return t.skip(n)
	}
	members := choose(t.ID, forWaves, waveSize(t.waveSpec(n), t.placed(), len(free), held), free)
	t.setWave(n, WaveOpen, fmt.Sprintf("%d of %d devices that can be taken", len(members), len(free)+held))
	t.Header.Wave = n
	t.Waves[n-1].Opened, t.Waves[n-1].Planned = t.now, len(members)
	t.place(members, n)
	return true
}

func (t *turn) needsApproval(n int) bool {
	return t.waveSpec(n).Approval || n == 1 && t.Spec.Approval
}

// skip passes a wave for which no device is left, provided that the release has
// been seen healthy somewhere. Otherwise the wave waits for devices: passing
// on nothing would take away the protection of the waves.
func (t *turn) skip(n int) bool {
	if t.count(func(d *Device) bool { return d.State == DeviceHealthy }) == 0 {
		return false
	}
	t.Header.Wave = n
	t.Waves[n-1].Opened = t.now
	t.setWave(n, WavePassed, "no device was left for it")
	return true
}

// placed counts the devices that are in waves and part of the rollout, and those
// that were revoked after they were told to run the release: nobody tells them
// to leave it, so they take up what the waves allow.
func (t *turn) placed() int {
	return t.count(func(d *Device) bool {
		switch {
		case d.Wave == 0 || d.Already || d.State == DeviceRefused:
			return false
		case d.State == DeviceSuperseded:
			return d.Code == CodeRevoked && d.Order.Kind.on()
		}
		return true
	})
}

// holdOut chooses the control group.
func (t *turn) holdOut() {
	free, _ := t.pool(false)
	if len(t.Waves) < 2 {
		return
	}
	for _, id := range choose(t.ID, forControl, controlSize(*t.Spec.Control, len(free)), free) {
		d := t.entry(id)
		d.Control = true
		t.put(id, d)
		t.note(Change{
			Subject: SubjectDevices, To: string(DeviceWaiting),
			Why: "control group: held out until the last wave", Devices: []string{id},
		})
	}
}

// entry is a device's record, a new one if there is none.
func (t *turn) entry(id string) Device {
	if d, ok := t.Device(id); ok {
		return d
	}
	f := t.facts.device(id)
	return Device{State: DeviceWaiting, Since: t.now, Profile: f.Profile, Site: f.Site}
}

// pool is who can be taken into a wave: selected, not in one, not held by
// another rollout, able to run the release. Devices that cannot, and those
// that run it already, are recorded on the way. held counts the control group,
// which is free only for the last wave.
func (t *turn) pool(last bool) (free []candidate, held int) {
	var out []string // refused or already on it
	for _, e := range t.roll() {
		switch t.standing(&e, last) {
		case standsBarred:
			out = append(out, e.id)
		case standsHeldOut:
			held++
		case standsFree:
			free = append(free, candidate{id: e.id, profile: e.f.Profile})
		case standsApart:
		}
	}
	slices.Sort(out)
	for _, id := range out {
		t.recordOut(id)
	}
	return free, held
}

// standing is whether a device can be taken into a wave.
type standing int

const (
	standsApart   standing = iota // not selected, in a wave, or another rollout's
	standsBarred                  // cannot run the release, or runs it already
	standsHeldOut                 // in the control group, until the last wave
	standsFree
)

func (t *turn) standing(e *pair, last bool) standing {
	if e.f == nil || !eligible(e.d, e.f) {
		return standsApart
	}
	code, _ := t.Requires.Refuses(*e.f)
	switch {
	case code != "", e.f.Active == t.Spec.Release && (e.d == nil || e.d.Order.Kind == ""):
		return standsBarred
	case e.d != nil && e.d.Control && !last:
		return standsHeldOut
	}
	return standsFree
}

// recordOut records why a device is not taken into a wave.
func (t *turn) recordOut(id string) {
	if code, message := t.Requires.Refuses(t.facts.device(id)); code != "" {
		t.refuse(id, t.entry(id), code, message)
		return
	}
	t.already(id, t.entry(id))
}

func eligible(d *Device, f *DeviceFacts) bool {
	if !f.Selected || f.Revoked || f.Holder != "" {
		return false
	}
	return d == nil || d.Wave == 0 && d.State == DeviceWaiting || d.neverBegan()
}

// neverBegan says that a device was left out for what it was then: it could not
// run the release, or its labels did not match. Both can change.
func (d *Device) neverBegan() bool {
	return d.State == DeviceRefused && d.Tries == 0 || d.State == DeviceSuperseded && d.Code == CodeUnselected
}

func (t *turn) refuse(id string, d Device, code, message string) {
	if d.State == DeviceRefused && d.Code == code {
		return
	}
	t.put(id, d)
	t.move(id, DeviceRefused, code, message)
}

// already records a device that runs the release without this rollout. It is
// pinned to it, but proves nothing and is not brought back.
func (t *turn) already(id string, d Device) {
	d.Already, d.Wave = true, max(t.Header.Wave, 1)
	t.put(id, d)
	t.move(id, DeviceHealthy, "", "ran the release before")
	if t.facts.device(id).Assigned != t.Spec.Release {
		t.order(id, Forward)
	}
}

func (t *turn) place(ids []string, n int) {
	for _, id := range ids {
		d := t.entry(id)
		d.State, d.Wave, d.Since, d.Code, d.Message, d.Late = DeviceWaiting, n, t.now, "", "", false
		d.Deadline = t.due(&d, DeviceWaiting)
		t.put(id, d)
		t.note(Change{Subject: SubjectDevices, Wave: n, To: string(DeviceWaiting), Why: "member of the wave", Devices: []string{id}})
	}
}

// join takes late joiners into the last wave while it is open.
func (t *turn) join() {
	if !t.last() {
		return
	}
	free, _ := t.pool(true)
	ids := make([]string, len(free))
	for i, c := range free {
		ids[i] = c.id
	}
	sortByRank(t.ID, forWaves, ids)
	t.place(ids, t.Header.Wave)
}

// replaceLate puts other devices in the place of silent ones when the wave could
// not reach its quorum without them. So a device that is away does not stop a
// canary wave; and because it is told to stay on its old release, a wave never
// has more devices than it was to have. In the last wave there is nobody to
// take instead.
func (t *turn) replaceLate() {
	n := t.Header.Wave
	if t.last() {
		return
	}
	var spare *spares
	gone := t.pick(func(_ string, d *Device) bool { return d.Wave == n && d.Late && d.replaceable() })
	for i, id := range gone {
		if _, need, _ := t.quorum(n); t.hopeful(n) >= need || t.replacedAll(n) {
			return
		}
		if spare == nil {
			free, _ := t.pool(false)
			spare = t.spares(free)
		} else {
			t.spare(gone[i-1], spare)
		}
		other, ok := spare.next()
		if !ok {
			return
		}
		if t.device(id).State == DeviceOffered {
			t.Waves[n-1].Replaced++
		}
		t.unplace(id)
		t.place([]string{other}, n)
	}
}

// LeastReplaced is how many silent devices of a wave others may take the place
// of, however small it is; of a larger wave as many as it has members. A
// release that silences a device before its first report must not work its way
// through the fleet one canary after the other.
const LeastReplaced = 5

func (t *turn) replacedAll(n int) bool {
	w := &t.Waves[n-1]
	return w.Replaced >= max(LeastReplaced, w.Planned)
}

// replaceable says that a silent device gave no sign of work. One that did, or
// that ran the release, may be silent because of it: it keeps its place.
func (d *Device) replaceable() bool { return d.State == DeviceWaiting || d.State == DeviceOffered }

// spare puts a device that has just lost its place with those that can take one.
func (t *turn) spare(id string, among *spares) {
	e := pair{id, t.Devices[id], t.facts.Devices[id]}
	switch t.standing(&e, false) {
	case standsBarred:
		t.recordOut(id)
	case standsFree:
		among.add(candidate{id: id, profile: e.f.Profile}, e.d)
	case standsApart, standsHeldOut:
	}
}

// unplace takes a late device out of its wave.
func (t *turn) unplace(id string) {
	if d := t.device(id); d.State == DeviceWaiting {
		t.move(id, DeviceWaiting, CodeReplaced, "unfit for too long, another device takes its place")
	} else {
		t.withdraw(id, CodeReplaced, "silent for too long, another device takes its place")
	}
	d := t.device(id)
	d.Wave = 0
	t.put(id, d)
}

// hopeful counts the members of a wave that are healthy or may become so.
func (t *turn) hopeful(n int) int {
	return t.count(func(d *Device) bool { return d.Wave == n && !d.Already && !d.Late && !d.State.out() })
}

// withdraw takes an offer back.
func (t *turn) withdraw(id, code, why string) {
	t.move(id, DeviceWaiting, code, why)
	t.order(id, Back)
}

// withdrawAll takes back every offer that has not led to the release being
// active, also from devices that failed: some would try again by themselves.
func (t *turn) withdrawAll(why string) {
	asked := func(_ string, d *Device) bool { return d.Order.Kind.on() && !d.Already }
	for _, id := range t.pick(asked) {
		switch d := t.device(id); {
		case d.State.underWay():
			t.withdraw(id, CodeWithdrawn, why)
		case d.State == DeviceFailed || d.State == DeviceReverted || d.State == DeviceRefused:
			t.order(id, Back)
		}
	}
}

// underWay counts the devices between offer and service.
func (t *turn) underWay() int {
	return t.count(func(d *Device) bool {
		return d.Order.Kind.on() && !d.Late && d.State.underWay()
	})
}

func (t *turn) offerTo(id string, d Device) {
	f := t.facts.device(id)
	if d.Order.Kind == "" {
		d.Old = f.Active
		if d.Old.IsZero() {
			d.Old = f.Assigned
		}
	}
	d.Offered = t.now
	why := "offered the release"
	if d.State == DeviceShadowing {
		why = t.shadowWhy(&d, &f)
	} else {
		d.Tries++
	}
	if t.shadowFirst(&d, &f) {
		t.beside(id, d)
		return
	}
	t.put(id, d)
	t.move(id, DeviceOffered, "", why)
	t.order(id, Forward)
}

// tryPass moves the newest wave on and says whether it has passed.
func (t *turn) tryPass() bool {
	n := t.Header.Wave
	w := t.wave()
	if t.unfinished(n) > 0 {
		if w.State != WaveOpen {
			t.setWave(n, WaveOpen, "it has devices that are not through")
		}
		return false
	}
	if w.State == WaveOpen {
		t.setWave(n, WaveSoaking, "no device is under way")
	}
	if len(t.devicesHold()) > 0 || len(t.evidenceHold()) > 0 || len(t.gatesHold()) > 0 {
		return false
	}
	t.pass(n, "", false)
	return true
}

// unfinished counts members of a wave that are waiting or under way.
func (s *State) unfinished(n int) int {
	return s.count(func(d *Device) bool { return d.Wave == n && d.unfinished() })
}

// devicesHold says what about its devices keeps a soaking wave from passing,
// one sentence each.
func (t *turn) devicesHold() []string {
	var out []string
	n := t.Header.Wave
	if w := t.wave(); t.now.Before(w.SoakEnds) {
		out = append(out, "the wave soaks until "+w.SoakEnds.Format(time.RFC3339))
	}
	if soaking := t.count(func(d *Device) bool { return d.Wave == n && d.State == DeviceActive && !d.Late }); soaking > 0 {
		out = append(out, fmt.Sprintf("%d devices serve the release but not yet for the soak time", soaking))
	}
	if healthy, need, base := t.quorum(n); healthy < need {
		out = append(out, fmt.Sprintf("%d of %d devices are healthy, the quorum is %d", healthy, base, need))
		out = append(out, t.silenceHolds(n)...)
	}
	return out
}

// silenceHolds says what silent devices have to do with a missing quorum.
func (t *turn) silenceHolds(n int) []string {
	var out []string
	if silent := t.count(func(d *Device) bool { return d.Wave == n && d.Late && !d.State.out() && !d.replaceable() }); silent > 0 {
		out = append(out, fmt.Sprintf("%d devices fell silent after they began, perhaps because of the release: look at them before it goes on", silent))
	}
	if t.replacedAll(n) {
		out = append(out, fmt.Sprintf("%d silent devices of the wave were replaced already, no more are", t.Waves[n-1].Replaced))
	}
	return out
}

// time is how long a wave is open at least.
func (e EvidenceSpec) time() time.Duration {
	return time.Duration(min(e.Hours, maxCost.Hours()) * float64(time.Hour))
}

// evidenceHold says what a soaking wave has not yet shown: nothing seen is no
// success.
func (t *turn) evidenceHold() []string {
	n := t.Header.Wave
	need, w := t.waveSpec(n).Evidence, t.wave()
	if need == (EvidenceSpec{}) {
		return nil
	}
	var out []string
	p := t.Progress(n, t.facts, t.now)
	if p.Devices < need.Devices {
		text := fmt.Sprintf("%d devices of the wave have served predictions, it needs %d", p.Devices, need.Devices)
		if p.Counted < need.Devices {
			text += fmt.Sprintf(" and has only %d", p.Counted)
		}
		out = append(out, text)
	}
	if p.Inferences < need.Inferences {
		out = append(out, fmt.Sprintf("they have predicted %d rows, it needs %d", p.Inferences, need.Inferences))
	}
	if ends := w.Opened.Add(need.time()); t.now.Before(ends) {
		out = append(out, fmt.Sprintf("the wave is open until %s at least, for %v hours of evidence", ends.Format(time.RFC3339), need.Hours))
	}
	return out
}

// gatesHold says which gates keep a soaking wave from passing.
func (t *turn) gatesHold() []string {
	var out []string
	for _, g := range t.gates() {
		if g.Result == GateFail || g.Result == GateInconclusive && t.Spec.gate(g.Gate).Inconclusive == Hold {
			out = append(out, fmt.Sprintf("gate %s is %s: %s", g.Gate, g.Result, g.Text))
		}
	}
	return out
}

// quorum counts the members of a wave that are healthy, how many must be, and
// of how many. Devices that cannot run the release or left the rollout are not
// counted; silent ones are.
func (s *State) quorum(n int) (healthy, need, base int) {
	s.each(func(d *Device, many int) {
		if d.Wave != n || d.Already || d.State == DeviceRefused || d.State == DeviceSuperseded {
			return
		}
		base += many
		if d.State == DeviceHealthy {
			healthy += many
		}
	})
	need = max(1, int(math.Ceil(s.waveSpec(n).Quorum*float64(base)-1e-9)))
	return healthy, need, base
}

// pass closes a wave. Gates without an answer are recorded as unproven.
func (t *turn) pass(n int, why string, forced bool) {
	gates := t.gates()
	open := unproven(gates)
	if why == "" {
		healthy, _, base := t.quorum(n)
		why = fmt.Sprintf("%d of %d devices are healthy", healthy, base)
	}
	if len(open) > 0 {
		why += "; unproven: " + strings.Join(open, ", ")
	}
	t.setWave(n, WavePassed, why)
	t.Waves[n-1].Gates, t.Waves[n-1].Forced = gates, forced
}

// unproven records gates without an answer as such, and names them.
func unproven(gates []GateResult) []string {
	var names []string
	for i := range gates {
		if gates[i].Result == GateInconclusive {
			gates[i].Result = GateUnproven
			names = append(names, string(gates[i].Gate))
		}
	}
	return names
}
