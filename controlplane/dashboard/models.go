package dashboard

import (
	"context"

	"github.com/vedette-edge/vedette/protocol/operator"
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
	return "model", &page{Title: m.Name, Section: "models", Live: "#versions,#challenge", Kinds: "model,device", Data: modelView{m, c}}, nil
}

func (s *Server) version(ctx context.Context, r *request) (string, *page, error) {
	v, err := s.cfg.Service.Version(ctx, r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return "", nil, err
	}
	return "version", &page{
		Title: v.Model + " " + v.Version.Version, Section: "models", Live: "#running,#stages", Kinds: "model,device", Data: versionView{v},
	}, nil
}

// versionView is one version; the manifest may be missing when its blob is.
type versionView struct {
	*operator.VersionDetail
}
