package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func driftHistory(a *app) *cobra.Command {
	var q operator.TrendQuery
	var since, step string
	cmd := &cobra.Command{
		Use: "history MODEL", Short: "Show rows, latency, accuracy and drift over months",
		Long: `Shows what a model did over time, from the hours that are kept for 90 days and
the days that are kept for two years. Nothing is sampled: histograms and counts
of all devices are added up, sketches merged, so a step says what one window of
its length would have said. Windows that came late are in their own hour.

Columns: the PSI is the largest of all features against the training data of the
version, ece is the expected calibration error (0 is perfect), latency is of calls.
With -o json there are also class shares and, with --features, every feature.`,
		Example: `  vedette drift history digits
  vedette drift history digits --since 90d --by cohort
  vedette drift history digits --since 24h --step 1h --device cam-7
  vedette drift history digits --since 2y --step 7d --features -o json`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := spanFlags(&q, since, step, time.Now()); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			trends, err := c.Trends(cmd.Context(), given[0], q)
			if err != nil {
				return err
			}
			return a.print(trends, func(w io.Writer) { showTrends(w, trends) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&since, "since", "7d", "how far back, for example 24h, 30d or 2y")
	flags.StringVar(&step, "step", "", "length of a step, whole hours or days (default: some hundred steps)")
	flags.StringVar(&q.By, "by", operator.ByVersion, "a line for each version, or for each cohort too: version, cohort")
	flags.StringVar(&q.Version, "version", "", "only this version")
	flags.StringVar(&q.Cohort, "cohort", "", "only this cohort, e.g. a site")
	flags.StringVar(&q.Device, "device", "", "only this device")
	flags.BoolVar(&q.Features, "features", false, "every feature of each step, with -o json")
	cmd.MarkFlagsMutuallyExclusive("cohort", "device")
	return cmd
}

func spanFlags(q *operator.TrendQuery, since, step string, now time.Time) error {
	back, err := parseSpan(since)
	if err != nil {
		return usagef("--since: %w", err)
	}
	q.To = now.UTC().Truncate(time.Second)
	q.From = q.To.Add(-back)
	if step == "" {
		return nil
	}
	length, err := parseSpan(step)
	if err != nil {
		return usagef("--step: %w", err)
	}
	q.Step = release.Duration(length)
	return nil
}

// Units that time.ParseDuration does not know.
var longUnits = map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "y": 365 * 24 * time.Hour}

// parseSpan reads a duration, or a number of days, weeks or years.
func parseSpan(text string) (time.Duration, error) {
	for unit, length := range longUnits {
		if n, found := strings.CutSuffix(text, unit); found {
			number, err := strconv.ParseUint(n, 10, 16)
			if err != nil || number == 0 {
				return 0, fmt.Errorf("%q is no time such as 24h, 30d or 2y", text)
			}
			return time.Duration(number) * length, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no time such as 24h, 30d or 2y", text)
	}
	return d, nil
}

func showTrends(w io.Writer, t *operator.Trends) {
	rows := [][]string{}
	for i := range t.Series {
		s := &t.Series[i]
		for j := range s.Points {
			p := &s.Points[j]
			rows = append(rows, []string{
				timeText(p.At), firstOf(s.Version, s.Release.Short()), s.Cohort, count(p.Devices), count(p.Rows), count(p.FailedRows),
				latencyPair(p.P50US, 0), latencyPair(p.P95US, 0), count(p.Labels), optional(p.Accuracy), optional(p.ECE), optional(p.PSI), p.Furthest,
			})
		}
	}
	if len(rows) == 0 {
		none(w, "windows of "+t.Model+" in that time")
		return
	}
	grid(w, []string{"from", "version", "cohort", "devices", "rows", "failed", "p50", "p95", "labels", "accuracy", "ece", "psi", "of"}, rows)
}
