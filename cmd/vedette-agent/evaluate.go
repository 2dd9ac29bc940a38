package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/agent/score"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/release"
)

type evaluateFlags struct {
	rows, truth, schema, to string
	in                      string
	protect                 []string
	threads                 int
	force                   bool
}

// Evaluated is what `evaluate -o json` prints.
type Evaluated struct {
	evaluation.Header

	File  string `json:"file"`
	Count int64  `json:"count"` // rows
}

func (a *app) evaluateCommand() *cobra.Command {
	f := &evaluateFlags{}
	cmd := &cobra.Command{
		Use:   "evaluate FOLDER|GRAPH",
		Short: "Run a version over labelled rows, as evidence for its validation gates",
		Long: `evaluate runs the packed graph over rows whose truth is known, with the same ONNX
Runtime as the devices, and writes what is true and what it predicts, row by row.
` + "`vedette model evaluate`" + ` uploads the file; the control plane computes every metric
from the pairs itself, and compares with the version in production row by row when
both were evaluated on the same file.

FOLDER is one that ` + "`vedette-agent profile`" + ` or ` + "`vedette model pack`" + ` wrote; its golden
vectors are computed too. GRAPH alone needs --schema.

--rows is a CSV or Parquet file with the model's features, the truth and, for
fairness gates, protected columns. These columns leave this machine with the file:
give --protect only those that a gate needs. A row that cannot be scored ends the
run: an evaluation without its difficult rows would flatter.`,
		Example: `  vedette-agent evaluate digits-2/ --rows heldout.csv --truth digit --to evaluation.csv
  vedette-agent evaluate credit/ --rows test.parquet --truth repaid --protect sex --protect age_group --to evaluation.csv
  vedette model evaluate digits 2 evaluation.csv`,
		Args: arguments("FOLDER|GRAPH"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.evaluate(cmd.Context(), f, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.rows, "rows", "", "labelled rows (CSV with a header, or Parquet)")
	fl.StringVar(&f.truth, "truth", "", "column of --rows with what is true: the class, or the number")
	fl.StringSliceVar(&f.protect, "protect", nil, "columns of --rows that name protected groups (repeat)")
	fl.StringVar(&f.schema, "schema", "", "schema of GRAPH")
	fl.StringVar(&f.in, "from", "", "format of --rows: csv, jsonl or parquet (default: by its name, else csv)")
	fl.StringVar(&f.to, "to", "evaluation.csv", "file to write")
	fl.IntVar(&f.threads, "threads", 0, "batches worked on at once, 0 for the processors")
	fl.BoolVar(&f.force, "force", false, "replace a file that is there already")
	_ = cmd.MarkFlagFilename("rows", "csv", "parquet") // the flag exists
	return cmd
}

func (a *app) evaluate(ctx context.Context, f *evaluateFlags, subject string) error {
	if f.rows == "" || f.truth == "" {
		return usagef("--rows and --truth are needed: the labelled rows, and which of their columns is true")
	}
	if _, err := os.Lstat(f.to); err == nil && !f.force {
		return usagef("%s is there already; replace it with --force, or name another file with --to", f.to)
	}
	m, err := f.find(subject)
	if err != nil {
		return err
	}
	rt, err := a.runtime()
	if err != nil {
		return err
	}
	session, err := onnx.OpenGraph(m.graph, m.schema)
	if err != nil {
		return err
	}
	defer session.Close()
	h, err := f.header(ctx, m, session)
	if err != nil {
		return err
	}
	h.Runtime = rt.Info().Name + " " + rt.Info().Version
	n, err := a.writeEvaluation(ctx, f, m, session, h)
	if err != nil {
		return err
	}
	done := Evaluated{Header: h, File: f.to, Count: n}
	return a.print(done, done.write)
}

// find is what the argument names: a folder or a graph.
func (f *evaluateFlags) find(subject string) (*scored, error) {
	st, err := os.Stat(subject)
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	if st.IsDir() {
		return releaseFolder(subject)
	}
	if f.schema == "" {
		return nil, usagef("a graph alone needs --schema FILE; `vedette-agent profile` writes one")
	}
	s, err := readSchema(f.schema)
	return &scored{graph: subject, schema: s}, err
}

// header says what is evaluated on what, and runs the golden vectors.
func (f *evaluateFlags) header(ctx context.Context, m *scored, session infer.Session) (h evaluation.Header, err error) {
	h = evaluation.Header{
		Format: evaluation.Format, Task: taskOf(m.schema), RowsName: filepath.Base(f.rows), Truth: f.truth, Protect: f.protect,
		Classes: m.schema.Classes, Agent: version, Created: time.Now().UTC().Truncate(time.Second),
	}
	if h.Graph, err = fileDigest(m.graph); err != nil {
		return h, err
	}
	if h.Rows, err = streamDigest(f.rows); err != nil {
		return h, err
	}
	if m.manifest != nil {
		d, err := m.manifest.Digest()
		if err != nil {
			return h, fmt.Errorf("read manifest: %w", err)
		}
		h.Model, h.Version, h.Release = m.manifest.Model, m.manifest.Version, &d
	}
	h.Golden, err = m.prove(ctx, session)
	return h, err
}

// taskOf is what kind of answers a schema has.
func taskOf(s *release.Schema) string {
	if len(s.Classes) > 0 || s.Label != "" {
		return evaluation.Classification
	}
	return evaluation.Regression
}

// streamDigest is the digest of a file of any size.
func streamDigest(name string) (d release.Digest, err error) {
	file, err := os.Open(name)
	if err != nil {
		return d, fmt.Errorf("open rows: %w", err)
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return d, fmt.Errorf("read rows: %w", err)
	}
	return release.Digest(sum.Sum(nil)), nil
}

// prove runs the golden vectors of a folder; nil when there are none.
func (m *scored) prove(ctx context.Context, session infer.Session) (*evaluation.Golden, error) {
	if m.golden == "" {
		return nil, nil //nolint:nilnil // a graph alone has none
	}
	file, err := os.Open(m.golden)
	if err != nil {
		return nil, fmt.Errorf("open golden vectors: %w", err)
	}
	defer file.Close()
	g, err := release.DecodeGolden(file)
	if err != nil {
		return nil, err
	}
	if err := g.Check(m.schema); err != nil {
		return nil, err
	}
	got, err := computeGolden(ctx, session, m.schema, g)
	if err != nil {
		return nil, err
	}
	c, err := g.Compare(got)
	if err != nil {
		return nil, err
	}
	return &evaluation.Golden{Rows: c.Rows, Wrong: c.Wrong, Worst: min(c.WorstAbs, maxDifference), First: c.First, Source: g.Source}, nil
}

// maxDifference stands for an infinite one, which JSON cannot carry.
const maxDifference = 1e300

// computeGolden runs the golden inputs row by row, as most calls come, or in
// batches of the size that the schema prescribes.
func computeGolden(ctx context.Context, session infer.Session, s *release.Schema, g *release.Golden) ([]release.Values, error) {
	batch := 1
	inputs := make([]infer.Tensor, len(s.Inputs))
	for i, spec := range s.Inputs {
		if len(spec.Shape) > 0 && spec.Shape[0] > 0 {
			batch = int(spec.Shape[0])
		}
		for _, v := range g.Inputs {
			if v.Name != spec.Name {
				continue
			}
			var err error
			if inputs[i], err = infer.FromValues(spec, v); err != nil {
				return nil, err
			}
		}
	}
	if g.Rows%batch != 0 {
		return nil, fmt.Errorf("%d golden rows do not fill batches of %d, the schema's first dimension", g.Rows, batch)
	}
	all := make([]release.Values, len(s.Outputs))
	out := make([]infer.Tensor, len(s.Outputs))
	for from := 0; from < g.Rows; from += batch {
		in := make([]infer.Tensor, len(inputs))
		for i, t := range inputs {
			var err error
			if in[i], err = t.Slice(from, from+batch, g.Rows); err != nil {
				return nil, fmt.Errorf("cut golden rows: %w", err)
			}
		}
		if err := session.Run(ctx, batch, in, out); err != nil {
			return nil, fmt.Errorf("golden row %d: %w", from+1, err)
		}
		for i := range out {
			v := out[i].Values()
			all[i].Name, all[i].Shape = s.Outputs[i].Name, append([]int64{int64(g.Rows)}, v.Shape[min(1, len(v.Shape)):]...)
			all[i].Data, all[i].Strings = append(all[i].Data, v.Data...), append(all[i].Strings, v.Strings...)
		}
	}
	return all, nil
}

// writeEvaluation scores the rows into a file, which has its name when it is
// whole.
func (a *app) writeEvaluation(ctx context.Context, f *evaluateFlags, m *scored, session infer.Session, h evaluation.Header) (int64, error) {
	input, closeInput, err := a.openInput(f.rows)
	if err != nil {
		return 0, err
	}
	defer closeInput()
	part := f.to + ".part"
	file, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("create evaluation: %w", err)
	}
	s, err := score.Run(ctx, score.Config{
		Model: session, Schema: m.schema, Input: input, InFormat: format(f.in, f.rows), Header: score.HeaderYes, Threads: f.threads,
		Output: "-", OutFormat: score.CSV, Stdout: &relabelled{w: file, header: h, outputs: outputColumns(m.schema)},
		Keep: append([]string{f.truth}, f.protect...),
	})
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return 0, errors.Join(scoreError(err), os.Remove(part))
	}
	if err := atomicfile.Rename(part, f.to); err != nil {
		return 0, fmt.Errorf("name evaluation: %w", err)
	}
	return s.Rows, nil
}

