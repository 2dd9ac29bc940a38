package rollout

import (
	"testing"
	"time"
)

// A release is condemned by a gate that stopped it for good, and by whoever took
// it back, whatever became of that; not by an end that says nothing about it.
func TestCondemns(t *testing.T) {
	failed := []GateResult{{Gate: Golden, Result: GatePass}, {Gate: Crash, Result: GateFail}}
	waived := []GateResult{{Gate: Crash, Result: GateWaived}}
	for name, c := range map[string]struct {
		recalled time.Time
		wave     *Wave
		want     bool
	}{
		"no wave yet":               {},
		"passed":                    {wave: &Wave{State: WavePassed}},
		"aborted by a person":       {wave: &Wave{State: WaveFailed}},
		"stopped by a gate":         {wave: &Wave{State: WaveFailed, Gates: failed}, want: true},
		"resumed over the gate":     {wave: &Wave{State: WaveOpen, Gates: failed}},
		"aborted later, was waived": {wave: &Wave{State: WaveFailed, Gates: waived}},
		"rolled back by a person":   {recalled: begin, wave: &Wave{State: WavePassed}, want: true},
	} {
		s := &State{Header: Header{Recalled: c.recalled}}
		if c.wave != nil {
			s.Header.Wave, s.Waves = 1, []Wave{*c.wave}
		}
		if got := s.Condemns(); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
}
