package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/protocol/graph"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Files that profile writes into its folder.
const (
	schemaFile   = "schema.json"
	baselineFile = "baseline.json"
	goldenFile   = "golden.json"
)

type profileFlags struct {
	rows, expected, schema, to string
	mlmodel                    string
	logged                     *logged // what mlmodel holds; nil without it
	condition                  string
	ignore, classes            []string
	label, scores, source      string
	golden                     int
	abs, rel                   float64
}

// Profiled is what `profile -o json` prints.
type Profiled struct {
	Rows       int64    `json:"rows"`
	Worst      float64  `json:"worst_difference"` // of any output number from what training computed
	GoldenRows int      `json:"golden_rows"`
	Streams    int      `json:"streams"` // watched quantities
	Conditions []string `json:"conditions,omitempty"`
	Files      []string `json:"files"`
}

func (a *app) profileCommand() *cobra.Command {
	f := &profileFlags{}
	cmd := &cobra.Command{
		Use:   "profile GRAPH | --mlmodel FOLDER",
		Short: "Run a graph over its training rows, before it is signed",
		Long: `profile prepares a model version for signing. It runs the graph over its training
rows with the same ONNX Runtime as the devices, compares every output with what the
training script wrote, and refuses a graph that disagrees, naming the first row. A
conversion that silently changed the model stops here and not on a thousand
devices.

It writes three files, which ` + "`vedette model push`" + ` signs together with the graph:
  schema.json    inputs, features, outputs and classes
  baseline.json  what inputs and outputs look like, for finding drift
  golden.json    some rows with their expected outputs, which every device checks

--rows is a CSV file whose header names the features; --expected is one with the
outputs for the same rows in the same order, written by the training script: one
column for each value of each output, in the graph's order. Both may be Parquet,
with columns named after the features and the outputs (NAME, or NAME[0], NAME[1] …).

--mlmodel takes the folder of a model that was logged with mlflow.onnx.log_model.
The schema comes from its signature and the graph. The rows come from what the
training script logged beside it, unless flags name others:
  vedette/training.csv          or .parquet: training rows; a column "condition" names
                                the circumstance of each
  vedette/expected.csv          or .parquet: what the framework computes for them
  vedette/example_expected.csv  instead: what it computes for the logged input example
  vedette/profile.yaml          optional: condition, ignore, classes, label, scores,
                                source, abs, rel; truth and protect are for the next
` + "`vedette publish`" + ` also takes these, as evidence for the model's validation gates:
  vedette/evaluation.csv        or .parquet: labelled rows that training never saw. Their
                                truth is in the column that profile.yaml names with truth
                                (default: truth or label), protected groups in those of
                                protect, a list
  vedette/constraints.json      what evaluation and training rows have to be like, as
                                ` + "`vedette data suggest`" + ` learns it
Without outputs of the framework it refuses: those of the graph prove nothing.`,
		Example: `  vedette-agent profile digits.onnx --rows train.csv --expected expected.csv --to digits/
  vedette-agent profile --mlmodel downloaded/ --to digits/
  vedette-agent profile m.onnx --rows r.csv --expected e.csv --condition light --schema schema.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.mlmodel != "" {
				return arguments()(cmd, args)
			}
			return arguments("GRAPH")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.profile(cmd, f, strings.Join(args, "")) },
	}
	f.register(cmd)
	return cmd
}

// register makes the flags of the command.
func (f *profileFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.mlmodel, "mlmodel", "", "folder of a model logged with MLflow, in place of GRAPH")
	fl.StringVar(&f.rows, "rows", "", "training rows (CSV with a header, or Parquet)")
	fl.StringVar(&f.expected, "expected", "", "outputs that the training script computed for them (CSV or Parquet)")
	fl.StringVar(&f.to, "to", ".", "folder to write to")
	fl.StringVar(&f.schema, "schema", "", "schema (YAML or JSON) with ranges, units, missing-value policies (default: from graph and header)")
	fl.StringVar(&f.condition, "condition", "", "column that names the circumstance of a row, such as day and night")
	fl.StringSliceVar(&f.ignore, "ignore", nil, "columns of --rows that are no features")
	fl.StringSliceVar(&f.classes, "classes", nil, "class labels in index order (default: 0, 1, …)")
	fl.StringVar(&f.label, "label", "", "output with the predicted class (default: recognised)")
	fl.StringVar(&f.scores, "scores", "", "output with the scores of the classes (default: recognised)")
	fl.StringVar(&f.source, "source", "", `what computed --expected, such as "scikit-learn 1.2.1"`)
	fl.IntVar(&f.golden, "golden", 64, "golden rows, spread over classes and confidence")
	fl.Float64Var(&f.abs, "abs", 1e-5, "absolute tolerance of numbers")
	fl.Float64Var(&f.rel, "rel", 1e-4, "relative tolerance of numbers")
	for _, required := range []string{"rows", "expected"} {
		_ = cmd.MarkFlagFilename(required, "csv", "parquet") // the flag exists
	}
	_ = cmd.MarkFlagDirname("to")      // the flag exists
	_ = cmd.MarkFlagDirname("mlmodel") // the flag exists
}

func (a *app) profile(cmd *cobra.Command, f *profileFlags, graphPath string) error {
	if f.mlmodel != "" {
		var err error
		if graphPath, err = f.readLogged(cmd.Flags().Changed); err != nil {
			return err
		}
		defer f.logged.close()
	}
	switch {
	case f.rows == "" || f.expected == "" && f.logged.exampleFile() == "":
		return usagef("--rows and --expected are needed: the training rows and what training computed for them")
	case f.golden < 1 || f.golden > 1024:
		return usagef("--golden %d: must be 1 to 1024", f.golden)
	case f.abs < 0 || f.rel < 0:
		return usagef("tolerances must not be negative")
	}
	g, err := readGraph(graphPath)
	if err != nil {
		return err
	}
	schema, err := f.makeSchema(g)
	if err != nil {
		return err
	}
	if err := graph.Check(g, schema); err != nil {
		return err
	}
	if _, err := a.runtime(); err != nil {
		return err
	}
	session, err := onnx.OpenGraph(graphPath, schema)
	if err != nil {
		return err
	}
	defer session.Close()
	p, err := f.survey(cmd.Context(), session, schema)
	if err != nil {
		return err
	}
	result, err := p.write(f)
	if err != nil {
		return err
	}
	return a.print(result, func(w io.Writer) error { return result.write(w) })
}

// makeSchema reads the schema or drafts one.
func (f *profileFlags) makeSchema(g *graph.Graph) (*release.Schema, error) {
	if f.schema != "" {
		if len(f.classes) > 0 || f.label != "" || f.scores != "" {
			return nil, usagef("--schema says it all: leave out --classes, --label and --scores")
		}
		return readSchema(f.schema)
	}
	features, err := f.featureNames()
	if err != nil {
		return nil, err
	}
	d := drafter{graph: g, features: features, classes: f.classes, label: f.label, scores: f.scores}
	schema, err := d.schema()
	if err == nil && f.logged != nil {
		err = f.logged.check(schema)
	}
	return schema, err
}

// featureNames are the columns of the rows but for those that flags name.
func (f *profileFlags) featureNames() ([]string, error) {
	header, err := tableColumns(f.rows)
	if err != nil {
		return nil, err
	}
	if f.logged != nil {
		if f.condition == "" && slices.Contains(header, conditionColumn) {
			f.condition = conditionColumn
		}
		if signed := f.logged.columns(); signed != nil {
			return signed, nil
		}
	}
	var names []string
	for _, h := range header {
		if h != f.condition && !slices.Contains(f.ignore, h) {
			names = append(names, h)
		}
	}
	if f.condition != "" && len(names) == len(header) {
		return nil, fmt.Errorf("%s has no column %q for --condition", f.rows, f.condition)
	}
	return names, nil
}

// survey goes through the rows twice: first comparing and counting all of them,
// then fetching those that become golden. Memory holds a few numbers a row.
func (f *profileFlags) survey(ctx context.Context, session infer.Session, schema *release.Schema) (*surveyor, error) {
	p, err := newSurveyor(schema, f)
	if err != nil {
		return nil, err
	}
	if err := p.each(func(rows, expected []infer.Tensor, at batchPlace) error {
		return p.compare(ctx, session, rows, expected, at)
	}); err != nil {
		return nil, err
	}
	if len(p.picks) == 0 {
		return nil, fmt.Errorf("%s has no rows", f.rows)
	}
	if f.expected == "" {
		return p, p.goldenExample(ctx, session)
	}
	p.choose(f.golden)
	return p, p.each(p.collect)
}

// write stores the three files, none of them before all are made.
func (p *surveyor) write(f *profileFlags) (*Profiled, error) {
	golden, err := p.golden.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode golden vectors: %w", err)
	}
	if err := p.golden.Check(p.schema); err != nil {
		return nil, fmt.Errorf("check golden vectors: %w", err)
	}
	base, err := p.builder.Baseline()
	if err != nil {
		return nil, fmt.Errorf("make baseline: %w", err)
	}
	baseline, err := base.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode baseline: %w", err)
	}
	schema, err := json.MarshalIndent(p.schema, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	if err := os.MkdirAll(f.to, 0o755); err != nil { //nolint:gosec // a publisher's folder, for others to read
		return nil, fmt.Errorf("make folder: %w", err)
	}
	r := &Profiled{Rows: p.rows, Worst: p.worst, GoldenRows: p.golden.Rows, Streams: len(base.Streams)}
	for _, c := range base.Conditions {
		r.Conditions = append(r.Conditions, c.Name)
	}
	for name, raw := range map[string][]byte{schemaFile: append(schema, '\n'), baselineFile: baseline, goldenFile: golden} {
		path := filepath.Join(f.to, name)
		if err := os.WriteFile(path, raw, 0o644); err != nil { //nolint:gosec // public parts of a release
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		r.Files = append(r.Files, path)
	}
	slices.Sort(r.Files)
	return r, nil
}

func (r *Profiled) write(w io.Writer) error {
	text := fmt.Sprintf("the graph agrees with training on all %d rows, largest difference %.2g\n", r.Rows, r.Worst)
	text += fmt.Sprintf("%d quantities are watched, %d golden rows will be checked on every device\n", r.Streams, r.GoldenRows)
	if len(r.Conditions) > 0 {
		text += "conditions: " + strings.Join(r.Conditions, ", ") + "\n"
	}
	_, err := io.WriteString(w, text+"wrote "+strings.Join(r.Files, ", ")+"\n")
	return err
}

// errDisagrees says that the graph is not the model that was trained.
var errDisagrees = errors.New("the graph does not compute what training computed: do not ship it; export it again, and check that --rows and --expected are of the same run")
