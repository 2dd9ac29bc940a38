package rollout

import (
	"math"
	"slices"
	"time"
)

// Replays is how many replays a plan makes, one begun at each of the last 14
// days at this time of the day: devices keep hours, and so do windows.
const Replays = HeardHours / day

// rehearsal is what all replays of a plan share. Moments are in seconds since
// base.
type rehearsal struct {
	spec     *Spec
	base     time.Time // beginning of the hour of the plan
	begins   int64     // when the first wave opens
	deadline int64     // of the whole rollout
	devices  []actor   // wave by wave, in order of rank
	waves    [][]int   // planned members, by index
	zones    []openings
	limits   []roomy // by group of devices that share a label of the budget
}

// actor is a device of a rehearsal.
type actor struct {
	id       string
	there    *pattern
	zone     int   // in rehearsal.zones
	zoneless bool  // it goes by windows of its own time zone, which is not known
	work     int64 // seconds from the beginning to service when it is there all the time
	bytes    int64
	groups   []int // in rehearsal.limits
	down     bool  // does not serve now: it takes no room from its groups, and gives them some when it serves
	unmet    bool  // does not fulfil what the spec requires, and is not offered anything
	control  bool
	bucket   int // devices that the budget and the windows treat alike share one
}

// download is how long its download takes, in seconds.
func (a *actor) download() float64 { return float64(a.bytes) / PlanRate }

// roomy is a group of devices of which so many may be under way.
type roomy struct{ most int }

// openings are the times in which offers may be made, in order.
type openings []span

// span is a time, its end excluded.
type span struct{ from, to int64 }

// at is the opening that holds a moment or follows it; ok is false for none.
func (o openings) at(moment int64) (s span, ok bool) {
	i, _ := slices.BinarySearchFunc(o, moment, func(s span, m int64) int {
		if s.to <= m {
			return -1
		}
		return 1
	})
	if i == len(o) {
		return span{}, false
	}
	return o[i], true
}

// maxOpenings bounds the openings of one time zone that are looked at.
const maxOpenings = 2000

// openings are those of devices of a time zone until the deadline.
func (r *rehearsal) openings(zone string) openings {
	var out openings
	for at := r.begins; at < r.deadline && len(out) < maxOpenings; {
		o := r.spec.calendar(r.moment(at)).in(zone)
		end := r.deadline
		if !o.until.IsZero() {
			end = max(at+1, r.seconds(o.until))
		}
		if o.open {
			out = append(out, span{at, end})
		}
		at = end
	}
	return out
}

// moment is a time of a replay as the rates want it.
func (r *rehearsal) moment(at int64) time.Time { return r.base.Add(time.Duration(at) * time.Second) }

// seconds is the first whole second that is not before a time.
func (r *rehearsal) seconds(t time.Time) int64 { return int64(math.Ceil(t.Sub(r.base).Seconds())) }

// newRehearsal prepares replays of a rollout whose waves were planned.
func (t *turn) newRehearsal(waves []PlanWave, presence Presence) *rehearsal {
	r := &rehearsal{spec: &t.Spec, base: t.now.Truncate(time.Hour)}
	r.begins = int64(later(t.now, t.Spec.StartAt).Sub(r.base).Seconds())
	r.deadline = r.begins + int64(time.Duration(t.Spec.Deadline).Seconds())
	c := &cast{turn: t, r: r, calendar: t.Spec.calendar(t.now), presence: presence, patterns: map[Hours]*pattern{}, zones: map[string]int{}, buckets: map[string]int{}}
	c.groups = t.groups(t.Spec.Budget)
	c.limits = make([]map[string]int, len(c.groups))
	for i := range waves {
		var members []int
		for _, id := range waves[i].Devices {
			members = append(members, len(r.devices))
			r.devices = append(r.devices, c.actor(id))
		}
		r.waves = append(r.waves, members)
	}
	return r
}

// timing is how long the waves and all of a rollout take, over replays.
type timing struct {
	waves []sample
	total sample
	runs  []run
}

