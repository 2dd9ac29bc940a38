package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/agent/score"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// maxSchema bounds a schema file in bytes; maxSlots one of slots.
const (
	maxSchema = 4 << 20
	maxSlots  = 64 << 10
)

type scoreFlags struct {
	state, model, graph, schema string
	to, in, out, header         string
	keep                        []string
	onError                     string
	batch                       int
	resume, force, quiet        bool
}

func (a *app) scoreCommand() *cobra.Command {
	f := &scoreFlags{}
	cmd := &cobra.Command{
		Use:   "score FILE",
		Short: "Compute predictions for a whole file",
		Long: `score runs a model over a CSV or JSON Lines file and writes one line for each row:
the row's number, the columns to keep, the class and the model's outputs. Columns
are found by the names of the model's features; a file without a header goes by
position. Memory does not grow with the file.

The model is the one that is active on this device (--model), or a graph with its
schema as ` + "`vedette-agent profile`" + ` writes it (--graph and --schema).

A row that cannot be scored ends the run with its number and column, unless
--on-error says to leave it out (skip) or to write it without outputs (null). An
interrupted run goes on with --resume: no row is scored twice, none is missing.
"-" is standard input or output.`,
		Example: `  vedette-agent score readings.csv --model digits --to predictions.csv
  vedette-agent score rows.jsonl --graph model.onnx --schema schema.json --keep id --on-error skip
  zcat big.csv.gz | vedette-agent score - --model digits > predictions.csv`,
		Args: arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.score(cmd, f, args[0]) },
	}
	fl := cmd.Flags()
	stateFlag(cmd, &f.state)
	fl.StringVar(&f.model, "model", "", "model that is active on this device")
	fl.StringVar(&f.graph, "graph", "", "graph (ONNX) instead of a model of this device")
	fl.StringVar(&f.schema, "schema", "", "schema of --graph")
	fl.StringVar(&f.to, "to", "-", "file to write")
	fl.StringVar(&f.in, "from", "", "format of the input, csv or jsonl (default: by its name, else csv)")
	fl.StringVar(&f.out, "as", "", "format of the output, csv or jsonl (default: by its name, else csv)")
	fl.StringVar(&f.header, "header", score.HeaderAuto, "CSV header: auto, yes, no, or skip to ignore its names")
	fl.StringSliceVar(&f.keep, "keep", nil, "columns to copy to the output")
	fl.StringVar(&f.onError, "on-error", score.OnErrorFail, "rows that cannot be scored: fail, skip or null")
	fl.IntVar(&f.batch, "batch", score.DefaultBatch, "rows of one run")
	fl.BoolVar(&f.resume, "resume", false, "go on where an interrupted run was")
	fl.BoolVar(&f.force, "force", false, "replace an output that is there already")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress and no summary")
	for flag, values := range map[string][]string{
		"on-error": {score.OnErrorFail, score.OnErrorSkip, score.OnErrorNull},
		"header":   {score.HeaderAuto, score.HeaderYes, score.HeaderNo, score.HeaderSkip},
		"from":     {score.CSV, score.JSONLines}, "as": {score.CSV, score.JSONLines},
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
	graph, schema, err := f.find()
	if err != nil {
		return err
	}
	session, err := onnx.OpenGraph(graph, schema)
	if err != nil {
		return err
	}
	defer session.Close()
	raw, err := fileDigest(graph)
	if err != nil {
		return err
	}
	input, closeInput, err := a.openInput(file)
	if err != nil {
		return err
	}
	defer closeInput()
	bar := a.progress(f, input.Size)
	cfg := score.Config{
		Model: session, Schema: schema, Identity: raw.String(), Input: input, Output: f.to, Stdout: a.out,
		InFormat: format(f.in, file), OutFormat: format(f.out, f.to), Header: f.header, Keep: f.keep,
		OnError: f.onError, Batch: f.batch, Resume: f.resume, Progress: bar.update,
	}
	s, err := score.Run(cmd.Context(), cfg)
	bar.end()
	if err != nil {
		if f.to != "-" && s.Rows > 0 && errors.Is(err, cmd.Context().Err()) {
			fmt.Fprintf(a.err, "interrupted after row %d; the same command with --resume goes on\n", s.Rows)
		}
		return err
	}
	return a.summary(f, s)
}

