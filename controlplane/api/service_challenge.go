package api

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/challenger"
	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/validation"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Challenges are the releases that run beside primary ones.
type Challenges interface {
	Challenge(model string) (desired.Challenge, bool)
	Challenges() []desired.Challenge
	SetChallenge(ctx context.Context, actor string, c desired.ChallengeChange) (desired.Challenge, error)
}

// Rivals tells what challengers showed, and the releases beside them.
type Rivals interface {
	Beside(model string, d release.Digest, since time.Time) []drift.Beside
	Evidence(model string, d release.Digest, since, until time.Time) map[string]drift.Evidence
}

// Challenges lists the versions that run beside the primary ones now.
func (s *Service) Challenges(context.Context) ([]operator.Challenge, error) {
	out := []operator.Challenge{}
	for _, c := range s.d.Challenges.Challenges() {
		if c.Ended == nil {
			out = append(out, s.challenge(&c).Challenge)
		}
	}
	return out, nil
}

// Challenge is the newest challenge of a model.
func (s *Service) Challenge(_ context.Context, model string) (*operator.ChallengeDetail, error) {
	if _, err := s.d.Registry.Model(model); err != nil {
		return nil, registryError(err)
	}
	c, ok := s.d.Challenges.Challenge(model)
	if !ok {
		return nil, operator.Errorf(operator.NotFound, "no version of %s was ever set beside another one", model).
			WithHint(`run one beside the primary version with "vedette model challenge %s VERSION --shadow"`, model)
	}
	return s.challenge(&c), nil
}

// SetChallenge puts a version beside the primary one.
func (s *Service) SetChallenge(ctx context.Context, model string, n operator.ChallengeCreate) (*operator.Challenge, error) {
	p, err := commander(ctx, operator.Operator, n.Reason)
	if err != nil {
		return nil, err
	}
	v, err := s.d.Registry.Version(model, n.Version)
	if err != nil {
		return nil, registryError(err)
	}
	if err := challengeable(&v); err != nil {
		return nil, err
	}
	if err := s.checkBeside(&v, n); err != nil {
		return nil, err
	}
	if err := s.mayAnswer(ctx, &v, n); err != nil {
		return nil, err
	}
	c, err := s.d.Challenges.SetChallenge(ctx, p.Name, desired.ChallengeChange{
		Model: model, Version: v.Version, Release: v.Digest, Role: n.Role, Share: n.Share, Device: n.Device, Match: n.Selector,
		Margin: n.Margin, Duration: n.Duration, Reason: n.Reason,
	})
	if errors.Is(err, desired.ErrChallenge) {
		return nil, operator.Errorf(operator.Invalid, "%w", err)
	}
	if err != nil {
		return nil, err
	}
	s.Changed(operator.EventModel, model)
	return &s.challenge(&c).Challenge, nil
}

// EndChallenge takes the challenger of a model away.
func (s *Service) EndChallenge(ctx context.Context, model string, r operator.Reasoned) (*operator.Challenge, error) {
	p, err := commander(ctx, operator.Operator, r.Reason)
	if err != nil {
		return nil, err
	}
	if c, ok := s.d.Challenges.Challenge(model); !ok || c.Ended != nil {
		return nil, operator.Errorf(operator.NotFound, "no version of %s is set beside another one", model).
			WithHint(`list what goes on with "vedette model challenge list"`)
	}
	c, err := s.d.Challenges.SetChallenge(ctx, p.Name, desired.ChallengeChange{Model: model, Reason: r.Reason})
	if err != nil {
		return nil, err
	}
	s.Changed(operator.EventModel, model)
	return &s.challenge(&c).Challenge, nil
}

// challengeable refuses a version that every device would refuse.
func challengeable(v *registry.Version) error {
	switch {
	case v.Withdrawn:
		return operator.Errorf(operator.Conflict, "%s %s is not among the signed targets any more: devices refuse it", v.Model, v.Version).
			WithHint("choose a version that is, or publish it again")
	case v.BelowFloor:
		return operator.Errorf(operator.Conflict, "%s %s is below the signed floor: devices refuse it", v.Model, v.Version).
			WithHint("choose a newer version")
	}
	return nil
}

