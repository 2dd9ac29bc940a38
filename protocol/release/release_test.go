package release

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func file(name string) File {
	return File{Name: name, Digest: DigestOf([]byte(name)), Size: int64(len(name))}
}

// sample uses every field, so that the vectors pin all of the layout.
func sample() *Manifest {
	parent := DigestOf([]byte("parent"))
	return &Manifest{
		Format: Format, Model: "meter-digits", Version: "2026.11-rc1", Sequence: 42,
		Variants: []Variant{
			{Name: "fp32", Precision: "fp32", Graph: file("digits.onnx")},
			{Name: "int8", Precision: "int8", Graph: file("digits.int8.onnx"), Providers: []string{"XNNPACK", "CPU"}, Arch: []string{"arm64"}},
		},
		Schema: Schema{
			Inputs: []Tensor{{
				Name: "X", Datatype: "FP32", Shape: []int64{-1, 2},
				Features: []Feature{
					{Name: "pixel (0,0) <&>", Unit: "µ", Min: new(float64(0)), Max: new(float64(16)), Missing: "refuse"},
					{Name: "pixel 0,1", Min: new(float64(-1e-9)), Max: new(float64(1e21)), Missing: "nan"},
				},
			}},
			Outputs: []Tensor{
				{Name: "label", Datatype: "INT64", Shape: []int64{-1}},
				{Name: "probabilities", Datatype: "FP32", Shape: []int64{-1, 3}},
			},
			Classes: []string{"zéro", "one", "two"}, Label: "label", Scores: "probabilities",
		},
		Baseline: file("baseline.json"), Golden: file("golden.json"),
		Limits: Limits{P95: Duration(50 * time.Millisecond), MemoryBytes: 64 << 20, MinAgent: "1.2.3", MinRuntime: "1.30.0"},
		Lineage: Lineage{
			Created: time.Date(2026, 11, 23, 3, 30, 0, 5e8, time.UTC), Author: "Ada", Run: "r-1", DataVersion: "d7", Commit: "abc", Parent: &parent,
			Metrics: map[string]float64{"accuracy": 0.981, "loss": 1e-7, "rows": 1438},
		},
	}
}

func encode(t *testing.T, m *Manifest) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors pins the disk format: the bytes in testdata were written once and
// must decode, encode and hash the same for ever.
func TestVectors(t *testing.T) {
	for name, want := range map[string]string{
		"full":    "23c3f0cbe9c470995d28c33e4eef5663f53fe4ec21cf4fe1a0f03ccf30d3c097",
		"minimal": "69623e0f280ac1a8ac92772cba72c06af2d33ed38ad60212f2f2bed328c0f30c",
		"sampled": "29ee19d6a097251464be2aaf0f2a6d18273d673097fdde4a20a1adfa4cfb2e34",
	} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", name+".manifest.json"))
			if err != nil {
				t.Fatal(err)
			}
			m, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			d, err := m.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if got := d.String(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if d != DigestOf(b) {
				t.Error("the digest is not that of the file")
			}
		})
	}
}

