package rollout

import (
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"
)

// The figures that these tests print beside their own were found beforehand by
// other programs, for the same questions. Base rate of errors is 1 %.

// trials is how many times a question is asked: enough to see what is wrong by
// a factor, with VEDETTE_FULL=1 enough for two digits.
func trials(n int) int {
	if os.Getenv("VEDETTE_FULL") != "" {
		return 20 * n
	}
	return n
}

// chances is a source of counts.
type chances struct{ *rand.Rand }

func newChances(seed uint64) chances { return chances{rand.New(rand.NewPCG(seed, 5))} }

func (c chances) poisson(mean float64) uint64 {
	if mean <= 0 {
		return 0
	}
	return uint64(distuv.Poisson{Lambda: mean, Src: c.Rand}.Rand())
}

// lognormal is a factor between devices, 1 in the mean.
func (c chances) lognormal(sd float64) float64 { return math.Exp(sd*c.NormFloat64() - sd*sd/2) }

// share asks a question and prints how often the answer was yes.
func share(t *testing.T, what string, n int, figure string, yes func(i int) bool) float64 {
	t.Helper()
	hits := 0
	for i := range n {
		if yes(i) {
			hits++
		}
	}
	got := float64(hits) / float64(n)
	t.Logf("%-66s %.3f ± %.3f   %s", what, got, math.Sqrt(got*(1-got)/float64(n)), figure)
	return got
}

// atMost allows three standard errors.
func atMost(t *testing.T, what string, got, want float64, n int) {
	t.Helper()
	if got > want+3*math.Sqrt(want*(1-want)/float64(n)) {
		t.Errorf("%s: %.3f of %d, want at most %.3f", what, got, n, want)
	}
}

// ratioBets is the e-process that pools the events of canaries and others: of
// every event, whose it is. It is here to show what pooling does.
type ratioBets struct{ logs []float64 }

var harmRatios = []float64{1.1, 1.25, 1.5, 2, 3, 5, 10}

// see adds events at a share of the exposure, against "at most as many".
func (r *ratioBets) see(x, y uint64, s float64) float64 {
	if r.logs == nil {
		r.logs = make([]float64, len(harmRatios))
	}
	var bets mixture
	for i, ratio := range harmRatios {
		p := ratio * s / (ratio*s + 1 - s)
		r.logs[i] += float64(x)*math.Log(p/s) + float64(y)*math.Log((1-p)/(1-s))
		bets.add(1, r.logs[i])
	}
	return bets.e()
}

// ramp is a canary at 1, 10 and 25 % of the requests over 100 looks of 1700.
func ramp(look int) float64 {
	switch {
	case look < 10:
		return 0.01
	case look < 25:
		return 0.10
	}
	return 0.25
}

const perLook, base = 1700, 0.01

// rampLooks is when the pooled e-process stops a canary, and whether a z test at
// 5 % that is looked at as often ever does. Devices are as unlike as sd says.
func rampLooks(c chances, ratio float64) (stopped int, peeked bool) {
	var bets ratioBets
	var x, y, n, m float64
	for look := range 100 {
		s := ramp(look)
		bad, other := c.poisson(ratio*base*s*perLook), c.poisson(base*(1-s)*perLook)
		if e := bets.see(bad, other, s); e >= 20 && stopped == 0 {
			stopped = look + 1
		}
		x, y, n, m = x+float64(bad), y+float64(other), n+s*perLook, m+(1-s)*perLook
		p := (x + y) / (n + m)
		if z := (x/n - y/m) / math.Sqrt(p*(1-p)*(1/n+1/m)); math.Abs(z) > 1.96 {
			peeked = true
		}
	}
	return stopped, peeked
}

