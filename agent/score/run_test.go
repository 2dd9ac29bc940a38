package score

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestThreadsDoNotShow gives the same bytes and report with any number of
// threads, and every pair of formats.
func TestThreadsDoNotShow(t *testing.T) {
	rows := someReadings(3000)
	rows[1234].B = -500
	inputs := map[string][]byte{CSV: asCSV(rows), Parquet: writeParquet(t, rows)}
	for _, in := range []string{CSV, Parquet} {
		for _, out := range []string{CSV, JSONLines, Parquet} {
			var want string
			for _, threads := range []int{1, 2, 7} {
				got, err := scoreBytes(t, inputs[in], func(c *Config) {
					c.InFormat, c.OutFormat, c.Threads, c.OnError, c.Baseline = in, out, threads, OnErrorNull, testBaseline()
				})
				if err != nil {
					t.Fatal(err)
				}
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("%s to %s with %d threads differs", in, out, threads)
				}
			}
		}
	}
}

// TestFirstBadRowIsNamed however many are bad and whoever parses them.
func TestFirstBadRowIsNamed(t *testing.T) {
	text := "a,b,c\n" + strings.Repeat("1,2,3\n", 99) + strings.Repeat("1,x,3\n", 300)
	for range 20 {
		_, err := scoreBytes(t, []byte(text), func(c *Config) { c.Threads = 8 })
		var bad *RowError
		if !errors.As(err, &bad) || bad.Row != 100 {
			t.Fatalf("error %v, want one of row 100", err)
		}
	}
}

func TestCompressed(t *testing.T) {
	text := asCSV(someReadings(600))
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write(text)
	g.Close()
	z, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	z.Write(text)
	z.Close()
	want, err := scoreBytes(t, text, func(*Config) {})
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"gzip": gz.Bytes(), "zstd": zst.Bytes()} {
		got, err := scoreBytes(t, raw, func(*Config) {})
		if err != nil || got != want {
			t.Errorf("%s: %v, %d bytes, want %d", name, err, len(got), len(want))
		}
		if _, err := scoreBytes(t, raw[:len(raw)-20], func(*Config) {}); err == nil {
			t.Errorf("%s: a file that was cut off passed", name)
		}
	}
}

func TestJSONKeepsTypes(t *testing.T) {
	text := `{"id":7,"a":1,"b":2,"c":3}` + "\n" + `{"id":"x\"y","a":1,"b":2,"c":3}` + "\n" + `{"id":null,"a":1,"b":2,"c":"?"}` + "\n"
	got, err := scoreBytes(t, []byte(text), func(c *Config) {
		c.InFormat, c.OutFormat, c.Keep, c.OnError = JSONLines, JSONLines, []string{"id"}, OnErrorNull
	})
	want := `{"row":1,"id":7,"class":"low","label":0,"scores":[0,6]}
{"row":2,"id":"x\"y","class":"low","label":0,"scores":[0,6]}
{"row":3,"id":null,"label":null,"scores":null}
`
	if err != nil || got != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}

