package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// maxTruthLine bounds a line of a file of truths in bytes: rows of samples carry
// their inputs along.
const maxTruthLine = 1 << 20

// defaultDeviceColumn names the device where no other column is asked for.
const defaultDeviceColumn = "device"

// truthColumns name the columns of a file of truths.
type truthColumns struct{ id, label, device string }

// truthRows reads a file of truths row by row; io.EOF ends it.
type truthRows interface {
	next() (operator.TruthRow, error)
	offset() int64 // bytes read so far, about
}

// openTruths reads a file by what its name ends in.
func openTruths(f *os.File, size int64, columns truthColumns) (truthRows, error) {
	switch ext := strings.ToLower(filepath.Ext(f.Name())); ext {
	case ".csv":
		return openTruthCSV(f, columns)
	case ".jsonl", ".ndjson", ".json":
		return openTruthJSON(f, columns), nil
	case ".parquet":
		return openTruthParquet(f, size, columns)
	default:
		return nil, usagef("%s: name it .csv, .jsonl or .parquet, by what it is", f.Name())
	}
}

// places finds columns by name: −1 for a device column that is not asked for and
// not there.
func (c truthColumns) places(file string, header []string) (id, label, device int, err error) {
	device = slices.Index(header, firstOf(c.device, defaultDeviceColumn))
	for _, wanted := range []struct {
		name, flag string
		at         *int
	}{{c.id, "--id-column", &id}, {c.label, "--label-column", &label}} {
		if *wanted.at = slices.Index(header, wanted.name); *wanted.at < 0 {
			return 0, 0, 0, usagef("%s has no column %q; name it with %s: there are %s", file, wanted.name, wanted.flag, strings.Join(header[:min(len(header), 20)], ", "))
		}
	}
	if c.device != "" && device < 0 {
		return 0, 0, 0, usagef("%s has no column %q: there are %s", file, c.device, strings.Join(header[:min(len(header), 20)], ", "))
	}
	return id, label, device, nil
}

// truthCSV reads a CSV file with a header.
type truthCSV struct {
	r                 *csv.Reader
	id, label, device int
}

func openTruthCSV(f *os.File, columns truthColumns) (*truthCSV, error) {
	r := csv.NewReader(&boundedLines{r: f})
	r.ReuseRecord, r.FieldsPerRecord = true, -1
	header, err := r.Read()
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "read header of %s: %w", f.Name(), err)
	}
	header = slices.Clone(header)
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	t := &truthCSV{r: r}
	t.id, t.label, t.device, err = columns.places(f.Name(), header)
	return t, err
}

func (t *truthCSV) next() (operator.TruthRow, error) {
	fields, err := t.r.Read()
	if err != nil {
		return operator.TruthRow{}, err
	}
	line, _ := t.r.FieldPos(0)
	at := func(i int) string {
		if i < 0 || i >= len(fields) {
			return ""
		}
		return strings.Clone(fields[i])
	}
	return operator.TruthRow{Line: int64(line), ID: at(t.id), Label: strings.TrimSpace(at(t.label)), Device: at(t.device)}, nil
}

func (t *truthCSV) offset() int64 { return t.r.InputOffset() }

// boundedLines refuses input without line ends: encoding/csv would read it all
// into memory.
type boundedLines struct {
	r     io.Reader
	since int64 // the last line end
}

var errLongLine = errors.New("a line is too long: is this a text file?")

// Read implements io.Reader.
func (b *boundedLines) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if i := bytes.LastIndexByte(p[:n], '\n'); i >= 0 {
		b.since = int64(n - i)
	} else if b.since += int64(n); b.since > maxTruthLine {
		return 0, errLongLine
	}
	return n, err
}

// truthJSON reads one JSON object a line.
type truthJSON struct {
	lines   *bufio.Scanner
	columns truthColumns
	line    int64
	read    int64
}

func openTruthJSON(f *os.File, columns truthColumns) *truthJSON {
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxTruthLine)
	return &truthJSON{lines: lines, columns: columns}
}

func (t *truthJSON) next() (row operator.TruthRow, err error) {
	for t.lines.Scan() {
		t.line++
		t.read += int64(len(t.lines.Bytes())) + 1
		if len(bytes.TrimSpace(t.lines.Bytes())) == 0 {
			continue
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(t.lines.Bytes(), &object); err != nil {
			return row, fmt.Errorf("line %d: %w", t.line, err)
		}
		row.Line = t.line
		for name, to := range map[string]*string{
			t.columns.id: &row.ID, t.columns.label: &row.Label, firstOf(t.columns.device, defaultDeviceColumn): &row.Device,
		} {
			*to = jsonText(object[name])
		}
		return row, nil
	}
	if err := t.lines.Err(); err != nil {
		return row, fmt.Errorf("line %d: %w", t.line+1, err)
	}
	return row, io.EOF
}

func (t *truthJSON) offset() int64 { return t.read }

// jsonText is a string, or what a number or boolean is written as.
func jsonText(raw json.RawMessage) string {
	var s *string
	if len(raw) == 0 || json.Unmarshal(raw, &s) == nil {
		if s == nil {
			return ""
		}
		return strings.TrimSpace(*s)
	}
	return string(raw)
}

// truthParquet reads three columns of a Parquet file, a block of rows at a time.
type truthParquet struct {
	rows              parquet.Rows
	block             []parquet.Row
	at, held          int
	line, total, size int64
	id, label, device int
}

// parquetBlock is how many rows are in memory.
const parquetBlock = 512

func openTruthParquet(f *os.File, size int64, columns truthColumns) (t *truthParquet, err error) {
	defer recoveredParquet(f.Name(), &err)
	file, err := parquet.OpenFile(f, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "read %s: %w", f.Name(), err)
	}
	header := make([]string, 0, len(file.Schema().Columns()))
	for _, path := range file.Schema().Columns() {
		header = append(header, strings.Join(path, "."))
	}
	t = &truthParquet{total: file.NumRows(), size: size, block: make([]parquet.Row, parquetBlock)}
	if t.id, t.label, t.device, err = columns.places(f.Name(), header); err != nil {
		return nil, err
	}
	t.rows = parquet.MultiRowGroup(file.RowGroups()...).Rows()
	return t, nil
}

// recoveredParquet turns a panic into an error: the library has some for files
// whose parts contradict each other.
func recoveredParquet(name string, err *error) {
	if p := recover(); p != nil {
		*err = operator.Errorf(operator.Invalid, "%s: the Parquet file is damaged: %v", name, p)
	}
}

func (t *truthParquet) next() (row operator.TruthRow, err error) {
	defer recoveredParquet(fmt.Sprintf("row %d", t.line+1), &err)
	for t.at == t.held {
		n, err := t.rows.ReadRows(t.block)
		if t.at, t.held = 0, n; n == 0 {
			return row, errors.Join(t.rows.Close(), orEOF(err))
		}
	}
	t.line++
	row.Line = t.line
	for _, v := range t.block[t.at] {
		switch v.Column() {
		case t.id:
			row.ID = parquetText(v)
		case t.label:
			row.Label = parquetText(v)
		case t.device:
			row.Device = parquetText(v)
		}
	}
	t.at++
	return row, nil
}

func (t *truthParquet) offset() int64 { return t.size * t.line / max(t.total, 1) }

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

func parquetText(v parquet.Value) string {
	if v.IsNull() {
		return ""
	}
	return strings.TrimSpace(v.String())
}
