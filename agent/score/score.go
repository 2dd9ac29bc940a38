// Package score computes predictions for a whole file: CSV or JSON Lines in and
// out, in a fixed amount of memory, with bad rows named by row and column. An
// interrupted run goes on where its last checkpoint was, so that no row is
// scored twice and none is missing.
package score

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
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
	// CheckpointEvery is how much work a kill may cost at most.
	CheckpointEvery = time.Second
	// MaxLine bounds one record in bytes.
	MaxLine = 16 << 20
	// maxReported bounds the bad rows that a summary describes.
	maxReported = 10
)

var (
	// ErrInput says that the input as a whole cannot be scored.
	ErrInput = errors.New("the input does not fit the model")
	// ErrCheckpoint says that an interrupted run cannot be continued.
	ErrCheckpoint = errors.New("cannot resume")
)

// RowError says which row, and which column of it, cannot be scored.
type RowError struct {
	Row    int64  `json:"row"`  // counted from 1, without the header
	Line   int64  `json:"line"` // of the file, counted from 1
	Column string `json:"column,omitempty"`
	Reason string `json:"reason"`
}

// Error names row and column before the reason.
func (e *RowError) Error() string {
	if e.Column == "" {
		return fmt.Sprintf("row %d (line %d): %s", e.Row, e.Line, e.Reason)
	}
	return fmt.Sprintf("row %d (line %d), column %q: %s", e.Row, e.Line, e.Column, e.Reason)
}

// Model computes rows. infer.Session is one.
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
	InFormat  string // CSV or JSONLines
	OutFormat string // CSV or JSONLines
	Header    string // HeaderAuto if empty; CSV only
	Keep      []string
	OnError   string // OnErrorFail if empty
	Batch     int    // rows of one run, 0 for DefaultBatch
	Resume    bool   // go on where an interrupted run was, if there is one
	// Progress is told after every batch; nil for nobody.
	Progress func(p Progress)
}

// Input is the file to score. Seek is needed to resume; Size is its length in
// bytes, 0 when not known.
type Input struct {
	io.Reader
	Name string
	Size int64
}

// Progress is how far a run is.
type Progress struct {
	Rows  int64 // read
	Bytes int64 // of the input
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
	took    time.Duration // behind Seconds
}

func (c *Config) withDefaults() error {
	if c.Header == "" {
		c.Header = HeaderAuto
	}
	if c.OnError == "" {
		c.OnError = OnErrorFail
	}
	if c.Batch <= 0 {
		c.Batch = DefaultBatch
	}
	if n := fixedBatch(c.Schema); n > 0 {
		c.Batch = n
	}
	for _, check := range []struct {
		what, got string
		allowed   []string
	}{
		{"input format", c.InFormat, []string{CSV, JSONLines}},
		{"output format", c.OutFormat, []string{CSV, JSONLines}},
		{"header", c.Header, []string{HeaderAuto, HeaderYes, HeaderNo, HeaderSkip}},
		{"on-error", c.OnError, []string{OnErrorFail, OnErrorSkip, OnErrorNull}},
	} {
		if !slices.Contains(check.allowed, check.got) {
			return fmt.Errorf("%w: %s is %q, must be one of %q", ErrInput, check.what, check.got, check.allowed)
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

// Run scores the input. Reading and parsing, computing, and formatting and
// writing go on at once, each on its own goroutine, with a few batches in
// between that are used again and again.
func Run(ctx context.Context, cfg Config) (Summary, error) {
	if err := cfg.withDefaults(); err != nil {
		return Summary{}, err
	}
	start := time.Now()
	j, err := newJob(&cfg)
	if err != nil {
		return Summary{}, err
	}
	err = j.run(ctx)
	if err == nil {
		err = j.out.finish()
	} else {
		// What is written stays for a later --resume, also after Ctrl-C.
		err = errors.Join(err, j.out.checkpoint(j.end, &j.summary, true), j.out.abandon())
	}
	s := j.summary
	s.took = time.Since(start)
	s.Seconds = s.took.Seconds()
	s.Rate = float64(s.Rows-s.Resumed) / max(s.Seconds, 1e-9)
	return s, err
}
