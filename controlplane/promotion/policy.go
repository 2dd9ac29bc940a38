// Package promotion brings published versions to the fleet by itself, as far as
// the policy of their model says: it waits for the gates, then for a person where
// one must approve, makes a rollout of the policy's template, follows it, and
// sets the stage when it is complete.
//
// Deciding is pure (Step): of a promotion, what is known and the time follow the
// next state and at most one action. Keeper stores each state before it acts, and
// every action may be repeated: a rollout carries the name of its promotion, so
// that after a crash the one that was made is found and no second one is.
package promotion

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/document"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// What a Keeper may answer.
var (
	// ErrPolicy says that a policy cannot be used.
	ErrPolicy = errors.New("the promotion policy cannot be used")
	// ErrNotFound says that there is no such promotion.
	ErrNotFound = errors.New("no such promotion")
	// ErrState says that a promotion is not waiting for what was asked.
	ErrState = errors.New("the promotion does not wait for that")
)

// Defaults of deadlines: long enough for a weekend, short enough that a forgotten
// promotion does not start a rollout weeks later.
const (
	DefaultGatesWithin    = 7 * 24 * time.Hour
	DefaultApprovalWithin = 3 * 24 * time.Hour
	// StartWithin bounds how long a rollout that cannot be made now is tried.
	StartWithin = time.Hour
)

// What a policy takes on.
const (
	OnAll     = "all"     // every version that is published from now on
	OnRetrain = "retrain" // those that answer a request for retraining
	OnTagged  = "tagged"  // those whose registered version carries Tags
)

// Words of Gates and Approval.
const (
	Required = "required"
	None     = "none"
)

// Policy says what happens after a version was published.
type Policy struct {
	On   string            `json:"on"`             // all, retrain or tagged
	Tags map[string]string `json:"tags,omitempty"` // of the registered version; with tagged

	Gates       string           `json:"gates,omitempty"`        // required (default) or none
	GatesWithin release.Duration `json:"gates_within,omitempty"` // DefaultGatesWithin when 0

	Approval       string           `json:"approval,omitempty"`        // none (default), or a role: operator, publisher, admin
	ApprovalWithin release.Duration `json:"approval_within,omitempty"` // DefaultApprovalWithin when 0

	// Rollout is the spec of the rollout without model and version. It queues
	// behind another rollout of the model unless it says otherwise.
	Rollout rollout.Spec `json:"rollout"`

	Stage operator.Stage `json:"stage,omitempty"` // to set when the rollout is complete; empty for none
}

// ParsePolicy reads a policy from YAML or JSON, fills in the defaults and refuses
// what makes no sense.
func ParsePolicy(text []byte) (*Policy, error) {
	p, err := document.Parse[Policy](text, "the policy")
	if err == nil {
		p.fill()
		err = p.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return &p, nil
}

func (p *Policy) fill() {
	if p.Gates == "" {
		p.Gates = Required
	}
	if p.Approval == "" {
		p.Approval = None
	}
	if p.GatesWithin == 0 {
		p.GatesWithin = release.Duration(DefaultGatesWithin)
	}
	if p.ApprovalWithin == 0 {
		p.ApprovalWithin = release.Duration(DefaultApprovalWithin)
	}
	if p.Rollout.OnConflict == "" {
		p.Rollout.OnConflict = rollout.Queue
	}
}

// approvers are the roles that a policy may name.
var approvers = []string{string(operator.Operator), string(operator.Publisher), string(operator.Admin)}

func (p *Policy) check() error {
	switch {
	case p.On != OnAll && p.On != OnRetrain && p.On != OnTagged:
		return fmt.Errorf("on is %q: it must be %s, %s or %s", p.On, OnAll, OnRetrain, OnTagged)
	case (p.On == OnTagged) != (len(p.Tags) > 0):
		return fmt.Errorf("on: %s and tags go together", OnTagged)
	case p.Gates != Required && p.Gates != None:
		return fmt.Errorf("gates is %q: it must be %s or %s", p.Gates, Required, None)
	case p.Approval != None && !slices.Contains(approvers, p.Approval):
		return fmt.Errorf("approval is %q: it must be %s or one of the roles %v", p.Approval, None, approvers)
	case p.Stage != "" && !p.Stage.Valid():
		return fmt.Errorf("stage is %q: it must be staging, production or archived", p.Stage)
	case p.GatesWithin < 0 || p.ApprovalWithin < 0:
		return errors.New("gates_within and approval_within must not be negative")
	case p.Rollout.Model != "" || p.Rollout.Version != "" || !p.Rollout.Release.IsZero():
		return errors.New("the rollout is a template: leave out model and version")
	case p.Rollout.Supersedes != "":
		return errors.New("the rollout is a template: leave out supersedes, which names one rollout")
	}
	return p.trial()
}

// trial validates the template with names filled in.
func (p *Policy) trial() error {
	spec := p.Spec("model", "1")
	spec.Release = release.DigestOf(nil)
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return fmt.Errorf("rollout: %w", err)
	}
	return nil
}

// Spec is the rollout of a version.
func (p *Policy) Spec(model, version string) rollout.Spec {
	s := p.Rollout
	s.Model, s.Version = model, version
	return s
}

// Approver is the role that must approve; empty for nobody.
func (p *Policy) Approver() operator.Role {
	if p.Approval == None {
		return ""
	}
	return operator.Role(p.Approval)
}

// Takes says whether the policy takes a version on by itself. tags are those of
// the registered version that it was packed from, nil for none.
func (p *Policy) Takes(tags map[string]string) bool {
	switch p.On {
	case OnRetrain:
		return tags[operator.TagRetrain] != ""
	case OnTagged:
		for key, value := range p.Tags {
			if got, ok := tags[key]; !ok || got != value {
				return false
			}
		}
	}
	return true
}

// brief keeps texts that people read within what a page shows.
func brief(text string) string { return protocol.Brief(text, 600) }
