package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/agent/score"
	"github.com/vedette-edge/vedette/protocol/release"
)

type scoreFlags struct {
	state, model, release   string
	graph, schema, baseline string
	to, in, out, header     string
	keep                    []string
	onError, rejects        string
	report                  string
	batch, threads          int
	resume, force, quiet    bool
	measure                 int
}

func (a *app) scoreCommand() *cobra.Command {
	f := &scoreFlags{}
	cmd := &cobra.Command{
		Use:   "score FILE",
		Short: "Compute predictions for a whole file",
		Long: `score runs a model over a CSV, JSON Lines or Parquet file and writes one line for
each row: the row's number, the columns to keep, the class and the model's outputs.
Columns are found by the names of the model's features; a CSV file without a header
goes by position; commas separate its columns. CSV and JSON Lines may be compressed
with gzip or zstd, and one line may have 16 MiB at most. Memory does not grow with
the file, and nothing needs a network.

The model is the one that is active on this device (--model), the folder of a
version as ` + "`vedette-agent profile`" + ` and ` + "`vedette model pack`" + ` write it (--release),
or a graph with its schema (--graph and --schema).

A row that cannot be scored ends the run with its number and column, unless
--on-error says to leave it out (skip) or to write it without outputs (null);
--rejects lists such rows in a file. An interrupted run goes on with --resume:
no row is scored twice, none is missing. The input is never overwritten, and a file
that is there already only with --force. --report compares the rows with the
model's training data, as the fleet does. "-" is standard input or output.`,
		Example: `  vedette-agent score readings.csv --model digits --to predictions.csv
  vedette-agent score rows.parquet --release digits/ --keep id --to predictions.parquet --report drift.json
  vedette-agent score rows.jsonl --graph model.onnx --schema schema.json --on-error skip --rejects bad.jsonl
  vedette-agent score big.csv.gz --model digits --to predictions.csv --resume`,
		Args: arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.score(cmd, f, args[0]) },
	}
	fl := cmd.Flags()
	stateFlag(cmd, &f.state)
	fl.StringVar(&f.model, "model", "", "model that is active on this device")
	fl.StringVar(&f.release, "release", "", "folder of a version instead of a model of this device")
	fl.StringVar(&f.graph, "graph", "", "graph (ONNX) instead of a model of this device")
	fl.StringVar(&f.schema, "schema", "", "schema of --graph")
	fl.StringVar(&f.baseline, "baseline", "", "baseline of --graph, for --report")
	fl.StringVar(&f.to, "to", "-", "file to write")
	fl.StringVar(&f.in, "from", "", "format of the input: csv, jsonl or parquet (default: by its name, else csv)")
	fl.StringVar(&f.out, "as", "", "format of the output: csv, jsonl or parquet (default: by its name, else csv)")
	fl.StringVar(&f.header, "header", score.HeaderAuto, "CSV header: auto, yes, no, or skip to ignore its names")
	fl.StringSliceVar(&f.keep, "keep", nil, "columns to copy to the output")
	fl.StringVar(&f.onError, "on-error", score.OnErrorFail, "rows that cannot be scored: fail, skip or null")
	fl.StringVar(&f.rejects, "rejects", "", "file (JSON Lines) for rows that were skipped or have no outputs")
	fl.StringVar(&f.report, "report", "", "file (JSON) for how inputs and outputs differ from training")
	fl.IntVar(&f.batch, "batch", score.DefaultBatch, "rows of one run")
	fl.IntVar(&f.threads, "threads", 0, "batches worked on at once, 0 for the processors")
	fl.BoolVar(&f.resume, "resume", false, "go on where an interrupted run was, if there is one")
	fl.BoolVar(&f.force, "force", false, "replace an output, rejects or report that is there already")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress and no summary")
	fl.IntVar(&f.measure, "measure", 0, "rounds of measuring parsing, inference and all together; prints rates instead of a summary")
	_ = fl.MarkHidden("measure") // the flag exists; it is for benchmarks
	for flag, values := range map[string][]string{
		"on-error": {score.OnErrorFail, score.OnErrorSkip, score.OnErrorNull},
		"header":   {score.HeaderAuto, score.HeaderYes, score.HeaderNo, score.HeaderSkip},
		"from":     {score.CSV, score.JSONLines, score.Parquet}, "as": {score.CSV, score.JSONLines, score.Parquet},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	}
	return cmd
}

func (a *app) score(cmd *cobra.Command, f *scoreFlags, file string) error {
	if err := f.check(a.output); err != nil {
		return err
	}
	if _, err := a.runtime(); err != nil {
		return err
	}
	m, err := f.find()
	if err != nil {
		return err
	}
	session, err := onnx.OpenGraph(m.graph, m.schema)
	if err != nil {
		return err
	}
	defer session.Close()
	cfg, err := f.config(session, m)
	if err != nil {
		return err
	}
	if f.measure > 0 {
		return a.measureScore(cmd.Context(), f, cfg, file)
	}
	input, closeInput, err := a.openInput(file)
	if err != nil {
		return err
	}
	defer closeInput()
	bar := a.progress(f, input.Size)
	cfg.Input, cfg.InFormat, cfg.Stdout, cfg.Progress = input, format(f.in, file), a.out, bar.update
	s, err := score.Run(cmd.Context(), cfg)
	bar.end()
	if err != nil {
		if f.to != "-" && s.Rows > 0 && errors.Is(err, cmd.Context().Err()) {
			fmt.Fprintf(a.err, "interrupted after row %d; the same command with --resume goes on\n", s.Rows)
		}
		return scoreError(err)
	}
	if err := f.writeReport(s.Report); err != nil {
		return err
	}
	return a.summary(f, s)
}

