package rollout

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

const specYAML = `
model: digits
version: v2
selector: site in (a, b), ring != frozen
waves:
  - {name: canary, count: 1, soak: 10m, approval: true}
  - {percent: 50, soak: 0s}
  - {percent: 100, lateness: 2h, quorum: 0.8}
control: 0
budget: 20
on_failure: revert
gates:
  - {kind: accuracy, limit: 0.05, inconclusive: hold}
  - {kind: drift, off: true}
`

func TestParseSpec(t *testing.T) {
	got, err := ParseSpec([]byte(specYAML))
	if err != nil {
		t.Fatal(err)
	}
	minutes := func(n int) *release.Duration { return new(release.Duration(time.Duration(n) * time.Minute)) }
	want := Spec{
		Model: "digits", Version: "v2", Selector: "site in (a, b), ring != frozen",
		Waves: []WaveSpec{
			{Name: "canary", Count: 1, Soak: minutes(10), Approval: true},
			{Percent: 50, Soak: minutes(0)},
			{Percent: 100, Lateness: *minutes(120), Quorum: 0.8},
		},
		Control: new(0.0), Budget: Budget{InFlight: 20}, OnFailure: Revert,
		Gates: []GateSpec{{Kind: Accuracy, Limit: new(0.05), Inconclusive: Hold}, {Kind: Drift, Off: true}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	fromJSON, err := ParseSpec([]byte(asJSON(t, want)))
	if err != nil || !reflect.DeepEqual(fromJSON, want) {
		t.Errorf("from JSON %+v, %v, want %+v", fromJSON, err, want)
	}
}

func TestVersionsNeedNoQuotes(t *testing.T) {
	for _, version := range []string{"2", "2.10", "0x10", "true", "2026-12-01", "1e3"} {
		s, err := ParseSpec([]byte("model: digits\nversion: " + version + "\n"))
		if err != nil || s.Version != version {
			t.Errorf("got %q, %v, want %q as it is written", s.Version, err, version)
		}
	}
}

func TestDefaults(t *testing.T) {
	s, err := ParseSpec([]byte(specYAML))
	if err != nil {
		t.Fatal(err)
	}
	s = s.WithDefaults()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := s.Waves[1].soak(); got != 0 {
		t.Errorf("a soak of 0 s has become %v", got)
	}
	if got := s.Waves[2].soak(); got != DefaultSoak {
		t.Errorf("soak is %v, want %v", got, DefaultSoak)
	}
	if *s.Control != 0 {
		t.Errorf("a control share of 0 has become %v", *s.Control)
	}
	if len(s.Gates) != len(Kinds()) {
		t.Errorf("there are %d gates, want %d", len(s.Gates), len(Kinds()))
	}
	if g := s.gate(Accuracy); g.limit() != 0.05 || g.Inconclusive != Hold || g.Min == 0 {
		t.Errorf("accuracy gate is %+v, want the limit asked for and the default minimum", g)
	}
	if g := s.gate(Golden); g.limit() != 0 || g.Inconclusive != Hold || g.Off {
		t.Errorf("golden gate is %+v, want no device", g)
	}
	if again := s.WithDefaults(); !reflect.DeepEqual(again, s) {
		t.Errorf("defaults of defaults differ: %+v", again)
	}
	empty := Spec{Model: "m", Version: "v"}.WithDefaults()
	if err := empty.Validate(); err != nil || len(empty.Waves) != 3 || *empty.Control != DefaultControl {
		t.Errorf("the empty spec has become %+v, %v", empty, err)
	}
}

func TestSpecsThatMakeNoSense(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"misspelt gate":            {"{model: m, version: v, gate: []}", `line 1: the spec has no field "gate": did you mean gates?`},
		"misspelt in a wave":       {"model: m\nversion: v\nwaves:\n  - prcent: 100\n", "line 4: waves.1 has no field \"prcent\": did you mean percent?"},
		"nothing alike":            {"{model: m, version: v, require: {weather: fine}}", "there are mains, min_battery, unmetered"},
		"misspelt in a budget":     {"{model: m, version: v, budget: {in_flght: 3}}", "budget has no field \"in_flght\": did you mean in_flight?"},
		"number for a duration":    {"{model: m, version: v, waves: [{percent: 100, soak: 30}]}", `waves.1.soak is "30", must be a duration`},
		"text for a bool":          {"{model: m, version: v, approval: please}", "approval is \"please\", must be true or false"},
		"fields for a list":        {"{model: m, version: v, waves: {percent: 100}}", "waves has fields, must be a list"},
		"a list":                   {"[1]", "the spec is a list, must be fields"},
		"merged fields":            {"model: m\nrequire: &r {mains: true}\nbudget: {<<: *r}\n", "line 3: budget: write the fields out"},
		"errors that cannot fail":  {"{model: m, version: v, gates: [{kind: errors, limit: 1}]}", "could never fail"},
		"negative rate":            {"{model: m, version: v, budget: {per_minute: -5}}", "budget.per_minute is -5"},
		"not YAML":                 {"a: [", "yaml"},
		"unknown gate":             {"{model: m, version: v, gates: [{kind: speed, limit: 1}]}", `gate "speed"`},
		"negative limit":           {"{model: m, version: v, gates: [{kind: drift, limit: -1}]}", "gate drift: limit"},
		"unknown inconclusive":     {"{model: m, version: v, gates: [{kind: drift, inconclusive: maybe}]}", "maybe"},
		"bad model":                {"{model: ../m, version: v}", "model"},
		"no version":               {"{model: m}", "version"},
		"bad selector":             {"{model: m, version: v, selector: 'a in ('}", "selector"},
		"last wave is not all":     {"{model: m, version: v, waves: [{percent: 50}]}", "100 percent"},
		"percent goes down":        {"{model: m, version: v, waves: [{percent: 50}, {percent: 20}, {percent: 100}]}", "above 50"},
		"count and percent":        {"{model: m, version: v, waves: [{count: 1, percent: 100}]}", "exactly one of them"},
		"neither":                  {"{model: m, version: v, waves: [{soak: 1m}]}", "exactly one of them"},
		"quorum above one":         {"{model: m, version: v, waves: [{percent: 100, quorum: 2}]}", "quorum"},
		"negative soak":            {"{model: m, version: v, waves: [{percent: 100, soak: -1m}]}", "waves.1.soak is -1m0s"},
		"everyone in control":      {"{model: m, version: v, control: 1}", "control"},
		"negative budget":          {"{model: m, version: v, budget: -1}", "budget.in_flight is -1"},
		"unknown on_failure":       {"{model: m, version: v, on_failure: pray}", "pray"},
		"deadline in the past":     {"{model: m, version: v, deadline: -1h}", "deadline"},
		"start without a deadline": {"{model: m, version: v, start_at: '9999-12-31T00:00:00Z'}", "start_at"},
		"more waves than allowed":  {"{model: m, version: v, waves: [" + strings.Repeat("{count: 1},", MaxWaves) + "{percent: 100}]}", "waves"},
		"too large":                {strings.Repeat("#", MaxSpecSize+1), "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ParseSpec([]byte(c.yaml))
			if err == nil {
				s = s.WithDefaults()
				err = s.Validate()
			}
			if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %v that names %q", err, ErrSpec, c.want)
			}
		})
	}
}

func TestSelector(t *testing.T) {
	s, err := ParseSelector("site in (a,b),!retired")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		labels map[string]string
		want   bool
	}{
		{map[string]string{"site": "a"}, true},
		{map[string]string{"site": "c"}, false},
		{map[string]string{"site": "a", "retired": "yes"}, false},
		{nil, false},
	} {
		if got := s.Matches(c.labels); got != c.want {
			t.Errorf("%v: got %t, want %t", c.labels, got, c.want)
		}
	}
	if !(Selector{}).Matches(nil) {
		t.Error("the empty selector does not select everything")
	}
}

// The engine decides and does nothing else.
func TestEngineIsPure(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		src, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"time.Now(", "time.Since(", "math/rand", "\"os\"", "\"net", "log/slog", "nats"} {
			if strings.Contains(string(src), bad) {
				t.Errorf("%s has %s", f.Name(), bad)
			}
		}
	}
}
