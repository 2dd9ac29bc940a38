package score

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// sums is a model: the label is 1 for rows whose sum is above 10, the score of
// class 1 the sum. A row that begins with 666 makes a run fail.
type sums struct{ runs atomic.Int32 }

func (m *sums) Run(ctx context.Context, rows int, in, out []infer.Tensor) error {
	m.runs.Add(1)
	x := in[0].Data.([]float32)
	if len(x) != rows*3 || in[0].Shape[0] != int64(rows) {
		return fmt.Errorf("%d values for %d rows", len(x), rows)
	}
	label, scores := infer.Fit[int64](&out[0], rows), infer.Fit[float32](&out[1], 2*rows)
	for r := range rows {
		if x[3*r] == 666 {
			return errors.New("the graph cannot compute this")
		}
		sum := x[3*r] + x[3*r+1] + x[3*r+2]
		label[r], scores[2*r], scores[2*r+1] = 0, 0, sum
		if sum > 10 {
			label[r] = 1
		}
	}
	out[0].FitShape(rows)
	out[1].FitShape(rows, 2)
	return ctx.Err()
}

func testSchema() *release.Schema {
	low := -100.0
	return &release.Schema{
		Inputs: []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 3}, Features: []release.Feature{
			{Name: "a", Missing: "nan"}, {Name: "b", Min: &low}, {Name: "c", Missing: "refuse"},
		}}},
		Outputs: []release.Tensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{-1}},
			{Name: "scores", Datatype: "FP32", Shape: []int64{-1, 2}},
		},
		Classes: []string{"low", "high"}, Label: "label", Scores: "scores",
	}
}

func testConfig(in string) (Config, *bytes.Buffer) {
	var out bytes.Buffer
	return Config{
		Model: &sums{}, Schema: testSchema(), Input: Input{Reader: strings.NewReader(in), Name: "in"},
		Output: "-", Stdout: &out, InFormat: CSV, OutFormat: CSV, Batch: 4,
	}, &out
}

func TestCSV(t *testing.T) {
	const want = "row,class,label,scores_low,scores_high\n1,low,0,0,6\n2,high,1,0,15.5\n"
	cases := map[string]struct {
		in   string
		edit func(*Config)
		want string
	}{
		"header":           {"a,b,c\n1,2,3\n4,5,6.5\n", nil, want},
		"other order":      {"c,a,b\n3,1,2\n6.5,4,5\n", nil, want},
		"more columns":     {"id,a,x,b,c\nq,1,?,2,3\nr,4,,5,6.5\n", nil, want},
		"quoted":           {"a,\"b\",c\n\"1\",2,\"3\"\n4,\"5\",6.5\n", nil, want},
		"spaces":           {" a, b ,c\n 1,2 , 3\n4,5,6.5\n", nil, want},
		"CRLF and BOM":     {"\xef\xbb\xbfa,b,c\r\n1,2,3\r\n\r\n4,5,6.5", nil, want},
		"no header":        {"1,2,3\n4,5,6.5\n", nil, want},
		"header by option": {"1,2,3\n4,5,6.5\n", func(c *Config) { c.Header = HeaderNo }, want},
		"other names":      {"p,q,r\n1,2,3\n4,5,6.5\n", func(c *Config) { c.Header = HeaderSkip }, want},
		"keep": {
			"id,a,b,c\n\"x,\"\"y\",1,2,3\nz,4,5,6.5\n", func(c *Config) { c.Keep = []string{"id"} },
			"row,id,class,label,scores_low,scores_high\n1,\"x,\"\"y\",low,0,0,6\n2,z,high,1,0,15.5\n",
		},
		"line end in a quote": {
			"id,a,b,c\n\"x\ny\",1,2,3\nz,4,5,6.5\n", func(c *Config) { c.Keep = []string{"id"} },
			"row,id,class,label,scores_low,scores_high\n1,\"x\ny\",low,0,0,6\n2,z,high,1,0,15.5\n",
		},
		"missing allowed": {"a,b,c\n,2,3\nNaN,5,6.5\n", nil, "row,class,label,scores_low,scores_high\n1,low,0,0,NaN\n2,low,0,0,NaN\n"},
		"header alone":    {"a,b,c\n", nil, "row,class,label,scores_low,scores_high\n"},
		"JSON out": {
			"a,b,c\n1,2,3\n,5,6.5\n", func(c *Config) { c.OutFormat = JSONLines },
			`{"row":1,"class":"low","label":0,"scores":[0,6]}` + "\n" + `{"row":2,"class":"low","label":0,"scores":[0,null]}` + "\n",
		},
		"no classes": {"a,b,c\n1,2,3\n", func(c *Config) { c.Schema.Classes = nil }, "row,label,scores_0,scores_1\n1,0,0,6\n"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg, out := testConfig(c.in)
			if c.edit != nil {
				c.edit(&cfg)
			}
			cfg.Input.Reader = iotest.OneByteReader(cfg.Input.Reader)
			if _, err := Run(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", out, c.want)
			}
		})
	}
}

