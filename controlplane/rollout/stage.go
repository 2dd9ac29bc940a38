package rollout

import (
	"cmp"
	pq "container/heap"
	"math"
	"time"
)

// stage is one wave of a replay. It follows the engine's rules with devices that
// do as they should: they are offered the release in order of rank as budget and
// windows allow, begin when they are there, and are late when they are not.
type stage struct {
	r     *rehearsal
	pool  *pool
	shift int
	last  bool
	spec  WaveSpec

	opened, now, end int64 // end is never for a wave that did not pass in time
	soakEnds         int64 // unset while a member is not through
	need             int   // healthy devices

	members []member
	queues  map[int][]int // of members that wait, by bucket
	ready   queueHeap     // buckets whose first member may be offered it
	blocked map[int][]int // buckets that wait for a group, by group
	events  eventHeap
	looking int64 // a look is due then, or unset

	orders, bytes rate
	used          map[int]int // devices under way by group
	underWay      int
	unfinished    int // not late: waiting or under way
	soaking       int // not late: serving, but not yet for the soak time
	hopeful       int // not late
	healthy       int
	grew          []int64 // when healthy became one more
}

// member is a device in a wave of a replay.
type member struct {
	device  int // in rehearsal.devices
	state   memberState
	late    bool
	offer   int32 // counts its offers: what follows from an earlier one does not happen
	placed  int64
	offered int64 // never for not yet, as below
	began   int64
	healthy int64
}

type memberState uint8

const (
	isWaiting memberState = iota
	isOffered
	isWorking
	isServing
	isHealthy
	isReplaced
)

// held says that the member takes up a place of the budget.
func (m *member) held() bool { return !m.late && (m.state == isOffered || m.state == isWorking) }

type eventKind uint8

const (
	toLook   eventKind = iota // anew at everything: a rate, a soak time
	toOpen                    // a window, for a bucket
	toClose                   // the window in which it was offered
	toBegin                   // its download
	toServe                   // the release
	toThrive                  // seen healthy
	toLapse                   // it is late unless it has moved on
)

// event is something that will happen to a member, or to a bucket.
type event struct {
	at    int64
	who   int32
	offer int32 // of the member
	kind  eventKind
	state memberState // toLapse: that it is late in
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].at, h[j].at), cmp.Compare(h[i].kind, h[j].kind), cmp.Compare(h[i].who, h[j].who)) < 0
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *eventHeap) Push(x any) { *h = append(*h, x.(event)) }

