package api

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/history"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// past is a history with one point per release, and what it was asked.
type past struct{ asked *history.Query }

func (p past) Series(_ context.Context, _ time.Time, q history.Query) ([]history.Series, error) {
	*p.asked = q
	var out []history.Series
	for _, d := range q.Releases {
		out = append(out, history.Series{Release: d, Cohort: q.Cohort, Points: []history.Point{{At: q.From, Tally: &history.Tally{
			Devices: 3,
			Window: &protocol.Window{Rows: 1000, Calls: 900, Merged: 12, Streams: []*protocol.Histogram{
				{Bins: []uint64{900, 100}}, {Bins: []uint64{750, 250}},
			}},
			Labels: &protocol.Labels{Matched: 100, Correct: 90, Calibration: []*protocol.CalibrationBin{
				{Count: 50, Confidence: 45, Correct: 50}, {Count: 50, Confidence: 30, Correct: 40},
			}},
		}}}})
	}
	return out, nil
}

// twoBins is a baseline of one feature and of two classes, each half and half.
type twoBins struct{ Registry }

func (r twoBins) Baseline(context.Context, release.Digest) (*sketch.Baseline, error) {
	counts := []uint64{500, 500}
	return &sketch.Baseline{Format: 1, Rows: 1000, Streams: []sketch.Stream{
		{Name: "x", Side: sketch.Input, Kind: sketch.Discrete, Source: sketch.Feature, Values: []float32{0, 1}, Counts: counts},
		{Name: "class", Side: sketch.Output, Kind: sketch.Categorical, Source: sketch.Class, Labels: []string{"no", "yes"}, Counts: counts},
	}}, nil
}

func trending() (*Service, *history.Query) {
	s, asked := newWorld().service(), &history.Query{}
	s.d.History, s.d.Registry = past{asked}, twoBins{s.d.Registry}
	return s, asked
}

func TestTrends(t *testing.T) {
	s, asked := trending()
	got, err := s.Trends(t.Context(), "digits", operator.TrendQuery{Features: true})
	if err != nil || len(got.Series) != 2 || got.Series[0].Version != "1" || got.Series[1].Version != "2" {
		t.Fatalf("got %+v, %v, want versions 1 and 2", got, err)
	}
	if !asked.To.Equal(now) || !asked.From.Equal(now.Add(-7*history.Day)) || asked.Step != time.Hour || asked.ByCohort {
		t.Errorf("by default a week of hours: asked %+v", asked)
	}
	series := got.Series[0]
	p := series.Points[0]
	if p.Rows != 1000 || p.Windows != 12 || *p.Accuracy != 0.9 || math.Abs(*p.ECE-0.15) > 1e-9 { // (5 + 10) / 100
		t.Errorf("point: got %+v, ece %v", p, *p.ECE)
	}
	if want := 0.4 * math.Log(9); p.Furthest != "x" || math.Abs(*p.PSI-want) > 0.01 || len(p.Features) != 2 || !p.Features[0].Enough {
		t.Errorf("drift: got %v of %s, want %.3f of x; %+v", *p.PSI, p.Furthest, want, p.Features)
	}
	if !slices.Equal(series.Classes, []string{"no", "yes"}) || !slices.Equal(p.Shares, []float64{0.75, 0.25}) || p.Calibration[0].Confidence != 0.9 {
		t.Errorf("classes %v with shares %v, calibration %+v", series.Classes, p.Shares, p.Calibration)
	}
}

func TestTrendsAreNarrowed(t *testing.T) {
	s, asked := trending()
	got, err := s.Trends(t.Context(), "digits", operator.TrendQuery{
		Version: "2", Cohort: "b", By: operator.ByCohort, From: now.Add(-90 * history.Day),
	})
	if err != nil || len(got.Series) != 1 || got.Series[0].Version != "2" || got.Series[0].Cohort != "b" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if asked.Step != history.Day || !asked.ByCohort || got.Series[0].Points[0].Features != nil {
		t.Errorf("90 days come by the day: asked %+v", asked)
	}
	for name, q := range map[string]operator.TrendQuery{
		"backwards":       {From: now, To: now.Add(-time.Hour)},
		"minutes":         {Step: release.Duration(time.Minute)},
		"a day and a bit": {Step: release.Duration(25 * time.Hour)},
		"too many points": {From: now.Add(-700 * history.Day), Step: release.Duration(time.Hour)},
		"two subjects":    {Device: "cam-1", Cohort: "b"},
		"unknown":         {By: "moon"},
	} {
		if _, err := s.Trends(t.Context(), "digits", q); operator.CodeOf(err) != operator.Invalid {
			t.Errorf("%s: got %v, want %s", name, err, operator.Invalid)
		}
	}
	if _, err := s.Trends(t.Context(), "unknown", operator.TrendQuery{}); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("an unknown model: got %v", err)
	}
}
