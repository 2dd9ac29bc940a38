package controlplane

import (
	"context"
	"errors"

	"github.com/vedette-edge/vedette/controlplane/challenger"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/promotion"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// challengeBucket keeps what challengers had counted when they were first seen.
const challengeBucket = "challenges"

// openChallenges opens the judge of versions that run beside others.
func (s *Server) openChallenges(ctx context.Context) (err error) {
	s.challenger, err = challenger.Open(ctx, challenger.Config{
		Challenges: s.desired, Monitor: s.monitor, Bucket: s.buckets[challengeBucket], Ledger: verdicts{s.ledger},
		Promoter: proposals{s}, Alarm: s.incidents,
		Changed: func(model string) { s.tell(operator.EventModel, model) },
		Logger:  s.cfg.Logger,
	})
	return err
}

// verdicts writes what the judge found to the ledger.
type verdicts struct{ ledger *ledger.Ledger }

// Note implements challenger.Ledger.
func (v verdicts) Note(ctx context.Context, kind, actor string, body any) error {
	_, err := v.ledger.Append(ctx, ledger.ChainOperator, ledger.Any, kind, actor, body)
	return err
}

// proposals hands proven versions on to promotion, which is opened later.
type proposals struct{ server *Server }

// Propose implements challenger.Promoter. Without a policy the verdict is only told.
func (p proposals) Propose(ctx context.Context, x challenger.Proposal) error {
	err := p.server.promotion.Propose(ctx, promotion.Proposal{
		Model: x.Model, Digest: x.Digest, Why: "as a challenger it is " + x.Why, Evidence: "vedette model challenge show " + x.Model,
	})
	if errors.Is(err, promotion.ErrPolicy) {
		p.server.cfg.Logger.Warn("challenger has proven itself, and the model has no promotion policy: a human must roll it out", "model", x.Model, "version", x.Version)
		return nil
	}
	return err
}
