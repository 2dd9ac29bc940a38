package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Monitor is what the devices' records amount to.
type Monitor interface {
	Scores(model string) []drift.Score
	Alarms(model string) []drift.Alarm
	Series(model string) []drift.Series
	Totals() []drift.Total
	SetFloor(model string, accuracy float64)
	Floor(model string) float64
	Config() drift.Config
	Groups(model string, by drift.Level) []drift.GroupScore
	Group(model string, by drift.Level, d release.Digest, name string) (drift.GroupDetail, bool)
}

// Totals adds up what devices counted.
func (s *Service) Totals(_ context.Context, q operator.TotalQuery) (*operator.Totals, error) {
	out := &operator.Totals{Items: []operator.Total{}, Lost: []operator.Loss{}, AsOf: s.d.Now().UTC()}
	for _, t := range s.d.Monitor.Totals() {
		if q.Device != "" && t.Device != q.Device {
			continue
		}
		if t.LostRecords > 0 || t.UnknownLoss {
			out.Lost = append(out.Lost, operator.Loss{
				Device: t.Device, Records: t.LostRecords, Rows: t.LostRows, Labels: t.LostLabels, Unknown: t.UnknownLoss,
			})
		}
		if t.Model != "" && (q.Model == "" || t.Model == q.Model) {
			out.Items = append(out.Items, s.total(t))
		}
	}
	return out, nil
}

func (s *Service) total(t drift.Total) operator.Total {
	return operator.Total{
		Device: t.Device, Model: t.Model, Version: s.ref(t.Model, t.Release).Version, Release: t.Release,
		Rows: t.Rows, FailedRows: t.FailedRows, Calls: t.Calls, FailedCalls: t.FailedCalls,
		Labels: t.Labels, Matched: t.Matched, Correct: t.Correct, UncertainRows: t.Uncertain,
	}
}

// Drift is the heat map of one model.
func (s *Service) Drift(_ context.Context, model string) (*operator.Drift, error) {
	order, err := s.sequences(model)
	if err != nil {
		return nil, err
	}
	out := &operator.Drift{
		Model: model, Threshold: s.d.Monitor.Config().Threshold, CohortBy: s.d.Monitor.Config().CohortBy,
		Releases: []operator.DriftRelease{}, AsOf: s.d.Now().UTC(),
	}
	scores := s.d.Monitor.Scores(model)
	slices.SortFunc(scores, func(a, b drift.Score) int { return cmp.Compare(order[b.Release], order[a.Release]) })
	for i := range scores {
		out.Releases = append(out.Releases, s.driftRelease(&scores[i]))
	}
	return out, nil
}

func (s *Service) driftRelease(score *drift.Score) operator.DriftRelease {
	out := operator.DriftRelease{ReleaseRef: s.ref(score.Model, score.Release), Features: features(score), Cohorts: []operator.CohortDrift{}}
	at := map[string]int{}
	for i := range score.Cohorts {
		at[score.Cohorts[i].Cohort] = len(out.Cohorts)
		out.Cohorts = append(out.Cohorts, cohortDrift(&score.Cohorts[i]))
	}
	for i := range score.Devices {
		d := &score.Devices[i]
		n, known := at[d.Cohort]
		if !known { // devices that no cohort takes in, for want of a label or of company
			n = len(out.Cohorts)
			at[d.Cohort] = n
			out.Cohorts = append(out.Cohorts, lonely(d.Cohort))
		}
		c := &out.Cohorts[n]
		c.Devices = append(c.Devices, deviceDrift(out.ReleaseRef, d))
	}
	return out
}

func lonely(cohort string) operator.CohortDrift {
	return operator.CohortDrift{
		Cohort: cohort, Verdict: operator.VerdictInsufficient, Text: "a cohort needs two devices",
		Cells: []operator.DriftCell{}, Devices: []operator.DeviceDrift{},
		Accuracy: operator.Accuracy{Verdict: operator.VerdictInsufficient},
	}
}

