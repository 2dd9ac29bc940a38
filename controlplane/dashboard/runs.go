package dashboard

import (
	"cmp"
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/mlflow"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// RunFiles opens what runs logged; the caller closes it.
type RunFiles interface {
	RunFile(ctx context.Context, run, path string) (io.ReadSeekCloser, time.Time, error)
}

const (
	runsShown    = 50 // runs of a page
	columnsShown = 6  // of parameters, and of metrics, that a list of runs has
	curvesShown  = 12 // pictures of metrics on a page
	sectionRuns  = "experiments"
)

func (s *Server) experiments(ctx context.Context, _ *request) (string, *page, error) {
	list, err := s.cfg.Service.Experiments(ctx)
	if err != nil {
		return "", nil, err
	}
	return "experiments", &page{Title: "Experiments", Section: sectionRuns, Data: list}, nil
}

// runsView is a page of an experiment's runs.
type runsView struct {
	*operator.Page[operator.Run]

	Query      operator.RunQuery
	Experiment operator.Experiment
	Params     []string // columns
	Metrics    []string
	Orders     []string
	Problem    *operator.Error // of the search as it was typed
	Older      string          // link to the next page
}

func (s *Server) runs(ctx context.Context, r *request) (string, *page, error) {
	q := operator.RunQuery{
		Experiment: r.PathValue("experiment"), Filter: strings.TrimSpace(r.URL.Query().Get("filter")), Order: r.URL.Query().Get("order"),
		Paging: operator.Paging{Limit: runsShown, Cursor: r.URL.Query().Get("after")},
	}
	v := runsView{Query: q}
	var err error
	if v.Experiment, err = s.experimentNamed(ctx, q.Experiment); err != nil {
		return "", nil, err
	}
	v.Page, err = s.cfg.Service.Runs(ctx, q)
	if operator.CodeOf(err) == operator.Invalid { // a filter with a slip of the pen is to be mended, not lost
		v.Problem, v.Page, err = s.explain(err), &operator.Page[operator.Run]{}, nil
	}
	if err != nil {
		return "", nil, err
	}
	v.columns()
	if v.Next != "" {
		next := url.Values{"after": {v.Next}}
		if q.Filter != "" {
			next.Set("filter", q.Filter)
		}
		if q.Order != "" {
			next.Set("order", q.Order)
		}
		v.Older = "/experiments/" + queryPath(v.Experiment.ID) + "?" + next.Encode()
	}
	return "runs", &page{Title: v.Experiment.Name, Section: sectionRuns, Data: v}, nil
}

func (s *Server) experimentNamed(ctx context.Context, id string) (operator.Experiment, error) {
	list, err := s.cfg.Service.Experiments(ctx)
	if err != nil {
		return operator.Experiment{}, err
	}
	i := slices.IndexFunc(list, func(e operator.Experiment) bool { return e.ID == id })
	if i < 0 {
		return operator.Experiment{}, operator.Errorf(operator.NotFound, "there is no experiment %.40q", id)
	}
	return list[i], nil
}

// columns chooses what a list shows: parameters that differ come first, since
// those are what one looks for.
func (v *runsView) columns() {
	params, metrics := map[string]map[string]bool{}, map[string]int{}
	for i := range v.Items {
		for k, value := range v.Items[i].Params {
			if params[k] == nil {
				params[k] = map[string]bool{}
			}
			params[k][value] = true
		}
		for k := range v.Items[i].Metrics {
			metrics[k]++
		}
	}
	v.Params = slices.SortedFunc(maps.Keys(params), func(a, b string) int {
		return cmp.Or(cmp.Compare(min(2, len(params[b])), min(2, len(params[a]))), cmp.Compare(a, b))
	})
	v.Metrics = slices.SortedFunc(maps.Keys(metrics), func(a, b string) int {
		return cmp.Or(cmp.Compare(metrics[b], metrics[a]), cmp.Compare(a, b))
	})
	for _, m := range v.Metrics {
		v.Orders = append(v.Orders, columnOf("metrics", m)+" DESC", columnOf("metrics", m)+" ASC")
	}
	v.Params, _ = first(v.Params, columnsShown)
	v.Metrics, _ = first(v.Metrics, columnsShown)
	v.Orders = append([]string{"start_time DESC", "start_time ASC"}, v.Orders...)
	if v.Query.Order != "" && !slices.Contains(v.Orders, v.Query.Order) {
		v.Orders = append(v.Orders, v.Query.Order)
	}
}

// columnOf names a metric in the language of searches.
func columnOf(kind, key string) string {
	if strings.ContainsAny(key, " .-/") {
		return kind + ".`" + key + "`"
	}
	return kind + "." + key
}

// runView is one run with its curves and one directory of its artifacts.
type runView struct {
	*operator.RunDetail

	Curves   []curve
	More     int // metrics without a picture here
	Files    []operator.RunFile
	Dir      string // shown
	Up       string // the directory above, where Dir is not the root
	Download bool
}

func (s *Server) run(ctx context.Context, r *request) (string, *page, error) {
	d, err := s.cfg.Service.Run(ctx, r.PathValue("run"))
	if err != nil {
		return "", nil, err
	}
	v := runView{RunDetail: d, Dir: strings.Trim(r.URL.Query().Get("dir"), "/"), Download: s.cfg.RunFiles != nil}
	if v.Curves, v.More, err = s.curves(ctx, []*operator.RunDetail{d}); err != nil {
		return "", nil, err
	}
	v.Files, err = s.cfg.Service.RunFiles(ctx, d.ID, operator.RunFileQuery{Path: v.Dir})
	if operator.CodeOf(err) == operator.Invalid { // kept elsewhere, or a made-up directory
		err = nil
	}
	if v.Dir != "" {
		v.Up = strings.TrimPrefix(path.Dir(v.Dir), ".")
	}
	return "run", &page{Title: cmp.Or(d.Name, d.ID), Section: sectionRuns, Data: v}, err
}

// curves draws the metrics that runs have, those of all of them first.
func (s *Server) curves(ctx context.Context, runs []*operator.RunDetail) (out []curve, more int, err error) {
	has := map[string]int{}
	for _, r := range runs {
		for key := range r.Metrics {
			has[key]++
		}
	}
	keys := slices.SortedFunc(maps.Keys(has), func(a, b string) int {
		return cmp.Or(cmp.Compare(has[b], has[a]), cmp.Compare(a, b))
	})
	keys, more = first(keys, curvesShown)
	for _, key := range keys {
		histories, err := s.histories(ctx, runs, key)
		if err != nil {
			return nil, 0, err
		}
		if c, ok := drawCurve(key, histories); ok {
			out = append(out, c)
		}
	}
	return out, more, nil
}

func (s *Server) histories(ctx context.Context, runs []*operator.RunDetail, key string) ([]history, error) {
	out := make([]history, len(runs))
	for i, r := range runs {
		out[i].name = cmp.Or(r.Name, r.ID)
		if _, ok := r.Metrics[key]; !ok {
			continue
		}
		var err error
		if out[i].points, err = s.cfg.Service.RunMetric(ctx, r.ID, operator.RunMetricQuery{Key: key}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// compareView is two runs side by side.
type compareView struct {
	Runs    []*operator.RunDetail
	Facts   []difference
	Params  []difference
	Metrics []difference
	Curves  []curve
	More    int
}

// difference is one line of a comparison.
type difference struct {
	Key    string
	Values []string // one a run, empty where it has none
	Differ bool
}

func (s *Server) compareRuns(ctx context.Context, r *request) (string, *page, error) {
	ids := r.URL.Query()["run"]
	if len(ids) != 2 || ids[0] == ids[1] {
		return "", nil, operator.Errorf(operator.Invalid, "two runs are compared, and %d were chosen", len(ids)).
			WithHint("go back and choose exactly two")
	}
	v := compareView{}
	for _, id := range ids {
		d, err := s.cfg.Service.Run(ctx, id)
		if err != nil {
			return "", nil, err
		}
		v.Runs = append(v.Runs, d)
	}
	v.compare()
	var err error
	v.Curves, v.More, err = s.curves(ctx, v.Runs)
	return "compare", &page{Title: "Compare runs", Section: sectionRuns, Data: v}, err
}

func (v *compareView) compare() {
	v.Facts = []difference{
		v.differ("Status", func(r *operator.RunDetail) string { return strings.ToLower(r.Status) }),
		v.differ("Author", func(r *operator.RunDetail) string { return cmp.Or(r.User, r.Principal) }),
		v.differ("Git commit", func(r *operator.RunDetail) string { return r.Commit }),
		v.differ("Source", func(r *operator.RunDetail) string { return r.Source }),
		v.differ("Data", dataText),
	}
	v.Params = v.all(func(r *operator.RunDetail) map[string]string { return r.Params })
	v.Metrics = v.all(func(r *operator.RunDetail) map[string]string {
		out := map[string]string{}
		for k, m := range r.Metrics {
			out[k] = metricText(m)
		}
		return out
	})
}

func (v *compareView) differ(key string, of func(*operator.RunDetail) string) difference {
	d := difference{Key: key}
	for _, r := range v.Runs {
		d.Values = append(d.Values, of(r))
	}
	d.Differ = slices.ContainsFunc(d.Values, func(value string) bool { return value != d.Values[0] })
	return d
}

// all compares every key of either run, those that differ first.
func (v *compareView) all(of func(*operator.RunDetail) map[string]string) []difference {
	keys := map[string]bool{}
	for _, r := range v.Runs {
		for k := range of(r) {
			keys[k] = true
		}
	}
	var out []difference
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		out = append(out, v.differ(k, func(r *operator.RunDetail) string { return of(r)[k] }))
	}
	slices.SortStableFunc(out, func(a, b difference) int {
		switch {
		case a.Differ == b.Differ:
			return 0
		case a.Differ:
			return -1
		}
		return 1
	})
	return out
}

// dataText is what a run says about its data: its own words and its datasets.
func dataText(r *operator.RunDetail) string {
	var parts []string
	for _, key := range []string{"data_version", "data.version", "data_hash"} {
		if text := cmp.Or(r.Tags[key], r.Params[key]); text != "" {
			parts = append(parts, text)
		}
	}
	for _, d := range r.Datasets {
		parts = append(parts, d.Name+" "+d.Digest)
	}
	return strings.Join(parts, ", ")
}

func metricText(m operator.RunMetric) string {
	if m.Value == nil {
		return "not a number"
	}
	return formatNumber(*m.Value)
}

// runFile sends one artifact of a run, to be saved and never to be shown: what
// it holds was written by whoever logged it.
func (s *Server) runFile(w http.ResponseWriter, r *request) {
	if s.cfg.RunFiles == nil {
		s.missing(w, r)
		return
	}
	name := r.PathValue("path")
	f, at, err := s.cfg.RunFiles.RunFile(r.Context(), r.PathValue("run"), name)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer f.Close()
	mlflow.Attachment(w.Header(), path.Base(name))
	http.ServeContent(w, r.Request, "", at, f)
}
