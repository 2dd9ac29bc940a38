package dashboard

import (
	"context"
)

func (s *Server) models(ctx context.Context, _ *request) (string, *page, error) {
	list, err := s.cfg.Service.Models(ctx)
	if err != nil {
		return "", nil, err
	}
	return "models", &page{Title: "Models", Section: "models", Live: "#list", Kinds: "model,device,alarm", Data: list}, nil
}

func (s *Server) model(ctx context.Context, r *request) (string, *page, error) {
	m, err := s.cfg.Service.Model(ctx, r.PathValue("model"))
	if err != nil {
		return "", nil, err
	}
	c, err := s.challengeOf(ctx, m.Name)
	if err != nil {
		return "", nil, err
	}
	h, err := s.historyOf(ctx, m.Name)
	if err != nil {
		return "", nil, err
	}
	g, err := s.groundTruthOf(ctx, m.Name)
	if err != nil {
		return "", nil, err
	}
	promotions, err := s.promotionsOf(ctx, m.Name)
	if err != nil {
		return "", nil, err
	}
	return "model", &page{
		Title: m.Name, Section: "models", Live: "#versions,#challenge,#promotions,#labels,#history", Kinds: "model,device,rollout", Data: modelView{m, c, h, g, promotions},
	}, nil
}
