package observe

import (
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// shadowed is what release two, as a shadow, makes of a call that one answered.
func shadowed(rng *rand.Rand, c *infer.Call) *infer.Call {
	_, out := tensors(rng, c.Rows)
	return &infer.Call{
		Model: c.Model, Release: two, Role: infer.RoleShadow, ID: c.ID, Rows: c.Rows, Inputs: c.Inputs, Outputs: out, At: c.At,
		Latency: 2 * time.Millisecond, Beside: &infer.Beside{Primary: one, Outputs: c.Outputs, Latency: c.Latency},
	}
}

func withShadow(t *testing.T, dir string, sink Sink) *Observer {
	t.Helper()
	o := start(t, dir, sink, newBoot(1), Config{})
	if err := o.SetRelease("m", two, infer.RoleShadow, manifest(), baseline(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

// A shadow's windows say how it compares with the primary release, and the rows
// they count are nobody's predictions: the tally is that of the primary alone.
func TestShadowIsCompared(t *testing.T) {
	sink, rng := newOutbox(), rand.New(rand.NewPCG(4, 4))
	o := withShadow(t, t.TempDir(), sink)
	var rows, agreed, skipped uint64
	for i := range 50 {
		c := call(rng, strconv.Itoa(i), 4)
		o.Served(c)
		s := shadowed(rng, c)
		s.Beside.Skipped = i % 3
		skipped += uint64(i % 3)
		switch i {
		case 7:
			s.Err = infer.ErrHung // computed by the primary alone
		case 8:
			s.Err, s.Rows = infer.ErrSkipped, 0
		default:
			rows += 4
			for r, y := range classes(s) {
				if y == classes(c)[r] {
					agreed++
				}
			}
		}
		o.Served(s)
	}
	if err := o.Snapshot(); err != nil {
		t.Fatal(err)
	}
	if err := o.CloseWindows(); err != nil {
		t.Fatal(err)
	}
	tally := &protocol.Tally{}
	var w *protocol.Window
	for _, b := range sink.closed {
		tally = tally.Add(protocol.TallyOf(b))
		if b.GetWindow().GetRole() == infer.RoleShadow {
			w = b.GetWindow()
		}
	}
	if tally.GetRows() != 200 {
		t.Errorf("the tally is %d rows, want the primary's 200", tally.GetRows())
	}
	if w.GetRows() != rows || w.GetFailedRows() != 4 {
		t.Errorf("the shadow has %d rows and %d failed, want %d and 4", w.GetRows(), w.GetFailedRows(), rows)
	}
	c := w.GetComparison()
	if c.GetRows() != rows || c.GetAgreed() != agreed || c.GetSkippedRows() != skipped || string(c.GetPrimary()) != string(one[:]) {
		t.Errorf("compared %d rows, agreed %d, skipped %d, want %d, %d, %d", c.GetRows(), c.GetAgreed(), c.GetSkippedRows(), rows, agreed, skipped)
	}
	if math.Abs(c.GetWorst()-0.7) > 1e-6 {
		t.Errorf("worst difference %v, want 0.7", c.GetWorst())
	}
	if l, err := sketch.DecodeLatency(c.GetLatency()); err != nil || l.Count() != rows/4 || l.Quantile(0.5) > 1100*time.Microsecond {
		t.Errorf("latency of the primary: %v", err)
	}
}

// A shadow that goes on beside another primary release counts apart.
func TestShadowBesideAnotherPrimary(t *testing.T) {
	sink, rng := newOutbox(), rand.New(rand.NewPCG(5, 5))
	o := withShadow(t, t.TempDir(), sink)
	for _, primary := range []release.Digest{one, {3}} {
		s := shadowed(rng, call(rng, "x", 2))
		s.Beside.Primary = primary
		o.Served(s)
	}
	if err := o.CloseWindows(); err != nil {
		t.Fatal(err)
	}
	if len(sink.closed) != 2 {
		t.Fatalf("%d windows, want one for each primary release", len(sink.closed))
	}
	for _, b := range sink.closed {
		if c := b.GetWindow().GetComparison(); c.GetRows() != 2 {
			t.Errorf("comparison %v, want 2 rows", c)
		}
	}
}

// One truth scores both releases; the shadow's score is none of the tally's.
func TestLabelsScoreTheShadowToo(t *testing.T) {
	dir, rng := t.TempDir(), rand.New(rand.NewPCG(6, 6))
	sink := newOutbox()
	o := withShadow(t, dir, sink)
	names := manifest().Schema.Classes
	var right [2]uint64
	for i := range 60 {
		c := call(rng, strconv.Itoa(i), 1)
		s := shadowed(rng, c)
		o.Served(c)
		if i%2 == 0 {
			o.Served(s)
		}
		truth := rng.IntN(len(names))
		for range 2 { // the second time changes nothing for the shadow
			if _, err := o.Feedback(t.Context(), "m", strconv.Itoa(i), names[truth]); err != nil {
				t.Fatal(err)
			}
		}
		if int(classes(c)[0]) == truth {
			right[0]++
		}
		if i%2 == 0 && int(classes(s)[0]) == truth {
			right[1]++
		}
	}
	if err := o.CloseWindows(); err != nil {
		t.Fatal(err)
	}
	tally, got := &protocol.Tally{}, map[string]*protocol.Labels{}
	for _, b := range sink.closed {
		tally = tally.Add(protocol.TallyOf(b))
		if l := b.GetLabels(); l != nil {
			got[l.GetRole()] = l
		}
	}
	if l := got[""]; l.GetMatched() != 60 || l.GetCorrect() != right[0] || l.GetUnmatched() != 60 {
		t.Errorf("the primary has %v, want 60 labels, %d correct", l, right[0])
	}
	if l := got[infer.RoleShadow]; l.GetMatched() != 30 || l.GetCorrect() != right[1] || l.GetUnmatched() != 0 || string(l.GetRelease()) != string(two[:]) {
		t.Errorf("the shadow has %v, want 30 labels, %d correct", l, right[1])
	}
	if tally.GetLabels() != 120 || tally.GetRows() != 60 {
		t.Errorf("the tally is %v, want 60 rows and 120 labels", tally)
	}
}

// A label for a prediction that nobody knows is the primary release's, also
// when a challenger was announced after it.
func TestUnmatchedLabelIsThePrimarys(t *testing.T) {
	sink := newOutbox()
	o := withShadow(t, t.TempDir(), sink)
	if _, err := o.Feedback(t.Context(), "m", "never seen", "cat"); err != nil {
		t.Fatal(err)
	}
	if err := o.CloseWindows(); err != nil {
		t.Fatal(err)
	}
	if l := sink.labels(); string(l.GetRelease()) != string(one[:]) || l.GetUnmatched() != 1 {
		t.Errorf("counted as %v", l)
	}
}

// Numbers agree when they are as close as the range of the training data says.
func TestNumbersAgree(t *testing.T) {
	in := &info{schema: &release.Schema{}, limits: limitsOf(&sketch.Baseline{Streams: []sketch.Stream{
		{Side: sketch.Output, Source: sketch.Feature, Tensor: "y", Index: 1, Edges: []float32{0, 50, 100}},
		{Side: sketch.Input, Source: sketch.Feature, Tensor: "x", Edges: []float32{0, 1}},
	}})}
	batch := func(values ...float32) *sketch.Batch {
		return &sketch.Batch{Rows: 1, Outputs: []sketch.Tensor{{Name: "y", Width: len(values), Data: values}}}
	}
	nan := float32(math.NaN())
	for name, tt := range map[string]struct {
		own, other *sketch.Batch
		want       bool
		worst      float64
	}{
		"within 2% of the range":      {batch(0, 10, 0), batch(0, 12, 0), true, 2},
		"beyond":                      {batch(0, 10, 0), batch(0, 12.5, 0), false, 2.5},
		"only in what nobody watches": {batch(0, 10, 0), batch(9, 10, 7), true, 9},
		"a number and none":           {batch(0, nan, 0), batch(0, 10, 0), false, 0},
		"none and none":               {batch(0, nan, 0), batch(0, nan, 0), true, 0},
		"other widths":                {batch(0, 10), batch(0, 10, 0), false, 0},
	} {
		if got := agree(tt.own, in, tt.other, in, 0); got != tt.want {
			t.Errorf("%s: agree is %t", name, got)
		}
		if got := distance(tt.own, tt.other, 0); got != tt.worst {
			t.Errorf("%s: distance is %v, want %v", name, got, tt.worst)
		}
	}
}

// A label for a prediction of a share counts for the challenger, apart from what
// it gets as the primary release, also after a restart.
func TestLabelsOfAShareAreApart(t *testing.T) {
	dir, rng, sink := t.TempDir(), rand.New(rand.NewPCG(7, 7)), newOutbox()
	o := start(t, dir, sink, newBoot(1), Config{})
	for i, role := range []string{infer.RoleShare, infer.RolePrimary} {
		if err := o.SetRelease("m", two, role, manifest(), baseline(t)); err != nil {
			t.Fatal(err)
		}
		c := call(rng, strconv.Itoa(i), 1)
		c.Release, c.Role = two, role
		o.Served(c)
	}
	if err := errors.Join(o.CloseWindows(), o.Close()); err != nil {
		t.Fatal(err)
	}
	again := start(t, dir, sink, newBoot(2), Config{})
	for i := range 2 {
		if matched, err := again.Feedback(t.Context(), "m", strconv.Itoa(i), "cat"); err != nil || !matched {
			t.Fatalf("label %d: %t %v", i, matched, err)
		}
	}
	if err := errors.Join(again.CloseWindows(), again.Close()); err != nil {
		t.Fatal(err)
	}
	tally, got := &protocol.Tally{}, map[string]uint64{}
	for _, b := range sink.closed {
		tally = tally.Add(protocol.TallyOf(b))
		if l := b.GetLabels(); l != nil {
			got[l.GetRole()] += l.GetMatched()
		}
	}
	if got[infer.RoleShare] != 1 || got[""] != 1 || tally.GetLabels() != 2 || tally.GetRows() != 2 {
		t.Errorf("labels by role %v, tally %v", got, tally)
	}
}
