package api

import (
	"reflect"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// TestNothingOfAPlanIsLost gives every field a value and looks for those that
// have none in the answer.
func TestNothingOfAPlanIsLost(t *testing.T) {
	why, names := map[string]string{"cam-a1": "because"}, []string{"cam-a1"}
	p := rollout.Plan{
		Spec: rollout.Spec{Model: "digits", Release: second}, Begins: now, FirstOffer: now, Devices: 1, Already: names, Refused: why, Unmet: why, Held: why,
		Conflicts: []rollout.Conflict{{Rollout: "digits-1-1", Devices: 1, Outcome: rollout.ConflictQueued}}, Control: names, Unheard: names,
		Waves: []rollout.PlanWave{{
			Number: 1, Name: "canary", Devices: names, Profiles: map[string]int{"pi": 1}, Sites: map[string]int{"a": 1}, Bytes: 1,
			Expected: time.Hour, Slow: time.Hour, Unfinished: 1, Stalls: names, Approval: true,
			Detectable: []rollout.Detectable{{Gate: rollout.Errors, Limit: 1, Least: 1, Text: "seen"}},
		}},
		Bytes: 1, FullBytes: 2, Expected: time.Hour, Slow: time.Hour, Unfinished: 1, Warnings: names,
	}
	noZeros(t, "plan that goes in", reflect.ValueOf(p))
	out := planOf(&p)
	noZeros(t, "plan", reflect.ValueOf(*out))
	noZeros(t, "wave", reflect.ValueOf(out.Waves[0]))
	noZeros(t, "detectable", reflect.ValueOf(out.Waves[0].Detectable[0]))
	noZeros(t, "conflict", reflect.ValueOf(out.Conflicts[0]))
}

func noZeros(t *testing.T, what string, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s: %s has no value", what, v.Type().Field(i).Name)
		}
	}
}
