package rollout

import (
	"reflect"
	"strings"
	"testing"
)

// What is written is read as the same again, and reads well.
func TestFormatSpec(t *testing.T) {
	want, err := ParseSpec([]byte(`
model: digits
version: "2"
waves: [{count: 1, soak: 1h}, {percent: 100, soak: 90m, approval: true}]
budget: {in_flight: 5, unavailable: [{label: site, max: 1}]}
windows: [{cron: "0 22 * * *", duration: 6h, time_zone: device}]
start_at: 2026-12-01T20:00:00Z
deadline: 30s
`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := FormatSpec(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSpec(text)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read again: got %+v, %v, want %+v", got, err, want)
	}
	for _, line := range []string{`version: "2"`, "soak: 1h\n", "soak: 1h30m\n", "deadline: 30s\n", "- label: site\n", "cron: 0 22 * * *\n"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("%q is not in\n%s", line, text)
		}
	}
}
