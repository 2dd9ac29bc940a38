package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/history"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// History is what devices counted over months.
type History interface {
	Series(ctx context.Context, now time.Time, q history.Query) ([]history.Series, error)
}

func trendRoutes(b Backend) []route {
	return []route{
		of("trends", "/models/:model/trends", "Rows, latency, accuracy, calibration, drift and class shares over months.", b.Trends),
	}
}

// Bounds of trends. More points than these make no better picture.
const (
	defaultTrends = 7 * history.Day
	goodPoints    = 200
	maxPoints     = 5000
)

// Trends are what a model did over months.
func (s *Service) Trends(ctx context.Context, model string, q operator.TrendQuery) (*operator.Trends, error) {
	order, err := s.sequences(model)
	if err != nil {
		return nil, err
	}
	now := s.d.Now().UTC()
	q, err = completeTrends(q, now)
	if err != nil {
		return nil, err
	}
	ask := history.Query{
		From: q.From, To: q.To, Step: time.Duration(q.Step), Device: q.Device, Cohort: q.Cohort, ByCohort: q.By == operator.ByCohort,
	}
	for d := range order {
		if q.Version == "" || q.Version == d.String() || q.Version == s.ref(model, d).Version {
			ask.Releases = append(ask.Releases, d)
		}
	}
	found, err := s.d.History.Series(ctx, now, ask)
	if err != nil {
		return nil, operator.Errorf(operator.Unavailable, "read the history of %s: %w", model, err)
	}
	out := &operator.Trends{
		Model: model, From: q.From, To: q.To, Step: q.Step, Threshold: s.d.Monitor.Config().Threshold,
		Series: []operator.TrendSeries{}, AsOf: now,
	}
	baselines := map[release.Digest]*sketch.Baseline{}
	for _, series := range found {
		out.Series = append(out.Series, s.trendSeries(ctx, model, &series, baselines, q.Features))
	}
	slices.SortFunc(out.Series, func(a, b operator.TrendSeries) int {
		return cmp.Or(cmp.Compare(order[a.Release], order[b.Release]), cmp.Compare(a.Cohort, b.Cohort))
	})
	return out, nil
}

// completeTrends fills in what was not given and refuses what cannot be.
func completeTrends(q operator.TrendQuery, now time.Time) (operator.TrendQuery, error) {
	if q.To.IsZero() {
		q.To = now
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-defaultTrends)
	}
	if q.Step == 0 {
		q.Step = release.Duration(stepOf(q.To.Sub(q.From)))
	}
	step := time.Duration(q.Step)
	switch {
	case !q.From.Before(q.To):
		return q, operator.Errorf(operator.Invalid, "a trend from %s to %s has no length", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	case step < time.Hour || step%time.Hour != 0 || step > history.Day && step%history.Day != 0:
		return q, operator.Errorf(operator.Invalid, "a step of %s is neither whole hours nor whole days", step).
			WithHint("hours are kept for 90 days and days for two years: say for example 1h, 6h, 24h or 168h")
	case q.To.Sub(q.From)/step > maxPoints:
		return q, operator.Errorf(operator.Invalid, "a trend of %s in steps of %s has more than %d points", q.To.Sub(q.From), step, maxPoints).
			WithHint("ask for longer steps")
	case q.Device != "" && q.Cohort != "":
		return q, operator.Errorf(operator.Invalid, "a trend is of one device or of one cohort, not of both")
	case q.By != "" && q.By != operator.ByVersion && q.By != operator.ByCohort:
		return q, operator.Errorf(operator.Invalid, "a trend by %.20q is not known", q.By).WithHint("it is by version or by cohort")
	}
	return q, nil
}

// stepOf is the shortest step that gives some hundred points. Hours are kept
// for 90 days, and beyond a few weeks nobody looks at them.
func stepOf(length time.Duration) time.Duration {
	for _, step := range []time.Duration{time.Hour, 6 * time.Hour, history.Day} {
		if length/step <= goodPoints {
			return step
		}
	}
	return 7 * history.Day
}