func TestSampleIsTheFullVector(t *testing.T) {
	want, err := os.ReadFile("testdata/full.manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := encode(t, sample()); !bytes.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// sampled is a manifest with all that format 2 brought.
func sampled() *Manifest {
	m := sample()
	m.Format, m.Lineage.Source = FormatSample, "models:/meter-digits/7"
	m.Sampling = &Sampling{
		Recipient: "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
		Rows:      16, Rate: 0.01, Strata: StrataClass, Expires: Duration(DefaultSampleExpiry),
	}
	return m
}

func TestSampledIsItsVector(t *testing.T) {
	want, err := os.ReadFile("testdata/sampled.manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := encode(t, sampled()); !bytes.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestSamplingRefuses(t *testing.T) {
	tests := []struct {
		spoil   func(m *Manifest)
		mention string
	}{
		{func(m *Manifest) {
			m.Sampling.Recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8q"
		}, "recipient"},
		{func(m *Manifest) { m.Sampling.Recipient = "ssh-ed25519 AAAA" }, "recipient"},
		{func(m *Manifest) { m.Sampling.Rows = 0 }, "rows are 0"},
		{func(m *Manifest) { m.Sampling.Rows = MaxSampleRows + 1 }, "rows are 65"},
		{func(m *Manifest) { m.Sampling.Rate = 0 }, "rate is 0"},
		{func(m *Manifest) { m.Sampling.Rate = 1.01 }, "rate is 1.01"},
		{func(m *Manifest) { m.Sampling.Rate = math.NaN() }, "rate is NaN"},
		{func(m *Manifest) { m.Sampling.Strata = "device" }, "strata"},
		{func(m *Manifest) { m.Schema.Scores, m.Sampling.Strata = "", StrataConfidence }, "names no output"},
		{func(m *Manifest) { m.Sampling.Expires = Duration(time.Minute) }, "expires"},
		{func(m *Manifest) { m.Sampling.Expires = Duration(400 * 24 * time.Hour) }, "expires"},
		{func(m *Manifest) { m.Schema.Inputs[0].Shape[1], m.Schema.Inputs[0].Features = 224*224*3, nil }, "a row has 602132 bytes"},
		{func(m *Manifest) { m.Format = Format }, "a manifest with these fields has 2"},
		{func(m *Manifest) { m.Sampling, m.Lineage.Source = nil, "" }, "a manifest with these fields has 1"},
	}
	for _, tt := range tests {
		t.Run(tt.mention, func(t *testing.T) {
			m := sampled()
			tt.spoil(m)
			if err := m.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.mention) {
				t.Errorf("got %v, want %v naming %q", err, ErrInvalid, tt.mention)
			}
		})
	}
}

// TestDecodeRefuses edits the canonical bytes of a good manifest.
func TestDecodeRefuses(t *testing.T) {
	replace := func(old, with string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, with, 1) }
	}
	tests := []struct {
		name  string
		spoil func(string) string
		want  error
	}{
		{"manifest naming ../", replace(`"digits.onnx"`, `"../digits.onnx"`), ErrInvalid},
		{"manifest naming an absolute path", replace(`"digits.onnx"`, `"/etc/passwd"`), ErrInvalid},
		{"manifest naming a hidden path", replace(`"digits.onnx"`, `"a..b"`), ErrInvalid},
		{"manifest naming a Windows path", replace(`"digits.onnx"`, `"c:\\x"`), ErrInvalid},
		{"manifest naming itself", replace(`"digits.onnx"`, `"manifest.json"`), ErrInvalid},
		{"file name of nothing", replace(`"digits.onnx"`, `""`), ErrInvalid},
		{"duplicate file names", replace(`"golden.json"`, `"baseline.json"`), ErrInvalid},
		{"one digest, two sizes", func(s string) string {
			return strings.Replace(s, DigestOf([]byte("golden.json")).String(), DigestOf([]byte("baseline.json")).String(), 1)
		}, ErrInvalid},
		{"negative size", replace(`"size":11`, `"size":-11`), ErrInvalid},
		{"size of nothing", replace(`"size":11`, `"size":0`), ErrInvalid},
		{"endless size", replace(`"size":11`, `"size":9007199254740991`), ErrInvalid},
		{"size that overflows", replace(`"size":11`, `"size":99999999999999999999`), ErrSyntax},
		{"fractional size", replace(`"size":11`, `"size":11.5`), ErrSyntax},
		{"unknown field", replace(`"format":1`, `"evil":1,"format":1`), ErrSyntax},
		{"field twice", replace(`"format":1`, `"format":1,"format":1`), ErrCanonical},
		{"field in capitals", replace(`"format"`, `"Format"`), ErrCanonical},
		{"trailing bytes", func(s string) string { return s + "{}" }, ErrSyntax},
		{"trailing newline", func(s string) string { return s + "\n" }, ErrCanonical},
		{"leading space", func(s string) string { return " " + s }, ErrCanonical},
		{"fields in another order", replace(`"format":1,"golden"`, `"golden"`), ErrInvalid},
		{"number spelled otherwise", replace(`"sequence":42`, `"sequence":4.2e1`), ErrSyntax},
		{"fraction spelled otherwise", replace(`"accuracy":0.981`, `"accuracy":0.9810`), ErrCanonical},
		{"escaped letter", replace(`"Ada"`, `"\u0041da"`), ErrCanonical},
		{"escaped HTML", replace(`<&>`, `\u003c\u0026\u003e`), ErrCanonical},
		{"null", replace(`"author":"Ada"`, `"author":null`), ErrCanonical},
		{"digest in capitals", func(s string) string {
			d := DigestOf([]byte("golden.json")).String()
			return strings.Replace(s, d, strings.ToUpper(d), 1)
		}, ErrSyntax},
		{"short digest", func(s string) string {
			d := DigestOf([]byte("golden.json")).String()
			return strings.Replace(s, d, d[1:], 1)
		}, ErrSyntax},
		{"digest of zeros", func(s string) string {
			d := DigestOf([]byte("golden.json")).String()
			return strings.Replace(s, d, strings.Repeat("0", 64), 1)
		}, ErrInvalid},
		{"time in another zone", replace(`03:30:00.5Z`, `03:30:00.5+01:00`), ErrInvalid},
		{"later format", replace(`"format":1`, `"format":2`), ErrInvalid},
		{"truncated", func(s string) string { return s[:len(s)/2] }, ErrSyntax},
		{"empty", func(string) string { return "" }, ErrSyntax},
		{"zeros", func(s string) string { return strings.Repeat("\x00", len(s)) }, ErrSyntax},
		{"huge", func(s string) string { return s + strings.Repeat(" ", MaxManifest) }, ErrTooLarge},
		{"deep", func(string) string { return strings.Repeat("[", 1<<19) }, ErrSyntax},
	}
	good := string(encode(t, sample()))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spoiled := tt.spoil(good)
			if spoiled == good {
				t.Fatal("the edit changes nothing")
			}
			if _, err := Decode([]byte(spoiled)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestValidateRefuses spoils one field each and wants it named.
func TestValidateRefuses(t *testing.T) {
	tests := []struct {
		spoil   func(m *Manifest)
		mention string
	}{
		{func(m *Manifest) { m.Model = "Meter" }, "model"},
		{func(m *Manifest) { m.Version = "../v1" }, "version"},
		{func(m *Manifest) { m.Sequence = 0 }, "sequence"},
		{func(m *Manifest) { m.Sequence = MaxSequence + 1 }, "sequence"},
		{func(m *Manifest) { m.Variants = nil }, "variants"},
		{func(m *Manifest) { m.Variants = make([]Variant, MaxVariants+1) }, "variants"},
		{func(m *Manifest) { m.Variants[1].Name = "fp32" }, "named twice"},
		{func(m *Manifest) { m.Variants[0].Precision = "fp8" }, "fp8"},
		{func(m *Manifest) { m.Variants[1].Arch = []string{""} }, "variant \"int8\""},
		{func(m *Manifest) { m.Schema.Inputs = nil }, "inputs: are 0"},
		{func(m *Manifest) { m.Schema.Outputs = nil }, "outputs: are 0"},
		{func(m *Manifest) { m.Schema.Outputs[1].Name = "label" }, "named twice"},
		{func(m *Manifest) { m.Schema.Inputs[0].Name = "X\u202e" }, "does not print"},
		{func(m *Manifest) { m.Schema.Inputs[0].Name = "X\u2028" }, "does not print"},
		{func(m *Manifest) { m.Schema.Inputs[0].Name = "\xff" }, "UTF-8"},
		{func(m *Manifest) { m.Schema.Inputs[0].Datatype = "float32" }, "datatype \"float32\""},
		{func(m *Manifest) { m.Schema.Inputs[0].Shape = nil }, "0 dimensions"},
		{func(m *Manifest) { m.Schema.Inputs[0].Shape[1] = 0 }, "dimension 0"},
		{func(m *Manifest) { m.Schema.Inputs[0].Shape[1] = 3 }, "2 features for rows of 3"},
		{func(m *Manifest) { m.Schema.Inputs[0].Features[1].Name = "pixel (0,0) <&>" }, "two features"},
		{func(m *Manifest) { m.Schema.Inputs[0].Features[0].Missing = "zero" }, "missing \"zero\""},
		{func(m *Manifest) { m.Schema.Inputs[0].Features[0].Min = new(float64(17)) }, "min 17 above max 16"},
		{func(m *Manifest) { m.Schema.Inputs[0].Features[0].Min = new(math.Copysign(0, -1)) }, "negative zero"},
		{func(m *Manifest) { m.Schema.Inputs[0].Features[0].Min = new(math.NaN()) }, "not finite"},
		{func(m *Manifest) { m.Schema.Outputs[0].Features = []Feature{{Name: "x"}} }, "only inputs"},
		{func(m *Manifest) { m.Schema.Label = "y" }, "label: names output \"y\""},
		{func(m *Manifest) { m.Schema.Scores = "y" }, "scores: names output \"y\""},
		{func(m *Manifest) { m.Schema.Scores = "label" }, "1 dimensions"},
		{func(m *Manifest) { m.Schema.Classes = m.Schema.Classes[:2] }, "3 columns for 2 classes"},
		{func(m *Manifest) { m.Schema.Classes[1] = "two" }, "\"two\" twice"},
		{func(m *Manifest) { m.Limits.P95 = -1 }, "p95"},
		{func(m *Manifest) { m.Limits.MemoryBytes = 1 << 60 }, "memory_bytes"},
		{func(m *Manifest) { m.Limits.MinAgent = "v1" }, "min_agent"},
		{func(m *Manifest) { m.Lineage.Created = time.Time{} }, "created"},
		{func(m *Manifest) { m.Lineage.Parent = &Digest{} }, "parent"},
		{func(m *Manifest) { m.Lineage.Metrics["é"] = 1 }, "ASCII"},
		{func(m *Manifest) { m.Lineage.Metrics["x"] = math.Inf(1) }, "metric \"x\""},
		{func(m *Manifest) { m.Lineage.Author = strings.Repeat("a", MaxText+1) }, "lineage"},
	}
	for _, tt := range tests {
		t.Run(tt.mention, func(t *testing.T) {
			m := sample()
			tt.spoil(m)
			err := m.Validate()
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.mention) {
				t.Errorf("got %v, want %v naming %q", err, ErrInvalid, tt.mention)
			}
			if _, err := m.Encode(); err == nil {
				t.Error("it can be encoded")
			}
		})
	}
}

func TestEncodeTooLarge(t *testing.T) {
	m := sample()
	m.Schema.Inputs[0].Shape[1] = MaxFeatures
	m.Schema.Inputs[0].Features = make([]Feature, MaxFeatures)
	for i := range m.Schema.Inputs[0].Features {
		m.Schema.Inputs[0].Features[i].Name = strings.Repeat("x", 100) + string(rune('a'+i%26)) + Digest{byte(i), byte(i >> 8)}.Short()
	}
	if _, err := m.Encode(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
}

func TestFilesNamesEachDigestOnce(t *testing.T) {
	m := sample()
	m.Variants = append(m.Variants, Variant{Name: "fp32-xnnpack", Precision: "fp32", Graph: m.Variants[0].Graph})
	var got []string
	for _, f := range m.Files() {
		got = append(got, f.Name)
	}
	want := []string{"digits.onnx", "digits.int8.onnx", "baseline.json", "golden.json"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := m.Size(), int64(11+16+13+11); got != want {
		t.Errorf("size is %d, want %d", got, want)
	}
	if err := m.Validate(); err != nil {
		t.Errorf("two variants of one graph: %v", err)
	}
}

func TestDigest(t *testing.T) {
	d := DigestOf([]byte("abc"))
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if d.String() != want || d.IsZero() || d.Short() != want[:12] {
		t.Errorf("got %v, want %s", d, want)
	}
	if again, err := ParseDigest(want); err != nil || again != d {
		t.Errorf("parse: %v, %v", again, err)
	}
	if again, err := DigestFromBytes(d.Bytes()); err != nil || again != d {
		t.Errorf("from bytes: %v, %v", again, err)
	}
	for _, bad := range []string{"", want[1:], want + "0", strings.ToUpper(want), "g" + want[1:], " " + want[1:]} {
		if _, err := ParseDigest(bad); !errors.Is(err, ErrDigest) {
			t.Errorf("%q: got %v, want %v", bad, err, ErrDigest)
		}
	}
	if _, err := DigestFromBytes(d[:31]); !errors.Is(err, ErrDigest) {
		t.Errorf("31 bytes: got %v, want %v", err, ErrDigest)
	}
}

// FuzzDecode: whatever decodes encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"full", "minimal", "sampled"} {
		b, err := os.ReadFile(filepath.Join("testdata", name+".manifest.json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("decoded %s, encoded %s, %v", b, again, err)
		}
	})
}