// sample is how long something took in each replay, in seconds, shortest first;
// never where it did not end in time.
type sample []int64

// at is a quantile as a duration, 0 for never.
func (s sample) at(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	v := s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
	if v >= never {
		return 0
	}
	return time.Duration(v) * time.Second
}

func (s sample) unfinished() int {
	n := 0
	for _, v := range s {
		if v >= never {
			n++
		}
	}
	return n
}

// rehearse makes all replays.
func (r *rehearsal) rehearse() timing {
	t := timing{waves: make([]sample, len(r.waves))}
	for k := range Replays {
		one := r.replay(k * day)
		for i, took := range one.waves {
			t.waves[i] = append(t.waves[i], took)
		}
		t.total = append(t.total, one.total)
		one.stages = nil // they are as large as the fleet
		t.runs = append(t.runs, one)
	}
	for i := range t.waves {
		slices.Sort(t.waves[i])
	}
	slices.Sort(t.total)
	return t
}

// usual is the beginning of a replay that takes as long as half of them do.
func (t *timing) usual() (shift int) {
	want := t.total[(len(t.total)+1)/2-1]
	return t.runs[slices.IndexFunc(t.runs, func(r run) bool { return r.total == want })].shift
}

// run is how one replay went.
type run struct {
	shift  int
	waves  []int64 // how long each took, never where it did not end
	total  int64
	stages []stage
}

// replay lets the rollout run through the 14 days, begun shift hours into them.
func (r *rehearsal) replay(shift int) run {
	out := run{shift: shift}
	p := &pool{r: r, taken: make([]bool, len(r.devices)), freed: map[int]int{}}
	at := r.begins
	for n := range r.waves {
		var s stage
		end := never
		if at < never {
			s = r.stage(p, n, at, shift)
			end = s.end
		}
		took := never
		if end < never {
			took = end - at
		}
		out.waves, out.stages = append(out.waves, took), append(out.stages, s)
		at = end
	}
	out.total = never
	if at < never {
		out.total = at - r.begins
	}
	return out
}

// maxAgain bounds how often silent devices are taken once more in a replay: those
// with a lateness of seconds would take turns all week.
const maxAgain = 10_000

// pool is who is in no wave yet.
type pool struct {
	r      *rehearsal
	taken  []bool
	next   int         // nobody before it was never taken
	back   []int       // were replaced, for later waves
	unused []int       // replaced in this wave
	again  int         // silent devices that were taken once more
	freed  map[int]int // room that devices gave their groups when they came to serve
}

// members are those of a wave: the planned ones that are still free, and others
// for those that took somebody's place before. The last wave has everybody.
func (p *pool) members(n int) []int {
	p.back, p.unused = append(p.back, p.unused...), nil
	size := len(p.r.waves[n])
	var out []int
	take := func(i int) {
		if !p.taken[i] {
			p.taken[i] = true
			out = append(out, i)
		}
	}
	for _, i := range p.r.waves[n] {
		take(i)
	}
	last := n == len(p.r.waves)-1
	for len(p.back) > 0 && (last || len(out) < size) {
		take(p.back[0])
		p.back = p.back[1:]
	}
	for len(out) < size {
		i := p.another()
		if i < 0 {
			break
		}
		out = append(out, i)
	}
	return out
}

// another takes a device for one that is silent, -1 for none left: one that was
// not silent before, if there is one. The control group is held out.
func (p *pool) another() int {
	for ; p.next < len(p.taken); p.next++ {
		if i := p.next; !p.taken[i] && !p.r.devices[i].control {
			p.taken[i] = true
			return i
		}
	}
	if len(p.unused) == 0 || p.again == maxAgain {
		return -1
	}
	i := p.unused[0]
	p.taken[i], p.unused, p.again = true, p.unused[1:], p.again+1
	return i
}

// replaced gives a device back.
func (p *pool) replaced(i int) {
	p.taken[i] = false
	p.unused = append(p.unused, i)
}