// relabelled passes the lines of score on behind a header of its own, in place
// of their first line, whose names may be those of features.
type relabelled struct {
	w       io.Writer
	header  evaluation.Header
	outputs []string
	begun   bool
	skipped bool
}

func (r *relabelled) Write(b []byte) (int, error) {
	if !r.begun {
		r.begun = true
		if err := evaluation.WriteHeader(r.w, r.header, r.outputs); err != nil {
			return 0, err
		}
	}
	rest := b
	if !r.skipped {
		// The encoder writes its whole header line at once.
		r.skipped, rest = true, nil
	}
	if _, err := r.w.Write(rest); err != nil {
		return 0, fmt.Errorf("write evaluation: %w", err)
	}
	return len(b), nil
}

// outputColumns names what score writes behind the kept columns.
func outputColumns(s *release.Schema) []string {
	var names []string
	labelled := s.Label != "" && s.Output(s.Label) != nil
	named := labelled && len(s.Classes) > 0
	if named {
		names = append(names, evaluation.PredictionColumn)
	}
	predicted := named
	for _, t := range s.Outputs {
		n, _ := t.RowSize()
		for k := range max(n, 1) {
			switch {
			case t.Name == s.Scores && n == int64(len(s.Classes)):
				names = append(names, evaluation.ScorePrefix+s.Classes[k])
			case !predicted && max(n, 1) == 1 && (labelled && t.Name == s.Label || !labelled && len(s.Classes) == 0):
				names, predicted = append(names, evaluation.PredictionColumn), true
			default:
				names = append(names, fmt.Sprintf("%s%s[%d]", evaluation.OutputPrefix, t.Name, k))
			}
		}
	}
	return names
}

func (e *Evaluated) write(w io.Writer) error {
	golden := ""
	if g := e.Golden; g != nil {
		golden = fmt.Sprintf("%d of %d golden rows agree, largest difference %.2g\n", g.Rows-g.Wrong, g.Rows, g.Worst)
	}
	_, err := fmt.Fprintf(w, "%d rows of %s (%s) computed with %s\n%swrote %s; upload it with: vedette model evaluate MODEL VERSION %s\n",
		e.Count, e.RowsName, e.Rows.Short(), e.Runtime, golden, e.File, e.File)
	return err
}
