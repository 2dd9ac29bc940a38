package score

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	parquetformat "github.com/parquet-go/parquet-go/format"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// readings is a table as another program would write it.
type readings struct {
	A  *float32 `parquet:"a,optional"`
	B  float64  `parquet:"b"`
	C  int32    `parquet:"c"`
	ID string   `parquet:"id,dict"`
	N  int64    `parquet:"n"`
	On bool     `parquet:"on"`
}

func someReadings(n int) []readings {
	list := make([]readings, n)
	for i := range list {
		a := float32(i)
		list[i] = readings{B: float64(i) / 4, C: int32(i % 7), ID: fmt.Sprint("id-", i%50), N: int64(i) << 40, On: i%3 == 0}
		if i%11 != 5 {
			list[i].A = &a
		}
	}
	return list
}

// writeParquet makes a file of several row groups and small pages.
func writeParquet[T any](t *testing.T, rows []T, options ...parquet.WriterOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, append([]parquet.WriterOption{parquet.PageBufferSize(300)}, options...)...)
	group := max(37, len(rows)/200)
	for len(rows) > 0 {
		n := min(len(rows), group)
		if _, err := w.Write(rows[:n]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		rows = rows[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// scoreBytes scores a table in memory and returns the result.
func scoreBytes(t *testing.T, in []byte, edit func(*Config)) (string, error) {
	t.Helper()
	cfg, out := testConfig("")
	cfg.Input = Input{Reader: bytes.NewReader(in), Name: "in", Size: int64(len(in))}
	cfg.Batch = 16
	edit(&cfg)
	_, err := Run(t.Context(), cfg)
	return out.String(), err
}

// asCSV is the same table as text.
func asCSV(rows []readings) []byte {
	var b bytes.Buffer
	b.WriteString("a,b,c,id,n,on\n")
	for _, r := range rows {
		a := ""
		if r.A != nil {
			a = fmt.Sprint(*r.A)
		}
		fmt.Fprintf(&b, "%s,%v,%d,%s,%d,%v\n", a, r.B, r.C, r.ID, r.N, r.On)
	}
	return b.Bytes()
}

// TestParquetIn scores the same rows as Parquet, in encodings that other
// programs use, and as CSV.
func TestParquetIn(t *testing.T) {
	rows := someReadings(500)
	for name, options := range map[string][]parquet.WriterOption{
		"plain":   nil,
		"snappy":  {parquet.Compression(&parquet.Snappy)},
		"zstd v1": {parquet.Compression(&parquet.Zstd), parquet.DataPageVersion(1)},
		"gzip v2": {parquet.Compression(&parquet.Gzip), parquet.DataPageVersion(2)},
		"pages":   {parquet.PageBufferSize(1 << 20)},
	} {
		for _, format := range []string{CSV, JSONLines} {
			t.Run(name+" "+format, func(t *testing.T) {
				edit := func(in string) func(*Config) {
					return func(c *Config) {
						c.InFormat, c.OutFormat, c.Keep = in, format, []string{"id", "n", "on"}
						if format == JSONLines {
							c.Keep = []string{"id"} // CSV knows no other type
						}
					}
				}
				want, err := scoreBytes(t, asCSV(rows), edit(CSV))
				if err != nil {
					t.Fatal(err)
				}
				got, err := scoreBytes(t, writeParquet(t, rows, options...), edit(Parquet))
				if err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("got\n%.400s\nwant\n%.400s", got, want)
				}
			})
		}
	}
}

// prediction is a row of the result.
type prediction struct {
	Row   int64    `parquet:"row"`
	ID    string   `parquet:"id,optional"`
	N     int64    `parquet:"n,optional"`
	Class *string  `parquet:"class,optional"`
	Label *int64   `parquet:"label,optional"`
	Low   *float32 `parquet:"scores_low,optional"`
	High  *float32 `parquet:"scores_high,optional"`
}

func readPredictions(t *testing.T, raw []byte) []prediction {
	t.Helper()
	list, err := parquet.Read[prediction](bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestParquetOut(t *testing.T) {
	rows := someReadings(500)
	rows[41].C, rows[42].B = 3, -1000 // below the range
	for _, mode := range []string{OnErrorNull, OnErrorSkip} {
		edit := func(format string) func(*Config) {
			return func(c *Config) {
				c.InFormat, c.OutFormat, c.OnError, c.RowGroup = Parquet, format, mode, 64
				c.Keep = []string{"id", "n"}
			}
		}
		in := writeParquet(t, rows)
		raw, err := scoreBytes(t, in, edit(Parquet))
		if err != nil {
			t.Fatal(err)
		}
		want, err := scoreBytes(t, in, edit(CSV))
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		got.WriteString("row,id,n,class,label,scores_low,scores_high\n")
		for _, p := range readPredictions(t, []byte(raw)) {
			fmt.Fprintf(&got, "%d,%s,%d", p.Row, p.ID, p.N)
			if p.Label == nil || p.Class == nil || p.Low == nil {
				got.WriteString(",,,,\n")
				continue
			}
			fmt.Fprintf(&got, ",%s,%d,", *p.Class, *p.Label)
			b := appendNumber(nil, float64(*p.Low), 32, false)
			b = appendNumber(append(b, ','), float64(*p.High), 32, false)
			got.Write(append(b, '\n'))
		}
		if got.String() != want {
			t.Errorf("%s: got\n%.400s\nwant\n%.400s", mode, got.String(), want)
		}
		f, err := parquet.OpenFile(strings.NewReader(raw), int64(len(raw)))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(f.RowGroups()); got != 8 {
			t.Errorf("%d row groups of 64 rows and more for 500 rows", got)
		}
		if names := fmt.Sprint(f.Schema().Columns()); names != "[[row] [id] [n] [class] [label] [scores_low] [scores_high]]" {
			t.Errorf("columns %s", names)
		}
	}
}

// chunkOf is what the footer says of a column in one row group.
type chunkOf struct {
	Path, Codec, Encodings string
	Type                   parquetformat.Type
	Values                 int64
}

// chunksOf reads the footer as it is in the file, group by group.
func chunksOf(t *testing.T, raw []byte) [][]chunkOf {
	t.Helper()
	f, err := parquet.OpenFile(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	var list [][]chunkOf
	for _, g := range f.Metadata().RowGroups {
		var chunks []chunkOf
		for i := range g.Columns {
			m := &g.Columns[i].MetaData
			chunks = append(chunks, chunkOf{fmt.Sprintf("%q", m.PathInSchema), fmt.Sprint(m.Codec), fmt.Sprint(m.Encoding), m.Type, m.NumValues})
		}
		list = append(list, chunks)
	}
	return list
}

// TestParquetFooter reads what the footer says of every column in every row
// group. Readers other than the library find the columns by their paths.
func TestParquetFooter(t *testing.T) {
	in := writeParquet(t, someReadings(500))
	raw, err := scoreBytes(t, in, func(c *Config) {
		c.InFormat, c.OutFormat, c.RowGroup, c.Keep = Parquet, Parquet, 64, []string{"id", "n"}
	})
	if err != nil {
		t.Fatal(err)
	}
	groups := chunksOf(t, []byte(raw))
	if len(groups) != 8 {
		t.Fatalf("%d row groups, want 8", len(groups))
	}
	for g, chunks := range groups {
		var paths []string
		for i, c := range chunks {
			paths = append(paths, c.Path)
			c.Values = groups[0][i].Values // of the last group less
			if c != groups[0][i] {
				t.Errorf("group %d: %+v, in the first %+v", g, c, groups[0][i])
			}
		}
		if got, want := strings.Join(paths, " "), `["row"] ["id"] ["n"] ["class"] ["label"] ["scores_low"] ["scores_high"]`; got != want {
			t.Errorf("group %d has the paths %s, want %s", g, got, want)
		}
	}
}

func TestParquetWithoutRows(t *testing.T) {
	raw, err := scoreBytes(t, writeParquet(t, []readings(nil)), func(c *Config) { c.InFormat, c.OutFormat = Parquet, Parquet })
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(strings.NewReader(raw), int64(len(raw)))
	if err != nil || f.NumRows() != 0 || len(f.Schema().Columns()) != 5 {
		t.Errorf("%v: %v", err, f.Schema())
	}
}

// TestParquetBadRows names rows and columns as for text.
func TestParquetBadRows(t *testing.T) {
	rows := someReadings(40)
	rows[16].B = -101
	rejects := filepath.Join(t.TempDir(), "rejects")
	out, err := scoreBytes(t, writeParquet(t, rows), func(c *Config) {
		c.InFormat, c.OnError, c.Rejects = Parquet, OnErrorSkip, rejects
	})
	if err != nil || strings.Contains(out, "\n17,") || !strings.Contains(out, "\n18,") {
		t.Errorf("%v\n%s", err, out)
	}
	got, err := os.ReadFile(rejects)
	if want := `{"row":17,"column":"b","reason":"is -101, below the valid minimum -100"}` + "\n"; err != nil || string(got) != want {
		t.Errorf("%v: rejected %s, want %s", err, got, want)
	}
}

func TestParquetRefused(t *testing.T) {
	type nested struct {
		A []float32 `parquet:"a,list"`
		B float64   `parquet:"b"`
		C int32     `parquet:"c"`
	}
	type text struct {
		A string  `parquet:"a"`
		B float64 `parquet:"b"`
		C int32   `parquet:"c"`
	}
	type date struct {
		A int32   `parquet:"a,date"`
		B float64 `parquet:"b"`
		C int32   `parquet:"c"`
	}
	type short struct {
		B float64 `parquet:"b"`
	}
	for want, in := range map[string][]byte{
		`column "a" is nested`:                              writeParquet(t, []nested{{}}),
		`column "a" is STRING, the model takes FP32`:        writeParquet(t, []text{{}}),
		`column "a" is of type DATE`:                        writeParquet(t, []date{{}}),
		`2 of 3 columns are missing: ["a" "c"]; it has "b"`: writeParquet(t, []short{{}}),
		"invalid magic":                                     bytes.Repeat([]byte("x"), 100),
		"name a file":                                       nil,
	} {
		_, err := scoreBytes(t, in, func(c *Config) { c.InFormat = Parquet })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	_, err := scoreBytes(t, writeParquet(t, someReadings(1)), func(c *Config) {
		c.InFormat, c.Input.Reader = Parquet, io.MultiReader(c.Input.Reader)
	})
	if err == nil || !strings.Contains(err.Error(), "name a file") {
		t.Errorf("a stream: %v", err)
	}
}

// TestParquetOfAnotherProgram reads testdata/hyparquet.parquet, which
// hyparquet-writer 0.x (JavaScript) wrote: 50 rows in three groups, the first
// column a dictionary, a null in every seventh row of the second.
func TestParquetOfAnotherProgram(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "hyparquet.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := scoreBytes(t, raw, func(c *Config) { c.InFormat, c.Keep = Parquet, []string{"id"} })
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("row,id,class,label,scores_low,scores_high\n")
	for i := range 50 {
		a, b, c := float32(i)*1.5, float32(i)/4, float32(i%4)
		class, label := "low", 0
		sum := fmt.Sprint(a + b + c)
		switch {
		case i%7 == 3:
			sum = "NaN"
		case a+b+c > 10:
			class, label = "high", 1
		}
		fmt.Fprintf(&want, "%d,id-%d,%s,%d,0,%s\n", i+1, i%5, class, label, sum)
	}
	if got != want.String() {
		t.Errorf("got\n%s\nwant\n%s", got, want.String())
	}
}

// TestDamagedParquet flips bytes: every damage is an error or changes values, and
// none ends the program.
func TestDamagedParquet(t *testing.T) {
	whole := writeParquet(t, someReadings(200), parquet.Compression(&parquet.Snappy))
	rng := rand.New(rand.NewPCG(3, 3))
	for n := range 500 {
		raw := bytes.Clone(whole)
		for range 1 + n%3 {
			raw[rng.IntN(len(raw))] ^= byte(1 + rng.IntN(255))
		}
		if n%5 == 0 {
			raw = raw[:rng.IntN(len(raw))]
		}
		_, err := scoreBytes(t, raw, func(c *Config) { c.InFormat, c.OnError, c.Keep = Parquet, OnErrorSkip, []string{"id"} })
		if n%5 == 0 && err == nil {
			t.Errorf("a file that was cut to %d bytes was read", len(raw))
		}
	}
}

// TestValuesOfParquet checks what a value of one type becomes in another.
func TestValuesOfParquet(t *testing.T) {
	type row struct {
		D float64 `parquet:"FP32"`
		U uint32  `parquet:"INT64"`
		F float32 `parquet:"INT8"`
		L int64   `parquet:"UINT64"`
		B bool    `parquet:"FP64"`
		N int32   `parquet:"BOOL"`
		W uint64  `parquet:"UINT32"`
	}
	schema := &release.Schema{Outputs: []release.Tensor{{Name: "ok", Datatype: "BOOL", Shape: []int64{-1}}}}
	for _, d := range []string{"FP32", "INT64", "INT8", "UINT64", "FP64", "BOOL", "UINT32"} {
		schema.Inputs = append(schema.Inputs, release.Tensor{Name: d, Datatype: d, Shape: []int64{-1}})
	}
	good := row{0.1, math.MaxUint32, -128, math.MaxInt64, true, 1, 7}
	for name, edit := range map[string]func(*row){
		"":                      func(*row) {},
		`"FP32": 1e+39 is too`:  func(r *row) { r.D = 1e39 },
		`"FP32": is not a fini`: func(r *row) { r.D = math.Inf(1) },
		`"INT8": 1.5 is no INT`: func(r *row) { r.F = 1.5 },
		`"INT8": "128" is no I`: func(r *row) { r.F = 128 },
		`"INT8": is missing`:    func(r *row) { r.F = float32(math.NaN()) },
		`"UINT64": "-1" is no`:  func(r *row) { r.L = -1 },
		`"BOOL": "2" is no BOO`: func(r *row) { r.N = 2 },
		`"UINT32": "4294967296`: func(r *row) { r.W = 1 << 32 },
	} {
		r := good
		edit(&r)
		_, err := scoreBytes(t, writeParquet(t, []row{r}), func(c *Config) {
			c.InFormat, c.Schema = Parquet, schema
			c.Model = modelFunc(func(rows int, in, out []infer.Tensor) error {
				got := fmt.Sprint(in[0].Data, in[1].Data, in[2].Data, in[3].Data, in[4].Data, in[5].Data, in[6].Data)
				if want := "[0.1] [4294967295] [-128] [9223372036854775807] [1] [true] [7]"; got != want {
					return fmt.Errorf("got %s, want %s", got, want)
				}
				infer.Fit[bool](&out[0], rows)
				out[0].FitShape(rows)
				return nil
			})
		})
		if (name == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}
