package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
)

func runCommand(a *app) *cobra.Command {
	return group("run", "Read what data scientists tracked with MLflow", `Experiments and runs come in through the MLflow client: set MLFLOW_TRACKING_URI to
the address of the control plane and MLFLOW_TRACKING_TOKEN to a token of role
scientist ("vedette token create NAME --role scientist").`,
		runList(a), runShow(a), runCompare(a))
}

func runList(a *app) *cobra.Command {
	q := operator.RunQuery{}
	cmd := &cobra.Command{
		Use: "list [EXPERIMENT]", Short: "List experiments, or the runs of one",
		Long: `Without an experiment lists all of them. With the name or the id of one lists its
runs, newest first. --filter and --order are MLflow's language of searches.`,
		Example: `  vedette run list digits --filter "metrics.accuracy > 0.9 and params.depth = '3'" --order "metrics.accuracy DESC"`,
		Args:    args(cobra.MaximumNArgs(1)), ValidArgsFunction: a.complete(0, experimentNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if len(given) == 0 && q.Filter == "" && q.Order == "" {
				list, err := c.Experiments(cmd.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { showExperiments(w, list) })
			}
			if len(given) > 0 {
				q.Experiment = given[0]
			}
			page, err := c.Runs(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(page, func(w io.Writer) { showRuns(w, page) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Filter, "filter", "", "only runs that fit, for example \"metrics.accuracy > 0.9\"")
	f.StringVar(&q.Order, "order", "", "for example \"metrics.accuracy DESC\" (default: newest first)")
	f.IntVar(&q.Limit, "limit", 0, "how many runs (default 200)")
	f.StringVar(&q.Cursor, "after", "", "go on behind a page: its \"next\"")
	return cmd
}

func experimentNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	list, err := c.Experiments(ctx)
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	return names, err
}

func showExperiments(w io.Writer, list []operator.Experiment) {
	if len(list) == 0 {
		none(w, "experiment has been tracked")
		return
	}
	rows := [][]string{}
	for _, e := range list {
		rows = append(rows, []string{e.ID, e.Name, count(e.Runs), timeText(e.Updated)})
	}
	grid(w, []string{"id", "experiment", "runs", "changed"}, rows)
}

func showRuns(w io.Writer, page *operator.Page[operator.Run]) {
	if len(page.Items) == 0 {
		none(w, "run fits")
		return
	}
	rows := [][]string{}
	for i := range page.Items {
		r := &page.Items[i]
		rows = append(rows, []string{
			r.ID, r.Name, strings.ToLower(r.Status), cmp.Or(r.User, r.Principal), ago(time.Now(), r.Started),
			metricsText(r.Metrics), pairsText(r.Params),
		})
	}
	grid(w, []string{"run", "name", "status", "by", "started", "metrics", "params"}, rows)
	if page.Next != "" {
		fmt.Fprintf(w, "more: --after %s\n", page.Next)
	}
}

// pairsShown bounds how many parameters and metrics a line of a list has.
const pairsShown = 4

func metricsText(metrics map[string]operator.RunMetric) string {
	texts := map[string]string{}
	for k, m := range metrics {
		texts[k] = metricText(m)
	}
	return pairsText(texts)
}

func metricText(m operator.RunMetric) string {
	if m.Value == nil {
		return "not a number"
	}
	return number(*m.Value)
}

func pairsText(pairs map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		if len(parts) == pairsShown {
			parts = append(parts, "…")
			break
		}
		parts = append(parts, k+"="+pairs[k])
	}
	return strings.Join(parts, " ")
}

func runShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show RUN", Short: "Show a run: parameters, metrics, data, models, artifacts", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := c.Run(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			files, err := c.RunFiles(cmd.Context(), given[0], operator.RunFileQuery{})
			if err != nil && operator.CodeOf(err) != operator.Invalid { // kept elsewhere
				return err
			}
			shown := struct {
				*operator.RunDetail

				Files []operator.RunFile `json:"files,omitempty"`
			}{r, files}
			return a.print(shown, func(w io.Writer) { showRun(w, r, files) })
		},
	}
}

