package dashboard

import (
	"context"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// shownUploads is how many uploads of truths a page lists.
const shownUploads = 8

// groundTruth is what people found out about a model's predictions, and what
// they may be asked next.
type groundTruth struct {
	*operator.Truths

	Samples *operator.Samples
	More    int // uploads that are not listed
}

// None says that there is nothing to show.
func (g *groundTruth) None() bool { return len(g.Uploads)+len(g.Samples.Plans)+g.Samples.Samples == 0 }

func (s *Server) groundTruthOf(ctx context.Context, model string) (*groundTruth, error) {
	truths, err := s.cfg.Service.Truths(ctx, model)
	if err != nil {
		return nil, err
	}
	samples, err := s.cfg.Service.Samples(ctx, model, operator.SampleQuery{})
	if err != nil {
		return nil, err
	}
	shown := *truths
	shown.Uploads = shown.Uploads[:min(len(shown.Uploads), shownUploads)]
	return &groundTruth{Truths: &shown, Samples: samples, More: len(truths.Uploads) - len(shown.Uploads)}, nil
}
