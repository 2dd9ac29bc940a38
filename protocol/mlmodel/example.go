package mlmodel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
)

// Table is the logged input example as rows of text, ready to be written as CSV.
// Header is empty when the example was an array without names.
type Table struct {
	Header []string
	Rows   [][]string
}

// wireExample is every form in which MLflow saves an example: a data frame in
// "split" orientation, an array for TensorFlow Serving, or an inference request.
type wireExample struct {
	Columns   []string        `json:"columns"`
	Data      [][]any         `json:"data"`
	Split     *wireExample    `json:"dataframe_split"`
	Inputs    json.RawMessage `json:"inputs"`
	Instances json.RawMessage `json:"instances"`
}

// ReadExample reads the logged input example of a model. It returns nil when
// none was logged.
func (m *Model) ReadExample(folder fs.FS) (*Table, error) {
	if m.Example == nil {
		return nil, nil
	}
	b, err := readBounded(folder, m.Example.Path, MaxExample)
	if err != nil {
		return nil, fmt.Errorf("read input example: %w", err)
	}
	t, err := parseExample(b)
	if err != nil {
		return nil, fmt.Errorf("input example %s: %w", m.Example.Path, err)
	}
	return t, nil
}

func parseExample(b []byte) (*Table, error) {
	var w wireExample
	if err := decodeNumbers(b, &w); err != nil {
		return nil, err
	}
	switch {
	case w.Split != nil:
		return tableOf(w.Split.Columns, w.Split.Data)
	case w.Data != nil:
		return tableOf(w.Columns, w.Data)
	case w.Inputs != nil:
		return arrayOf(w.Inputs)
	case w.Instances != nil:
		return arrayOf(w.Instances)
	}
	return nil, fmt.Errorf("%w: neither a data frame nor an array", ErrMalformed)
}

// decodeNumbers keeps numbers as they are written: floats must not lose digits.
func decodeNumbers(b []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(to); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// arrayOf reads an array of rows, or an object of arrays by input name.
func arrayOf(raw json.RawMessage) (*Table, error) {
	var value any
	if err := decodeNumbers(raw, &value); err != nil {
		return nil, err
	}
	if byName, ok := value.(map[string]any); ok {
		return sideBySide(byName)
	}
	rows, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%w: the array is none", ErrMalformed)
	}
	data := make([][]any, len(rows))
	for i, r := range rows {
		data[i] = flatten(r, nil)
	}
	return tableOf(nil, data)
}

// sideBySide joins arrays of several inputs row by row, in the order of names.
func sideBySide(byName map[string]any) (*Table, error) {
	var data [][]any
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		rows, ok := byName[name].([]any)
		if !ok || data != nil && len(rows) != len(data) {
			return nil, fmt.Errorf("%w: input %q has another number of rows", ErrMalformed, name)
		}
		if data == nil {
			data = make([][]any, len(rows))
		}
		for i, r := range rows {
			data[i] = flatten(r, data[i])
		}
	}
	return tableOf(nil, data)
}

// flatten lays the values of a nested array in a row.
func flatten(v any, into []any) []any {
	list, ok := v.([]any)
	if !ok {
		return append(into, v)
	}
	for _, e := range list {
		into = flatten(e, into)
	}
	return into
}

func tableOf(header []string, data [][]any) (*Table, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: it has no rows", ErrMalformed)
	}
	t := &Table{Header: header}
	width := len(data[0])
	for i, row := range data {
		if len(row) != width || width == 0 || header != nil && width != len(header) {
			return nil, fmt.Errorf("%w: row %d has %d values, %d are expected", ErrMalformed, i+1, len(row), max(width, len(header)))
		}
		text := make([]string, width)
		for k, v := range row {
			var err error
			if text[k], err = textOf(v); err != nil {
				return nil, fmt.Errorf("row %d: %w", i+1, err)
			}
		}
		t.Rows = append(t.Rows, text)
	}
	return t, nil
}

func textOf(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil // missing
	case json.Number:
		return v.String(), nil
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", fmt.Errorf("%w: a value is neither number nor text", ErrMalformed)
}
