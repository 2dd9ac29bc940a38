package mlmodel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

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
//
// Expected outputs come from the training framework: made by the graph, they
// could not show that the conversion changed the model.
const HandoverFolder = "vedette"

// HandoverFiles are the files that may lie in HandoverFolder.
var HandoverFiles = []string{
	"training.csv", "training.parquet", "expected.csv", "expected.parquet", "example_expected.csv", "profile.yaml",
}

const maxSettings = 64 << 10 // bytes

// ErrHandover says that files of the handover are not there. Its text says how
// a training script logs them.
var ErrHandover = errors.New("the run logged no outputs of the training framework, and those of the graph itself prove nothing")

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
}

// Handover is what a training script left for the fleet. Paths are of files
// that are there; empty for none.
type Handover struct {
	Training        string
	Expected        string
	ExampleExpected string
	Settings        Settings
}

// ReadHandover looks into the HandoverFolder below dir. Of two forms of one file
// the first named in HandoverFiles counts.
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
		ExampleExpected: there("example_expected.csv"),
	}
	name := there("profile.yaml")
	if name == "" {
		return h, nil
	}
	b, err := readBounded(os.DirFS(base), "profile.yaml", maxSettings)
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
