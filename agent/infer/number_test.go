package infer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"testing"
)

var decimalText = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?`)

// checkScan compares both scanners with strconv on the longest prefix of s that
// is a number.
func checkScan(t *testing.T, s string) {
	t.Helper()
	want := decimalText.FindString(s)
	v32, n32 := ScanFloat32([]byte(s))
	v64, n64 := ScanFloat64([]byte(s))
	if n32 != len(want) || n64 != len(want) {
		t.Fatalf("%q: read %d and %d bytes, want %d", s, n32, n64, len(want))
	}
	if want == "" {
		return
	}
	want32, _ := strconv.ParseFloat(want, 32)
	want64, _ := strconv.ParseFloat(want, 64)
	if math.Float32bits(v32) != math.Float32bits(float32(want32)) {
		t.Fatalf("%q as float32: %v, want %v", s, v32, float32(want32))
	}
	if math.Float64bits(v64) != math.Float64bits(want64) {
		t.Fatalf("%q as float64: %v, want %v", s, v64, want64)
	}
}

var scanSeeds = []string{
	"", "-", "+", ".", "e5", "0", "-0", "+1", "1.", ".5", "-.5e3", "1e", "1e+", "1e5x", "1,2", "16777217", "16777219",
	"9007199254740993", "0.1", "3.4028235e38", "3.4028236e38", "1e39", "1e-45", "1e-46", "1.1754943e-38", "1e400", "-1e-400",
	"18446744073709551615", "184467440737095516159", "0.000000000000000000000000000000000000001",
	"1.00000005960464477539062", "1.000000059604644775390625", "1.00000005960464477539063", "00012", "1e99999999999", "0e999", "10.4799995",
}

func TestScanFloat(t *testing.T) {
	for _, s := range scanSeeds {
		checkScan(t, s)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		f := math.Float32frombits(random.Uint32())
		if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
			continue
		}
		checkScan(t, strconv.FormatFloat(float64(f), 'g', -1, 32))
		checkScan(t, strconv.FormatFloat(float64(f), 'f', random.IntN(12), 64))
		// halfway between two float32: where rounding twice goes wrong
		mid := (float64(f) + float64(math.Nextafter32(f, math.MaxFloat32))) / 2
		checkScan(t, strconv.FormatFloat(mid, 'e', 16+random.IntN(8), 64))
		checkScan(t, fmt.Sprintf("%d.%de%d", random.Uint32(), random.Uint32(), random.IntN(60)-30))
	}
}

func FuzzScanFloat(f *testing.F) {
	for _, s := range scanSeeds {
		f.Add(s)
	}
	f.Fuzz(checkScan)
}

func BenchmarkScanFloat32(b *testing.B) {
	for _, s := range []string{"16", "0.123456", "10.4799995", "0.10999999940395355"} {
		b.Run(s, func(b *testing.B) {
			raw := []byte(s + ",")
			b.ReportAllocs()
			for b.Loop() {
				ScanFloat32(raw)
			}
		})
		b.Run("strconv/"+s, func(b *testing.B) {
			for b.Loop() {
				_, _ = strconv.ParseFloat(s, 32)
			}
		})
	}
}
