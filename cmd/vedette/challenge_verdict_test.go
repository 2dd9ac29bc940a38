package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

func TestTestFlags(t *testing.T) {
	var n operator.ChallengeCreate
	f := testFlags{margin: "50%", lasts: "3d"}
	if err := f.apply(&n); err != nil || n.Margin != 0.5 || time.Duration(n.Duration) != 72*time.Hour {
		t.Errorf("got %+v, %v", n, err)
	}
	for _, f := range []testFlags{{margin: "0"}, {margin: "much"}, {margin: "2000%"}, {lasts: "soon"}} {
		if f.apply(&n) == nil {
			t.Errorf("%+v was taken", f)
		}
	}
}

func TestChallengeTestInWords(t *testing.T) {
	var b bytes.Buffer
	showChallengeTest(&b, &operator.ChallengeTest{
		Verdict: operator.ChallengeGoing, Why: "the evidence on wrong is 3.1", Margin: 0.25, Fine: 3.1, FineAt: 20, Harm: 0.2, HarmAt: 20, Rows: 1200, Devices: 4,
		Questions: []operator.ChallengeCompare{
			{Name: "errors", Of: 1200, ServingOf: 10_800, Fine: 30, Harm: 0.1, Dispersion: 1},
			{Name: "disagreement", Bad: 24, Of: 1200, Rate: 0.02, Fine: 3.1, Dispersion: 2},
		},
	})
	for _, want := range []string{"going", "3.1, 20 promotes", "0.2, 20 aborts", "1200 on 4 devices", "0% of 10800", "2% of 1200"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
