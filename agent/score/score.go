// Package score computes predictions for a whole file: CSV, JSON Lines or
// Parquet in and out, in a fixed amount of memory, with bad rows named by row
// and column. An interrupted run goes on where its last checkpoint was, so that
// no row is scored twice and none is missing.
//
// One goroutine cuts the input into chunks of a fixed number of rows; workers
// parse, compute and format whole chunks, as many at once as there are threads;
// one goroutine writes them in their order. Chunks begin at the same rows
// whatever the number of threads and however often a run was interrupted, so the
// result is the same too.
package score

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// What becomes of a row that cannot be scored.
const (
	OnErrorFail = "fail" // the run ends with an error that names it
	OnErrorSkip = "skip" // it is left out and counted
	OnErrorNull = "null" // it is written without outputs and counted
)

// Formats of input and output.
const (
	CSV       = "csv"
	JSONLines = "jsonl"
	Parquet   = "parquet"
)

// Header says whether a CSV file begins with column names.
const (
	HeaderAuto = "auto" // it does when a field of the first line is no number
	HeaderYes  = "yes"
	HeaderNo   = "no"
	HeaderSkip = "skip" // it does, and the order counts instead
)

// Defaults of Config.
const (
	// DefaultBatch is the rows of one run: small models have reached their best
	// rate per row by then.
	DefaultBatch = 1024
	// DefaultCheckpoint is how much work a kill may cost: less would wait for
	// the disk more often than a person notices.
	DefaultCheckpoint = time.Second
	// DefaultRowGroup is the rows of a Parquet row group. They are in memory
	// until it is complete, and lost by a kill.
	DefaultRowGroup = 1 << 18
	// MaxLine bounds one record in bytes.
	MaxLine = 16 << 20
	// maxReported bounds the bad rows that a summary describes.
	maxReported = 10
)

// Bounds of Config.
const (
	maxBatch   = 1 << 20
	maxThreads = 1 << 10
)

var (
	// ErrOption says that the run was asked for in a way that makes no sense.
	ErrOption = errors.New("bad option")
	// ErrFiles says that the run would cost a file that is there.
	ErrFiles = errors.New("nothing was written")
	// ErrInput says that the input as a whole cannot be scored.
	ErrInput = errors.New("the input does not fit the model")
	// ErrCheckpoint says that an interrupted run cannot be continued.
	ErrCheckpoint = errors.New("cannot resume")
)

// RowError says which row, and which column of it, cannot be scored.
type RowError struct {
	Row    int64  `json:"row"`            // counted from 1, without the header
	Line   int64  `json:"line,omitempty"` // of the file, counted from 1; 0 where it has none
	Column string `json:"column,omitempty"`
	Reason string `json:"reason"`
}

// Error names row and column before the reason.
func (e *RowError) Error() string {
	text := fmt.Sprintf("row %d", e.Row)
	if e.Line > 0 {
		text += fmt.Sprintf(" (line %d)", e.Line)
	}
	if e.Column != "" {
		text += fmt.Sprintf(", column %q", e.Column)
	}
	return text + ": " + e.Reason
}

// Model computes rows, on several goroutines at once. infer.Session is one.
type Model interface {
	Run(ctx context.Context, rows int, in, out []infer.Tensor) error
}

// Config says what to score and how.
type Config struct {
	Model  Model
	Schema *release.Schema
	// Identity stands for the model in the checkpoint: another one cannot
	// continue a run.
	Identity string

	Input     Input
	Output    string // path, "-" for Stdout
	Stdout    io.Writer
	InFormat  string // CSV, JSONLines or Parquet
	OutFormat string // CSV, JSONLines or Parquet
	Header    string // HeaderAuto if empty; CSV only
	Keep      []string
	OnError   string // OnErrorFail if empty
	// Rejects is the path of a JSON Lines file that gets a RowError for every
	// row that was skipped or written without outputs; empty for none.
	Rejects string
	// Report is the path where the caller will Save the report; empty for none.
	Report string
	// Replace lets the run replace files that are there already.
	Replace bool
	// Baseline, when set, is what the inputs and outputs are compared with.
	Baseline *sketch.Baseline
	Batch    int  // rows of one run, 0 for DefaultBatch
	Threads  int  // chunks worked on at once, 0 for the processors
	Resume   bool // go on where an interrupted run was, if there is one
	// Checkpoint is how often progress is made safe, 0 for DefaultCheckpoint.
	Checkpoint time.Duration
	// RowGroup is the rows of a Parquet row group, 0 for DefaultRowGroup.
	RowGroup int
	// Progress is told after every batch; nil for nobody.
	Progress func(p Progress)
}