// features are the columns of the heat map: every comparison of a release has
// the streams of its baseline, in that order.
func features(score *drift.Score) []string {
	names := []string{}
	add := func(c *drift.Comparison) {
		for i := range c.Features {
			if len(names) <= i {
				names = append(names, c.Features[i].Name)
			}
		}
	}
	for i := range score.Cohorts {
		add(&score.Cohorts[i].Training)
	}
	for i := range score.Devices {
		add(&score.Devices[i].Training)
	}
	return names
}

func cohortDrift(c *drift.CohortScore) operator.CohortDrift {
	return operator.CohortDrift{
		Cohort: c.Cohort, Verdict: operator.Verdict(c.Verdict), Text: cohortText(c), Rows: c.Rows,
		From: fromMS(c.FromMS), To: fromMS(c.ToMS), MaxPSI: c.Training.MaxPSI, Condition: c.Training.Condition, Drifted: c.Drifted,
		Cells: cells(&c.Training, nil), Accuracy: accuracy(&c.Accuracy), Devices: []operator.DeviceDrift{},
		Prediction: operator.Verdict(c.Prediction), Missing: c.Missing, New: c.New,
	}
}

func cohortText(c *drift.CohortScore) string {
	switch c.Verdict { //nolint:exhaustive // the others are verdicts of devices and of accuracy
	case drift.OK:
		return fmt.Sprintf("as in training: %d devices, largest PSI %.3g", c.Devices, c.Training.MaxPSI)
	case drift.Drift:
		return fmt.Sprintf("left its training data: %d of %d features apart, largest PSI %.3g; the world has changed", c.Training.Apart, len(c.Training.Features), c.Training.MaxPSI)
	default:
		if c.Cohort == "" {
			return "devices without the label have no cohort: each is judged by itself"
		}
		if c.Training.Enough {
			return "one device cannot tell a faulty sensor from a changed world: two with enough rows can"
		}
		return fmt.Sprintf("%d rows are too few to say", c.Rows)
	}
}

func deviceDrift(ref operator.ReleaseRef, d *drift.DeviceScore) operator.DeviceDrift {
	return operator.DeviceDrift{
		ReleaseRef: ref, Device: d.Device, Cohort: d.Cohort, Verdict: operator.Verdict(d.Verdict), Text: deviceText(d),
		Rows: d.Rows, MaxPSI: d.Training.MaxPSI, Condition: d.Training.Condition, Cells: cells(&d.Training, d.Neighbours),
	}
}

func deviceText(d *drift.DeviceScore) string {
	switch d.Verdict { //nolint:exhaustive // the others are verdicts of accuracy
	case drift.OK:
		return "as in training"
	case drift.SensorFault:
		return "apart from its cohort, which is fine: look at the sensor"
	case drift.Drift:
		return "moves with its cohort, which left its training data"
	case drift.Apart:
		return "left its training data, and has no cohort to tell why"
	default:
		return fmt.Sprintf("%d rows are too few to say", d.Rows)
	}
}

// cells joins the comparison with training and, for a device, the one with the
// rest of its cohort; both have the features in one order.
func cells(training, neighbours *drift.Comparison) []operator.DriftCell {
	out := make([]operator.DriftCell, len(training.Features))
	for i, f := range training.Features {
		out[i] = cell(f)
		if neighbours != nil && i < len(neighbours.Features) {
			n := neighbours.Features[i]
			out[i].CohortPSI, out[i].CohortNoise, out[i].CohortApart = n.PSI, n.Noise, n.Apart
		}
	}
	return out
}

func cell(f drift.FeatureScore) operator.DriftCell {
	return operator.DriftCell{
		Feature: f.Name, Side: f.Side, PSI: f.PSI, Noise: f.Noise, JS: f.JS, KS: f.KS, KSUp: f.KSUp, KSP: f.KSP, LInf: f.LInf,
		P: f.P, Chi2P: f.Chi2P, Rows: f.M, Enough: f.Enough, Apart: f.Apart, Missing: shareChange(f.Missing), New: shareChange(f.New),
	}
}

func shareChange(s *divergence.Share) *operator.ShareChange {
	if s == nil {
		return nil
	}
	return &operator.ShareChange{Before: s.Before, After: s.After, P: s.P, Apart: s.Apart}
}

