package evaluation

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Table is an evaluation in memory, row by row.
type Table struct {
	Header Header
	Rows   []int64 // numbers in the evaluated file, rising

	// Of a classification: indices into Labels, which begin with the header's
	// classes and go on with truths that are none of them.
	Labels    []string
	Truth     []int32
	Predicted []int32
	Scores    []float32 // len(Header.Classes) a row; nil without scores

	// Of a regression:
	Want, Got []float64

	Groups []Column // the protected columns
}

// Column is one protected column: Of is an index into Values for each row.
type Column struct {
	Name   string
	Values []string
	Of     []int32
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.Rows) }

// Group is the protected column of that name, nil for none.
func (t *Table) Group(name string) *Column {
	if i := slices.IndexFunc(t.Groups, func(c Column) bool { return c.Name == name }); i >= 0 {
		return &t.Groups[i]
	}
	return nil
}

// Read reads a whole evaluation. It takes about 20 bytes a row, and 4 for each
// score.
func Read(r io.Reader) (*Table, error) {
	limited := &io.LimitedReader{R: r, N: MaxBytes + 1}
	br := bufio.NewReaderSize(limited, 1<<20)
	line, err := br.ReadSlice('\n')
	if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) || len(line) > maxHeader {
		return nil, fmt.Errorf("%w: its first line cannot be read: %w", ErrInvalid, errors.Join(err, io.ErrUnexpectedEOF))
	}
	h, err := readHeader(strings.TrimRight(string(line), "\r\n"))
	if err != nil {
		return nil, err
	}
	rd := &reader{table: &Table{Header: h, Labels: slices.Clone(h.Classes)}, csv: csv.NewReader(br)}
	rd.csv.ReuseRecord = true
	if err := rd.read(); err != nil {
		return nil, err
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("%w: it is over %d bytes", ErrInvalid, MaxBytes)
	}
	return rd.table, rd.finish()
}

// reader turns records into a Table.
type reader struct {
	table      *Table
	csv        *csv.Reader
	prediction int   // field; −1 for none
	scores     []int // fields, in the order of the classes; nil for none
	labels     map[string]int32
	groups     []map[string]int32
	known      bool // a truth was one of the model's classes
}

func (r *reader) read() error {
	names, err := r.csv.Read()
	if err == nil {
		err = r.mapColumns(names)
	}
	if err != nil {
		return refused(err)
	}
	for {
		rec, err := r.csv.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = r.row(rec)
		}
		if err != nil {
			return refused(err)
		}
	}
}

// refused makes an error one of the file.
func refused(err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}

func (r *reader) mapColumns(names []string) error {
	h := &r.table.Header
	first := slices.Concat([]string{rowColumn, truthColumn}, h.Protect)
	if len(names) <= len(first) || !slices.Equal(names[:len(first)], first) {
		return fmt.Errorf("%w: its columns begin with %q, not with %q", ErrInvalid, names[:min(len(names), len(first))], first)
	}
	r.prediction = -1
	if at := slices.Index(names[len(first):], PredictionColumn); at >= 0 {
		r.prediction = at + len(first)
	}
	for _, c := range h.Classes {
		if at := slices.Index(names[len(first):], ScorePrefix+c); at >= 0 {
			r.scores = append(r.scores, at+len(first))
		}
	}
	if len(r.scores) != len(h.Classes) {
		r.scores = nil
	}
	if r.prediction < 0 && (h.Task == Regression || r.scores == nil) {
		return fmt.Errorf("%w: it has no column %q, and not a score of every class", ErrInvalid, PredictionColumn)
	}
	r.labels = map[string]int32{}
	for i, c := range h.Classes {
		r.labels[c] = int32(i)
	}
	for _, name := range h.Protect {
		r.groups = append(r.groups, map[string]int32{})
		r.table.Groups = append(r.table.Groups, Column{Name: name})
	}
	return nil
}

