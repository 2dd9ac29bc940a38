package runner

import (
	"context"
	"errors"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

var errGate = errors.New("gate accuracy is failed")

// gatekeeper is a Clearance that lets nothing past while it is closed.
type gatekeeper struct{ closed bool }

func (g *gatekeeper) Cleared(context.Context, rollout.Spec) error {
	if g.closed {
		return errGate
	}
	return nil
}

// Clearance is asked when a rollout is made, started and revised, and never
// stands in the way of stopping one.
func TestClearanceIsAsked(t *testing.T) {
	h := newField(t, 1, 4)
	gate := &gatekeeper{closed: true}
	h.runner.cfg.Clearance = gate
	spec := rollout.Spec{Model: "digits", Version: "v2"}
	if _, err := h.runner.Plan(t.Context(), spec); err != nil {
		t.Errorf("a plan changes nothing and needs no clearance: %v", err)
	}
	if _, err := h.runner.Create(t.Context(), "ann", "go", spec); !errors.Is(err, errGate) {
		t.Fatalf("create: %v", err)
	}
	gate.closed = false
	v, err := h.runner.Create(t.Context(), "ann", "go", spec)
	if err != nil {
		t.Fatal(err)
	}
	gate.closed = true // a gate was set meanwhile
	start := rollout.Command{Action: rollout.Start, Actor: "ann", Reason: "go"}
	if _, err := h.runner.Act(t.Context(), v.State.ID, start); !errors.Is(err, errGate) {
		t.Errorf("start: %v", err)
	}
	if _, err := h.runner.Act(t.Context(), v.State.ID, rollout.Command{Action: rollout.Revise, Actor: "ann", Reason: "x", Spec: &spec}); !errors.Is(err, errGate) {
		t.Errorf("revise: %v", err)
	}
	if _, err := h.runner.Act(t.Context(), "none", start); !errors.Is(err, ErrNotFound) {
		t.Errorf("start of none: %v", err)
	}
	if _, err := h.runner.Act(t.Context(), v.State.ID, rollout.Command{Action: rollout.Abort, Actor: "ann", Reason: "never mind"}); err != nil {
		t.Errorf("abort: %v", err)
	}
}
