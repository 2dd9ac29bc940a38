package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/constraints"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func modelEvaluate(a *app) *cobra.Command {
	var training, checked string
	cmd := &cobra.Command{
		Use:   "evaluate MODEL VERSION [EVALUATION] [--evaluation-data REPORT] [--training-data REPORT]",
		Short: "Upload evidence for the gates of a version",
		Long: `Uploads what "vedette-agent evaluate" wrote, and reports of "vedette data check
-o json" on the evaluated or the training rows. The server computes every metric
itself. At most 1,000,000 rows; the newest ten of each kind are kept.

To compare with the version in production, evaluate both on the same file.`,
		Example: `  vedette-agent evaluate digits-2/ --rows heldout.csv --truth digit --to evaluation.csv
  vedette data check heldout.csv --constraints constraints.json -o json > report.json
  vedette model evaluate digits 2 evaluation.csv --evaluation-data report.json`,
		Args: args(cobra.RangeArgs(2, 3)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			file := ""
			if len(given) > 2 {
				file = given[2]
			}
			if file == "" && training == "" && checked == "" {
				return usagef("name an evaluation, or a report with --evaluation-data or --training-data")
			}
			return a.addEvidence(cmd.Context(), given[0], given[1], file, training, checked)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&checked, "evaluation-data", "", "report on the rows that were evaluated")
	fl.StringVar(&training, "training-data", "", "report on the training rows")
	return cmd
}

func (a *app) addEvidence(ctx context.Context, model, version, file, training, checked string) error {
	var e operator.EvidenceAdded
	var err error
	if training != "" {
		if e.TrainingData, err = readFile(training, constraints.MaxReport); err != nil {
			return err
		}
	}
	if checked != "" {
		if e.EvaluationData, err = readFile(checked, constraints.MaxReport); err != nil {
			return err
		}
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	if file != "" {
		d, err := a.uploadFile(ctx, c, file)
		if err != nil {
			return err
		}
		e.Evaluation = &d
	}
	v, err := c.AddEvidence(ctx, model, version, e)
	if err != nil {
		return err
	}
	return a.print(v, func(w io.Writer) { showValidation(w, v) })
}

// uploadFile makes a blob of a file.
func (a *app) uploadFile(ctx context.Context, c *client.Client, path string) (d release.Digest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, fileError(err)
	}
	defer func() { _ = f.Close() }()
	d, size, err := digestOf(f)
	if err != nil {
		return d, err
	}
	bar := a.bar("evaluation", size)
	defer bar.close()
	up := client.Uploader{Store: c, Progress: bar.set}
	return d, up.Upload(ctx, d, size, f)
}

// digestOf reads a file through.
func digestOf(f io.Reader) (d release.Digest, size int64, err error) {
	sum := sha256.New()
	if size, err = io.Copy(sum, f); err != nil {
		return d, 0, fileError(err)
	}
	return release.Digest(sum.Sum(nil)), size, nil
}

func modelHistory(a *app) *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use: "history MODEL [--at TIME]", Short: "Show what was in production, where, when, by whom and why",
		Example: `  vedette model history digits
  vedette model history digits --at 2026-11-20T09:00:00Z
  vedette model history digits --at 36h      # so long ago`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			q := operator.HistoryQuery{}
			if at != "" {
				var err error
				if q.At, err = moment(at, time.Now()); err != nil {
					return err
				}
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			h, err := c.History(cmd.Context(), given[0], q)
			if err != nil {
				return err
			}
			return a.print(h, func(w io.Writer) { showHistory(w, h) })
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "a moment: a time such as 2026-11-20T09:00:00Z, a date, or how long ago such as 36h")
	return cmd
}

// moment reads a time, a date, or how long ago.
func moment(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t.UTC(), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d).UTC(), nil
	}
	return time.Time{}, usagef("--at %q: give a time such as 2026-11-20T09:00:00Z, a date, or how long ago such as 36h", text)
}

func showHistory(w io.Writer, h *operator.History) {
	if len(h.Stages)+len(h.Where) == 0 {
		none(w, "version of "+h.Model+" was in a stage or rolled out then")
		return
	}
	rows := [][]string{}
	for _, s := range h.Stages {
		rows = append(rows, []string{timeText(s.From), firstOf(timeText(s.To), "now"), s.Version, string(s.Stage), s.Actor, s.Reason})
	}
	if len(rows) > 0 {
		heading(w, "stages")
		grid(w, []string{"from", "to", "version", "stage", "by", "why"}, rows)
	}
	rows = rows[:0]
	for i := range h.Where {
		x := &h.Where[i]
		rows = append(rows, []string{
			timeText(x.From), firstOf(timeText(x.To), "now"), x.Version, x.Rollout, string(x.State), strconv.Itoa(x.Devices), countsText(x.Sites), x.Actor, x.Reason,
		})
	}
	if len(rows) > 0 {
		heading(w, "where")
		grid(w, []string{"from", "to", "version", "rollout", "state", "devices", "sites", "by", "why"}, rows)
	}
}

