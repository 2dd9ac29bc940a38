package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// closed checks that everybody who was part of the loop says so: the retrain
// request its answer, the promotion its rollout, the version the run, the labelled
// data and the CI key it comes from.
func (p *plant) closed(ctx context.Context, request string) (out numbers, err error) {
	err = until(ctx, 30*time.Second, "the loop to be closed", func() error {
		asked, errAsked := p.answered(ctx, request)
		promotion, errPromotion := p.completedPromotion(ctx, request)
		from, errLineage := p.cameFrom(ctx, request)
		out = numbers{"retrain_request": asked, "promotion": promotion, "lineage": from}
		return errors.Join(errAsked, errPromotion, errLineage)
	})
	return out, err
}

// answered checks what became of a retrain request.
func (p *plant) answered(ctx context.Context, request string) (string, error) {
	events, err := p.client.RetrainEvents(ctx, operator.RetrainQuery{Model: model})
	if err != nil {
		return "", err
	}
	if len(events.Items) != 1 || events.Items[0].ID != request {
		return "", permanent{fmt.Errorf("%d retrain requests, want the one with id %s", len(events.Items), request)}
	}
	e := events.Items[0]
	return e.State, expect(e.State == operator.RetrainRolledOut && e.Answer != nil && e.Answer.Release == "2",
		"the retrain request is %s, want it to be answered by version 2, rolled out", e.State)
}

// completedPromotion checks that version 2 went out by itself.
func (p *plant) completedPromotion(ctx context.Context, request string) (operator.PromotionState, error) {
	list, err := p.client.Promotions(ctx, model)
	if err != nil {
		return "", err
	}
	for _, m := range list {
		if m.Version == "2" {
			return m.State, expect(m.State == operator.PromotionCompleted && m.Retrain == request && m.Decided == "",
				"the promotion of version 2 is %s (%s), for request %q", m.State, m.Text, m.Retrain)
		}
	}
	return "", errors.New("version 2 was not promoted")
}

// cameFrom checks the way back from version 2: who signed it, which run made it.
func (p *plant) cameFrom(ctx context.Context, request string) (numbers, error) {
	l, err := p.client.Lineage(ctx, model, "2")
	if err != nil {
		return nil, err
	}
	if l.Run == nil || l.Candidate == nil || l.Parent == nil {
		return nil, fmt.Errorf("the lineage of version 2 has gaps: %v", l.Gaps)
	}
	return numbers{"signed_as": l.Signature.Role, "run": l.Run.ID, "seed": l.Run.Params["seed"], "parent": l.Parent.Version},
		errors.Join(
			expect(l.Signature.Role == "model-"+model, "version 2 was signed as %s, want by the CI's key alone", l.Signature.Role),
			expect(l.Candidate.Retrain == request, "version 2 answers request %q", l.Candidate.Retrain),
			expect(l.Run.Params["seed"] != "" && l.Parent.Version == "1" && l.Stage == operator.StageProduction,
				"version 2 has seed %q, parent %s, stage %s", l.Run.Params["seed"], l.Parent.Version, l.Stage))
}
