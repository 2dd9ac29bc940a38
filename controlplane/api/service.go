package api

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Deps are the parts of the control plane that a Service joins. All are
// required but those that say otherwise.
type Deps struct {
	Fleet    Fleet
	Desired  Desired
	Rollouts Rollouts
	Registry Registry
	Blobs    Blobs
	Monitor  Monitor
	History  History
	// Challenges and Rivals are the releases beside the primary ones.
	Challenges Challenges
	Rivals     Rivals
	// Verdicts are on challenges; nil: none are found.
	Verdicts   Verdicts
	Retrain    Retrainer
	Incidents  Incidents
	Validation Validation
	Promotions Promotions
	Lab        Lab
	Ledger     Ledger
	Access     Access
	// Truths and Samples are what people find out later, and rows to find it out by.
	Truths  Truths
	Samples Samples
	// Tracking and Artifacts are what data scientists logged.
	Tracking  Tracking
	Artifacts Artifacts
	Info      Info
	Log       *slog.Logger     // nil discards
	Now       func() time.Time // nil is time.Now
}

// Ledger is the record of every decision and command.
type Ledger interface {
	Append(ctx context.Context, chain string, expect uint64, kind, actor string, body any) (ledger.Record, error)
	Read(ctx context.Context, chain string) ([]ledger.Record, error)
	Last(ctx context.Context) (uint64, error)
	Replay(ctx context.Context, from uint64, fn func(ledger.Record) error) (next uint64, err error)
	Export(ctx context.Context, w io.Writer) error
}

// Access makes, lists and revokes tokens.
type Access interface {
	operator.EnrolCommander
	operator.TokenReader
	operator.TokenCommander
	Revoker
}

// Service is the control plane as operators see it: it joins what the packages
// know and passes commands on to them. It is safe for concurrent use.
//
// Reads are for whoever was authenticated; the doors (the HTTP API and the
// pages) see to that. Commands check the role of the caller themselves, so
// that no door can forget to.
type Service struct {
	d      Deps
	events *hub
	taps   *taps
	looks  *looks
}

var _ Backend = (*Service)(nil)

// NewService joins the parts. It starts nothing.
func NewService(d Deps) *Service {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Service{d: d, events: newHub(d.Now), taps: newTaps(), looks: newLooks(d.Rollouts, d.Now)}
}

// Changed tells followers that a subject changed: kind is one of the
// operator.Event… constants, subject a device id, rollout id, model name or
// alarm id. It never blocks, so folds may call it.
func (s *Service) Changed(kind, subject string) { s.events.tell(kind, subject) }

// Follow tells changes until ctx ends or fn fails.
func (s *Service) Follow(ctx context.Context, kinds []string, after uint64, fn func(operator.Event) error) error {
	return s.events.follow(ctx, kinds, after, fn)
}

// caller returns who calls, if that is at least a need.
func caller(ctx context.Context, need operator.Role) (operator.Principal, error) {
	p, ok := operator.PrincipalOf(ctx)
	if !ok {
		return p, operator.Errorf(operator.Unauthorized, "nobody is logged in")
	}
	return p, allow(p, need)
}

// commander is caller for a change of the fleet, which needs a reason: the
// ledger is read long after who gave the command has forgotten.
func commander(ctx context.Context, need operator.Role, reason string) (operator.Principal, error) {
	p, err := caller(ctx, need)
	if err != nil {
		return p, err
	}
	if strings.TrimSpace(reason) == "" {
		return p, operator.Errorf(operator.ReasonRequired, "a change of the fleet needs a reason").
			WithHint("say why, in a few words: it is kept in the ledger")
	}
	if len(reason) > operator.MaxReason {
		return p, operator.Errorf(operator.Invalid, "the reason is over %d bytes", operator.MaxReason)
	}
	return p, operator.CheckText("reason", reason)
}

// note writes a command to the ledger that is recorded nowhere else.
func (s *Service) note(ctx context.Context, actor, kind string, body any) error {
	if _, err := s.d.Ledger.Append(ctx, ledger.ChainOperator, ledger.Any, kind, actor, body); err != nil {
		return operator.Errorf(operator.Unavailable, "the command is not in the ledger: %w", err).WithHint("look at what it changed, then repeat it")
	}
	return nil
}

// ref names a release. Version stays empty when the registry does not know it.
func (s *Service) ref(model string, d release.Digest) operator.ReleaseRef {
	out := operator.ReleaseRef{Model: model, Release: d}
	if v, err := s.d.Registry.Release(d); err == nil {
		out.Version = v.Version
	}
	return out
}

// refOrNil is ref, and nil for no release.
func (s *Service) refOrNil(model string, d release.Digest) *operator.ReleaseRef {
	if d.IsZero() {
		return nil
	}
	r := s.ref(model, d)
	return &r
}

// fromMS is a moment, or zero for 0.
func fromMS(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