// Pop implements heap.Interface.
func (h *eventHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// queueHeap orders buckets by their first member.
type queueHeap []struct{ first, bucket int }

func (h queueHeap) Len() int           { return len(h) }
func (h queueHeap) Less(i, j int) bool { return h[i].first < h[j].first }
func (h queueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *queueHeap) Push(x any) { *h = append(*h, x.(struct{ first, bucket int })) }

// Pop implements heap.Interface.
func (h *queueHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// stage plays one wave.
func (r *rehearsal) stage(p *pool, n int, at int64, shift int) stage {
	s := stage{
		soakEnds: unset, looking: unset,
		r: r, pool: p, shift: shift, last: n == len(r.waves)-1, spec: r.spec.Waves[n], opened: at, now: at, end: never,
		queues: map[int][]int{}, blocked: map[int][]int{}, used: map[int]int{}, bytes: byteRate(time.Time{}),
	}
	if k := r.spec.Budget.PerMinute; k > 0 {
		s.orders = orderRate(k, time.Time{})
	}
	for _, device := range p.members(n) {
		s.join(device)
	}
	if len(s.members) == 0 {
		s.end = at
		return s
	}
	s.need = max(1, s.spec.Evidence.Devices, int(math.Ceil(s.spec.Quorum*float64(len(s.members))-1e-9)))
	s.lookAt(at + s.evidence())
	for !s.passes() {
		if !s.advance() {
			return s
		}
	}
	s.end = s.now
	return s
}

// evidence is how long the wave must be open, in seconds.
func (s *stage) evidence() int64 { return int64(math.Ceil(s.spec.Evidence.Hours * float64(hour))) }

func (s *stage) soak() int64     { return int64(math.Ceil(s.spec.soak().Seconds())) }
func (s *stage) lateness() int64 { return int64(time.Duration(s.spec.Lateness).Seconds()) }

// passes makes the offers that can be made and says whether the wave ends now.
func (s *stage) passes() bool {
	s.offer()
	switch {
	case s.unfinished > 0:
		s.soakEnds = unset
		return false
	case s.soakEnds == unset:
		s.soakEnds = s.now + s.soak()
		s.lookAt(s.soakEnds)
	}
	return s.now >= s.soakEnds && s.soaking == 0 && s.healthy >= s.need && s.now >= s.opened+s.evidence()
}

// advance lets the next thing happen. It says false when there is none before
// the deadline of the rollout.
func (s *stage) advance() bool {
	if len(s.events) == 0 || s.events[0].at >= s.r.deadline {
		return false
	}
	e := pq.Pop(&s.events).(event)
	s.now = e.at
	s.happen(e)
	return true
}

func (s *stage) happen(e event) {
	switch e.kind {
	case toLook:
		s.looking = unset
		return
	case toOpen:
		s.makeReady(int(e.who))
		return
	case toClose, toBegin, toServe, toThrive, toLapse:
	}
	i := int(e.who)
	m := &s.members[i]
	if m.offer != e.offer {
		return
	}
	switch {
	case e.kind == toClose && m.state == isOffered:
		m.offer++
		s.move(i, isWaiting, m.late)
		s.wait(i)
	case e.kind == toBegin:
		s.begin(i)
	case e.kind == toServe:
		s.serve(i)
	case e.kind == toThrive:
		m.healthy = s.now
		s.move(i, isHealthy, false)
		s.grew = append(s.grew, s.now)
	case e.kind == toLapse && m.state == e.state:
		s.move(i, m.state, true)
		s.replace(i)
	}
}

func (s *stage) push(e event) {
	if e.at < never {
		pq.Push(&s.events, e)
	}
}

func (s *stage) lookAt(at int64) {
	if at != s.looking {
		s.looking = at
		s.push(event{at: at, kind: toLook})
	}
}

// join makes a device a member. One that the release cannot be offered now holds
// the wave up as a silent one does.
func (s *stage) join(device int) {
	i := len(s.members)
	s.members = append(s.members, member{device: device, state: isReplaced, placed: s.now, offered: never, began: never, healthy: never})
	s.move(i, isWaiting, false)
	if s.r.devices[device].unmet {
		s.push(event{at: s.now + s.lateness(), kind: toLapse, who: int32(i), state: isWaiting}) //nolint:gosec // an index of a device
		return
	}
	s.wait(i)
}

// wait puts a member at the end of its queue.
func (s *stage) wait(i int) {
	b := s.r.devices[s.members[i].device].bucket
	s.queues[b] = append(s.queues[b], i)
	if len(s.queues[b]) == 1 {
		s.makeReady(b)
	}
}

func (s *stage) makeReady(bucket int) {
	if q := s.queues[bucket]; len(q) > 0 {
		pq.Push(&s.ready, struct{ first, bucket int }{q[0], bucket})
	}
}

// move changes the state of a member and what is counted of it.
func (s *stage) move(i int, to memberState, late bool) {
	m := &s.members[i]
	held := m.held()
	s.count(m, -1)
	m.state, m.late = to, late
	s.count(m, 1)
	if is := m.held(); is != held {
		s.hold(m, is)
	}
}

func (s *stage) count(m *member, n int) {
	switch m.state {
	case isHealthy:
		s.healthy += n
	case isServing:
		if !m.late {
			s.soaking += n
		}
	case isWaiting, isOffered, isWorking:
		if !m.late {
			s.unfinished += n
		}
	case isReplaced:
		return
	}
	if !m.late {
		s.hopeful += n
	}
}

// hold takes up a place of the budget, or gives it to those that wait for one.
func (s *stage) hold(m *member, takes bool) {
	n := 1
	if !takes {
		n = -1
	}
	s.underWay += n
	a := &s.r.devices[m.device]
	for _, g := range a.groups {
		if a.down {
			continue
		}
		s.used[g] += n
		if !takes {
			s.unblock(g)
		}
	}
}

// unblock lets those try again that wait for room in a group.
func (s *stage) unblock(group int) {
	for _, b := range s.blocked[group] {
		s.makeReady(b)
	}
	delete(s.blocked, group)
}

// offer offers the release to as many members as budget and windows allow.
func (s *stage) offer() {
	b := &s.r.spec.Budget
	for len(s.ready) > 0 {
		if b.InFlight > 0 && s.underWay >= b.InFlight {
			return
		}
		if wake := s.paced(); wake > s.now {
			s.lookAt(wake)
			return
		}
		next := pq.Pop(&s.ready).(struct{ first, bucket int })
		if q := s.queues[next.bucket]; len(q) > 0 && q[0] == next.first {
			s.offerFirst(next.bucket)
		}
	}
}

// paced is when the rates of the budget let the next offer pass.
func (s *stage) paced() int64 {
	b, now := &s.r.spec.Budget, s.r.moment(s.now)
	at := s.now
	if b.PerMinute > 0 && !s.orders.passes(now) {
		at = max(at, s.r.seconds(s.orders.wake()))
	}
	if b.BytesPerSecond > 0 && !s.bytes.passes(now) {
		at = max(at, s.r.seconds(s.bytes.wake()))
	}
	return at
}

// offerFirst offers the release to the first member of a bucket, unless its
// window is closed or its group has as many under way as may be.
func (s *stage) offerFirst(bucket int) {
	i := s.queues[bucket][0]
	a := &s.r.devices[s.members[i].device]
	window, ok := s.r.zones[a.zone].at(s.now)
	switch {
	case !ok:
		return
	case s.now < window.from:
		s.push(event{at: window.from, kind: toOpen, who: int32(bucket)}) //nolint:gosec // there are no more buckets than devices
		return
	}
	for _, g := range a.groups {
		if !a.down && s.used[g]-s.pool.freed[g] >= s.r.limits[g].most {
			s.blocked[g] = append(s.blocked[g], bucket)
			return
		}
	}
	s.queues[bucket] = s.queues[bucket][1:]
	s.offerTo(i, a, window)
	s.makeReady(bucket)
}

func (s *stage) offerTo(i int, a *actor, window span) {
	b, now := &s.r.spec.Budget, s.r.moment(s.now)
	if b.PerMinute > 0 {
		s.orders.take(now, costOfOrder(b.PerMinute))
	}
	if b.BytesPerSecond > 0 {
		s.bytes.take(now, costOfBytes(a.bytes, b.BytesPerSecond))
	}
	m := &s.members[i]
	m.offer++
	m.offered = min(m.offered, s.now)
	s.move(i, isOffered, false)
	if at := a.there.from(s.now, s.shift); at < window.to {
		s.plan(i, toBegin, at, s.now+s.lateness())
	} else {
		s.plan(i, toClose, window.to, s.now+s.lateness())
	}
}

// plan lets something happen to a member, and lets it be late before that where
// its state ends sooner.
func (s *stage) plan(i int, kind eventKind, at, late int64) {
	m := &s.members[i]
	s.push(event{at: at, kind: kind, who: int32(i), offer: m.offer}) //nolint:gosec // an index of a device
	if late < at {
		s.push(event{at: late, kind: toLapse, who: int32(i), offer: m.offer, state: m.state}) //nolint:gosec // likewise
	}
}

// begin has a member download. One that does not get through by its deadline
// holds nothing up any more.
func (s *stage) begin(i int) {
	m := &s.members[i]
	a := &s.r.devices[m.device]
	m.began = s.now
	s.move(i, isWorking, false)
	s.plan(i, toServe, a.there.worked(s.now, a.work, s.shift), s.now+int64(time.Duration(s.r.spec.DeviceDeadline).Seconds()))
}

// serve starts the soak time of a member, which ends with its first report after
// it.
func (s *stage) serve(i int) {
	s.move(i, isServing, false)
	a := &s.r.devices[s.members[i].device]
	if a.down {
		for _, g := range a.groups {
			s.pool.freed[g]++
			s.unblock(g)
		}
	}
	served := s.now + s.soak()
	s.plan(i, toThrive, a.there.from(served, s.shift), served+s.lateness())
}

// replace puts another device in the place of a silent one when the wave could
// not reach its quorum without it.
func (s *stage) replace(i int) {
	if s.last || s.hopeful >= s.need {
		return
	}
	other := s.pool.another()
	if other < 0 {
		return
	}
	s.members[i].offer++
	s.pool.replaced(s.members[i].device)
	s.move(i, isReplaced, false)
	s.join(other)
}