func TestStatisticsOfLooking(t *testing.T) {
	n := trials(400)
	c := newChances(1)
	peeks, aborts := 0, 0
	for range n {
		stopped, peeked := rampLooks(c, 1)
		if peeked {
			peeks++
		}
		if stopped > 0 {
			aborts++
		}
	}
	peekedShare, aborted := float64(peeks)/float64(n), float64(aborts)/float64(n)
	t.Logf("harmless canary on a ramp, 100 looks: z test at 5 %% stops %.3f (noted .451), e-process %.3f (.024)", peekedShare, aborted)
	atMost(t, "pooled e-process on like devices", aborted, 0.05, n)
	if peekedShare < 0.3 {
		t.Errorf("the peeked z test stops %.3f, want about .45: the simulation is too kind", peekedShare)
	}
	for _, q := range []struct {
		ratio, least float64
		noted        string
	}{{1.25, 0.6, ".80"}, {1.5, 0.98, "1.0 in 39 looks"}, {2, 0.99, "1.0 in 23 looks"}} {
		var looks []float64
		for range n / 4 {
			if stopped, _ := rampLooks(c, q.ratio); stopped > 0 {
				looks = append(looks, float64(stopped))
			}
		}
		found := float64(len(looks)) / float64(n/4)
		t.Logf("canary %.2f times as bad: stopped %.2f in %.0f looks (noted %s)", q.ratio, found, median(looks), q.noted)
		if found < q.least {
			t.Errorf("%.2f times as bad is found in %.2f, want %.2f", q.ratio, found, q.least)
		}
	}
	fixed := share(t, "z test at 5 % on 100 looks at one sample", n, "noted .376", func(int) bool {
		sum := 0.0
		for look := range 100 {
			if sum += c.NormFloat64(); math.Abs(sum) > 1.96*math.Sqrt(float64(look+1)) {
				return true
			}
		}
		return false
	})
	if fixed < 0.25 {
		t.Errorf("peeking costs %.3f, want about .376", fixed)
	}
}

// inferiorBets is the e-process against "a ratio of 1+d or more".
func inferiorBets(x, y uint64, s, d float64) float64 {
	p0 := (1 + d) * s / ((1+d)*s + 1 - s)
	var bets mixture
	for _, r := range []float64{0.9, 1, 1 + d/2} {
		p := r * s / (r*s + 1 - s)
		bets.add(1, float64(x)*math.Log(p/p0)+float64(y)*math.Log((1-p)/(1-p0)))
	}
	return bets.e()
}

func TestStatisticsOfPromotion(t *testing.T) {
	n := trials(100)
	const s, step = 0.1, 100 // requests of the canary between looks
	run := func(c chances, ratio, d float64, most int) int {
		var x, y uint64
		for done := step; done <= most; done += step {
			x += c.poisson(ratio * base * step)
			y += c.poisson(base * step * (1 - s) / s)
			if inferiorBets(x, y, s, d) >= 20 {
				return done
			}
		}
		return 0
	}
	for _, q := range []struct{ d, noted float64 }{{0.25, 11600}, {0.5, 3400}, {1, 1200}} {
		c := newChances(2)
		var equal []float64
		wrong := 0
		for range n {
			if done := run(c, 1, q.d, 100_000); done > 0 {
				equal = append(equal, float64(done))
			}
			if run(c, 1+q.d, q.d, int(5*q.noted)) > 0 {
				wrong++
			}
		}
		got := median(equal)
		t.Logf("promotion within %.0f %%: after %.0f canary requests (noted %.0f); at the boundary %.3f (.015-.045)", 100*q.d, got, q.noted, float64(wrong)/float64(n))
		if got < 0.7*q.noted || got > 1.4*q.noted {
			t.Errorf("within %.2f: promoted after %.0f canary requests, noted %.0f", q.d, got, q.noted)
		}
		atMost(t, "promotion at the boundary", float64(wrong)/float64(n), 0.05, n)
	}
}

// before and after are what one device counts in its past and on the release:
// 2000 rows each, at its own rate.
func beforeAndAfter(c chances, sd, ratio float64) (before, after *Evidence) {
	rate := min(0.3, base*math.Exp(sd*c.NormFloat64()))
	count := func(p float64) *Evidence {
		bad := min(2000, c.poisson(2000*p))
		return &Evidence{Rows: 2000 - bad, FailedRows: bad}
	}
	return count(rate), count(ratio * rate)
}

