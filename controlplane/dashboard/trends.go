package dashboard

import (
	"context"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// trendRange is how far back a page of trends looks.
type trendRange struct {
	Name string
	back time.Duration
	step time.Duration
}

// trendRanges are offered, shortest first. The second is what a week's meeting
// looks at.
var trendRanges = []trendRange{
	{"24 h", 24 * time.Hour, time.Hour},
	{"7 d", 7 * 24 * time.Hour, 6 * time.Hour},
	{"90 d", 90 * 24 * time.Hour, 24 * time.Hour},
	{"2 y", 730 * 24 * time.Hour, 7 * 24 * time.Hour},
}

// trendRows bounds how many steps of a series are written out, the newest.
const trendRows = 30

// trendsView is what a model did over months.
type trendsView struct {
	*operator.Trends

	Ranges []trendRange
	Range  string
	By     string
	Curves []trendCurves
}

// trendCurves is one series in pictures and in numbers.
type trendCurves struct {
	*operator.TrendSeries

	Curves []trendCurve
	Newest []operator.TrendPoint // newest first
}

// trendCurve is one quantity over the steps in which it is known.
type trendCurve struct {
	spark

	Name           string
	Low, High, Now string
}

func (s *Server) trends(ctx context.Context, r *request) (string, *page, error) {
	v := trendsView{Ranges: trendRanges, By: r.URL.Query().Get("by")}
	chosen := trendRanges[1]
	for _, t := range trendRanges {
		if t.Name == r.URL.Query().Get("range") {
			chosen = t
		}
	}
	v.Range = chosen.Name
	now := s.cfg.Now()
	q := operator.TrendQuery{From: now.Add(-chosen.back).UTC(), To: now.UTC(), Step: release.Duration(chosen.step), By: v.By}
	var err error
	if v.Trends, err = s.cfg.Service.Trends(ctx, r.PathValue("model"), q); err != nil {
		return "", nil, err
	}
	for i := range v.Series {
		v.Curves = append(v.Curves, curvesOf(&v.Series[i]))
	}
	return "trends", &page{Title: "Trends of " + v.Model, Section: "quality", Data: v}, nil
}

// quantity is something that a curve is drawn of.
type quantity struct {
	name      string
	low, high float64 // the scale reaches from and to them at least
	text      func(float64) string
	of        func(*operator.TrendPoint) *float64 // nil where it is not known
}

var quantities = []quantity{
	{"Predictions", 0, 0, func(v float64) string { return formatCount(uint64(v)) }, func(p *operator.TrendPoint) *float64 { return new(float64(p.Rows)) }},
	{"Accuracy", 0.5, 1, func(v float64) string { return formatPercent(v) }, func(p *operator.TrendPoint) *float64 { return p.Accuracy }},
	{"Calibration error", 0, 0, func(v float64) string { return formatPercent(v) }, func(p *operator.TrendPoint) *float64 { return p.ECE }},
	{"Largest PSI", 0, 0, formatPSI, func(p *operator.TrendPoint) *float64 { return p.PSI }},
	{"Latency p95", 0, 0, func(v float64) string { return formatDuration(time.Duration(v) * time.Microsecond) }, latencyOf},
}

func latencyOf(p *operator.TrendPoint) *float64 {
	if p.P95US == 0 {
		return nil
	}
	return new(float64(p.P95US))
}

func curvesOf(s *operator.TrendSeries) trendCurves {
	out := trendCurves{TrendSeries: s}
	for _, q := range quantities {
		if c, ok := q.curve(s.Points); ok {
			out.Curves = append(out.Curves, c)
		}
	}
	newest := slices.Clone(s.Points)
	slices.Reverse(newest)
	out.Newest, _ = first(newest, trendRows)
	return out
}

// curve draws what is known of a quantity, ok when that is anything.
func (q *quantity) curve(points []operator.TrendPoint) (c trendCurve, ok bool) {
	var values []float64
	for i := range points {
		if v := q.of(&points[i]); v != nil {
			values = append(values, *v)
		}
	}
	if len(values) == 0 {
		return c, false
	}
	low, high := slices.Min(values), slices.Max(values)
	return trendCurve{
		spark: sparkOf(values, min(q.low, low), max(q.high, high, low+1e-9)), Name: q.name,
		Low: q.text(low), High: q.text(high), Now: q.text(values[len(values)-1]),
	}, true
}
