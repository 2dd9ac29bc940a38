package mlmodel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"gopkg.in/yaml.v3"
)

// HandoverFolder is the folder, below the model's or below the artifacts of its
// run, by which a training script hands a version over to the fleet:
//
//	training.csv or .parquet    training rows: the features, and maybe a column that
//	                            names the circumstance of each
//	expected.csv or .parquet    what the framework computes for those rows, one column
//	                            for each value of each output in the graph's order
//	example_expected.csv        instead: what it computes for the logged input example
//	profile.yaml                optional: how to read them, see Settings
//	evaluation.csv or .parquet  optional: labelled rows that the model was not trained
//	                            on, as evidence for its validation gates
//	constraints.json            optional: what training and evaluation rows have to be like
//
// Expected outputs come from the training framework: made by the graph, they
// could not show that the conversion changed the model.
const HandoverFolder = "vedette"

// Files that may lie in HandoverFolder.
var (
	// HandoverFiles are those that a release is made of.
	HandoverFiles = []string{
		"training.csv", "training.parquet", "expected.csv", "expected.parquet", "example_expected.csv", SettingsFile,
	}
	// EvidenceFiles are those that its validation gates are judged on: without one
	// of the first two there is no evidence.
	EvidenceFiles = []string{"evaluation.csv", "evaluation.parquet", ConstraintsFile}
)

// Files of one form only.
const (
	SettingsFile    = "profile.yaml"
	ConstraintsFile = "constraints.json"
)

const maxSettings = 64 << 10 // bytes

// ErrHandover says that files of the handover are not there. Its text says how
// a training script logs them.
var ErrHandover = errors.New("the run logged no outputs of the training framework, and those of the graph itself prove nothing")

// ErrEvaluation says that evaluation rows do not say what is true.
var ErrEvaluation = errors.New("the version cannot be evaluated")

// HowToLog tells what to add to a training script.
const HowToLog = `let the training script log the training rows and what the framework computes for them:
  mlflow.log_text(train.to_csv(index=False), "vedette/training.csv")
  mlflow.log_text(outputs.to_csv(index=False), "vedette/expected.csv")  # outputs = model.predict and predict_proba of train, in the graph's order`

// Settings are how the rows of a handover are to be read. All are optional.
type Settings struct {
	Condition string   `yaml:"condition"` // column that names the circumstance of a row, such as day and night
	Ignore    []string `yaml:"ignore"`    // columns of the training rows that are no features
	Classes   []string `yaml:"classes"`   // labels in index order
	Label     string   `yaml:"label"`     // output with the predicted class
	Scores    string   `yaml:"scores"`    // output with the scores of the classes
	Source    string   `yaml:"source"`    // what computed the expected outputs, such as "scikit-learn 1.2.1"
	Abs       *float64 `yaml:"abs"`       // absolute tolerance of numbers
	Rel       *float64 `yaml:"rel"`       // relative tolerance of numbers
	Truth     string   `yaml:"truth"`     // column of the evaluation rows with what is true; see TruthColumn
	Protect   []string `yaml:"protect"`   // columns of the evaluation rows that name protected groups
}

// TruthColumn is the column of evaluation rows with what is true: the one that
// was named, else "truth" or "label", whichever is there.
func (s *Settings) TruthColumn(columns []string) (string, error) {
	there := func(name string) bool { return slices.Contains(columns, name) }
	switch {
	case s.Truth != "" && there(s.Truth):
		return s.Truth, nil
	case s.Truth != "":
		return "", fmt.Errorf("%w: the evaluation rows have no column %q, which truth names in %s/%s", ErrEvaluation, s.Truth, HandoverFolder, SettingsFile)
	case there("truth") && there("label"):
		return "", fmt.Errorf("%w: the evaluation rows have a column truth and a column label: name the one that is true with truth: in %s/%s", ErrEvaluation, HandoverFolder, SettingsFile)
	case there("truth"):
		return "truth", nil
	case there("label"):
		return "label", nil
	}
	return "", fmt.Errorf("%w: name the column of the evaluation rows that is true with truth: in %s/%s", ErrEvaluation, HandoverFolder, SettingsFile)
}

// Handover is what a training script left for the fleet. Paths are of files
// that are there; empty for none.
type Handover struct {
	Training        string
	Expected        string
	ExampleExpected string
	Evaluation      string
	Constraints     string
	Settings        Settings
}

// ReadHandover looks into the HandoverFolder below dir. Of two forms of one file
// the first named in HandoverFiles or EvidenceFiles counts.
func ReadHandover(dir string) (*Handover, error) {
	base := filepath.Join(dir, HandoverFolder)
	there := func(names ...string) string {
		for _, name := range names {
			if info, err := os.Lstat(filepath.Join(base, name)); err == nil && info.Mode().IsRegular() {
				return filepath.Join(base, name)
			}
		}
		return ""
	}
	h := &Handover{
		Training: there("training.csv", "training.parquet"), Expected: there("expected.csv", "expected.parquet"),
		ExampleExpected: there("example_expected.csv"), Evaluation: there("evaluation.csv", "evaluation.parquet"), Constraints: there(ConstraintsFile),
	}
	name := there(SettingsFile)
	if name == "" {
		return h, nil
	}
	b, err := readBounded(os.DirFS(base), SettingsFile, maxSettings)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&h.Settings); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return h, nil
}

// Find looks for the description of the model in dir. A folder without one that
// holds a single graph is a model without a signature.
func Find(dir string) (*Model, error) {
	m, err := Read(os.DirFS(dir))
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	graphs, err := filepath.Glob(filepath.Join(dir, "*.onnx"))
	if err != nil || len(graphs) != 1 {
		return nil, fmt.Errorf("%s has no %s file and %d graphs: %w", dir, FileName, len(graphs), ErrNotONNX)
	}
	return &Model{Graph: filepath.Base(graphs[0])}, nil
}