func (r *reader) row(rec []string) error {
	t := r.table
	number, err := strconv.ParseInt(rec[0], 10, 64)
	if err != nil || number < 1 || len(t.Rows) > 0 && number <= t.Rows[len(t.Rows)-1] {
		return fmt.Errorf("%w: row number %.20q after %d rows", ErrInvalid, rec[0], len(t.Rows))
	}
	if len(t.Rows) == MaxRows {
		return fmt.Errorf("%w: it has over %d rows: evaluate a sample of them", ErrInvalid, MaxRows)
	}
	t.Rows = append(t.Rows, number)
	for i := range r.groups {
		of, err := indexOf(r.groups[i], &t.Groups[i].Values, rec[2+i], MaxGroups)
		if err != nil {
			return fmt.Errorf("row %d, protected column %s: %w", number, t.Groups[i].Name, err)
		}
		t.Groups[i].Of = append(t.Groups[i].Of, of)
	}
	if t.Header.Task == Regression {
		err = r.numbers(rec)
	} else {
		err = r.classes(rec)
	}
	if err != nil {
		return fmt.Errorf("row %d: %w", number, err)
	}
	return nil
}

// indexOf is where a text stands in a list, which it joins when it is new.
func indexOf(known map[string]int32, list *[]string, text string, limit int) (int32, error) {
	if i, ok := known[text]; ok {
		return i, nil
	}
	if len(*list) == limit {
		return 0, fmt.Errorf("%w: over %d different values", ErrInvalid, limit)
	}
	i := int32(len(*list)) //nolint:gosec // at most limit
	text = strings.Clone(text)
	known[text] = i
	*list = append(*list, text)
	return i, nil
}

func (r *reader) numbers(rec []string) error {
	want, err := finite(rec[1])
	if err != nil {
		return fmt.Errorf("truth: %w", err)
	}
	got, err := finite(rec[r.prediction])
	if err != nil {
		return fmt.Errorf("prediction: %w", err)
	}
	r.table.Want, r.table.Got = append(r.table.Want, want), append(r.table.Got, got)
	return nil
}

func finite(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%w: %.40q is no finite number", ErrInvalid, text)
	}
	return v, nil
}

func (r *reader) classes(rec []string) error {
	t := r.table
	if rec[1] == "" {
		return fmt.Errorf("%w: it has no truth: evaluate labelled rows only", ErrInvalid)
	}
	truth, err := indexOf(r.labels, &t.Labels, rec[1], MaxLabels)
	if err != nil {
		return err
	}
	r.known = r.known || int(truth) < len(t.Header.Classes)
	t.Truth = append(t.Truth, truth)
	best, err := r.scored(rec)
	if err != nil {
		return err
	}
	if r.prediction >= 0 {
		if best, err = indexOf(r.labels, &t.Labels, rec[r.prediction], MaxLabels); err != nil {
			return err
		}
	}
	t.Predicted = append(t.Predicted, best)
	return nil
}

// scored takes the scores of a row and returns the class with the highest.
func (r *reader) scored(rec []string) (best int32, err error) {
	t := r.table
	if len(t.Scores)+len(r.scores) > MaxScores {
		return 0, fmt.Errorf("%w: over %d scores: evaluate a sample of the rows", ErrInvalid, MaxScores)
	}
	from := len(t.Scores)
	for i, at := range r.scores {
		v, err := finite(rec[at])
		if err != nil {
			return 0, fmt.Errorf("score of %s: %w", t.Header.Classes[i], err)
		}
		t.Scores = append(t.Scores, float32(v))
		if t.Scores[from+i] > t.Scores[from+int(best)] {
			best = int32(i)
		}
	}
	return best, nil
}

// finish refuses what no metric can be computed from.
func (r *reader) finish() error {
	switch t := r.table; {
	case t.Len() == 0:
		return fmt.Errorf("%w: it has no rows", ErrInvalid)
	case t.Header.Task == Classification && len(t.Header.Classes) > 0 && !r.known:
		return fmt.Errorf("%w: no truth is one of the model's classes %.5q: is column %q the one with the classes?",
			ErrInvalid, t.Header.Classes, t.Header.Truth)
	}
	return nil
}