func TestBadRows(t *testing.T) {
	cases := []struct{ name, row, want string }{
		{"not a number", "1,x7,3", `row 2 (line 3), column "b": "x7" is not a number`},
		{"empty", "1,,3", `row 2 (line 3), column "b": is empty`},
		{"missing field", "1,2", `row 2 (line 3), column "c": is missing: the row has 2 of 3 columns`},
		{"too many fields", "1,2,3,4", `row 2 (line 3): has 4 columns, 3 are expected`},
		{"missing refused", "1,2,nan", `row 2 (line 3), column "c": is missing, which the model refuses`},
		{"below the range", "1,-101,3", `row 2 (line 3), column "b": is -101, below the valid minimum -100`},
		{"empty refused", "1,2,", `row 2 (line 3), column "c": is missing, which the model refuses`},
		{"not known to be missing", "1,NaN,3", `row 2 (line 3), column "b": "NaN" is not a number; the model's schema does not say`},
		{"infinite", "1,+Inf,3", `row 2 (line 3), column "b": "+Inf" is not a finite number`},
		{"infinite where missing passes", "-inf,2,3", `row 2 (line 3), column "a": "-inf" is not a finite number`},
		{"too large", "1e39,2,3", `row 2 (line 3), column "a": "1e39" is too large for FP32`},
		{"quote in the middle", `1,"2"x,3`, `row 2 (line 3): has a quote in the middle of a field`},
		{"half a number", "1,2e,3", `row 2 (line 3), column "b": "2e" is not a number`},
		{"the run fails", "666,2,3", "row 2"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			in := "a,b,c\n1,2,3\n" + c.row + "\n4,5,6.5\n"
			cfg, _ := testConfig(in)
			_, err := Run(t.Context(), cfg)
			var bad *RowError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) || bad.Row != 2 {
				t.Errorf("fail: %v, want %s", err, c.want)
			}
			for mode, want := range map[string]string{
				OnErrorSkip: "1,low,0,0,6\n3,high,1,0,15.5\n",
				OnErrorNull: "1,low,0,0,6\n2,,,,\n3,high,1,0,15.5\n",
			} {
				cfg, out := testConfig(in)
				cfg.OnError = mode
				s, err := Run(t.Context(), cfg)
				if err != nil {
					t.Fatalf("%s: %v", mode, err)
				}
				if got := strings.TrimPrefix(out.String(), "row,class,label,scores_low,scores_high\n"); got != want {
					t.Errorf("%s: got\n%s\nwant\n%s", mode, got, want)
				}
				if s.Rows != 3 || s.Scored != 2 || s.Skipped+s.Nulls != 1 || len(s.Errors) != 1 || s.Errors[0].Row != 2 {
					t.Errorf("%s: summary %+v", mode, s)
				}
			}
		})
	}
}