func (s *Service) trendSeries(ctx context.Context, model string, in *history.Series, baselines map[release.Digest]*sketch.Baseline, features bool) operator.TrendSeries {
	b, known := baselines[in.Release]
	if !known {
		var err error
		if b, err = s.d.Registry.Baseline(ctx, in.Release); err != nil {
			s.d.Log.Warn("trends have no drift: the baseline cannot be read", "model", model, "release", in.Release.Short(), "error", err)
		}
		baselines[in.Release] = b
	}
	out := operator.TrendSeries{ReleaseRef: s.ref(model, in.Release), Cohort: in.Cohort, Points: []operator.TrendPoint{}}
	class := classStream(b)
	if class >= 0 {
		out.Classes = b.Streams[class].Labels
	}
	config := s.d.Monitor.Config()
	limits := divergence.Limits{Threshold: config.Threshold, Alpha: config.Alpha, RowsPerBin: config.RowsPerBin}
	for _, p := range in.Points {
		point := trendPoint(&p, features)
		if fits(b, p.Window) {
			point.drift(b, p.Window, limits, features)
			if class >= 0 {
				point.Shares = shares(p.Window.GetStreams()[class])
			}
		}
		out.Points = append(out.Points, point.TrendPoint)
	}
	return out
}

// classStream is which stream of a baseline counts predicted classes, −1 for none.
func classStream(b *sketch.Baseline) int {
	if b == nil {
		return -1
	}
	return slices.IndexFunc(b.Streams, func(s sketch.Stream) bool { return s.Source == sketch.Class })
}

// fits says that a window was counted over the bins of a baseline.
func fits(b *sketch.Baseline, w *protocol.Window) bool {
	return b != nil && slices.EqualFunc(b.Streams, w.GetStreams(), func(s sketch.Stream, h *protocol.Histogram) bool {
		return len(s.Counts) == len(h.GetBins())
	})
}

// pointOf is a point being filled in.
type pointOf struct{ operator.TrendPoint }

func trendPoint(p *history.Point, features bool) *pointOf {
	w, l := p.Window, p.Labels
	out := &pointOf{operator.TrendPoint{
		At: p.At.UTC(), Devices: p.Devices, Windows: uint64(w.GetMerged()), Rows: w.GetRows(), FailedRows: w.GetFailedRows(),
		Calls: w.GetCalls(), FailedCalls: w.GetFailedCalls(), Labels: l.GetMatched(), Correct: l.GetCorrect(),
	}}
	if latency, err := sketch.DecodeLatency(w.GetLatency()); err == nil {
		out.P50US, out.P95US = microseconds(latency, 0.5), microseconds(latency, 0.95)
	}
	if l.GetMatched() > 0 {
		out.Accuracy = new(float64(l.GetCorrect()) / float64(l.GetMatched()))
	}
	out.ECE = expectedError(l.GetCalibration())
	for _, c := range l.GetCalibration() {
		if features {
			out.Calibration = append(out.Calibration, operator.TrendBin{
				Labels: c.GetCount(), Confidence: c.GetConfidence() / float64(max(c.GetCount(), 1)), Correct: c.GetCorrect(),
			})
		}
	}
	return out
}

// expectedError is the expected calibration error (Naeini et al. 2015): how far
// confidence is from accuracy, over the bins of confidence; nil without labels.
func expectedError(bins []*protocol.CalibrationBin) *float64 {
	var off, all float64
	for _, b := range bins {
		off += max(b.GetConfidence()-float64(b.GetCorrect()), float64(b.GetCorrect())-b.GetConfidence())
		all += float64(b.GetCount())
	}
	if all == 0 {
		return nil
	}
	return new(off / all)
}

// drift compares a step with training. Repeated rows tell nothing new.
func (p *pointOf) drift(b *sketch.Baseline, w *protocol.Window, limits divergence.Limits, features bool) {
	effective := w.GetRows()
	if d, err := sketch.DecodeDistinct(w.GetDistinct()); err == nil && len(w.GetDistinct()) > 0 {
		effective = min(effective, d.Estimate())
	}
	c := divergence.Training(b, w.GetStreams(), w.GetRows(), effective, limits)
	for _, f := range c.Features {
		if f.Enough && (p.PSI == nil || f.PSI > *p.PSI) {
			p.PSI, p.Furthest = new(f.PSI), f.Name
		}
		if features {
			p.Features = append(p.Features, operator.TrendFeature{Feature: f.Name, PSI: f.PSI, Noise: f.Noise, Enough: f.Enough, Apart: f.Apart})
		}
	}
}

func shares(h *protocol.Histogram) []float64 {
	var all uint64
	for _, n := range h.GetBins() {
		all += n
	}
	out := make([]float64, len(h.GetBins()))
	for i, n := range h.GetBins() {
		out[i] = float64(n) / float64(max(all, 1))
	}
	return out
}