func showRun(w io.Writer, r *operator.RunDetail, files []operator.RunFile) {
	facts(w, "run", r.ID, "name", r.Name, "experiment", r.ExperimentName, "status", strings.ToLower(r.Status),
		"by", r.User, "token", r.Principal, "started", timeText(r.Started), "ended", timeText(r.Ended), "commit", r.Commit, "source", r.Source)
	for _, m := range r.Models {
		fmt.Fprintf(w, "model  %s %d  %s  %s\n", m.Name, m.Version, m.Stage, modelText(m))
	}
	for _, d := range r.Datasets {
		fmt.Fprintf(w, "data   %s  %s  %s\n", d.Name, d.Digest, d.Context)
	}
	section(w, "metrics", func() {
		rows := [][]string{}
		for _, k := range slices.Sorted(maps.Keys(r.Metrics)) {
			rows = append(rows, []string{k, metricText(r.Metrics[k]), count(r.Metrics[k].Step)})
		}
		grid(w, []string{"metric", "value", "step"}, rows)
	}, len(r.Metrics))
	section(w, "parameters", func() {
		rows := [][]string{}
		for _, k := range slices.Sorted(maps.Keys(r.Params)) {
			rows = append(rows, []string{k, r.Params[k]})
		}
		grid(w, []string{"parameter", "value"}, rows)
	}, len(r.Params))
	section(w, "artifacts", func() {
		for _, f := range files {
			if f.Dir {
				fmt.Fprintf(w, "%s/\n", f.Path)
			} else {
				fmt.Fprintf(w, "%s  %s\n", f.Path, bytesText(f.Size))
			}
		}
	}, len(files))
}

// section writes a part of a page, if it has anything to show.
func section(w io.Writer, title string, show func(), items int) {
	if items > 0 {
		heading(w, title)
		show()
	}
}

func modelText(m operator.RunModel) string {
	switch {
	case m.Release != "":
		return "release " + m.Release
	case m.Deployable == "false":
		return "not deployable: " + m.Reason
	case m.Deployable == "true":
		return "deployable"
	}
	return ""
}

func runCompare(a *app) *cobra.Command {
	var everything bool
	cmd := &cobra.Command{
		Use: "compare RUN RUN…", Short: "Show what differs between runs",
		Long: `Shows the parameters and metrics that differ between runs, one column a run. With
--all also those that are the same. The dashboard draws the metrics' curves over
each other.`,
		Args: args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			var runs []*operator.RunDetail
			for _, id := range given {
				r, err := c.Run(cmd.Context(), id)
				if err != nil {
					return err
				}
				runs = append(runs, r)
			}
			lines := compareRuns(runs, everything)
			return a.print(lines, func(w io.Writer) { showComparison(w, runs, lines) })
		},
	}
	cmd.Flags().BoolVar(&everything, "all", false, "also what is the same")
	return cmd
}

// comparedLine is one parameter, metric or fact of several runs.
type comparedLine struct {
	Kind   string   `json:"kind"` // param, metric, fact
	Key    string   `json:"key"`
	Values []string `json:"values"` // one a run, empty where it has none
	Differ bool     `json:"differ"`
}

func compareRuns(runs []*operator.RunDetail, everything bool) []comparedLine {
	of := map[string]func(*operator.RunDetail) map[string]string{
		"param": func(r *operator.RunDetail) map[string]string { return r.Params },
		"metric": func(r *operator.RunDetail) map[string]string {
			out := map[string]string{}
			for k, m := range r.Metrics {
				out[k] = metricText(m)
			}
			return out
		},
		"fact": func(r *operator.RunDetail) map[string]string {
			return map[string]string{"status": strings.ToLower(r.Status), "by": r.User, "commit": r.Commit, "source": r.Source, "data": datasetsText(r.Datasets)}
		},
	}
	lines := []comparedLine{}
	for _, kind := range []string{"param", "metric", "fact"} {
		keys := map[string]bool{}
		for _, r := range runs {
			for k := range of[kind](r) {
				keys[k] = true
			}
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			l := comparedLine{Kind: kind, Key: k}
			for _, r := range runs {
				l.Values = append(l.Values, of[kind](r)[k])
				l.Differ = l.Differ || l.Values[0] != of[kind](r)[k]
			}
			if l.Differ || everything {
				lines = append(lines, l)
			}
		}
	}
	return lines
}

func datasetsText(list []operator.RunDataset) string {
	var parts []string
	for _, d := range list {
		parts = append(parts, d.Name+" "+d.Digest)
	}
	return strings.Join(parts, ", ")
}

func showComparison(w io.Writer, runs []*operator.RunDetail, lines []comparedLine) {
	if len(lines) == 0 {
		fmt.Fprintln(w, "the runs do not differ")
		return
	}
	header := []string{"", ""}
	for _, r := range runs {
		header = append(header, cmp.Or(r.Name, r.ID))
	}
	rows := [][]string{}
	for _, l := range lines {
		row := []string{l.Kind, l.Key}
		for _, v := range l.Values {
			row = append(row, cmp.Or(v, "-"))
		}
		rows = append(rows, row)
	}
	grid(w, header, rows)
}