// Input is the file to score. To resume, or to read Parquet, it must be an
// *os.File or another io.Seeker (io.ReaderAt for Parquet).
type Input struct {
	io.Reader
	Name     string
	Size     int64     // bytes, 0 when not known
	Modified time.Time // zero when not known
}

// Progress is how far a run is.
type Progress struct {
	Rows  int64 // read
	Bytes int64 // read of the input's Size
}

// Summary is what a run did.
type Summary struct {
	Rows    int64         `json:"rows"` // read, those of the resumed run included
	Scored  int64         `json:"scored"`
	Skipped int64         `json:"skipped"`
	Nulls   int64         `json:"nulls"`
	Resumed int64         `json:"resumed_at_row,omitempty"` // rows that an earlier run had done
	Seconds float64       `json:"seconds"`
	Rate    float64       `json:"rows_per_second"` // of this run
	Output  string        `json:"output"`
	Errors  []*RowError   `json:"errors,omitempty"` // the first few bad rows
	Report  *Report       `json:"report,omitempty"` // when there is a baseline
	took    time.Duration // behind Seconds
}

func (c *Config) withDefaults() error {
	c.Header = cmp.Or(c.Header, HeaderAuto)
	c.OnError = cmp.Or(c.OnError, OnErrorFail)
	c.Checkpoint = cmp.Or(c.Checkpoint, DefaultCheckpoint)
	c.RowGroup = cmp.Or(max(c.RowGroup, 0), DefaultRowGroup)
	if c.Batch < 0 || c.Batch > maxBatch {
		return fmt.Errorf("%w: batch is %d, must be 1 to %d rows", ErrOption, c.Batch, maxBatch)
	}
	if c.Threads < 0 || c.Threads > maxThreads {
		return fmt.Errorf("%w: threads is %d, must be 1 to %d, or 0 for the processors", ErrOption, c.Threads, maxThreads)
	}
	c.Batch = cmp.Or(fixedBatch(c.Schema), c.Batch, DefaultBatch)
	c.Threads = cmp.Or(c.Threads, runtime.GOMAXPROCS(0))
	formats := []string{CSV, JSONLines, Parquet}
	for _, check := range []struct {
		what, got string
		allowed   []string
	}{
		{"input format", c.InFormat, formats},
		{"output format", c.OutFormat, formats},
		{"header", c.Header, []string{HeaderAuto, HeaderYes, HeaderNo, HeaderSkip}},
		{"on-error", c.OnError, []string{OnErrorFail, OnErrorSkip, OnErrorNull}},
	} {
		if !slices.Contains(check.allowed, check.got) {
			return fmt.Errorf("%w: %s is %q, must be one of %q", ErrOption, check.what, check.got, check.allowed)
		}
	}
	return nil
}

// fixedBatch is the batch size that the model demands, 0 when it is free.
func fixedBatch(s *release.Schema) int {
	for _, t := range s.Inputs {
		if len(t.Shape) > 0 && t.Shape[0] > 0 {
			return int(t.Shape[0])
		}
	}
	return 0
}

// begin finds where to go on, nil for the first row, and refuses a run that
// would overwrite what it should not.
func (c *Config) begin() (*checkpoint, error) {
	if err := c.checkFiles(); err != nil {
		return nil, err
	}
	cp, err := readCheckpoint(c)
	if err != nil {
		return nil, err
	}
	c.Replace = c.Replace || cp != nil && cp.Replace
	return cp, c.checkTaken(cp)
}

// Run scores the input.
func Run(ctx context.Context, cfg Config) (Summary, error) {
	if err := cfg.withDefaults(); err != nil {
		return Summary{}, err
	}
	start := time.Now()
	cp, err := cfg.begin()
	if err != nil {
		return Summary{}, err
	}
	if cp != nil && cp.Complete {
		return cp.Summary, cp.publish(&cfg)
	}
	j, err := newJob(&cfg, cp)
	if err != nil {
		return Summary{}, err
	}
	err = errors.Join(j.run(ctx), j.table.close())
	s := &j.summary
	s.took = time.Since(start)
	s.Seconds = s.took.Seconds()
	s.Rate = float64(s.Rows-s.Resumed) / max(s.Seconds, 1e-9)
	if err != nil {
		// What is written stays for a later --resume, also after Ctrl-C.
		return *s, errors.Join(err, j.save(), j.out.abandon())
	}
	if s.Report, err = j.drift.report(); err != nil {
		return *s, errors.Join(err, j.out.abandon())
	}
	return *s, j.out.finish(j.end, s)
}
