package rollout

import (
	"math"
	"time"
)

// rate lets things pass evenly: the generic cell rate algorithm (ITU-T I.371),
// which needs to remember a single time. Decisions would be one for each thing
// if some could not pass at once, so up to slack may be ahead of their time.
type rate struct {
	next  time.Time // theoretical arrival time: what has passed is paid for by then
	slack time.Duration
}

// burst is how many orders may be given at once: two seconds' worth, so that a
// decision a second is enough.
func burst(perMinute int) int { return max(1, perMinute/30) }

// costOfOrder is the time one order takes up. It is such that no sixty seconds
// see more than perMinute: those that pass in that time and the burst before.
func costOfOrder(perMinute int) time.Duration {
	n := time.Duration(perMinute - burst(perMinute) + 1)
	return (time.Minute + n - 1) / n
}

func orderRate(perMinute int, next time.Time) rate {
	return rate{next: next, slack: time.Duration(burst(perMinute)-1) * costOfOrder(perMinute)}
}

// byteSlack is how far downloads may be ahead of the bytes a second.
const byteSlack = time.Second

func byteRate(next time.Time) rate { return rate{next: next, slack: byteSlack} }

// maxCost keeps sums of times in range: a download that takes a year at this
// rate is as good as none.
const maxCost = 365 * 24 * time.Hour

// costOfBytes is the time a download takes up.
func costOfBytes(bytes, perSecond int64) time.Duration {
	seconds := float64(bytes) / float64(perSecond)
	return time.Duration(math.Ceil(min(seconds, maxCost.Seconds()) * float64(time.Second)))
}

// passes says whether something may pass now. How large it is does not matter:
// what is larger than a rate goes alone, and the others wait for it.
func (r *rate) passes(now time.Time) bool { return !r.next.After(now.Add(r.slack)) }

// take lets something pass.
func (r *rate) take(now time.Time, cost time.Duration) {
	if r.next.Before(now) {
		r.next = now
	}
	r.next = r.next.Add(cost)
}

// kept is the time to remember.
func (r *rate) kept() time.Time { return notBefore(r.next) }

// wake is when it is worth looking again: when half of the slack is there, so
// that a decision gives several orders and comes in time for all of them.
func (r *rate) wake() time.Time { return notBefore(r.next.Add(-r.slack / 2)) }

// notBefore is the first whole millisecond that is not before a time.
func notBefore(t time.Time) time.Time {
	if m := Moment(t); !m.Before(t) {
		return m
	}
	return Moment(t).Add(time.Millisecond)
}