func dataCommand(a *app) *cobra.Command {
	return group("data", "Check training and evaluation rows before they are believed", `Constraints say what rows have to be like: types, how many values may be missing,
ranges, categories and distribution. Their file has the form of Amazon SageMaker
Model Monitor's constraints.json, and violations have its names. Ranges and the
baseline of each column are added here.

"suggest" learns constraints from good rows; edit what you know better. "check"
holds other rows against them. Both read CSV and Parquet in bounded memory.`,
		dataSuggest(a), dataCheck(a))
}

func dataSuggest(a *app) *cobra.Command {
	var ignore []string
	cmd := &cobra.Command{
		Use: "suggest ROWS", Short: "Learn constraints from good rows",
		Example: `  vedette data suggest train.csv > constraints.json`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			s, err := summarise(given[0], nil, ignore)
			if err != nil {
				return err
			}
			return writeJSON(a.out, s.Suggest())
		},
	}
	cmd.Flags().StringSliceVar(&ignore, "ignore", nil, "columns to leave out (repeat)")
	return cmd
}

func dataCheck(a *app) *cobra.Command {
	var file string
	var ignore []string
	cmd := &cobra.Command{
		Use: "check ROWS --constraints FILE", Short: "Hold rows against constraints",
		Long: `Prints what violates the constraints, and exits with 1 when something does. With
-o json it prints the report that "vedette model evaluate" takes as evidence for a
data gate.`,
		Example: `  vedette data check heldout.csv --constraints constraints.json
  vedette data check heldout.csv --constraints constraints.json -o json > report.json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			if file == "" {
				return usagef("give --constraints FILE; `vedette data suggest` makes one")
			}
			r, err := checkRows(given[0], file, ignore)
			if err != nil {
				return err
			}
			if err := a.print(r, func(w io.Writer) { showReport(w, r) }); err != nil || r.Total() == 0 {
				return err
			}
			return operator.Errorf(operator.Invalid, "%d violations", r.Total()).
				WithHint("mend the rows, or the constraints where they ask too much")
		},
	}
	cmd.Flags().StringVar(&file, "constraints", "", "constraints of the rows (JSON)")
	cmd.Flags().StringSliceVar(&ignore, "ignore", nil, "columns of the rows to leave out (repeat)")
	return cmd
}

func checkRows(rows, file string, ignore []string) (*constraints.Report, error) {
	raw, err := readFile(file, constraints.MaxFile)
	if err != nil {
		return nil, err
	}
	c, err := constraints.Decode(raw)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "%s: %w", file, err)
	}
	s, err := summarise(rows, c, ignore)
	if err != nil {
		return nil, err
	}
	if s.Rows() == 0 {
		return nil, operator.Errorf(operator.Invalid, "%s has no rows", rows)
	}
	r := s.MakeReport(c)
	f, err := os.Open(rows)
	if err != nil {
		return nil, fileError(err)
	}
	defer func() { _ = f.Close() }()
	if r.Rows, _, err = digestOf(f); err != nil {
		return nil, err
	}
	r.RowsName, r.Constraints = filepath.Base(rows), release.DigestOf(raw)
	return r, nil
}

// summarise goes through a table once.
func summarise(path string, c *constraints.Constraints, ignore []string) (*constraints.Summary, error) {
	t, err := openRows(path)
	if err != nil {
		return nil, err
	}
	defer t.close()
	names, keep := without(t.columns(), ignore)
	s, err := constraints.NewSummary(names, c)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "%s: %w", path, err)
	}
	cells := make([]string, len(keep))
	for {
		row, err := t.next()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		for i, at := range keep {
			if err == nil && at < len(row) {
				cells[i] = row[at]
			}
		}
		if err == nil {
			err = s.Add(cells)
		}
		if err != nil {
			return nil, operator.Errorf(operator.Invalid, "%s: %w", path, err)
		}
	}
}

// without are the columns but for those to ignore, and where they stand.
func without(all, ignore []string) (names []string, at []int) {
	for i, name := range all {
		if !slices.Contains(ignore, name) {
			names, at = append(names, name), append(at, i)
		}
	}
	return names, at
}

func showReport(w io.Writer, r *constraints.Report) {
	facts(w, "rows", fmt.Sprintf("%d of %s (%s)", r.Count, r.RowsName, r.Rows.Short()), "constraints", r.Constraints.Short(), "violations", strconv.Itoa(r.Total()))
	rows := [][]string{}
	for _, v := range r.Violations {
		rows = append(rows, []string{v.Feature, v.Check, v.Description})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		grid(w, []string{"column", "check", "what"}, rows)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "and %d more\n", r.More)
	}
}
