package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Of two latencies it is said whose they are, and of a device that does not run
// the challenger why.
func TestShowChallenge(t *testing.T) {
	d := &operator.ChallengeDetail{
		Challenge: operator.Challenge{
			Model: "digits", Version: "2", Role: operator.Shadow, Devices: 1, Running: 1,
			Evidence: operator.Versus{Rows: 9, P50US: 12, PrimaryP50US: 26},
		},
		List: []operator.ChallengeDevice{
			{Device: "cam-a1", Running: true, State: "idle"},
			{Device: "cam-b1", State: "idle", Outcome: &operator.Outcome{Result: "reverted", Code: "crash_loop", Message: "the agent crashed 3 times"}},
			{Device: "cam-b2", State: "downloading", Outcome: &operator.Outcome{Result: "failed", Code: "digest_mismatch", Message: "the one before"}},
			{Device: "cam-b3"},
		},
	}
	var out bytes.Buffer
	showChallenge(&out, &d.Challenge)
	showChallengeDevices(&out, d)
	for _, want := range []string{
		"1 of 1 run it", "12µs, serving version 26µs", "cam-b1: reverted (crash_loop): the agent crashed 3 times\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	for i, want := range []string{"runs", "reverted", "downloading", "not heard of"} {
		if got := challengerState(&d.List[i]); got != want {
			t.Errorf("%s: state %q, want %q", d.List[i].Device, got, want)
		}
	}
}
