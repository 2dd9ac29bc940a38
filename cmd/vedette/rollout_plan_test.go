package main

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// TestPlanInWords holds the text of a plan against testdata/plan.txt.
func TestPlanInWords(t *testing.T) {
	ids := func(from, n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("cam-%03d", from+i))
		}
		return list
	}
	p := &operator.Plan{
		Spec: operator.RolloutSpec{Model: "digits", Version: "2"}, Release: release.DigestOf([]byte("digits 2")),
		Begins: time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local), Devices: 61, Already: ids(90, 2), Control: ids(50, 12), Unheard: ids(7, 1),
		Refused: map[string]string{"cam-081": "agent is 0.9, the release needs 1.0", "cam-080": "agent is 0.9, the release needs 1.0"},
		Unmet:   map[string]string{"cam-005": "mains power: it runs on a battery"},
		Held:    map[string]string{"cam-070": "digits-1-1"}, Conflicts: []operator.PlanConflict{{Rollout: "digits-1-1", Devices: 1, Outcome: "refused"}},
		Bytes: 61 << 20, FullBytes: 610 << 20, Expected: release.Duration(9*time.Hour + 20*time.Minute), Replays: 14, Unfinished: 2,
		Waves: []operator.PlanWave{
			{Number: 1, Name: "canary", Devices: ids(1, 1), Profiles: map[string]int{"pi": 1}, Sites: map[string]int{"a": 1}, Bytes: 1 << 20, Expected: release.Duration(20 * time.Minute), Slow: release.Duration(80 * time.Minute)},
			{
				Number: 2, Name: "rest", Devices: ids(2, 60), Profiles: map[string]int{"pi": 40, "jetson": 20}, Sites: map[string]int{"a": 30, "b": 30}, Bytes: 60 << 20,
				Expected: release.Duration(9 * time.Hour), Unfinished: 2, Approval: true,
				Stalls:     []string{"wave 2 waits 8 h for its quorum: 40 of 60 devices are only heard of from 20:00 to 06:00 UTC"},
				Detectable: []operator.Detectable{{Kind: "accuracy", Limit: 0.02, Least: 0.031, Text: "3.10 points or more would be seen, the limit is 2.00 points"}},
			},
		},
		Warnings: []string{"rollout digits-1-1 has 1 of the devices: this one cannot start"},
	}
	var out bytes.Buffer
	showPlan(&out, p)
	want, err := os.ReadFile("testdata/plan.txt")
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestTimesOfPlans(t *testing.T) {
	for _, c := range []struct {
		d          time.Duration
		unfinished int
		want       string
	}{
		{0, 0, "0s"},
		{0, 3, "not in time"},
		{40 * time.Second, 0, "40s"},
		{30 * time.Minute, 3, "30m"},
		{26*time.Hour + 5*time.Minute + 10*time.Second, 0, "26h5m"},
	} {
		if got := tookText(release.Duration(c.d), c.unfinished); got != c.want {
			t.Errorf("%v of which %d did not end: got %q, want %q", c.d, c.unfinished, got, c.want)
		}
	}
}
