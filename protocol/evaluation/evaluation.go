// Package evaluation is the file in which a packed graph's predictions for
// labelled rows reach the control plane: `vedette-agent evaluate` writes it, the
// validation gates read it and compute every metric from its raw pairs
// themselves.
//
// The first line is "# vedette evaluation " and a Header as JSON. What follows
// is CSV (RFC 4180) with a header line; its columns are
//
//	row             number of the row in the evaluated file, counted from 1
//	truth           what is true of it: a class, or a number
//	…               the protected columns, in the header's order and by their names
//	prediction      the class or number that the graph gave
//	score:CLASS     the graph's score of a class, one column for each
//	output:NAME     other outputs, which nothing reads
//
// Two versions that were evaluated on the same file, byte by byte, are compared
// row by row. It is pure.
package evaluation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Format is the version of the layout. History:
//
//	1  2026-11-23  first
const Format = 1

// Tasks.
const (
	Classification = "classification"
	Regression     = "regression"
)

// Bounds of a file. One that is over a bound is refused whole: metrics of a part
// of the rows would be those of other rows.
const (
	MaxRows   = 1_000_000
	MaxScores = 32_000_000 // rows × classes: 128 MB in memory
	MaxLabels = 1_000      // classes, and truths that are none of them
	MaxGroups = 100        // values of one protected column
	MaxColumn = 8          // protected columns
	MaxBytes  = 1 << 30
	maxHeader = 1 << 20 // bytes of the first line
)

// ErrInvalid says that a file is no evaluation, or one that cannot be used.
var ErrInvalid = errors.New("not a usable evaluation")

// Header says what was evaluated on what, and by what.
type Header struct {
	Format   int             `json:"format"`
	Task     string          `json:"task"`              // classification or regression
	Model    string          `json:"model,omitempty"`   // as the manifest says; empty for a graph alone
	Version  string          `json:"version,omitempty"` //
	Release  *release.Digest `json:"release,omitempty"` // of the manifest, when there was one
	Graph    release.Digest  `json:"graph"`             // of the graph that ran
	Rows     release.Digest  `json:"rows"`              // of the file with the rows, byte by byte
	RowsName string          `json:"rows_name,omitempty"`
	Truth    string          `json:"truth"` // column of that file
	Protect  []string        `json:"protect,omitempty"`
	Classes  []string        `json:"classes,omitempty"` // in index order
	Runtime  string          `json:"runtime,omitempty"` // name and version
	Agent    string          `json:"agent,omitempty"`   // version
	Created  time.Time       `json:"created,omitzero"`
	// Golden is what the graph computed for its golden vectors; nil when there
	// were none.
	Golden *Golden `json:"golden,omitempty"`
}

// Golden is the graph's golden check.
type Golden struct {
	Rows   int     `json:"rows"`
	Wrong  int     `json:"wrong"`  // rows outside tolerance
	Worst  float64 `json:"worst"`  // largest |got − want|
	First  string  `json:"first"`  // the first disagreement, for people
	Source string  `json:"source"` // what computed the expected values
}

// preamble is how the first line begins.
const preamble = "# vedette evaluation "

// Names of columns.
const (
	rowColumn        = "row"
	truthColumn      = "truth"
	PredictionColumn = "prediction"
	ScorePrefix      = "score:"
	OutputPrefix     = "output:"
)

// WriteHeader writes what comes before the rows: the header and the names of the
// columns. outputs are those after the protected ones.
func WriteHeader(w io.Writer, h Header, outputs []string) error {
	if err := h.check(); err != nil {
		return err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode evaluation header: %w", err)
	}
	names := slices.Concat([]string{rowColumn, truthColumn}, h.Protect, outputs)
	for i, n := range names {
		names[i] = quoted(n)
	}
	_, err = fmt.Fprintf(w, "%s%s\n%s\n", preamble, b, strings.Join(names, ","))
	return err
}

// quoted is a CSV field.
func quoted(s string) string {
	if strings.ContainsAny(s, ",\"\r\n") {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}

func (h *Header) check() error {
	switch {
	case h.Format != Format:
		return fmt.Errorf("%w: format %d; this program reads %d", ErrInvalid, h.Format, Format)
	case h.Task != Classification && h.Task != Regression:
		return fmt.Errorf("%w: task %q is neither %s nor %s", ErrInvalid, h.Task, Classification, Regression)
	case h.Graph.IsZero() || h.Rows.IsZero():
		return fmt.Errorf("%w: it does not say which graph ran on which rows", ErrInvalid)
	case len(h.Protect) > MaxColumn:
		return fmt.Errorf("%w: %d protected columns, at most %d", ErrInvalid, len(h.Protect), MaxColumn)
	case len(h.Classes) > MaxLabels:
		return fmt.Errorf("%w: %d classes, at most %d", ErrInvalid, len(h.Classes), MaxLabels)
	}
	return nil
}

func readHeader(line string) (h Header, err error) {
	text, ok := strings.CutPrefix(line, preamble)
	if !ok {
		return h, fmt.Errorf("%w: it does not begin with %q: `vedette-agent evaluate` writes such files", ErrInvalid, strings.TrimSpace(preamble))
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h); err != nil {
		return h, fmt.Errorf("%w: header: %w", ErrInvalid, err)
	}
	return h, h.check()
}
