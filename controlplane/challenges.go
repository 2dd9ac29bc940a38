package controlplane

import (
	"context"

	"github.com/vedette-edge/vedette/controlplane/challenger"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// challengeBucket keeps what challengers had counted when they were first seen.
const challengeBucket = "challenges"

// openChallenges opens the judge of versions that run beside others.
func (s *Server) openChallenges(ctx context.Context) (err error) {
	s.challenger, err = challenger.Open(ctx, challenger.Config{
		Challenges: s.desired, Monitor: s.monitor, Bucket: s.buckets[challengeBucket], Ledger: verdicts{s.ledger},
		Alarm:   s.incidents,
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
