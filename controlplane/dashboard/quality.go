package dashboard

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// qualityView is what a model did over time, one column of charts per cohort.
type qualityView struct {
	*operator.Quality

	Charts  string // chartData as JSON, for the script
	Cohorts []cohortQuality
	Names   []string // versions, in the order of their colours
	Groups  []groupRow
}

// cohortQuality is one cohort's newest numbers, readable without the charts.
type cohortQuality struct {
	Cohort   string
	Versions []versionQuality
}

// versionQuality adds a series up.
type versionQuality struct {
	operator.ReleaseRef

	From, To             time.Time
	Rows, Failed, Labels uint64
	Accuracy             *float64
	Lower, Upper         float64
	PSI                  *float64 // newest
}

// chartData is what the charts are drawn from: columns, as uPlot takes them.
type chartData struct {
	Cohorts   []chartCohort `json:"cohorts"`
	Versions  []string      `json:"versions"`
	Floor     float64       `json:"floor,omitempty"`
	Threshold float64       `json:"threshold,omitempty"`
}

type chartCohort struct {
	Cohort string        `json:"cohort"`
	Series []chartSeries `json:"series"`
}

type chartSeries struct {
	Version  string     `json:"version"`
	At       []float64  `json:"at"` // seconds since 1970
	Rows     []float64  `json:"rows"`
	Accuracy []*float64 `json:"accuracy"`
	Lower    []*float64 `json:"lower"`
	Upper    []*float64 `json:"upper"`
	PSI      []*float64 `json:"psi"`
	Brier    []*float64 `json:"brier"`
}

func (s *Server) qualityModels(ctx context.Context, _ *request) (string, *page, error) {
	return s.oneModel(ctx, "quality", "Quality", "No model has been published yet, so nothing is measured.", s.qualityOf)
}

func (s *Server) quality(ctx context.Context, r *request) (string, *page, error) {
	return s.qualityOf(ctx, r.PathValue("model"), r.URL.Query().Get("cohort"))
}

func (s *Server) qualityOf(ctx context.Context, model, only string) (string, *page, error) {
	q, err := s.cfg.Service.Quality(ctx, operator.QualityQuery{Model: model, Cohort: only})
	if err != nil {
		return "", nil, err
	}
	v := qualityView{Quality: q, Names: versionsOf(q)}
	charts, err := json.Marshal(chartsOf(q, v.Names))
	if err != nil {
		return "", nil, err
	}
	v.Charts = string(charts)
	for _, cohort := range cohortsOf(q) {
		v.Cohorts = append(v.Cohorts, sumCohort(q, cohort))
	}
	if v.Groups, err = s.calibrated(ctx, model, only); err != nil {
		return "", nil, err
	}
	return "quality", &page{
		Title: "Quality of " + model, Section: "quality", Live: "#chart-data,#sums,#calibration", Kinds: "drift,model,rollout", Data: v,
	}, nil
}

// versionsOf are the versions with curves, in the order of their sequence.
func versionsOf(q *operator.Quality) []string {
	var out []string
	for i := range q.Series {
		if name := seriesName(&q.Series[i]); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func seriesName(s *operator.QualitySeries) string {
	if s.Version != "" {
		return s.Version
	}
	return shorten(s.Release)
}

func cohortsOf(q *operator.Quality) []string {
	all := map[string]bool{}
	for i := range q.Series {
		all[q.Series[i].Cohort] = true
	}
	return slices.Sorted(maps.Keys(all))
}

func chartsOf(q *operator.Quality, versions []string) chartData {
	out := chartData{Cohorts: []chartCohort{}, Versions: versions, Floor: q.Floor, Threshold: q.Threshold}
	cohorts, _ := first(cohortsOf(q), cohortsShown)
	for _, cohort := range cohorts {
		c := chartCohort{Cohort: cohort, Series: []chartSeries{}}
		for i := range q.Series {
			if q.Series[i].Cohort == cohort {
				c.Series = append(c.Series, chartOf(&q.Series[i]))
			}
		}
		out.Cohorts = append(out.Cohorts, c)
	}
	return out
}

func chartOf(s *operator.QualitySeries) chartSeries {
	out := chartSeries{Version: seriesName(s)}
	for _, p := range s.Points {
		out.At = append(out.At, float64(p.At.UnixMilli())/1000)
		out.Rows = append(out.Rows, float64(p.Rows))
		out.PSI = append(out.PSI, p.PSI)
		out.Brier = append(out.Brier, p.Brier)
		out.Accuracy = append(out.Accuracy, p.Accuracy)
		var lower, upper *float64
		if p.Labels > 0 {
			low, high := wilson(p.Correct, p.Labels)
			lower, upper = &low, &high
		}
		out.Lower, out.Upper = append(out.Lower, lower), append(out.Upper, upper)
	}
	return out
}

// z95 is the normal quantile of a two-sided 95 percent interval.
const z95 = 1.959964

// wilson is the 95 percent score interval of a share (Wilson 1927). It is for
// looking at one step of a curve; alarms use an interval that holds however
// often one looks.
func wilson(correct, labels uint64) (lower, upper float64) {
	n := float64(labels)
	p := float64(correct) / n
	middle := p + z95*z95/(2*n)
	half := z95 * math.Sqrt(p*(1-p)/n+z95*z95/(4*n*n))
	scale := 1 + z95*z95/n
	return max(0, (middle-half)/scale), min(1, (middle+half)/scale)
}

func sumCohort(q *operator.Quality, cohort string) cohortQuality {
	out := cohortQuality{Cohort: cohort}
	for i := range q.Series {
		if s := &q.Series[i]; s.Cohort == cohort && len(s.Points) > 0 {
			out.Versions = append(out.Versions, sumSeries(s))
		}
	}
	return out
}

func sumSeries(s *operator.QualitySeries) versionQuality {
	out := versionQuality{
		ReleaseRef: s.ReleaseRef, From: s.Points[0].At,
		To: s.Points[len(s.Points)-1].At.Add(time.Duration(s.Step)),
	}
	var correct uint64
	for _, p := range s.Points {
		out.Rows += p.Rows
		out.Failed += p.FailedRows
		out.Labels += p.Labels
		correct += p.Correct
		if p.PSI != nil {
			out.PSI = p.PSI
		}
	}
	if out.Labels > 0 {
		share := float64(correct) / float64(out.Labels)
		out.Accuracy = &share
		out.Lower, out.Upper = wilson(correct, out.Labels)
	}
	return out
}

// calibrated are the groups with labels: the versions, and the cohorts in which
// they run. only is one cohort, or none.
func (s *Server) calibrated(ctx context.Context, model, only string) ([]groupRow, error) {
	var out []groupRow
	for _, by := range []string{operator.LevelVersion, operator.LevelCohort} {
		l, err := s.cfg.Service.DriftLevel(ctx, model, operator.LevelQuery{By: by})
		if err != nil {
			return nil, err
		}
		groups, _ := first(l.Groups, cohortsShown)
		for i := range groups {
			g := &groups[i]
			if g.Accuracy.Labels+g.Calibration.Labels > 0 && (only == "" || by == operator.LevelCohort && g.Name == only) {
				out = append(out, groupOf(model, g))
			}
		}
	}
	return out, nil
}
