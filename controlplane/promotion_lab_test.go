package controlplane

import (
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/promotion"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// A promotion takes the lab only from another promotion, never from a person.
func TestLabIsTaken(t *testing.T) {
	mine, other := release.DigestOf([]byte("mine")), release.DigestOf([]byte("other"))
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name  string
		actor string
		tries release.Digest
		at    time.Time
		want  bool
	}{
		{"nothing was ever tried", "", release.Digest{}, time.Time{}, false},
		{"it is tried already", promotion.Actor, mine, began, true},
		{"a person has it tried", "ann", mine, began, true},
		{"a person has another tried", "ann", other, began, true},
		{"an older promotion's is tried", promotion.Actor, other, began, false},
		{"a person ended it", "ann", release.Digest{}, began.Add(time.Minute), true},
		{"a person ended one before", "ann", release.Digest{}, began.Add(-time.Minute), false},
		{"a promotion ended its own", promotion.Actor, release.Digest{}, began.Add(time.Minute), false},
	} {
		trial := desired.LabTrial{LabChange: desired.LabChange{Release: tt.tries}, Actor: tt.actor, Since: tt.at}
		if got := taken(trial, mine, began); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestLacksLab(t *testing.T) {
	for _, tt := range []struct {
		kind   string
		status operator.GateStatus
		want   bool
	}{
		{"latency", operator.GateMissing, true},
		{"memory", operator.GateMissing, true},
		{"latency", operator.GateFailed, false},
		{"latency", operator.GateOverridden, false},
		{"champion", operator.GateMissing, false},
	} {
		v := &operator.Validation{Gates: []operator.GateVerdict{{Kind: "smoke", Status: operator.GateMissing}, {Kind: tt.kind, Status: tt.status}}}
		if got := lacksLab(v); got != tt.want {
			t.Errorf("gate %s %s: got %v, want %v", tt.kind, tt.status, got, tt.want)
		}
	}
}
