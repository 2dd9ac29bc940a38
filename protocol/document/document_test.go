package document

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

type policy struct {
	Model  string            `json:"model"`
	Floor  float64           `json:"floor"`
	For    release.Duration  `json:"for"`
	Rows   int               `json:"rows"`
	On     bool              `json:"on"`
	Hooks  []hook            `json:"hooks"`
	Labels map[string]string `json:"labels"`
	Limit  *limit            `json:"limit"`
	Since  time.Time         `json:"since"`
}

type hook struct {
	URL string `json:"url"`
}

type limit struct {
	Most int `json:"most"`
}

func (limit) Wanted() string { return "a number, or have the fields " }

func TestParse(t *testing.T) {
	got, err := Parse[policy]([]byte(`
model: 1.10   # text, as it is written
floor: 0.9
for: 30m
rows: 50
on: true
hooks: [{url: "http://a"}]
labels: {line: 3, shift: yes}
limit: {most: 2}
since: 2026-12-01T22:00:00Z
`), "the policy")
	want := policy{
		Model: "1.10", Floor: 0.9, For: release.Duration(30 * time.Minute), Rows: 50, On: true, Hooks: []hook{{"http://a"}},
		Labels: map[string]string{"line": "3", "shift": "yes"}, Limit: &limit{2}, Since: time.Date(2026, 12, 1, 22, 0, 0, 0, time.UTC),
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	text, err := Format(got)
	if err != nil || !strings.Contains(string(text), "for: 30m\n") {
		t.Errorf("written: %s, %v", text, err)
	}
	if again, err := Parse[policy](text, "the policy"); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("written and read: got %+v, %v, want %+v", again, err, want)
	}
}

func TestWhatDoesNotFitIsToldWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"floor: 0.9\nflor: 1":          `line 2: the policy has no field "flor": did you mean floor?`,
		"xyzzyxyzzy: 1":                "there are floor, for, hooks",
		"for: soon":                    `line 1: for is "soon", must be a duration such as 30m or 12h`,
		"rows: many":                   `line 1: rows is "many", must be a whole number`,
		"on: perhaps":                  "must be true or false",
		"floor: [1]":                   "line 1: floor is a list, must be a number",
		"hooks: {url: x}":              "hooks has fields, must be a list",
		"hooks:\n  - uri: x":           `line 2: hooks.1 has no field "uri": did you mean url?`,
		"limit: much":                  `limit is "much", must be a number, or have the fields most`,
		"labels: 3":                    "must be names, each with a value",
		"labels: {a: {b: c}}":          "labels.a has fields, must be text",
		"since: yesterday":             "must be a time such as",
		"- a":                          "the policy is a list, must be fields: floor",
		"a: &x {url: 1}\n<<: *x":       "no field",
		"<<: {model: m}":               "write the fields out",
		"model: [":                     "yaml",
		strings.Repeat("#", MaxSize+1): "at most",
	} {
		if _, err := Parse[policy]([]byte(text), "the policy"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", text, err, want)
		}
	}
	if got, err := Parse[policy]([]byte("# nothing"), "the policy"); err != nil || got.Model != "" {
		t.Errorf("empty: got %+v, %v", got, err)
	}
	if _, err := Parse[policy](make([]byte, MaxSize+1), "x"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large: got %v, want ErrTooLarge", err)
	}
}

// Aliases make a long document of a short one: what it comes to is bounded, not
// what is sent.
func TestAliasesAreWrittenOutWithinBounds(t *testing.T) {
	got, err := Parse[policy]([]byte("hooks: [&a {url: u}, *a]\n"), "the policy")
	if err != nil || len(got.Hooks) != 2 || got.Hooks[1] != got.Hooks[0] {
		t.Errorf("one alias: got %+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"wide":   "hooks:\n- &a {url: " + strings.Repeat("x", 1<<14) + "}\n" + strings.Repeat("- *a\n", 1<<12),
		"nested": "hooks: [&a {url: " + strings.Repeat("x", 1<<10) + "}, &b [*a, *a, *a, *a, *a, *a, *a, *a], &c [*b, *b, *b, *b, *b, *b, *b, *b], &d [*c, *c, *c, *c, *c, *c, *c, *c], *d, *d, *d]",
		"cyclic": "hooks: &a [*a]",
	} {
		if _, err := Parse[policy]([]byte(text), "the policy"); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: got %v, want %v", name, err, ErrTooLarge)
		}
	}
}
