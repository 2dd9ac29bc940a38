package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sampling"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// sampledRow is one prediction that waits for its label.
type sampledRow struct {
	ID         string                    `json:"id"`
	Label      string                    `json:"label"` // to be filled in
	Device     string                    `json:"device"`
	At         time.Time                 `json:"at"` // by the device's clock
	Version    string                    `json:"version"`
	Stratum    string                    `json:"stratum"`
	Weight     float64                   `json:"weight"` // rows that it stands for
	Prediction string                    `json:"prediction"`
	Confidence *float64                  `json:"confidence,omitempty"`
	Inputs     map[string]any            `json:"inputs"`
	Outputs    map[string]release.Floats `json:"outputs"`

	names, values []string // of the inputs, as columns
}

// rowsOf reads the rows of a sample. The error is sampling.ErrSample: the device
// sent what its release does not take.
func rowsOf(s *operator.SealedSample, m *release.Manifest, rows *protocol.SampleRows) ([]*sampledRow, error) {
	if n := len(rows.GetRows()); n > release.MaxSampleRows {
		return nil, fmt.Errorf("%w: it has %d rows, at most %d", sampling.ErrSample, n, release.MaxSampleRows)
	}
	out := make([]*sampledRow, 0, len(rows.GetRows()))
	for _, row := range rows.GetRows() {
		if err := checkInputs(&m.Schema, row.GetInputs()); err != nil {
			return nil, err
		}
		one, err := rowOf(s, m, row)
		if err != nil {
			return nil, err
		}
		if _, err := json.Marshal(one); err != nil {
			return nil, fmt.Errorf("%w: %w", sampling.ErrSample, err)
		}
		out = append(out, one)
	}
	return out, nil
}

// checkInputs holds the inputs of a row against the schema of its release.
func checkInputs(schema *release.Schema, inputs []*protocol.Array) error {
	if len(inputs) != len(schema.Inputs) {
		return fmt.Errorf("%w: a row has %d inputs, its release %d", sampling.ErrSample, len(inputs), len(schema.Inputs))
	}
	for _, in := range inputs {
		t := schema.Input(in.GetName())
		if t == nil {
			return fmt.Errorf("%w: its release has no input %.64q", sampling.ErrSample, in.GetName())
		}
		n := int64(len(in.GetStrings()))
		if in.GetDatatype() != "BYTES" {
			numbers, err := sampling.Numbers(in)
			if err != nil {
				return err
			}
			n = int64(len(numbers))
		}
		if want, fixed := t.RowSize(); fixed && n != want {
			return fmt.Errorf("%w: input %s has %d values, its release takes %d", sampling.ErrSample, t.Name, n, want)
		}
	}
	return nil
}