func accuracy(a *drift.AccuracyScore) operator.Accuracy {
	return operator.Accuracy{
		Labels: a.Labels, Correct: a.Correct, Accuracy: a.Accuracy, Lower: a.Lower, Upper: a.Upper,
		Floor: a.Floor, Verdict: operator.Verdict(a.Verdict), Cause: a.Cause,
	}
}

// Alarms lists findings, newest first.
func (s *Service) Alarms(_ context.Context, q operator.AlarmQuery) (*operator.Page[operator.Alarm], error) {
	list := s.alarms(q.Model)
	if q.Open {
		list = slices.DeleteFunc(list, func(a operator.Alarm) bool { return !a.Cleared.IsZero() })
	}
	return paginate(list, q.Paging, alarmKey)
}

func alarmKey(a *operator.Alarm) string { return newestFirst(a.Raised, a.ID) }

// alarms are those of a model, or of all, newest first.
func (s *Service) alarms(model string) []operator.Alarm {
	out := []operator.Alarm{}
	for _, a := range s.d.Monitor.Alarms(model) {
		out = append(out, alarm(&a))
	}
	slices.SortFunc(out, func(a, b operator.Alarm) int { return cmp.Compare(alarmKey(&a), alarmKey(&b)) })
	return out
}

func alarm(a *drift.Alarm) operator.Alarm {
	out := operator.Alarm{
		ID: a.ID, Kind: string(a.Kind), Model: a.Model, Version: a.Version, Release: a.Release, Cohort: a.Cohort,
		Device: a.Device, Text: a.Message, Raised: fromMS(a.RaisedMS), Cleared: fromMS(a.ClearedMS), Reason: a.Reason,
	}
	for _, f := range a.Features {
		out.Cells = append(out.Cells, cell(f))
	}
	if a.Accuracy != nil {
		score := accuracy(a.Accuracy)
		out.Accuracy = &score
	}
	return out
}

// Quality is a model's curves over time.
func (s *Service) Quality(_ context.Context, q operator.QualityQuery) (*operator.Quality, error) {
	order, err := s.sequences(q.Model)
	if err != nil {
		return nil, err
	}
	out := &operator.Quality{
		Model: q.Model, Series: []operator.QualitySeries{}, Floor: s.d.Monitor.Floor(q.Model),
		Threshold: s.d.Monitor.Config().Threshold, AsOf: s.d.Now().UTC(),
	}
	for _, series := range s.d.Monitor.Series(q.Model) {
		ref := s.ref(series.Model, series.Release)
		if q.Version != "" && q.Version != ref.Version && q.Version != ref.Release.String() || q.Cohort != "" && q.Cohort != series.Cohort {
			continue
		}
		out.Series = append(out.Series, operator.QualitySeries{
			ReleaseRef: ref, Cohort: series.Cohort, Step: release.Duration(series.Bucket), Points: points(series.Points, q.Since, q.Until),
		})
	}
	slices.SortStableFunc(out.Series, func(a, b operator.QualitySeries) int {
		return cmp.Or(cmp.Compare(order[a.Release], order[b.Release]), cmp.Compare(a.Cohort, b.Cohort))
	})
	return out, nil
}

func points(in []drift.Point, since, until time.Time) []operator.QualityPoint {
	out := []operator.QualityPoint{}
	for _, p := range in {
		at := fromMS(p.AtMS)
		if at.Before(since) || !until.IsZero() && !at.Before(until) {
			continue
		}
		point := operator.QualityPoint{At: at, Rows: p.Rows, FailedRows: p.Failed, Labels: p.Labels, Correct: p.Correct}
		if p.Accuracy >= 0 {
			point.Accuracy = &p.Accuracy
		}
		if p.MaxPSI >= 0 {
			point.PSI = &p.MaxPSI
		}
		if brier, ok := p.Brier(); ok {
			mean := p.Confidence / float64(p.Rated)
			point.Confidence, point.Brier = &mean, &brier
		}
		out = append(out, point)
	}
	return out
}
