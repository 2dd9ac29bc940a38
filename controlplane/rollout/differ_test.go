package rollout

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDifferences(t *testing.T) {
	type waves struct {
		Name  string   `json:"name"`
		Soak  int      `json:"soak,omitempty"`
		Sites []string `json:"sites,omitempty"`
	}
	for name, c := range map[string]struct {
		from, to waves
		want     []Difference
	}{
		"the same":         {waves{Name: "a", Soak: 1}, waves{Name: "a", Soak: 1}, nil},
		"a value":          {waves{Name: "a"}, waves{Name: "b"}, []Difference{{"name", `"a"`, `"b"`}}},
		"one side alone":   {waves{Soak: 3}, waves{}, []Difference{{"soak", "3", ""}}},
		"a longer list":    {waves{Sites: []string{"x"}}, waves{Sites: []string{"x", "y"}}, []Difference{{"sites.2", "", `"y"`}}},
		"a list of itself": {waves{}, waves{Sites: []string{"y"}}, []Difference{{"sites", "", `["y"]`}}},
	} {
		got, err := Differences(c.from, c.to)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, c.want)
		}
	}
}

// An object that is on one side alone is told field by field.
func TestDifferencesOfAbsentObjects(t *testing.T) {
	none, some := map[string]any{}, map[string]any{"budget": map[string]int{"in_flight": 2, "per_minute": 3}}
	got, err := Differences(none, some)
	if want := []Difference{{"budget.in_flight", "", "2"}, {"budget.per_minute", "", "3"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	got, err = Differences(some, none)
	if want := []Difference{{"budget.in_flight", "2", ""}, {"budget.per_minute", "3", ""}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// Sequences beyond 2^53 are told apart: as floating point they would not be.
func TestDifferencesOfLargeNumbers(t *testing.T) {
	const large = uint64(1)<<60 + 1
	got, err := Differences(map[string]uint64{"n": large}, map[string]uint64{"n": large + 1})
	if err != nil || len(got) != 1 || got[0].From != "1152921504606846977" {
		t.Errorf("got %v, %v, want one difference", got, err)
	}
}

func TestDivergenceText(t *testing.T) {
	d := &Divergence{Rollout: "digits-2-1", Seq: 7, At: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	if got := d.Error(); !strings.Contains(got, "decision 7 of rollout digits-2-1, taken at 2026-11-23T10:00:00Z") || !strings.Contains(got, "not those it was taken on") {
		t.Errorf("got %q, want the decision and that its facts are others", got)
	}
	for range maxShown + 2 {
		d.Differences = append(d.Differences, Difference{Path: "patch.header.status", From: `"running"`, To: `"` + strings.Repeat("x", 500) + `"`})
	}
	got := d.Error()
	if lines := strings.Count(got, "\n"); lines != maxShown+1 || !strings.Contains(got, "and 2 more") || len(got) > maxShown*300 {
		t.Errorf("got %d lines and %d bytes, want %d short ones:\n%s", lines, len(got), maxShown+1, got)
	}
	d = &Divergence{Refused: ErrNotNow}
	if !strings.Contains(d.Error(), ErrNotNow.Error()) {
		t.Errorf("got %q, want why the command is refused", d.Error())
	}
}
