package controlplane

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/promotion"
	"github.com/vedette-edge/vedette/controlplane/validation"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Try implements promotion.Lab.
func (s promoting) Try(ctx context.Context, model string, d release.Digest, since time.Time) error {
	v, err := s.registry.Release(d)
	if err != nil {
		return fmt.Errorf("try %s in the lab: %w", model, err)
	}
	stands, err := s.validation.Judge(ctx, &v)
	if err != nil {
		return err
	}
	if t, _ := s.desired.LabTrial(model); !lacksLab(stands) || taken(t, d, since) {
		return nil
	}
	err = s.setLabTrial(ctx, model, v.Version, operator.LabTrialChange{Reason: "its promotion waits for what lab devices measure"})
	switch operator.CodeOf(err) { //nolint:exhaustive // all others are trouble
	case operator.NoDevices, operator.Conflict:
		return nil // no device can try it: the gate says so
	}
	return err
}

// Done implements promotion.Lab.
func (s promoting) Done(ctx context.Context, model string, d release.Digest) error {
	t, ok := s.desired.LabTrial(model)
	if !ok || t.Release != d || t.Actor != promotion.Actor {
		return nil
	}
	return s.setLabTrial(ctx, model, d.String(), operator.LabTrialChange{End: true, Reason: "its promotion waits for no gates any more"})
}

func (s promoting) setLabTrial(ctx context.Context, model, version string, c operator.LabTrialChange) error {
	ctx = operator.WithPrincipal(ctx, operator.Principal{Name: promotion.Actor, Role: operator.Operator})
	_, err := s.service.SetLabTrial(ctx, model, version, c)
	return err
}

// lacksLab says whether a gate waits for what only lab devices measure.
func lacksLab(v *operator.Validation) bool {
	return slices.ContainsFunc(v.Gates, func(g operator.GateVerdict) bool {
		return g.Status == operator.GateMissing && (g.Kind == validation.Latency || g.Kind == validation.Memory)
	})
}

// taken says that the lab is not free for a release: it tries it already, or a
// person has it try another, or has ended a trial since a time.
func taken(t desired.LabTrial, d release.Digest, since time.Time) bool {
	person := t.Actor != "" && t.Actor != promotion.Actor
	if t.Release.IsZero() {
		return person && t.Since.After(since)
	}
	return t.Release == d || person
}
