package challenger

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// alike gives ten devices the same counts.
func alike(c Counts) map[string]Counts {
	out := map[string]Counts{}
	for i := range 10 {
		out[fmt.Sprintf("cam-%d", i)] = c
	}
	return out
}

func TestDecide(t *testing.T) {
	clean := Counts{Challenger: Sums{Rows: 1000}, Serving: Sums{Rows: 9000}}
	for _, c := range []struct {
		name   string
		role   Role
		counts map[string]Counts
		age    time.Duration
		want   Verdict
		why    string
	}{
		{"no device has said anything", Share, nil, time.Hour, Going, "0 rows on 0 devices"},
		{"no data is no success", Share, nil, DefaultDuration, Undecided, "nothing counted"},
		{"neither ever fails", Share, alike(clean), time.Hour, Promote, "errors"},
		{"one device alone", Share, map[string]Counts{"cam-1": {Challenger: Sums{Rows: 100_000}, Serving: Sums{Rows: 900_000}}}, time.Hour, Going, "on 1 devices"},
		{"fails where the other does not", Share, alike(Counts{Challenger: Sums{Rows: 1000, Failed: 30}, Serving: Sums{Rows: 9000}}), time.Hour, Abort, "3% of 10000 beside 0%"},
		{"fails on three devices of three rows", Share, map[string]Counts{
			"a": {Challenger: Sums{Rows: 1, Failed: 1}, Serving: Sums{Rows: 9}},
			"b": {Challenger: Sums{Rows: 1, Failed: 1}, Serving: Sums{Rows: 9}},
			"c": {Challenger: Sums{Rows: 1, Failed: 1}, Serving: Sums{Rows: 9}},
		}, time.Hour, Abort, "errors"},
		{"right as often", Share, alike(Counts{
			Challenger: Sums{Rows: 5000, Labels: 5000, Wrong: 250}, Serving: Sums{Rows: 45000, Labels: 45000, Wrong: 2250},
		}), time.Hour, Promote, "wrong: 5% of 50000 beside 5%"},
		{"wrong twice as often", Share, alike(Counts{
			Challenger: Sums{Rows: 1000, Labels: 500, Wrong: 50}, Serving: Sums{Rows: 9000, Labels: 4500, Wrong: 225},
		}), time.Hour, Abort, "wrong: 10% of 5000 beside 5%"},
		{"only the other has truths", Share, alike(Counts{
			Challenger: Sums{Rows: 1000}, Serving: Sums{Rows: 9000, Labels: 4500, Wrong: 225},
		}), time.Hour, Going, "wrong"},
		{"a shadow that agrees", Shadow, alike(Counts{
			Challenger: Sums{Rows: 1000}, Serving: Sums{Rows: 1000}, Compared: 1000, Disagreed: 5,
		}), time.Hour, Promote, "errors: 0% of 10000"},
		{"a shadow that differs may be right", Shadow, alike(Counts{
			Challenger: Sums{Rows: 1000}, Serving: Sums{Rows: 1000}, Compared: 1000, Disagreed: 400,
		}), time.Hour, Going, "disagreement"},
		{"a shadow that was right where it differed", Shadow, alike(Counts{
			Challenger: Sums{Rows: 1000, Labels: 500, Wrong: 20}, Serving: Sums{Rows: 1000, Labels: 500, Wrong: 60}, Compared: 1000, Disagreed: 400,
		}), time.Hour, Promote, "errors: 0% of 10000"},
		{"counts that cannot be", Share, alike(Counts{Challenger: Sums{Rows: 5, Failed: 50}, Serving: Sums{Rows: 0, Failed: 9}}), time.Hour, Going, "50 rows"},
	} {
		f := Decide(c.role, Rules{}, c.counts, c.age)
		if f.Verdict != c.want || !strings.Contains(f.Why, c.why) {
			t.Errorf("%s: got %s because %q, want %s with %q\n%+v", c.name, f.Verdict, f.Why, c.want, c.why, f.Questions)
		}
		for _, q := range f.Questions {
			if math.IsNaN(q.Fine+q.Harm+q.Dispersion) || math.IsInf(q.Fine+q.Harm+q.Dispersion, 0) {
				t.Errorf("%s: %+v cannot be written", c.name, q)
			}
		}
	}
}

// What devices do apart from each other counts less than the same rows of
// devices that are alike.
func TestDispersionWeighsEvidence(t *testing.T) {
	even := alike(Counts{Challenger: Sums{Rows: 1000, Failed: 22}, Serving: Sums{Rows: 9000, Failed: 100}})
	apart := alike(Counts{Challenger: Sums{Rows: 1000, Failed: 2}, Serving: Sums{Rows: 9000, Failed: 100}})
	apart["cam-0"] = Counts{Challenger: Sums{Rows: 1000, Failed: 202}, Serving: Sums{Rows: 9000, Failed: 100}}
	if f := Decide(Share, Rules{}, even, 0); f.Verdict != Abort || f.Questions[0].Dispersion > 1.1 {
		t.Errorf("all devices alike: got %+v", f)
	}
	if f := Decide(Share, Rules{}, apart, 0); f.Verdict != Going || f.Questions[0].Dispersion < 50 {
		t.Errorf("one device alone: got %+v", f)
	}
}

// The order in which devices came makes no difference, nor does what a restored
// server has forgotten.
func TestSums(t *testing.T) {
	a := Counts{Challenger: Sums{10, 2, 5, 1}, Serving: Sums{90, 3, 40, 2}, Compared: 8, Disagreed: 1}
	if got := a.add(a).since(a); got != a {
		t.Errorf("got %+v, want %+v", got, a)
	}
	if got := a.since(a.add(a)); got != (Counts{}) {
		t.Errorf("after a loss: got %+v, want nothing", got)
	}
}
