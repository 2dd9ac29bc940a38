package tracking_test

import (
	"math"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/tracking"
)

func TestQuick(t *testing.T) {
	s := tracking.NewMemory()
	ctx := t.Context()
	e, err := s.CreateExperiment(ctx, "digits", "", map[string]string{"team": "a"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.CreateRun(ctx, tracking.Run{Experiment: e.ID, User: "ada", StartedMS: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Log(ctx, r.ID, tracking.Batch{Metrics: []tracking.Metric{{Key: "acc", Value: 0.5, Step: 1}, {Key: "loss", Value: math.NaN()}}, Params: map[string]string{"lr": "0.1"}}); err != nil {
		t.Fatal(err)
	}
	got, next, err := s.SearchRuns([]string{e.ID}, tracking.Search{Filter: "metrics.acc > 0.4 and params.lr = '0.1'", OrderBy: []string{"metrics.acc DESC"}})
	t.Log(got, next, err)
	h, next, err := s.MetricHistory(ctx, r.ID, "acc", 0, "")
	t.Log(h, next, err)
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
