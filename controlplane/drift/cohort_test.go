package drift

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// trialsOf is how many runs stand behind one line of a table: more with
// VEDETTE_FULL=1.
func trialsOf(short, full int) int {
	if os.Getenv("VEDETTE_FULL") != "" {
		return full
	}
	return short
}

// drawCounts is one multinomial sample.
func drawCounts(rng *rand.Rand, shares []float64, n int) []uint64 {
	out := make([]uint64, len(shares))
	left, rest := n, 1.0
	for i, s := range shares {
		k := left
		if p := s / rest; p < 1-1e-9 && left > 0 {
			k = int(distuv.Binomial{N: float64(left), P: p, Src: rng}.Rand())
		}
		out[i] = uint64(k)
		left -= k
		rest -= s
	}
	return out
}

// shifted are the shares of a normal value in eight bins that are even without
// a shift.
func shifted(shift float64) []float64 {
	n, before := distuv.UnitNormal, 0.0
	shares := make([]float64, 8)
	for i := range shares {
		at := 1.0
		if i < 7 {
			at = n.CDF(n.Quantile(float64(i+1)/8) - shift)
		}
		shares[i], before = at-before, at
	}
	return shares
}

const (
	features  = 6   // of the simulated model; the first one is what shifts
	plainRows = 200 // of one window of a device with ordinary traffic
)

// site is a simulated cohort: windows are drawn as counts, not row by row.
type site struct {
	rng     *rand.Rand
	m       *Monitor
	layout  *layout
	devices []string
	traffic []int // rows in one window
	shift   []float64
	missing []float64 // share of rows without a value of the last feature
	classes []float64 // shares of the predicted class
	unknown float64   // of rows, with a class that training did not know
	round   int
	shares  map[float64][]float64
}

func newSite(tb testing.TB, seed uint64, devices int) *site {
	tb.Helper()
	s := &site{rng: rand.New(rand.NewPCG(seed, uint64(devices))), m: New(Config{}), shares: map[float64][]float64{}, classes: []float64{0.5, 0.3, 0.2}}
	b := &sketch.Baseline{Format: sketch.BaselineFormat, Rows: 5000}
	for i := range features {
		b.Streams = append(b.Streams, sketch.Stream{
			Name: "x" + strconv.Itoa(i), Side: sketch.Input, Kind: sketch.Continuous, Source: sketch.Feature, Tensor: "X", Index: i,
			Edges: []float32{1, 2, 3, 4, 5, 6, 7}, Counts: drawCounts(s.rng, shifted(0), 5000),
		})
	}
	b.Streams = append(b.Streams, sketch.Stream{
		Name: "class", Side: sketch.Output, Kind: sketch.Categorical, Source: sketch.Class, Labels: []string{"a", "b", "c"},
		Counts: drawCounts(s.rng, []float64{0.5, 0.3, 0.2}, 5000),
	})
	if err := s.m.SetRelease(Release{Digest: digest, Model: "m", Version: "1"}, b); err != nil {
		tb.Fatal(err)
	}
	s.layout = s.m.releases[digest].layout
	for i := range devices {
		name := fmt.Sprintf("dev-%02d", i)
		s.m.SetLabels(name, map[string]string{"site": "a"})
		s.devices, s.traffic, s.shift, s.missing = append(s.devices, name), append(s.traffic, plainRows), append(s.shift, 0), append(s.missing, 0)
	}
	return s
}

func (s *site) sharesOf(shift float64) []float64 {
	if s.shares[shift] == nil {
		s.shares[shift] = shifted(shift)
	}
	return s.shares[shift]
}

// report folds one window of a device, as if it had come by the stream.
func (s *site) report(i int, at time.Time) {
	w := &protocol.Window{Model: "m", Release: digest[:], Rows: uint64(s.traffic[i])}
	for f := range features {
		shift := 0.0
		if f == 0 {
			shift = s.shift[i]
		}
		lost := 0.0
		if f == features-1 {
			lost = s.missing[i]
		}
		w.Streams = append(w.Streams, s.histogram(s.sharesOf(shift), lost, 0, s.traffic[i]))
	}
	w.Streams = append(w.Streams, s.histogram(s.classes, 0, s.unknown, s.traffic[i]))
	d := s.m.device(s.devices[i])
	t := s.m.track(d, digest[:], "m")
	end := at.UnixMilli()
	t.state.Segments = insert(t.state.Segments, newSegment(w, s.layout, end-window.Milliseconds(), end), maxSegments)
	forget(t.state.Segments, s.m.releases[digest].need)
	t.state.Seq = uint64(s.round)
	d.state.serves("m", digest, end)
}

// histogram draws rows of which some have no value, or an unknown one.
func (s *site) histogram(shares []float64, missing, unknown float64, rows int) *protocol.Histogram {
	n := drawCounts(s.rng, []float64{missing, unknown, 1 - missing - unknown}, rows)
	return &protocol.Histogram{Bins: drawCounts(s.rng, shares, int(n[2])), Missing: n[0], Other: n[1]}
}

const window = 5 * time.Minute

