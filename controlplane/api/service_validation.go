package api

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/validation"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Validation judges versions before they may be rolled out.
type Validation interface {
	Policy(model string) operator.GatePolicy
	Judge(ctx context.Context, v *registry.Version) (*operator.Validation, error)
	Cleared(ctx context.Context, model string, d release.Digest) error
	Gatekeeper
}

// Gatekeeper is what changes how a version is judged.
type Gatekeeper interface {
	SetPolicy(ctx context.Context, actor, model string, c operator.GatePolicyChange) (operator.GatePolicy, error)
	AddEvidence(ctx context.Context, actor string, v *registry.Version, c operator.EvidenceAdded) error
	Override(ctx context.Context, actor string, v *registry.Version, gate, reason string) error
	Settle(ctx context.Context, model string)
}

// Lab has lab devices try releases.
type Lab interface {
	LabTrial(model string) (desired.LabTrial, bool)
	SetLabTrial(ctx context.Context, actor string, c desired.LabChange) (desired.LabTrial, error)
}

// validationError gives an answer of package validation its code.
func validationError(err error) error {
	refused, isRefused := errors.AsType[*validation.Refused](err)
	switch {
	case err == nil:
		return nil
	case isRefused:
		return operator.Errorf(operator.NotCleared, "%w", err).WithHint("%s", refused.Next)
	case errors.Is(err, validation.ErrPolicy):
		return operator.Errorf(operator.Invalid, "%w", err).WithHint("`vedette model gates spec` prints gates with every field explained")
	case errors.Is(err, validation.ErrGate):
		return operator.Errorf(operator.Conflict, "%w", err).WithHint("`vedette model validate MODEL VERSION` lists the gates and how the version stands with them")
	case errors.Is(err, validation.ErrEvidence):
		return operator.Errorf(operator.Invalid, "%w", err).WithHint("evaluate the folder that was packed and published, with `vedette-agent evaluate`")
	}
	return registryError(err)
}

// GatePolicy are the gates of a model.
func (s *Service) GatePolicy(_ context.Context, model string) (*operator.GatePolicy, error) {
	if _, err := s.d.Registry.Model(model); err != nil {
		return nil, registryError(err)
	}
	p := s.d.Validation.Policy(model)
	return &p, nil
}

// SetGatePolicy sets the gates of a model.
func (s *Service) SetGatePolicy(ctx context.Context, model string, c operator.GatePolicyChange) (*operator.GatePolicy, error) {
	p, err := commander(ctx, operator.Publisher, c.Reason)
	if err != nil {
		return nil, err
	}
	if _, err := s.d.Registry.Model(model); err != nil {
		return nil, registryError(err)
	}
	out, err := s.d.Validation.SetPolicy(ctx, p.Name, model, c)
	if err != nil {
		return nil, validationError(err)
	}
	s.Changed(operator.EventModel, model)
	return &out, nil
}

// Validation is how a version stands with the gates of its model.
func (s *Service) Validation(ctx context.Context, model, version string) (*operator.Validation, error) {
	v, err := s.d.Registry.Version(model, version)
	if err != nil {
		return nil, registryError(err)
	}
	return s.judged(ctx, &v)
}

func (s *Service) judged(ctx context.Context, v *registry.Version) (*operator.Validation, error) {
	out, err := s.d.Validation.Judge(ctx, v)
	if err != nil {
		return nil, validationError(err)
	}
	if t, ok := s.d.Lab.LabTrial(v.Model); ok {
		out.Lab = &operator.LabTrial{
			Version: t.Version, Release: t.Release, Devices: s.triers(v.Model, t.Release), Actor: t.Actor, Reason: t.Reason, At: t.Since,
		}
	}
	return out, nil
}

// triers are the lab devices that are to try a release: those that serve another
// version of the model.
func (s *Service) triers(model string, d release.Digest) []string {
	out := []string{}
	for _, dev := range s.d.Fleet.Devices(fleet.InLab) {
		if slices.ContainsFunc(s.d.Desired.State(dev.ID).Challengers, func(c desired.Challenger) bool { return c.Model == model && c.Release == d }) {
			out = append(out, dev.ID)
		}
	}
	return out
}

