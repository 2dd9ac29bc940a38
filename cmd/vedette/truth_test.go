package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// readTruths reads a whole file.
func readTruths(t *testing.T, path string, columns truthColumns) (rows []operator.TruthRow, err error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := openTruths(f, st.Size(), columns)
	if err != nil {
		return nil, err
	}
	for err == nil {
		var row operator.TruthRow
		if row, err = r.next(); err == nil {
			rows = append(rows, row)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return rows, err
}

func TestTruthFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.csv", "\ufeffid,note,label\na-1,\"two\nlines\",7\n\"b,2\",, cat \nc-3\n")
	write("a.jsonl", "{\"id\":\"a-1\",\"label\":7,\"device\":\"cam-1\"}\n\n{\"id\":\"b-2\",\"label\":\"cat\"}\n{\"id\":3}\n")
	type record struct {
		Prediction string
		Digit      int64
		Camera     *string
		Image      []float64
	}
	camera := "cam-1"
	records := []record{{"a-1", 7, &camera, []float64{1, 2, 3}}, {"b-2", 0, nil, nil}}
	for i := range 2 * parquetBlock {
		records = append(records, record{"c", int64(i), &camera, nil})
	}
	if err := parquet.WriteFile(filepath.Join(dir, "a.parquet"), records); err != nil {
		t.Fatal(err)
	}
	usual, named := truthColumns{id: "id", label: "label"}, truthColumns{"Prediction", "Digit", "Camera"}
	for _, tt := range []struct {
		name    string
		columns truthColumns
		want    []operator.TruthRow // the first ones
		rows    int
	}{
		{"a.csv", usual, []operator.TruthRow{{Line: 2, ID: "a-1", Label: "7"}, {Line: 4, ID: "b,2", Label: "cat"}, {Line: 5, ID: "c-3"}}, 3},
		{"a.jsonl", usual, []operator.TruthRow{{Line: 1, ID: "a-1", Label: "7", Device: "cam-1"}, {Line: 3, ID: "b-2", Label: "cat"}, {Line: 4, ID: "3"}}, 3},
		{"a.parquet", named, []operator.TruthRow{{Line: 1, ID: "a-1", Label: "7", Device: "cam-1"}, {Line: 2, ID: "b-2", Label: "0"}, {Line: 3, ID: "c", Label: "0", Device: "cam-1"}}, 2*parquetBlock + 2},
	} {
		got, err := readTruths(t, filepath.Join(dir, tt.name), tt.columns)
		if err != nil || len(got) != tt.rows || !slices.Equal(got[:len(tt.want)], tt.want) {
			t.Errorf("%s: got %d rows %+v, %v, want %d beginning with %+v", tt.name, len(got), got[:min(len(got), 3)], err, tt.rows, tt.want)
		}
	}
}

func TestTruthFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct{ content, mention string }{
		"none.csv":      {"", "read header"},
		"other.csv":     {"prediction,label\n", `no column "id"`},
		"binary.csv":    {"id,label\n" + strings.Repeat("x", maxTruthLine+1<<16), "too long"},
		"long.jsonl":    {strings.Repeat("x", maxTruthLine+1), "line 1"},
		"number.jsonl":  {"7\n", "line 1"},
		"no.parquet":    {"PAR1 but no more PAR1", "no.parquet"},
		"small.parquet": {"x", "small.parquet"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readTruths(t, path, truthColumns{id: "id", label: "label"}); err == nil || !strings.Contains(err.Error(), tt.mention) {
			t.Errorf("%s: got %v, want an error that mentions %q", name, err, tt.mention)
		}
	}
}