// TestJSONFastPath compares with what encoding/json would read: both ways end at
// the same numbers, and texts that are no JSON are refused by both.
func TestJSONFastPath(t *testing.T) {
	for line, want := range map[string]string{
		`{"a":1,"b":2.5,"c":-3e0}`:                     "0.5",
		"{ \"c\" : 3 ,\t\"a\": 1,\"b\":2 } ":           "6",
		`{"c":3,"x":"any, text}","a":1,"b":2,"y":4e9}`: "6",
		`{"c":3,"a":1,"b":2,"a":10}`:                   "15",
		`{"c":3,"a":1,"b":2,"x":{"deep":[1,2]}}`:       "6",
		`{"\u0061":1,"b":2,"c":3}`:                     "6",
		`{"a":1,"b":2,"c":3}}`:                         "not valid JSON",
		`{"a":1,"b":2,"c":3,}`:                         "not valid JSON",
		`{"a":01,"b":2,"c":3}`:                         "not valid JSON",
		`{"a":+1,"b":2,"c":3}`:                         "not valid JSON",
		`{"a":1.,"b":2,"c":3}`:                         "not valid JSON",
		`{"a":.5,"b":2,"c":3}`:                         "not valid JSON",
		`{"a":1e,"b":2,"c":3}`:                         "not valid JSON",
		`{"a":1 "b":2,"c":3}`:                          "not valid JSON",
		`{"a":1,"b":-200,"c":3}`:                       `column "b": is -200, below`,
		`{"a":1e999,"b":2,"c":3}`:                      "too large",
	} {
		got, err := scoreBytes(t, []byte(line+"\n"), func(c *Config) { c.InFormat = JSONLines })
		if err != nil {
			got = err.Error()
		}
		if !strings.HasSuffix(strings.TrimSpace(got), ","+want) && !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

// TestKilledBetweenNames goes on where only the names of the files were missing.
func TestKilledBetweenNames(t *testing.T) {
	for _, named := range []string{"", "out.rejects"} {
		k := killedJob{Dir: t.TempDir(), In: CSV, Out: CSV}
		k.write(t, 500)
		if err := k.run("want", 1, false, nil); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(k.path("in"))
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Output: k.path("out"), Rejects: k.path("out.rejects")}
		cp := checkpoint{Complete: true, Output: int64(len(k.read(t, "want"))), Rejects: int64(len(k.read(t, "want.rejects"))), Summary: Summary{Rows: 500}}
		for _, name := range []string{"", ".rejects"} {
			to := k.path("out" + name)
			if "out"+name != named {
				to += partSuffix
			}
			if err := os.WriteFile(to, k.read(t, "want"+name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(checkpointPath(&cfg), []byte(marshal(t, cp)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := cp.publish(&cfg); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.read(t, "out"), k.read(t, "want")) || !bytes.Equal(k.read(t, "out.rejects"), k.read(t, "want.rejects")) {
			t.Error("the files are not those that were written")
		}
		if left, _ := filepath.Glob(k.path("out.*[t]")); len(left) > 0 {
			t.Errorf("left behind: %q of an input of %d bytes", left, st.Size())
		}
		if err := os.Truncate(k.path("out"), 10); err != nil {
			t.Fatal(err)
		}
		if err := cp.publish(&cfg); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("a file of another size: %v, want %v", err, ErrCheckpoint)
		}
	}
}

// TestStaleCheckpoint does not take the beginning of an older run for its own.
func TestStaleCheckpoint(t *testing.T) {
	k := killedJob{Dir: t.TempDir(), In: CSV, Out: CSV}
	k.write(t, 300)
	if err := os.WriteFile(k.path("out.checkpoint"), []byte(`{"format":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.run("out", 1, false, func(p Progress) {
		if raw, err := os.ReadFile(k.path("out.checkpoint")); err == nil && strings.HasPrefix(string(raw), `{"format":2}`) {
			t.Error("the checkpoint of an older run is still there")
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func TestProgress(t *testing.T) {
	for _, in := range []string{CSV, Parquet} {
		rows := someReadings(400)
		raw := asCSV(rows)
		if in == Parquet {
			raw = writeParquet(t, rows)
		}
		var last Progress
		_, err := scoreBytes(t, raw, func(c *Config) {
			c.InFormat = in
			c.Progress = func(p Progress) {
				if p.Rows < last.Rows || p.Bytes < last.Bytes || p.Bytes > int64(len(raw)) {
					t.Errorf("%s: %+v after %+v of %d bytes", in, p, last, len(raw))
				}
				last = p
			}
		})
		if want := (Progress{400, int64(len(raw))}); err != nil || last != want {
			t.Errorf("%s: %v, %+v, want %+v", in, err, last, want)
		}
	}
}

func TestMeasure(t *testing.T) {
	text := asCSV(someReadings(200))
	out := filepath.Join(t.TempDir(), "out")
	r, err := Measure(t.Context(), 2, func() (Config, func() error, error) {
		cfg, _ := testConfig(string(text))
		cfg.Output, cfg.Batch = out, 16
		return cfg, func() error { return nil }, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	parse, model, all := r.Medians()
	if len(r.Score) != 2 || parse <= 0 || model <= 0 || all <= 0 || r.Rows != 200 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("the result of a measurement stays")
	}
}
