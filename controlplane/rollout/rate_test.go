package rollout

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Whenever it is looked, no sixty seconds see more orders than are allowed; and
// who wakes when told to does not stay far behind it.
func TestOrdersAMinute(t *testing.T) {
	for _, perMinute := range []int{1, 2, 7, 30, 59, 60, 61, 600, 12_345} {
		rnd := rand.New(rand.NewPCG(uint64(perMinute), 1))
		r := orderRate(perMinute, time.Time{})
		cost := costOfOrder(perMinute)
		var given []time.Time
		now, end := begin, begin.Add(10*time.Minute)
		for now.Before(end) {
			for r.passes(now) {
				r.take(now, cost)
				given = append(given, now)
			}
			r = orderRate(perMinute, r.kept()) // as from the ledger
			wake := r.wake()
			if !wake.After(now) {
				t.Fatalf("%d a minute: wakes at %v, which is not after %v", perMinute, wake, now)
			}
			if rnd.IntN(20) == 0 {
				wake = wake.Add(time.Duration(rnd.IntN(int(time.Minute)))) // something held the server up
			}
			now = Moment(wake.Add(time.Duration(rnd.IntN(int(300 * time.Millisecond)))))
		}
		from := 0
		for i, at := range given {
			for at.Sub(given[from]) >= time.Minute {
				from++
			}
			if n := i - from + 1; n > perMinute {
				t.Fatalf("%d orders in the minute to %v, allowed are %d", n, at, perMinute)
			}
		}
	}
}

func TestOrdersAreNotHeldBack(t *testing.T) {
	for _, perMinute := range []int{1, 30, 60, 600, 6000} {
		r, cost := orderRate(perMinute, time.Time{}), costOfOrder(perMinute)
		n := 0
		for now := begin; now.Before(begin.Add(time.Hour)); now = r.wake().Add(200 * time.Millisecond) { // the runner's gap
			for r.passes(now) {
				r.take(now, cost)
				n++
			}
		}
		if least := 60 * perMinute * 9 / 10; n < least {
			t.Errorf("%d a minute: %d orders in an hour, want at least %d", perMinute, n, least)
		}
	}
}

// What was let pass before an order is downloaded but for a second's worth; so
// a model larger than a minute's worth goes, too, and nothing beside it.
func TestBytesASecond(t *testing.T) {
	const perSecond = 1 << 20
	rnd := rand.New(rand.NewPCG(5, 5))
	r := byteRate(time.Time{})
	type order struct {
		at    time.Time
		bytes int64
	}
	var given []order
	for now := begin; len(given) < 500; now = Moment(r.wake().Add(time.Millisecond)) {
		for r.passes(now) {
			bytes := int64(rnd.IntN(3 * perSecond))
			if rnd.IntN(30) == 0 {
				bytes = 100 * perSecond
			}
			r.take(now, costOfBytes(bytes, perSecond))
			given = append(given, order{now, bytes})
		}
		r = byteRate(r.kept())
	}
	for first := range given {
		var before int64
		for _, o := range given[first:] {
			if most := int64((o.at.Sub(given[first].at) + byteSlack).Seconds() * perSecond); before > most {
				t.Fatalf("%d bytes were ordered from %v to %v, at most %d", before, given[first].at, o.at, most)
			}
			before += o.bytes
		}
	}
	if got := costOfBytes(1<<62, 1); got != maxCost {
		t.Errorf("an endless download takes up %v, want %v", got, maxCost)
	}
}