// scoreError makes an error of the options one of the command line.
func scoreError(err error) error {
	if errors.Is(err, score.ErrOption) || errors.Is(err, score.ErrFiles) {
		return &usageError{err}
	}
	return err
}

// config is what the flags say, without the input.
func (f *scoreFlags) config(session infer.Session, m *scored) (score.Config, error) {
	raw, err := fileDigest(m.graph)
	if err != nil {
		return score.Config{}, err
	}
	cfg := score.Config{
		Model: session, Schema: m.schema, Identity: raw.String(), Output: f.to, OutFormat: format(f.out, f.to),
		Header: f.header, Keep: f.keep, OnError: f.onError, Rejects: f.rejects,
		Report: f.report, Batch: f.batch, Threads: f.threads, Resume: f.resume, Replace: f.force,
	}
	if f.report != "" {
		cfg.Baseline, err = m.readBaseline()
	}
	return cfg, err
}

// measureScore measures the parts of a run, see score.Measure.
func (a *app) measureScore(ctx context.Context, f *scoreFlags, cfg score.Config, file string) error {
	r, err := score.Measure(ctx, f.measure, func() (score.Config, func() error, error) {
		input, done, err := a.openInput(file)
		once := cfg
		once.Input, once.InFormat = input, format(f.in, file)
		return once, func() error { done(); return nil }, err
	})
	if err != nil {
		return scoreError(err)
	}
	return a.print(r, func(w io.Writer) error {
		parse, model, all := r.Medians()
		_, err := fmt.Fprintf(w, "%d rows, %d threads, rows/s: parse %.0f, infer %.0f, score %.0f\n", r.Rows, r.Threads, parse, model, all)
		return err
	})
}

func (f *scoreFlags) check(output string) error {
	switch {
	case !oneOf(f.model, f.release, f.graph):
		return usagef("name a model of this device (--model NAME) or a graph (--graph FILE --schema FILE) or the folder of a version (--release DIR)")
	case f.report != "" && f.graph != "" && f.baseline == "":
		return usagef("--report needs the model's baseline (--baseline FILE); `vedette-agent profile` writes one")
	case f.graph != "" && f.schema == "":
		return usagef("--graph needs --schema FILE; `vedette-agent profile` writes one")
	case f.measure > 0 && f.to == "-":
		return usagef("--measure writes the predictions to a file: name one with --to FILE")
	case output == "json" && f.to == "-":
		return usagef("-o json prints a summary: write the predictions to a file with --to FILE")
	case f.batch < 1:
		return usagef("--batch is %d, must be 1 or more rows", f.batch)
	case f.threads < 0:
		return usagef("--threads is %d, must be 1 or more, or 0 for the processors", f.threads)
	}
	return nil
}

// oneOf reports whether exactly one text is not empty.
func oneOf(list ...string) bool {
	n := 0
	for _, s := range list {
		if s != "" {
			n++
		}
	}
	return n == 1
}

func fileDigest(name string) (release.Digest, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return release.Digest{}, fmt.Errorf("read graph: %w", err)
	}
	return release.DigestOf(raw), nil
}

func (a *app) openInput(file string) (score.Input, func(), error) {
	if file == "-" {
		return score.Input{Reader: a.in, Name: "standard input"}, func() {}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return score.Input{}, nil, fmt.Errorf("open input: %w", err)
	}
	in := score.Input{Reader: f, Name: file}
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		in.Size, in.Modified = st.Size(), st.ModTime()
	}
	return in, func() { _ = f.Close() }, nil
}

// format is what the flag says, else what the name does, else CSV.
func format(flag, name string) string {
	if flag != "" {
		return flag
	}
	name = strings.ToLower(name)
	switch packed := filepath.Ext(name); packed {
	case ".gz", ".zst":
		name = strings.TrimSuffix(name, packed)
	}
	switch filepath.Ext(name) {
	case ".jsonl", ".ndjson", ".json":
		return score.JSONLines
	case ".parquet", ".pq":
		return score.Parquet
	}
	return score.CSV
}

// bar shows progress on a terminal and nothing elsewhere.
type bar struct{ bar *progressbar.ProgressBar }

func (a *app) progress(f *scoreFlags, total int64) bar {
	file, ok := a.err.(*os.File)
	if f.quiet || !ok || !term.IsTerminal(int(file.Fd())) {
		return bar{}
	}
	if total == 0 {
		total = -1
	}
	return bar{progressbar.NewOptions64(total, progressbar.OptionSetWriter(file), progressbar.OptionShowBytes(true),
		progressbar.OptionSetDescription("scoring"), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish())}
}

func (b bar) update(p score.Progress) {
	if b.bar != nil {
		b.bar.Describe(fmt.Sprintf("scoring, row %d", p.Rows))
		_ = b.bar.Set64(p.Bytes) // a bar that cannot be drawn harms nothing
	}
}

func (b bar) end() {
	if b.bar != nil {
		_ = b.bar.Clear() // a bar that cannot be drawn harms nothing
	}
}
