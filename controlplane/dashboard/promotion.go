package dashboard

import (
	"context"
	"net/url"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// promotionsView is what a model's page shows of versions on their way.
type promotionsView struct {
	Policy operator.PromotionPolicy
	List   []operator.Promotion
}

// maxPromotions bounds the list on a page; the command line shows all.
const maxPromotions = 10

func (s *Server) promotionsOf(ctx context.Context, model string) (*promotionsView, error) {
	p, err := s.cfg.Service.PromotionPolicy(ctx, model)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Service.Promotions(ctx, model)
	if err != nil {
		return nil, err
	}
	return &promotionsView{Policy: *p, List: list[:min(len(list), maxPromotions)]}, nil
}

// decisionForm asks whether the rollout of a version may begin. The decision of
// the path is approve or deny.
func decisionForm(ctx context.Context, s Service, r *request) (*form, error) {
	model, version := r.PathValue("model"), r.PathValue("version")
	list, err := s.Promotions(ctx, model)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if p.Version != version || p.State != operator.PromotionAwaiting {
			continue
		}
		f := &form{
			Title: "Approve " + model + " " + version, Button: "Approve", Back: "/models/" + url.PathEscape(model),
			Text:   "Its rollout begins, in the waves of the model's promotion policy.",
			Points: []string{p.Why},
		}
		if !approves(r) {
			f.Title, f.Button, f.Danger = "Deny "+model+" "+version, "Deny", true
			f.Text = "It is not rolled out. A rollout can still be made by hand."
		}
		return f, nil
	}
	return nil, operator.Errorf(operator.Conflict, "%.60s %.60s does not wait for anybody", model, version)
}

func approves(r *request) bool { return r.PathValue("decision") == "approve" }

func decidePromotion(ctx context.Context, s Service, r *request) error {
	_, err := s.DecidePromotion(ctx, r.PathValue("model"), r.PathValue("version"), operator.PromotionDecision{Approve: approves(r), Reason: reasonOf(r)})
	return err
}