// rowOf reads one row of a sample.
func rowOf(s *operator.SealedSample, m *release.Manifest, row *protocol.SampleRow) (*sampledRow, error) {
	out := &sampledRow{
		ID: row.GetId(), Device: s.Device, At: time.UnixMilli(row.GetWallMs()).UTC(), Version: s.Version, Stratum: row.GetStratum(),
		Weight: weightOf(s, m, row.GetStratum()), Inputs: map[string]any{}, Outputs: map[string]release.Floats{},
	}
	for _, in := range row.GetInputs() {
		if err := out.input(m, in); err != nil {
			return nil, err
		}
	}
	for _, o := range row.GetOutputs() {
		if err := out.output(&m.Schema, o); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// weightOf is how many rows one of a stratum stands for.
func weightOf(s *operator.SealedSample, m *release.Manifest, stratum string) float64 {
	i := slices.IndexFunc(s.Strata, func(t operator.SampleStratum) bool { return t.Name == stratum })
	if i < 0 || s.Strata[i].Rows == 0 || m.Sampling == nil {
		return 1
	}
	return float64(s.Strata[i].Seen) / float64(s.Strata[i].Rows) / m.Sampling.Rate
}

func (r *sampledRow) input(m *release.Manifest, in *protocol.Array) error {
	if in.GetDatatype() == "BYTES" {
		texts := make([]string, len(in.GetStrings()))
		for i, s := range in.GetStrings() {
			texts[i] = string(s)
			r.column(m, in, i, noFormula(texts[i]))
		}
		r.Inputs[in.GetName()] = texts
		return nil
	}
	numbers, err := sampling.Numbers(in)
	if err != nil {
		return err
	}
	for i, v := range numbers {
		r.column(m, in, i, strconv.FormatFloat(v, 'g', -1, 64))
	}
	r.Inputs[in.GetName()] = release.Floats(numbers)
	return nil
}

// column names the i-th value of an input as its feature is called.
func (r *sampledRow) column(m *release.Manifest, in *protocol.Array, i int, value string) {
	name := fmt.Sprintf("%s[%d]", in.GetName(), i)
	if t := m.Schema.Input(in.GetName()); t != nil && i < len(t.Features) {
		name = t.Features[i].Name
	}
	r.names, r.values = append(r.names, name), append(r.values, value)
}

func (r *sampledRow) output(schema *release.Schema, o *protocol.Array) error {
	if o.GetDatatype() == "BYTES" {
		if o.GetName() == schema.Label && len(o.GetStrings()) == 1 {
			r.Prediction = string(o.GetStrings()[0])
		}
		return nil
	}
	numbers, err := sampling.Numbers(o)
	if err != nil {
		return err
	}
	r.Outputs[o.GetName()] = numbers
	switch {
	case o.GetName() == schema.Label && len(numbers) == 1:
		r.Prediction = className(schema, int(numbers[0]))
	case o.GetName() == schema.Scores && len(numbers) > 0:
		scores := make([]float32, len(numbers))
		for i, v := range numbers {
			scores[i] = float32(v)
		}
		class, confidence := sketch.Predicted(scores)
		if confidence == confidence { //nolint:gocritic // NaN alone differs from itself
			r.Confidence = new(float64(confidence))
		}
		if r.Prediction == "" {
			r.Prediction = className(schema, class)
		}
	}
	return nil
}

func className(schema *release.Schema, class int) string {
	if class >= 0 && class < len(schema.Classes) {
		return schema.Classes[class]
	}
	return strconv.Itoa(class)
}

// rowsFile is a file of rows that appears whole or not at all, readable by its
// owner alone.
type rowsFile struct {
	path   string
	file   *os.File
	buffer *bufio.Writer
	csv    *csv.Writer // nil for JSON Lines
	header []string
}

func createRows(path string) (*rowsFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".rows-*") // 0600
	if err != nil {
		return nil, fileError(err)
	}
	out := &rowsFile{path: path, file: f, buffer: bufio.NewWriter(f)}
	if filepath.Ext(path) == ".csv" {
		out.csv = csv.NewWriter(out.buffer)
	}
	return out, nil
}

// sampleColumns come before the inputs.
var sampleColumns = []string{"id", "label", "device", "at", "version", "stratum", "weight", "prediction", "confidence"}

func (f *rowsFile) write(r *sampledRow) error {
	if f.csv == nil {
		raw, err := json.Marshal(r)
		if err != nil {
			return operator.Errorf(operator.Invalid, "row %s: %w", r.ID, err)
		}
		_, err = f.buffer.Write(append(raw, '\n'))
		return err
	}
	if f.header == nil {
		f.header = slices.Concat(sampleColumns, r.names)
		if err := f.csv.Write(f.header); err != nil {
			return fileError(err)
		}
	}
	confidence := ""
	if r.Confidence != nil {
		confidence = strconv.FormatFloat(*r.Confidence, 'g', 6, 64)
	}
	fields := slices.Concat([]string{
		noFormula(r.ID), "", r.Device, r.At.Format(time.RFC3339Nano), r.Version, noFormula(r.Stratum), strconv.FormatFloat(r.Weight, 'g', 6, 64), noFormula(r.Prediction), confidence,
	}, r.values)
	if len(fields) != len(f.header) {
		return operator.Errorf(operator.Invalid, "rows have different numbers of inputs").WithHint("write them to a .jsonl file, or choose one --version")
	}
	return f.csv.Write(fields)
}

// noFormula puts a ' before text of a device that a spreadsheet, in which rows are
// labelled, would take for a formula. Numbers stay.
func noFormula(text string) string {
	if text == "" || !strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return text
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return text
	}
	return "'" + text
}

// keep gives the file its name.
func (f *rowsFile) keep() error {
	if f.csv != nil {
		f.csv.Flush()
		if err := f.csv.Error(); err != nil {
			return fileError(err)
		}
	}
	err := errors.Join(f.buffer.Flush(), f.file.Sync(), f.file.Close())
	if err == nil {
		err = atomicfile.Rename(f.file.Name(), f.path)
	}
	if err != nil {
		return fileError(err)
	}
	f.file = nil
	return nil
}

// discard removes what was not kept.
func (f *rowsFile) discard() {
	if f.file != nil {
		_ = f.file.Close() // what is in it is not wanted
		_ = os.Remove(f.file.Name())
	}
}