// checkBeside refuses a challenge that no device could take up: none that
// matches has the model, all serve this version already, or it takes other
// inputs or gives other outputs than what it would run beside.
func (s *Service) checkBeside(v *registry.Version, n operator.ChallengeCreate) error {
	selector, err := rollout.ParseSelector(n.Selector)
	if err != nil {
		return operator.Errorf(operator.Invalid, "%w", err)
	}
	if n.Device != "" {
		if _, ok := s.d.Fleet.Device(n.Device); !ok {
			return unknownDevice(n.Device)
		}
	}
	beside := s.assigned(v.Model, n.Device, selector)
	if len(beside) == 0 {
		return operator.Errorf(operator.Conflict, "no device that matches is to run %s: a challenger needs a version to run beside", v.Model).
			WithHint(`roll a version out first ("vedette rollout create"), or choose other devices`)
	}
	beside = slices.DeleteFunc(beside, func(d release.Digest) bool { return d == v.Digest })
	if len(beside) == 0 {
		return operator.Errorf(operator.Conflict, "every device that matches is to run %s %s already: there is nothing to compare", v.Model, v.Version)
	}
	for _, d := range beside {
		if old, err := s.d.Registry.Release(d); err == nil {
			if err := alike(v, &old, n.Role); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayAnswer asks the gates before a challenger answers calls outside the lab, as
// a rollout would be asked. A shadow answers nobody.
func (s *Service) mayAnswer(ctx context.Context, v *registry.Version, n operator.ChallengeCreate) error {
	if n.Role != operator.Share || validation.InLab(n.Selector) {
		return nil
	}
	if d, ok := s.d.Fleet.Device(n.Device); ok && fleet.InLab(d.Labels) {
		return nil
	}
	return validationError(s.d.Validation.Cleared(ctx, v.Model, v.Digest))
}

// assigned lists the releases of a model that matching devices are to run.
func (s *Service) assigned(model, device string, selector rollout.Selector) (out []release.Digest) {
	for _, d := range s.d.Fleet.Devices(selector.Matches) {
		if device != "" && d.ID != device {
			continue
		}
		for _, a := range s.d.Desired.State(d.ID).Assignments {
			if a.Model == model && !a.Release.IsZero() && !slices.Contains(out, a.Release) {
				out = append(out, a.Release)
			}
		}
	}
	return out
}

// alike refuses two versions that cannot see the same rows, or, where
// callers get answers of both, do not answer alike.
func alike(v, old *registry.Version, role string) error {
	if v.Manifest == nil || old.Manifest == nil {
		return nil // what devices refuse they say
	}
	a, b := v.Manifest.Schema, old.Manifest.Schema
	if !slices.EqualFunc(a.Inputs, b.Inputs, sameTensor) {
		return operator.Errorf(operator.Conflict, "%s %s takes other inputs than %s, which devices run: it cannot see the same rows", v.Model, v.Version, old.Version)
	}
	if role == operator.Share && !slices.EqualFunc(a.Outputs, b.Outputs, sameTensor) {
		return operator.Errorf(operator.Conflict, "%s %s gives other outputs than %s: callers would get answers of two kinds", v.Model, v.Version, old.Version).
			WithHint("run it as a shadow, which answers nobody")
	}
	return nil
}

func sameTensor(a, b release.Tensor) bool {
	return a.Name == b.Name && a.Datatype == b.Datatype && slices.Equal(a.Shape, b.Shape)
}

// challenge is a challenge with what its devices showed.
func (s *Service) challenge(c *desired.Challenge) *operator.ChallengeDetail {
	out := &operator.ChallengeDetail{List: []operator.ChallengeDevice{}, Challenge: operator.Challenge{
		Model: c.Model, Version: c.Version, Release: c.Release, Role: c.Role, Share: c.Share, Selector: c.Match, Device: c.Device,
		Reason: c.Reason, Actor: c.Actor, Since: c.Since, Decision: c.Seq,
		Test: s.challengeTest(c), Needs: challenger.RulesOf(c).Devices,
	}}
	if e := c.Ended; e != nil {
		out.Ended = &operator.ChallengeEnd{At: e.At, Actor: e.Actor, Reason: e.Reason}
	}
	found, sum := s.versus(c), newVersus()
	selector, _ := rollout.ParseSelector(c.Match) // was checked before it was recorded
	for _, d := range s.d.Fleet.Devices(nil) {
		v, seen := found[d.ID]
		row, wanted := s.challengeDevice(&d, c)
		meant := c.Device == d.ID || c.Device == "" && selector.Matches(d.Labels)
		failed := meant && row.Outcome != nil && row.Outcome.Code != ""
		if !wanted && !seen && !failed {
			continue
		}
		if seen {
			row.Evidence = v.view(c.Role)
			sum.add(v)
		}
		if wanted {
			out.Devices++
		}
		if row.Running {
			out.Running++
		}
		out.List = append(out.List, row)
	}
	out.Evidence = sum.view(c.Role)
	return out
}

// challengeDevice is what one device is to do and says it does.
func (s *Service) challengeDevice(d *fleet.Device, c *desired.Challenge) (row operator.ChallengeDevice, wanted bool) {
	row = operator.ChallengeDevice{Device: d.ID, Site: d.Site()}
	state := s.d.Desired.State(d.ID)
	wanted = slices.ContainsFunc(state.Challengers, func(x desired.Challenger) bool { return x.Model == c.Model && x.Seq == c.Seq })
	if i := slices.IndexFunc(state.Assignments, func(a desired.Assignment) bool { return a.Model == c.Model }); i >= 0 {
		row.Primary = s.refOrNil(c.Model, state.Assignments[i].Release)
	}
	m, _ := d.Model(c.Model)
	if x := m.Challenger; x != nil {
		row.State, row.Waiting = x.State, x.Waiting
		row.Running = x.Serving && x.Active == c.Release
	}
	if o := saidOf(&m, c.Release, !wanted); o != nil && (!row.Running || o.Code == "") {
		row.Outcome = new(s.outcome(c.Model, o))
	}
	return row, wanted
}

// saidOf is how the release ended on a device as a challenger or, if asked for,
// how it failed there as the primary one; nil when neither is known. A device that
// refused the release may have had other outcomes since.
func saidOf(m *fleet.Model, d release.Digest, primary bool) *fleet.Outcome {
	var said []fleet.Outcome
	add := func(last *fleet.Outcome, refused []fleet.Outcome) {
		if last != nil {
			said = append(said, *last)
		}
		said = append(said, refused...)
	}
	if x := m.Challenger; x != nil {
		add(x.Outcome, x.Refused)
	}
	challenged := len(said)
	if primary {
		add(m.Outcome, m.Refused)
	}
	for i := range said {
		if said[i].Release == d && (i < challenged || said[i].Code != "") {
			return &said[i]
		}
	}
	return nil
}

// versus is a challenger beside the primary releases, of one device or many.
type versus struct {
	drift.Beside

	primaryLabels, primaryCorrect uint64
}

func newVersus() *versus {
	return &versus{Beside: drift.Beside{Latency: sketch.NewLatency(), PrimaryLatency: sketch.NewLatency()}}
}

// versus gathers what each device showed since the challenge began.
func (s *Service) versus(c *desired.Challenge) map[string]*versus {
	out := map[string]*versus{}
	of := func(device string) *versus {
		if out[device] == nil {
			out[device] = newVersus()
		}
		return out[device]
	}
	for _, b := range s.d.Rivals.Beside(c.Model, c.Release, c.Since) {
		if b.Role == c.Role {
			of(b.Device).add(&versus{Beside: b})
		}
	}
	for _, old := range s.primaries(c) {
		for device, e := range s.d.Rivals.Evidence(c.Model, old, c.Since, time.Time{}) {
			v := out[device]
			if v == nil {
				continue // it has not seen the challenger
			}
			v.primaryLabels += e.Labels
			v.primaryCorrect += e.Correct
			if c.Role == operator.Share && e.Latency != nil {
				_ = v.PrimaryLatency.Merge(e.Latency) // of one mapping
			}
		}
	}
	return out
}

// primaries are the versions of the model that a challenger may have been beside.
func (s *Service) primaries(c *desired.Challenge) []release.Digest {
	m, err := s.d.Registry.Model(c.Model)
	if err != nil {
		return nil
	}
	var out []release.Digest
	for _, v := range m.Versions {
		if v.Digest != c.Release {
			out = append(out, v.Digest)
		}
	}
	return out
}

func (v *versus) add(o *versus) {
	v.Add(o.BesideCounts)
	v.Labels += o.Labels
	v.Correct += o.Correct
	v.primaryLabels += o.primaryLabels
	v.primaryCorrect += o.primaryCorrect
	_, _ = v.Latency.Merge(o.Latency), v.PrimaryLatency.Merge(o.PrimaryLatency) // of one mapping
}

func (v *versus) view(role string) operator.Versus {
	out := operator.Versus{
		Rows: v.Rows, FailedRows: v.FailedRows, Calls: v.Calls, Skipped: v.Skipped, Worst: v.Worst,
		P50US: microseconds(v.Latency, 0.5), P95US: microseconds(v.Latency, 0.95),
		PrimaryP50US: microseconds(v.PrimaryLatency, 0.5), PrimaryP95US: microseconds(v.PrimaryLatency, 0.95),
		Labels: v.Labels, Accuracy: proportion(v.Correct, v.Labels),
		PrimaryLabels: v.primaryLabels, PrimaryAccuracy: proportion(v.primaryCorrect, v.primaryLabels),
	}
	if role == operator.Shadow {
		out.Compared, out.Agreed, out.Agreement = v.Compared, v.Agreed, proportion(v.Agreed, v.Compared)
	}
	return out
}

func microseconds(l *sketch.Latency, q float64) uint64 {
	return uint64(max(0, l.Quantile(q).Microseconds()))
}

// proportion is a share with its 95 percent score interval, nil for none.
func proportion(part, of uint64) *operator.Proportion {
	if of == 0 {
		return nil
	}
	const z = 1.959964 // of a two-sided 95 percent interval
	n, p := float64(of), float64(part)/float64(of)
	middle := p + z*z/(2*n)
	half := z * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	scale := 1 + z*z/n
	return &operator.Proportion{Share: p, Lower: max(0, (middle-half)/scale), Upper: min(1, (middle+half)/scale)}
}