func TestInputRefused(t *testing.T) {
	for name, c := range map[string]struct {
		in, want string
		edit     func(*Config)
	}{
		"empty":           {"", "is empty", nil},
		"columns":         {"a,b,d\n1,2,3\n", `1 of 3 columns are missing: ["c"]`, nil},
		"column twice":    {"a,b,c,b\n1,2,3,4\n", `column "b" is there twice`, nil},
		"width":           {"1,2\n", "rows have 2 columns, the model takes 3", nil},
		"open quote":      {"a,b,c\n1,2,\"3\n", "never closed", nil},
		"nothing to keep": {"a,b,c\n", `no column "id" to keep`, func(c *Config) { c.Keep = []string{"id"} }},
		"long line":       {"a,b,c\n" + strings.Repeat("1", MaxLine+1), "longer than", nil},
		"format":          {"", "must be one of", func(c *Config) { c.InFormat = "xml" }},
		"on error":        {"", `bad option: on-error is "hide", must be one of`, func(c *Config) { c.OnError = "hide" }},
		"batch":           {"", "bad option: batch is -1,", func(c *Config) { c.Batch = -1 }},
		"large batch":     {"", "bad option: batch is 1048577,", func(c *Config) { c.Batch = maxBatch + 1 }},
		"threads":         {"", "bad option: threads is -3,", func(c *Config) { c.Threads = -3 }},
		"semicolons":      {"a;b;c\n1,5;2;3\n", "looks separated by semicolons: write it with commas", nil},
		"tabs":            {"1\t2\t3\n", "looks separated by tabs", func(c *Config) { c.Header = HeaderNo }},
		"resume a pipe":   {"", "must be files", func(c *Config) { c.Resume = true }},
		"free width":      {"", "no fixed size", func(c *Config) { c.Schema.Inputs[0].Shape[1] = -1 }},
	} {
		cfg, _ := testConfig(c.in)
		if c.edit != nil {
			c.edit(&cfg)
		}
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestReadErrorIsNotTheEnd(t *testing.T) {
	cfg, _ := testConfig("")
	broken := errors.New("bad sector")
	cfg.Input.Reader = io.MultiReader(strings.NewReader("a,b,c\n1,2,3\n"), iotest.ErrReader(broken))
	if _, err := Run(t.Context(), cfg); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

func TestJSONLines(t *testing.T) {
	cfg, out := testConfig(`{"a":1,"b":2,"c":3,"id":"x"}` + "\n\n" + ` {"id":7,"c":6.5,"b":5,"a":4}` + "\n" + `{"id":"z","a":null,"b":1,"c":1}`)
	cfg.InFormat, cfg.Keep = JSONLines, []string{"id"}
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	want := "row,id,class,label,scores_low,scores_high\n1,x,low,0,0,6\n2,7,high,1,0,15.5\n3,z,low,0,0,NaN\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	cfg, out = testConfig("[1,2,3]\n[4,5,6.5]\n")
	cfg.InFormat = JSONLines
	if _, err := Run(t.Context(), cfg); err != nil || !strings.Contains(out.String(), "2,high,1,0,15.5") {
		t.Errorf("arrays: %v\n%s", err, out)
	}
	for line, want := range map[string]string{
		`{"a":1,"b":2}`:          `column "c": is missing`,
		`{"a":1,"b":"2","c":3}`:  `column "b": "\"2\"" is no FP32`,
		`{"a":1,"b":[2],"c":3}`:  `column "b"`,
		`{"a":1,"b":true,"c":3}`: `column "b": "true" is not a number`,
		`{"a":null,"b":2,"c":3}`: "",
		`{"a":1,"b":null,"c":3}`: `column "b": "null" is not a number; the model's schema does not say`,
		`{"a":NaN,"b":2,"c":3}`:  "not valid JSON",
		`{"a":1,"b":2,"c":null}`: `column "c": is missing, which the model refuses`,
		`[1,2]`:                  "has 2 values, the model takes 3",
		`{"a":1,`:                "not valid JSON",
		`[1,2,3`:                 "not valid JSON",
	} {
		cfg, _ := testConfig(line)
		cfg.InFormat = JSONLines
		_, err := Run(t.Context(), cfg)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// TestEveryDatatype scores one row of every datatype a table can hold.
func TestEveryDatatype(t *testing.T) {
	schema := &release.Schema{Outputs: []release.Tensor{{Name: "ok", Datatype: "INT64", Shape: []int64{-1}}}}
	values := map[string][2]string{ // good and bad
		"BOOL": {"true", "maybe"}, "UINT8": {"255", "256"}, "UINT16": {"65535", "-1"}, "UINT32": {"1", "1.5"}, "UINT64": {"1", ""},
		"INT8": {"-128", "128"}, "INT16": {"1", "x"}, "INT32": {"1", "1e3"}, "INT64": {"1", "9223372036854775808"},
		"FP32": {"1.5", "one"}, "FP64": {"1e300", "1e400"},
	}
	var header, good []string
	for d, v := range values {
		schema.Inputs = append(schema.Inputs, release.Tensor{Name: d, Datatype: d, Shape: []int64{-1}})
		header, good = append(header, d), append(good, v[0])
	}
	run := func(row []string) error {
		cfg, _ := testConfig(strings.Join(header, ",") + "\n" + strings.Join(row, ",") + "\n")
		cfg.Schema, cfg.Model = schema, modelFunc(func(rows int, in, out []infer.Tensor) error {
			for i, h := range header {
				if got := strings.Trim(fmt.Sprint(in[i].Data), "[]"); rows == 1 && !sameNumber(got, row[i]) {
					return fmt.Errorf("%s is %s, want %s", h, got, row[i])
				}
			}
			infer.Fit[int64](&out[0], rows)
			out[0].FitShape(rows)
			return nil
		})
		_, err := Run(context.Background(), cfg)
		return err
	}
	if err := run(good); err != nil {
		t.Fatal(err)
	}
	for i, d := range header {
		row := append([]string(nil), good...)
		row[i] = values[d][1]
		var bad *RowError
		if err := run(row); !errors.As(err, &bad) || bad.Column != d {
			t.Errorf("%s %q: %v", d, row[i], err)
		}
	}
}

func sameNumber(a, b string) bool {
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return a == b || err1 == nil && err2 == nil && x == y
}

type modelFunc func(rows int, in, out []infer.Tensor) error

func (f modelFunc) Run(_ context.Context, rows int, in, out []infer.Tensor) error {
	return f(rows, in, out)
}

// TestFixedBatch pads the last batch of a model that takes exactly four rows.
func TestFixedBatch(t *testing.T) {
	cfg, out := testConfig("a,b,c\n" + strings.Repeat("1,2,3\n", 6))
	cfg.Schema.Inputs[0].Shape[0] = 4
	m := &sums{}
	cfg.Model = m
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "\n"); got != 7 || m.runs.Load() != 2 {
		t.Errorf("%d lines in %d runs:\n%s", got, m.runs.Load(), out)
	}
}

// TestAgreesWithEncodingCSV parses random tables with both readers.
func FuzzCSV(f *testing.F) {
	f.Add("a,b,c\n1,2,3\n")
	f.Add("\"a\",b,c\n\"1\",2,\"\"\"3\"\"\"\n")
	f.Add("c,b,a,d\r\n1,2,3,\"x\ny\"\r\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, out := testConfig(text)
		cfg.Header, cfg.OnError, cfg.Model = HeaderYes, OnErrorNull, modelFunc(func(rows int, in, out []infer.Tensor) error {
			x := in[0].Data.([]float32)
			y := infer.Fit[float32](&out[0], 3*rows)
			copy(y, x)
			out[0].FitShape(rows, 3)
			return nil
		})
		cfg.Schema.Inputs[0].Features = []release.Feature{{Name: "a"}, {Name: "b"}, {Name: "c"}}
		cfg.Schema.Outputs = []release.Tensor{{Name: "x", Datatype: "FP32", Shape: []int64{-1, 3}}}
		cfg.Schema.Classes, cfg.Schema.Label, cfg.Schema.Scores = nil, "", ""
		_, err := Run(t.Context(), cfg)
		ref := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\xef\xbb\xbf")))
		ref.FieldsPerRecord = -1
		records, refErr := ref.ReadAll()
		if err != nil || refErr != nil || len(records) == 0 || strings.Contains(text, "\r") && !strings.Contains(text, "\r\n") {
			return // they differ in what they forgive
		}
		got, err := csv.NewReader(out).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		compareTables(t, records, got)
	})
}

// compareTables checks that every row that both could read has the same numbers.
func compareTables(t *testing.T, want, got [][]string) {
	t.Helper()
	at := map[string]int{}
	for i, name := range want[0] {
		at[strings.TrimSpace(name)] = i
	}
	if len(got)-1 != len(want)-1 {
		return // empty quoted lines count as rows for one and not for the other
	}
	for r, row := range want[1:] {
		if got[r+1][1] == "" {
			continue
		}
		for i, name := range []string{"a", "b", "c"} {
			w, err := strconv.ParseFloat(strings.TrimSpace(row[at[name]]), 32)
			g, err2 := strconv.ParseFloat(got[r+1][i+1], 32)
			if err == nil && err2 == nil && w != g && w == w {
				t.Errorf("row %d column %s: %v, want %v", r+1, name, g, w)
			}
		}
	}
}

// TestResume interrupts a run at every batch and goes on: the result must be
// that of a run in one piece, whatever was written after the checkpoint.
func TestResume(t *testing.T) {
	for _, format := range []string{CSV, JSONLines} {
		for _, header := range []string{"a,b,c\n", ""} {
			t.Run(format+" "+header, func(t *testing.T) { testResume(t, format, header) })
		}
	}
}

func testResume(t *testing.T, format, header string) {
	t.Helper()
	dir := t.TempDir()
	var in strings.Builder
	in.WriteString(header)
	for r := range 41 {
		if r%7 == 3 {
			in.WriteString("bad,0,0\n")
			continue
		}
		fmt.Fprintf(&in, "%d,%d.25,1\n", r, r)
	}
	path := filepath.Join(dir, "in.csv")
	if err := os.WriteFile(path, []byte(in.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(out string, resume bool, stopAfter int) (Summary, error) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		batches := 0
		return Run(ctx, Config{
			Model: &sums{}, Schema: testSchema(), Input: Input{Reader: f, Name: path, Size: int64(in.Len())}, Output: out,
			InFormat: CSV, OutFormat: format, OnError: OnErrorSkip, Batch: 4, Resume: resume,
			Progress: func(Progress) {
				if batches++; batches == stopAfter {
					cancel()
				}
			},
		})
	}
	whole := filepath.Join(dir, "whole")
	wantSummary, err := run(whole, true, 0)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for stop := 1; stop <= 9; stop++ {
		out := filepath.Join(dir, fmt.Sprint("out", stop))
		if _, err := run(out, false, stop); !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupted after batch %d: %v", stop, err)
		}
		if _, err := os.Stat(out); err == nil {
			t.Error("an unfinished result has its name already")
		}
		// what a kill leaves: more output than the checkpoint knows
		f, err := os.OpenFile(out+partSuffix, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(strings.Repeat("9999,half a li", 1000))
		f.Close()
		s, err := run(out, true, 0)
		if err != nil {
			t.Fatalf("resumed after batch %d: %v", stop, err)
		}
		got, err := os.ReadFile(out)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("resumed after batch %d: %v\n%s\nwant\n%s", stop, err, got, want)
		}
		if s.Rows != wantSummary.Rows || s.Scored != wantSummary.Scored || s.Skipped != wantSummary.Skipped || s.Resumed == 0 {
			t.Errorf("summary %+v, want %+v", s, wantSummary)
		}
		if left, _ := filepath.Glob(out + ".*"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

func TestResumeRefusesAnotherJob(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte("1,2,3\n4,x,6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(edit func(*Config)) error {
		f, err := os.Open(in)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cfg := Config{Model: &sums{}, Schema: testSchema(), Input: Input{Reader: f, Name: in, Size: 12}, Output: out, InFormat: CSV, OutFormat: CSV, Batch: 1, Identity: "one"}
		edit(&cfg)
		_, err = Run(t.Context(), cfg)
		return err
	}
	if err := run(func(*Config) {}); err == nil {
		t.Fatal("a bad row passed")
	}
	for name, edit := range map[string]func(*Config){
		"model":  func(c *Config) { c.Identity = "two" },
		"input":  func(c *Config) { c.Input.Size = 13 },
		"option": func(c *Config) { c.OnError = OnErrorSkip },
	} {
		if err := run(func(c *Config) { edit(c); c.Resume = true }); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%s: %v, want %v", name, err, ErrCheckpoint)
		}
	}
	if err := os.WriteFile(out+".checkpoint", []byte(`{"form`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(func(c *Config) { c.Resume = true }); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("damaged checkpoint: %v, want %v", err, ErrCheckpoint)
	}
}

func TestSummaryIsJSON(t *testing.T) {
	cfg, _ := testConfig("a,b,c\n1,2,3\n")
	s, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(s)
	if err != nil || !strings.Contains(string(raw), `"rows":1,"scored":1`) {
		t.Errorf("%s, %v", raw, err)
	}
}

// BenchmarkParse measures reading alone: 30 columns of float32.
func BenchmarkParse(b *testing.B) {
	schema := testSchema()
	schema.Inputs[0].Shape[1], schema.Inputs[0].Features = 30, nil
	csv := strings.TrimSuffix(strings.Repeat("10.48,0.0597,337.7,", 10), ",") + "\n"
	for format, row := range map[string]string{CSV: csv, JSONLines: jsonRow(strings.Split(strings.TrimSpace(csv), ","))} {
		b.Run(format, func(b *testing.B) {
			text := strings.Repeat(row, 10_000)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := NewReader(Config{Schema: schema, InFormat: format, Header: HeaderNo, Input: Input{Reader: strings.NewReader(text)}})
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = r.Next()
				}
				if !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
			}
			b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// jsonRow is a row as an object of the schema's element names.
func jsonRow(values []string) string {
	var b strings.Builder
	for i, v := range values {
		fmt.Fprintf(&b, `,"X[%d]":%s`, i, v)
	}
	return "{" + b.String()[1:] + "}\n"
}
