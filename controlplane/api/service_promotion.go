package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/vedette-edge/vedette/controlplane/promotion"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Promotions bring published versions to the fleet by themselves.
type Promotions interface {
	Policy(model string) operator.PromotionPolicy
	List(model string) []operator.Promotion
	Get(d release.Digest) (operator.Promotion, error)
	SetPolicy(ctx context.Context, actor, model string, c operator.PromotionPolicyChange) (operator.PromotionPolicy, error)
	Decide(ctx context.Context, actor string, d release.Digest, approve bool, reason string) (operator.Promotion, error)
}

func promotionRoutes(b Backend) []route {
	return []route{
		one("promotions", "/models/:model/promotions", "Versions of a model on their way to the fleet, newest first.", b.Promotions),
		one("promotionPolicy", "/models/:model/promotion-policy", "What happens by itself after a version was published.", b.PromotionPolicy),
		command(http.MethodPut, "setPromotionPolicy", "/models/:model/promotion-policy", "Set what happens by itself. An empty text removes it.",
			on(b.SetPromotionPolicy)).as(operator.Publisher),
		ofVersion(http.MethodPost, "decidePromotion", "/models/:model/versions/:version/promotion", "Approve or deny the rollout of a version.", b.DecidePromotion),
		version("lineage", "/models/:model/versions/:version/lineage", "Where a version comes from: signature, rollouts, run, data, code.", b.Lineage),
		of("deviceLineage", "/devices/:device/lineage", "From what a device predicted back to run, data and code.", b.DeviceLineage),
	}
}

// promotionError gives an answer of package promotion its code.
func promotionError(err error) error {
	switch {
	case errors.Is(err, promotion.ErrPolicy):
		return operator.Errorf(operator.Invalid, "%w", err).WithHint("`vedette model promotion spec` prints a policy with every field explained")
	case errors.Is(err, promotion.ErrNotFound):
		return operator.Errorf(operator.NotFound, "%w", err)
	case errors.Is(err, promotion.ErrState):
		return operator.Errorf(operator.Conflict, "%w", err).WithHint("`vedette model promotion list MODEL` shows what each waits for")
	}
	return err
}

// Promotions lists the versions of a model that are, or were, on their way.
func (s *Service) Promotions(_ context.Context, model string) ([]operator.Promotion, error) {
	if _, err := s.d.Registry.Model(model); err != nil {
		return nil, registryError(err)
	}
	return s.d.Promotions.List(model), nil
}

// PromotionPolicy is what happens by itself after a version was published.
func (s *Service) PromotionPolicy(_ context.Context, model string) (*operator.PromotionPolicy, error) {
	p := s.d.Promotions.Policy(model)
	return &p, nil
}

// SetPromotionPolicy sets what happens by itself. It may come before the model's
// first version.
func (s *Service) SetPromotionPolicy(ctx context.Context, model string, c operator.PromotionPolicyChange) (*operator.PromotionPolicy, error) {
	p, err := commander(ctx, operator.Publisher, c.Reason)
	if err != nil {
		return nil, err
	}
	if err := checkModel(model); err != nil {
		return nil, err
	}
	out, err := s.d.Promotions.SetPolicy(ctx, p.Name, model, c)
	if err != nil {
		return nil, promotionError(err)
	}
	s.Changed(operator.EventModel, model)
	return &out, nil
}

// DecidePromotion approves or denies the rollout of a version.
func (s *Service) DecidePromotion(ctx context.Context, model, version string, d operator.PromotionDecision) (*operator.Promotion, error) {
	p, err := commander(ctx, operator.Operator, d.Reason)
	if err != nil {
		return nil, err
	}
	v, err := s.d.Registry.Version(model, version)
	if err != nil {
		return nil, registryError(err)
	}
	now, err := s.d.Promotions.Get(v.Digest)
	if err != nil {
		return nil, promotionError(err)
	}
	if now.Approver != "" {
		if err := allow(p, now.Approver); err != nil {
			return nil, err
		}
	}
	out, err := s.d.Promotions.Decide(ctx, p.Name, v.Digest, d.Approve, d.Reason)
	if err != nil {
		return nil, promotionError(err)
	}
	return &out, nil
}
