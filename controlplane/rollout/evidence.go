package rollout

import (
	"maps"
	"math"
	"slices"
)

// boundShare is the part of an error rate that is spent on the bounds of what
// devices showed before; e-values count for the rest.
const boundShare = 0.1

// unknownShare is the share of failed rows up to which a device of which nothing
// is known from before is not suspected, where others have a past.
const unknownShare = 0.5

// rows is the evidence of single rows for the gate of errors: a device that
// fails all requests is certain, whatever other devices do. Each device bets
// alone, against the bound of its own past. The bets are added with weights that
// no result has a say in: half of all for the first wave, half of the rest for
// the next, evenly over a wave's members. Late joiners make those of their wave
// smaller, and none ever grows. What nobody has bet yet is worth 1.
type rows struct {
	limit    float64                // of the gate
	world    map[int]shift          // how the world changed while a wave was open
	past     bool                   // some device served an old release before
	weight   func(wave int) float64 // of one device
	quiet    map[int]int            // devices by wave on which no more rows failed than may
	suspects []suspect
	now      counted // of all devices

	// How many of now would fail had nothing changed, and the variance of that
	// from what is known of before, in 1/expectUnit.
	expected, variance uint64
}

// suspect is a device on which more rows failed than may.
type suspect struct {
	weight      float64
	world       shift
	before, now counted
}

// expectUnit and mostExpected keep the sums of a million devices inside a uint64.
const (
	expectUnit   = 1 << 10
	mostExpected = 1 << 33 // rows of one device
)

func inUnits(rows float64) uint64 { return uint64(math.Round(min(rows, mostExpected) * expectUnit)) }

func (c *counted) add(more counted) {
	c.bad, c.all = plusCapped(c.bad, more.bad), plusCapped(c.all, more.all)
}

func plusCapped(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// allowed is the share of rows that may fail where so many did before.
func (r *rows) allowed(before float64, known bool, world shift) float64 {
	if !known && r.past {
		before = unknownShare
	}
	return before + r.limit + world.up
}

// add takes in one device. Nearly all of them are quiet: bets on those are
// counted as lost, which costs little and saves a logarithm of a million.
func (r *rows) add(wave int, past, now *Evidence) {
	if now == nil {
		return
	}
	after, before := tries(now), counted{}
	if past != nil {
		before = tries(past)
	}
	known := before.all > 0
	r.now.add(after)
	if known {
		n := float64(after.all)
		r.expected += inUnits(n * before.share())
		r.variance += inUnits(n * n * before.share() / float64(before.all))
	}
	switch {
	case after.all == 0:
	case after.share() <= r.allowed(before.share(), known, r.world[wave]):
		r.quiet[wave]++
	default:
		r.suspects = append(r.suspects, suspect{weight: r.weight(wave), world: r.world[wave], before: before, now: after})
	}
}

// harm is an e-value against "no device fails more rows than the limit allows",
// for tests at alpha. Leaving out its largest bets makes it smaller, so it stays
// one.
func (r *rows) harm(alpha float64) float64 {
	e := 1.0
	for _, wave := range slices.Sorted(maps.Keys(r.quiet)) {
		e -= r.weight(wave) * float64(r.quiet[wave])
	}
	bets := make([]float64, len(r.suspects))
	for i, s := range r.suspects {
		surprise := math.Log(1 / (boundShare * alpha * s.weight))
		known := s.before.all > 0
		most := 0.0
		if known {
			most = mostShare(float64(s.before.bad), float64(s.before.all), surprise)
		}
		bets[i] = s.weight * ((1-boundShare)*moreE(s.now.bad, s.now.all, r.allowed(most, known, s.world)) - 1)
	}
	slices.Sort(bets) // sums of fractions depend on their order
	ignored := spells(r.devices())
	for i, bet := range bets {
		if i < len(bets)-ignored || bet < 0 {
			e += bet
		}
	}
	return capE(e)
}

// spells is how many devices do not count however many rows fail on them, of n
// with evidence. Failing rows of one device come in spells, when its sensor is
// unplugged for an hour say, and then they speak about that device. Of a few
// devices one may be unlucky, of many some; of very many the mean, from which
// their past is taken off, tells. Of one or two devices one must be enough, or a
// first canary could fail all it is asked.
func spells(n int) int {
	const fewest, each, most = 3, 8, 5
	if n < fewest {
		return 0
	}
	return min(1+n/each, most)
}

// devices is on how many there is evidence.
func (r *rows) devices() int {
	n := len(r.suspects)
	for _, quiet := range r.quiet {
		n += quiet
	}
	return n
}

// fine is an e-value against "more rows fail than the limit allows", over all
// devices together, for tests at alpha. What is expected of each device is its
// own past, so that it makes no difference which of them predicted more.
func (r *rows) fine(alpha float64) float64 {
	if r.now.all == 0 {
		return 1
	}
	surprise := math.Log(1 / (boundShare * alpha))
	expected := float64(r.expected) / expectUnit
	least := max(0, expected-math.Sqrt(2*surprise*float64(r.variance)/expectUnit))
	better := 0.0
	for _, w := range r.world {
		better = min(better, w.down)
	}
	p0 := least/float64(r.now.all) + r.limit + better
	return capE((1 - boundShare) * lessE(r.now.bad, r.now.all, p0))
}

// waveWeight is what the bet of one device of a wave weighs. Late joiners make
// all of their wave's bets smaller.
func (s *State) waveWeight() func(wave int) float64 {
	members := make([]int, len(s.Waves)+1)
	s.each(func(d *Device, many int) {
		if d.Wave > 0 && d.Wave < len(members) && !d.Already {
			members[d.Wave] += many
		}
	})
	return func(wave int) float64 {
		if wave < 1 || wave >= len(members) {
			return 0
		}
		return math.Pow(2, -float64(wave)) / float64(max(members[wave], s.Waves[wave-1].Planned, 1))
	}
}

// newRows is the evidence of devices on the release, without any yet.
func (j *judge) newRows(g GateSpec) *rows {
	return &rows{limit: g.limit(), world: j.world.during(g), past: j.past, weight: j.s.waveWeight(), quiet: map[int]int{}}
}

// controlRows is the same of the control group, on the old release.
func (j *judge) controlRows(g GateSpec) *rows {
	group := j.world.group
	each := 1 / float64(max(len(group), 1))
	r := &rows{limit: g.limit(), past: true, weight: func(int) float64 { return each }, quiet: map[int]int{}}
	for _, f := range group {
		r.add(0, f.Past, f.Old)
	}
	return r
}

// past says whether any device served a release of the model before.
func (f *Facts) past() bool {
	for _, d := range f.Devices {
		if d.Past != nil && (d.Past.Rows > 0 || d.Past.FailedRows > 0) {
			return true
		}
	}
	return false
}

// errors adds the evidence of rows to that of signs. The mean of two e-values
// is one. Without a past there are no signs, and rows speak alone.
func (j *judge) errors(c *comparison, r *GateResult) {
	harm, fine := j.rows.harm(j.alpha), j.rows.fine(j.beta)
	r.Numerator, r.Denominator = float64(c.counts.bad), float64(c.counts.all)
	if !j.past {
		r.EHarm, r.EFine = harm, fine
		return
	}
	r.EHarm, r.EFine = (r.EHarm+harm)/2, (r.EFine+fine)/2
	r.EControl = (r.EControl + j.controlRows(c.gate).harm(j.alpha)) / 2
}