// Devices differ: their events are not those of one crowd. Signs of devices
// against their own past do not mind.
func TestStatisticsOfUnlikeDevices(t *testing.T) {
	n := trials(300)
	gate := GateSpec{Kind: Errors, Limit: new(0.0), Min: 20}
	for _, q := range []struct {
		sd    float64
		noted string
	}{{0, ".010"}, {0.5, ".032"}, {1, ".110"}} {
		c := newChances(3)
		pooled := share(t, "harmless, 100 canaries of 1000 devices unlike by sd "+number(q.sd)+": pooled stops", n, "noted "+q.noted, func(int) bool {
			var bets ratioBets
			rest := 0.0
			for range 900 {
				rest += base * c.lognormal(q.sd)
			}
			for range 100 {
				rate := base * c.lognormal(q.sd)
				if bets.see(c.poisson(60*rate), c.poisson(0.6*rest), 0.1) >= 20 {
					return true
				}
			}
			return false
		})
		if q.sd == 1 && pooled < 0.05 {
			t.Errorf("pooled: %.3f, want more than .05: the simulation is too kind", pooled)
		}
	}
	paired := func(c chances, ratio float64) int {
		worse := 0
		for i := range 100 {
			before, after := beforeAndAfter(c, 1, ratio)
			if d, ok := changed(gate, before, after); ok && d.sign(0, shift{}) == Worse {
				worse++
			}
			if signE(worse, i+1-worse) >= 20 {
				return i + 1
			}
		}
		return 0
	}
	c := newChances(4)
	stops := share(t, "the same, signs of devices against their own past stop", n, "noted .020-.042", func(int) bool { return paired(c, 1) > 0 })
	atMost(t, "signs", stops, 0.05, n)
	for _, q := range []struct{ ratio, noted float64 }{{1.25, 28}, {1.5, 13}, {2, 9}} {
		var sum, found float64
		for range n {
			if devices := paired(c, q.ratio); devices > 0 {
				sum, found = sum+float64(devices), found+1
			}
		}
		t.Logf("%.2f times as bad: found %.2f by signs of %.1f devices in the mean (noted %.0f)", q.ratio, found/float64(n), sum/found, q.noted)
		if found < 0.9*float64(n) || sum/found > 1.5*q.noted {
			t.Errorf("%.2f times as bad: found in %.2f, after %.1f devices, noted %.0f", q.ratio, found/float64(n), sum/found, q.noted)
		}
	}
}

// A sign is worse no more often than a coin when nothing has changed or the
// change is within the limit, and fine no more often when it is not. All
// outcomes are summed, none is drawn.
func TestStatisticsOfSigns(t *testing.T) {
	most := map[string]float64{}
	check := func(limit float64, n, m int, p float64) {
		gate := GateSpec{Kind: Errors, Limit: &limit, Min: 20}
		worse, _ := signChances(gate, n, m, p, p)
		atLimitWorse, atLimitFine := signChances(gate, n, m, p, p+limit)
		for what, got := range map[string]float64{"unchanged, worse": worse, "at the limit, worse": atLimitWorse, "at the limit, fine": atLimitFine} {
			most[what] = max(most[what], got)
			if got > 0.5 {
				t.Errorf("%s: %.3f with %d rows after %d at %v, limit %v, want at most 0.5", what, got, n, m, p, limit)
			}
		}
	}
	for _, limit := range []float64{0, 0.01, 0.05} {
		for _, n := range []int{20, 40, 73, 150, 400} {
			for _, m := range []int{20, 60, 200, 1000} {
				for _, p := range []float64{0.0005, 0.004, 0.02, 0.039, 0.1, 0.3} {
					check(limit, n, m, p)
				}
			}
		}
	}
	for _, what := range []string{"unchanged, worse", "at the limit, worse", "at the limit, fine"} {
		t.Logf("largest chance of a sign, %s: %.3f", what, most[what])
	}
}

// signChances are the chances of signs from n rows at rate q after m at rate p.
func signChances(g GateSpec, n, m int, p, q float64) (worse, fine float64) {
	after := binomials(n, q)
	for y, before := range binomials(m, p) {
		if before < 1e-9 {
			continue
		}
		for x, chance := range after {
			d, ok := shares(g, counted{uint64(y), uint64(m)}, counted{uint64(x), uint64(n)})
			if !ok {
				continue
			}
			switch d.sign(g.limit(), shift{}) {
			case Worse:
				worse += before * chance
			case Fine:
				fine += before * chance
			case Even:
			}
		}
	}
	return worse, fine
}