// AddEvidence brings evidence for the gates of a version.
func (s *Service) AddEvidence(ctx context.Context, model, version string, c operator.EvidenceAdded) (*operator.Validation, error) {
	p, err := caller(ctx, operator.Publisher)
	if err != nil {
		return nil, err
	}
	v, err := s.d.Registry.Version(model, version)
	if err != nil {
		return nil, registryError(err)
	}
	if err := s.d.Validation.AddEvidence(ctx, p.Name, &v, c); err != nil {
		return nil, validationError(err)
	}
	s.Changed(operator.EventModel, model)
	return s.judged(ctx, &v)
}

// OverrideGate lets a version past one gate.
func (s *Service) OverrideGate(ctx context.Context, model, version, gate string, r operator.Reasoned) (*operator.Validation, error) {
	p, err := commander(ctx, operator.Publisher, r.Reason)
	if err != nil {
		return nil, err
	}
	v, err := s.d.Registry.Version(model, version)
	if err != nil {
		return nil, registryError(err)
	}
	if err := s.d.Validation.Override(ctx, p.Name, &v, gate, r.Reason); err != nil {
		return nil, validationError(err)
	}
	s.Changed(operator.EventModel, model)
	return s.judged(ctx, &v)
}

// SetLabTrial has lab devices try a version beside what they serve, or stop.
func (s *Service) SetLabTrial(ctx context.Context, model, version string, c operator.LabTrialChange) (*operator.Validation, error) {
	p, err := commander(ctx, operator.Operator, c.Reason)
	if err != nil {
		return nil, err
	}
	v, err := s.d.Registry.Version(model, version)
	if err != nil {
		return nil, registryError(err)
	}
	change := desired.LabChange{Model: v.Model, Reason: c.Reason}
	if !c.End {
		change.Version, change.Release = v.Version, v.Digest
		if err := challengeable(&v); err != nil {
			return nil, err
		}
		if err := s.mayTry(&v); err != nil {
			return nil, err
		}
	}
	if _, err := s.d.Lab.SetLabTrial(ctx, p.Name, change); err != nil {
		return nil, err
	}
	s.Changed(operator.EventModel, model)
	return s.judged(ctx, &v)
}

// mayTry refuses a trial that no lab device could take up.
func (s *Service) mayTry(v *registry.Version) error {
	lab := s.d.Fleet.Devices(fleet.InLab)
	if len(lab) == 0 {
		return operator.Errorf(operator.NoDevices, "no device has the label %s=%s", fleet.RingLabel, fleet.LabRing).
			WithHint("label a device of each firmware profile: vedette device label DEVICE %s=%s --reason …", fleet.RingLabel, fleet.LabRing)
	}
	var idle []string
	for _, d := range lab {
		serves := slices.ContainsFunc(s.d.Desired.State(d.ID).Assignments, func(a desired.Assignment) bool { return a.Model == v.Model && !a.Release.IsZero() })
		if !serves {
			idle = append(idle, d.ID)
		}
	}
	if len(idle) == len(lab) {
		return operator.Errorf(operator.Conflict, "no lab device serves a version of %s to try %s beside (%s)", v.Model, v.Version, strings.Join(idle[:min(len(idle), 5)], ", ")).
			WithHint("roll it out to the lab, which needs no gates: vedette rollout create %s %s -l %s=%s --start", v.Model, v.Version, fleet.RingLabel, fleet.LabRing)
	}
	return nil
}

// gateWarning says that a planned rollout would be refused, empty when not.
func (s *Service) gateWarning(ctx context.Context, spec *rollout.Spec) string {
	if validation.InLab(spec.Selector) {
		return ""
	}
	refused, ok := errors.AsType[*validation.Refused](s.d.Validation.Cleared(ctx, spec.Model, spec.Release))
	if !ok {
		return ""
	}
	return "the rollout would be refused: " + refused.Error()
}

// mayProduce asks the gates before a version is put into production.
func (s *Service) mayProduce(ctx context.Context, model, version string, to operator.Stage) error {
	if to != operator.StageProduction {
		return nil
	}
	v, err := s.d.Registry.Version(model, version)
	if err != nil {
		return registryError(err)
	}
	return validationError(s.d.Validation.Cleared(ctx, v.Model, v.Digest))
}
