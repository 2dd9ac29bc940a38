package mlflow

import (
	"context"
	"math"
	"slices"

	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// Sizes of metric histories.
const (
	// maxHistory is the largest page of one metric's history.
	maxHistory = 50_000
	// maxBulk bounds what a chart of several runs gets, all runs together.
	maxBulk = 25_000
	// defaultInterval is how many points of each run a chart is drawn from.
	defaultInterval = 2500
	maxBulkRuns     = 100
)

type metricHistory struct {
	runID
	paging

	Key string `json:"metric_key"`
}

func (s *Server) metricHistory(ctx context.Context, q metricHistory) (any, error) {
	id, err := q.id()
	if err != nil {
		return nil, err
	}
	if err := required("metric_key", q.Key); err != nil {
		return nil, err
	}
	n, err := q.limit(maxHistory)
	if err != nil {
		return nil, err
	}
	found, next, err := s.cfg.Store.MetricHistory(ctx, id, q.Key, n, q.Page)
	if err != nil {
		return nil, err
	}
	return listed("metrics", fromHistory(found, ""), next), nil
}

func fromHistory(found []tracking.Metric, run string) []wireMetric {
	out := make([]wireMetric, len(found))
	for i := range found {
		out[i] = fromMetric(&found[i], run)
	}
	return out
}

type bulkHistory struct {
	// Both spellings are in use by MLflow's own pages.
	Runs    []string `json:"run_ids"`
	RunList []string `json:"run_id"`
	Key     string   `json:"metric_key"`
	From    *integer `json:"start_step"`
	To      *integer `json:"end_step"`
	Max     *integer `json:"max_results"`
}

func (q *bulkHistory) runs() ([]string, error) {
	runs := slices.Concat(q.Runs, q.RunList)
	if len(runs) == 0 || len(runs) > maxBulkRuns {
		return nil, refuse(tracking.Invalid, "GetMetricHistoryBulk request must specify 1 to %d run_ids", maxBulkRuns)
	}
	return runs, required("metric_key", q.Key)
}

// metricHistories are those of several runs behind each other.
func (s *Server) metricHistories(ctx context.Context, q bulkHistory) (any, error) {
	runs, err := q.runs()
	if err != nil {
		return nil, err
	}
	out := []wireMetric{}
	for _, run := range runs {
		found, err := s.wholeHistory(ctx, run, q.Key, maxBulk-len(out))
		if err != nil {
			return nil, err
		}
		out = append(out, fromHistory(found, run)...)
	}
	return object{"metrics": out}, nil
}

// wholeHistory reads all pages of a history, at most so many values.
func (s *Server) wholeHistory(ctx context.Context, run, key string, most int) ([]tracking.Metric, error) {
	var out []tracking.Metric
	for page := ""; len(out) < most; {
		found, next, err := s.cfg.Store.MetricHistory(ctx, run, key, min(most-len(out), maxHistory), page)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
		if next == "" {
			break
		}
		page = next
	}
	return out, nil
}

// metricInterval thins the histories of several runs out to what a chart can
// show: the first, the last and evenly spaced steps between.
func (s *Server) metricInterval(ctx context.Context, q bulkHistory) (any, error) {
	runs, err := q.runs()
	if err != nil {
		return nil, err
	}
	from, to, most := int64(math.MinInt64), int64(math.MaxInt64), defaultInterval
	if q.From != nil {
		from = int64(*q.From)
	}
	if q.To != nil {
		to = int64(*q.To)
	}
	if from > to {
		return nil, refuse(tracking.Invalid, "end_step must be greater than start_step. Found start_step=%d and end_step=%d.", from, to)
	}
	if q.Max != nil {
		if *q.Max < 1 || *q.Max > defaultInterval {
			return nil, refuse(tracking.Invalid, "max_results must be between 1 and %d", defaultInterval)
		}
		most = int(*q.Max)
	}
	out := []wireMetric{}
	for _, run := range runs {
		found, err := s.wholeHistory(ctx, run, q.Key, maxBulk)
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(m tracking.Metric) bool { return m.Step < from || m.Step > to })
		out = append(out, fromHistory(thin(found, most), run)...)
	}
	return object{"metrics": out}, nil
}

// thin keeps at most so many of the values, the first and the last among them.
func thin(all []tracking.Metric, most int) []tracking.Metric {
	if len(all) <= most {
		return all
	}
	if most == 1 {
		return all[len(all)-1:]
	}
	out := make([]tracking.Metric, most)
	for i := range out {
		out[i] = all[i*(len(all)-1)/(most-1)]
	}
	return out
}