func (f *scoreFlags) check(output string) error {
	switch {
	case (f.model == "") == (f.graph == ""):
		return usagef("name a model of this device (--model NAME) or a graph (--graph FILE --schema FILE)")
	case f.graph != "" && f.schema == "":
		return usagef("--graph needs --schema FILE; `vedette-agent profile` writes one")
	case output == "json" && f.to == "-":
		return usagef("-o json prints a summary: write the predictions to a file with --to FILE")
	case f.to != "-" && !f.force && !f.resume:
		if _, err := os.Stat(f.to); err == nil {
			return usagef("%s is there already; replace it with --force, or name another with --to", f.to)
		}
	}
	return nil
}

// find returns the graph and schema to score with.
func (f *scoreFlags) find() (string, *release.Schema, error) {
	if f.graph != "" {
		s, err := readSchema(f.schema)
		return f.graph, s, err
	}
	r, err := activeRelease(f.state, f.model)
	if err != nil {
		return "", nil, err
	}
	v, err := r.Graph()
	if err != nil {
		return "", nil, err
	}
	return r.Path(v.Graph), &r.Manifest.Schema, nil
}

func readSchema(name string) (*release.Schema, error) {
	raw, err := readBounded(name, maxSchema)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	s, err := decodeSchema(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// activeRelease reads which release of a model is active, without disturbing an
// agent that runs: nothing is opened for writing.
func activeRelease(state, model string) (infer.Release, error) {
	if err := protocol.CheckName(model); err != nil {
		return infer.Release{}, usagef("--model: %w", err)
	}
	files := os.DirFS(state)
	raw, err := slots.ReadRecord(files, path.Join(slots.Folder, model, "slots.json"), maxSlots)
	if errors.Is(err, os.ErrNotExist) {
		return infer.Release{}, fmt.Errorf("model %q is not on this device; it has %s", model, onDevice(state))
	}
	if err != nil {
		return infer.Release{}, fmt.Errorf("read slots of %s: %w", model, err)
	}
	var set slots.Set
	if err := json.Unmarshal(raw, &set); err != nil {
		return infer.Release{}, fmt.Errorf("read slots of %s: %w", model, err)
	}
	if set.Active.Empty() {
		return infer.Release{}, fmt.Errorf("no version of model %q is active on this device yet", model)
	}
	r := infer.Release{Digest: set.Active.Release, Variant: set.Active.Variant, P95: set.Active.P95}
	r.Dir = filepath.Join(state, slots.Folder, model, r.Digest.String())
	manifest, err := readBounded(filepath.Join(r.Dir, "manifest.json"), maxSchema)
	if err != nil {
		return infer.Release{}, fmt.Errorf("read manifest: %w", err)
	}
	if release.DigestOf(manifest) != r.Digest {
		return infer.Release{}, fmt.Errorf("the manifest of %s on this device is damaged; let the agent fetch it again", model)
	}
	r.Manifest, err = release.Decode(manifest)
	return r, err
}

// onDevice lists the models of a state directory for an error message.
func onDevice(state string) string {
	entries, err := os.ReadDir(filepath.Join(state, slots.Folder))
	if err != nil || len(entries) == 0 {
		return "none"
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, ", ")
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
		in.Size = st.Size()
	}
	return in, func() { _ = f.Close() }, nil
}

// format is what the flag says, else what the name does, else CSV.
func format(flag, name string) string {
	if flag != "" {
		return flag
	}
	if slices.Contains([]string{".jsonl", ".ndjson", ".json"}, strings.ToLower(filepath.Ext(name))) {
		return score.JSONLines
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

func (a *app) summary(f *scoreFlags, s score.Summary) error {
	if a.output == "json" {
		return a.print(s, nil)
	}
	if f.quiet {
		return nil
	}
	fmt.Fprintf(a.err, "%d rows: %d scored, %d skipped, %d without outputs; %.0f rows/s\n", s.Rows, s.Scored, s.Skipped, s.Nulls, s.Rate)
	for _, e := range s.Errors {
		fmt.Fprintf(a.err, "  %v\n", e)
	}
	if more := s.Skipped + s.Nulls - int64(len(s.Errors)); more > 0 {
		fmt.Fprintf(a.err, "  and %d more\n", more)
	}
	return nil
}
