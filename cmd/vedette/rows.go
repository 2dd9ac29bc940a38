package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// rowReader reads a table row by row as text. A row is valid until the next.
type rowReader interface {
	columns() []string
	next() ([]string, error) // io.EOF after the last
	close()
}

var (
	_ rowReader = (*csvRows)(nil)
	_ rowReader = (*parquetRows)(nil)
)

// openRows opens a CSV file with a header, or a Parquet file, by its name.
func openRows(path string) (rowReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(err)
	}
	var t rowReader
	switch strings.ToLower(filepath.Ext(path)) {
	case ".parquet", ".pq":
		t, err = newParquetRows(f)
	default:
		t, err = newCSVRows(f)
	}
	if err != nil {
		return nil, errors.Join(operator.Errorf(operator.Invalid, "%s: %w", path, err), f.Close())
	}
	return t, nil
}

type csvRows struct {
	file   *os.File
	csv    *csv.Reader
	header []string
}

func newCSVRows(f *os.File) (*csvRows, error) {
	r := csv.NewReader(bufio.NewReaderSize(f, 1<<20))
	r.ReuseRecord = true
	names, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	header := slices.Clone(names)
	header[0] = strings.TrimPrefix(header[0], "\xef\xbb\xbf")
	for i := range header {
		header[i] = strings.TrimSpace(header[i])
	}
	return &csvRows{f, r, header}, nil
}

func (t *csvRows) columns() []string       { return t.header }
func (t *csvRows) next() ([]string, error) { return t.csv.Read() }
func (t *csvRows) close()                  { _ = t.file.Close() }

// parquetRows reads flat columns. Only a page of each is in memory.
type parquetRows struct {
	file   *os.File
	names  []string
	groups []parquet.RowGroup
	rows   parquet.Rows
	buffer []parquet.Row
	at, n  int
	cells  []string
}

// parquetBatch is how many rows are decoded at once.
const parquetBatch = 256

func newParquetRows(f *os.File) (t *parquetRows, err error) {
	defer func() {
		if p := recover(); p != nil { // the library has some for files whose parts contradict each other
			err = fmt.Errorf("the Parquet file is damaged: %v", p)
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	file, err := parquet.OpenFile(f, st.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, err
	}
	t = &parquetRows{file: f, groups: file.RowGroups(), buffer: make([]parquet.Row, parquetBatch)}
	for _, c := range file.Root().Columns() {
		if !c.Leaf() || c.Repeated() {
			return nil, fmt.Errorf("column %q is nested: rows must be flat", c.Name())
		}
		t.names = append(t.names, c.Name())
	}
	t.cells = make([]string, len(t.names))
	return t, nil
}

func (t *parquetRows) columns() []string { return t.names }

func (t *parquetRows) close() {
	if t.rows != nil {
		_ = t.rows.Close()
	}
	_ = t.file.Close()
}

func (t *parquetRows) next() (cells []string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the Parquet file is damaged: %v", p)
		}
	}()
	for t.at == t.n {
		if err := t.fill(); err != nil {
			return nil, err
		}
	}
	clear(t.cells)
	for _, v := range t.buffer[t.at] {
		if i := v.Column(); i >= 0 && i < len(t.cells) && !v.IsNull() {
			t.cells[i] = valueText(v)
		}
	}
	t.at++
	return t.cells, nil
}

// fill reads on, from the next row group where one ends.
func (t *parquetRows) fill() error {
	if t.rows == nil {
		if len(t.groups) == 0 {
			return io.EOF
		}
		t.rows, t.groups = t.groups[0].Rows(), t.groups[1:]
	}
	n, err := t.rows.ReadRows(t.buffer)
	t.at, t.n = 0, n
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	if errors.Is(err, io.EOF) {
		err = t.rows.Close()
		t.rows = nil
	}
	return err
}

func valueText(v parquet.Value) string {
	switch v.Kind() { //nolint:exhaustive // the others are bytes
	case parquet.Boolean:
		return strconv.FormatBool(v.Boolean())
	case parquet.Int32:
		return strconv.FormatInt(int64(v.Int32()), 10)
	case parquet.Int64:
		return strconv.FormatInt(v.Int64(), 10)
	case parquet.Float:
		return strconv.FormatFloat(float64(v.Float()), 'g', -1, 32)
	case parquet.Double:
		return strconv.FormatFloat(v.Double(), 'g', -1, 64)
	default:
		return string(v.ByteArray())
	}
}