// pass lets every device report rounds windows and returns the alarms raised.
// late gives the rounds that a device's windows are behind; nil for none.
func (s *site) pass(rounds int, late func(device int) int) map[AlarmKind]int {
	raised := map[AlarmKind]int{}
	for range rounds {
		s.round++
		for i := range s.devices {
			switch behind := lateness(late, i); {
			case behind == 0:
				s.report(i, start.Add(time.Duration(s.round)*window))
			case s.round%behind == 0: // all that has waited, oldest first
				for k := behind - 1; k >= 0; k-- {
					s.report(i, start.Add(time.Duration(s.round-k)*window))
				}
			}
		}
		for _, a := range s.m.Evaluate(start.Add(time.Duration(s.round) * window)) {
			if a.Raised() {
				raised[a.Kind]++
			}
		}
	}
	return raised
}

func lateness(late func(int) int, i int) int {
	if late == nil {
		return 0
	}
	return late(i)
}

// scene is one thing that happens at a site.
type scene struct {
	name    string
	fault   float64 // shift of one device
	world   float64 // shift of all of them
	traffic func(device int) int
	late    func(device int) int
	rounds  int  // of windows, 14 if 0
	large   bool // also looked at in a large cohort where time is short
}

// check holds what must never happen against what did. Whether a shift close to
// the threshold is found is a matter of power.
func (c *scene) check(t *testing.T, devices int, o outcome) {
	t.Helper()
	const rare = 0.01
	switch {
	case o.before > rare:
		t.Errorf("%s, %d devices: alarms before anything happens in %.3f of the runs", c.name, devices, o.before)
	case c.world == 0 && o.drift > 0:
		t.Errorf("%s, %d devices: taken for population drift in %.3f of the runs", c.name, devices, o.drift)
	case c.fault == 0 && o.sensor > rare:
		t.Errorf("%s, %d devices: taken for a sensor fault in %.3f of the runs", c.name, devices, o.sensor)
	case c.fault >= 1 && o.sensor < 1-rare, c.world >= 1 && o.drift < 1-rare:
		t.Errorf("%s, %d devices: not found: %+v", c.name, devices, o)
	case c.world == 0 && c.fault == 0 && o != outcome{}:
		t.Errorf("%s, %d devices: %+v", c.name, devices, o)
	}
}

// uneven gives every other device a tenth of the traffic.
func uneven(i int) int { return plainRows / (1 + 9*(i%2)) }

// behind lets every third device report only every fourth round.
func behind(i int) int { return 4 * ((i + 1) % 3 / 2) }

// outcome is what share of the runs raised an alarm, by kind.
type outcome struct{ drift, sensor, apart, before float64 }

// run plays a scene: quiet windows first, then those of what happens.
func (c *scene) run(t *testing.T, devices, trials int) (o outcome) {
	t.Helper()
	for trial := range trials {
		s := newSite(t, uint64(trial+1), devices)
		if c.traffic != nil {
			for i := range s.traffic {
				s.traffic[i] = c.traffic(i)
			}
		}
		quiet := s.pass(8, c.late)
		for i := range s.shift {
			s.shift[i] = c.world
		}
		s.shift[0] += c.fault
		raised := s.pass(cmp.Or(c.rounds, 14), c.late)
		n := 1 / float64(trials)
		for kind, to := range map[AlarmKind]*float64{DriftAlarm: &o.drift, SensorAlarm: &o.sensor, ApartAlarm: &o.apart} {
			if raised[kind] > 0 {
				*to += n
			}
			if quiet[kind] > 0 {
				o.before += n
			}
		}
	}
	return o
}

// One device apart from its cohort is a sensor fault and never population drift;
// a cohort apart from training is population drift and never a sensor fault of
// its devices. This holds where their traffic differs by ten, and where some
// report late.
func TestFaultOrDrift(t *testing.T) {
	scenes := []scene{
		{name: "nothing happens"},
		{name: "one device by 0.5 sd", fault: 0.5},
		{name: "one device by 1 sd", fault: 1},
		{name: "one device by 3 sd", fault: 3, large: true},
		{name: "one device by 1 sd, uneven traffic", fault: 1, traffic: uneven, rounds: 36},
		{name: "all devices by 0.4 sd", world: 0.4},
		{name: "all devices by 0.5 sd", world: 0.5},
		{name: "all devices by 1 sd", world: 1},
		{name: "all devices by 1 sd, uneven traffic", world: 1, traffic: uneven, rounds: 36},
		{name: "all devices by 1 sd, some report late", world: 1, late: behind, large: true},
	}
	full := trialsOf(0, 1) == 1
	var out strings.Builder
	fmt.Fprintf(&out, "%-38s %7s %6s | drift   sensor fault   apart | before\n", "", "devices", "runs")
	for i := range scenes {
		for _, devices := range []int{2, 3, 8, 50} {
			c := &scenes[i]
			if devices == 50 && !c.large && !full {
				continue
			}
			trials := max(1, trialsOf(12, 4000)/devices)
			o := c.run(t, devices, trials)
			c.check(t, devices, o)
			fmt.Fprintf(&out, "%-38s %7d %6d | %.4f  %.4f         %.4f | %.4f\n", c.name, devices, trials, o.drift, o.sensor, o.apart, o.before)
		}
	}
	t.Logf("share of runs with an alarm, %d rows a window\n%s", plainRows, &out)
}
