package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// A wave that has soaked names the gate that holds it up, one that soaks its end.
func TestWaveNeedsGates(t *testing.T) {
	r := &operator.Rollout{
		RolloutSummary: operator.RolloutSummary{Wave: 1},
		Spec:           operator.RolloutSpec{Gates: []operator.GateSpec{{Kind: "errors", Inconclusive: "hold"}, {Kind: "latency", Inconclusive: "pass"}, {Kind: "install", Inconclusive: "hold"}}},
		Gates: []operator.Gate{
			{Kind: "errors", Result: "inconclusive", Alpha: 0.05, EFine: 13},
			{Kind: "latency", Result: "inconclusive", Alpha: 0.05, EFine: 2},
			{Kind: "install", Result: "pass"},
		},
	}
	w := &operator.Wave{Number: 1, State: "soaking", SoakEnds: time.Now().Add(-time.Minute)}
	if got, want := waveNeeds(r, w), "gate errors has no answer yet: e-value 13 of 20"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	w.SoakEnds = time.Now().Add(time.Hour)
	if got := waveNeeds(r, w); !strings.HasPrefix(got, "soaks until") || strings.Contains(got, "gate") {
		t.Errorf("while it soaks: got %q", got)
	}
}

func TestStatusSaysWhomAPersonApproves(t *testing.T) {
	var out bytes.Buffer
	showNext(&out, &operator.NextWave{Number: 2, Total: 2, Devices: []string{"cam-2", "cam-1"}, Sites: map[string]int{"a": 2}, Profiles: map[string]int{"pi": 2}})
	for _, want := range []string{"WAVE 2 WAITS FOR APPROVAL, AS PLANNED NOW", "devices   2", "sites     a 2", "profiles  pi 2", "order     cam-2 cam-1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	many := make([]string, operator.MaxListed)
	out.Reset()
	showNext(&out, &operator.NextWave{Number: 2, Total: 1000, Devices: many})
	if !strings.Contains(out.String(), "and 990 more") {
		t.Errorf("of 1000 devices: got %s", out.String())
	}
}

// Whoever asks for help is told what becomes of devices, and shown an example.
func TestActionsAreExplained(t *testing.T) {
	for _, name := range operator.Actions() {
		if name == operator.ActRevise {
			continue // has its own command
		}
		if actHelp[name] == "" || actReasons[name] == "" {
			t.Errorf("%s has no help or no example", name)
		}
	}
}
