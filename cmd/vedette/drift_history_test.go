package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"24h": 24 * time.Hour, "90m": 90 * time.Minute, "30d": 720 * time.Hour, "2w": 336 * time.Hour, "2y": 17520 * time.Hour,
		"": 0, "0d": 0, "-1h": 0, "d": 0, "1.5d": 0, "99999y": 0, "soon": 0,
	} {
		got, err := parseSpan(text)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestTrendsInWords(t *testing.T) {
	var b bytes.Buffer
	showTrends(&b, &operator.Trends{Model: "digits", Series: []operator.TrendSeries{{
		ReleaseRef: operator.ReleaseRef{Version: "2"}, Cohort: "b",
		Points: []operator.TrendPoint{{At: time.Unix(0, 0), Devices: 3, Rows: 1200, P95US: 2100, Accuracy: new(0.97), PSI: new(0.31), Furthest: "pixel_3"}},
	}}})
	for _, want := range []string{"1200", "2.1ms", "0.970", "0.310", "pixel_3"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	b.Reset()
	showTrends(&b, &operator.Trends{Model: "digits"})
	if !strings.Contains(b.String(), "no windows of digits") {
		t.Errorf("nothing: got %q", b.String())
	}
}
