package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func TestSizes(t *testing.T) {
	for in, want := range map[string]uint64{
		"1": 1, "64MiB": 64 << 20, "64M": 64 << 20, "64mb": 64 << 20, "1.5g": 3 << 29, "10 KiB": 10 << 10, "7b": 7,
	} {
		if got, err := parseBytes(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "many", "64 potatoes", "-1M", "0"} {
		if got, err := parseBytes(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
	for in, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 63: "8.0 EiB"} {
		if got := bytesText(in); got != want {
			t.Errorf("%d: got %q, want %q", in, got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 90 * time.Second: "1m", 47 * time.Hour: "47h", 49 * time.Hour: "2d",
	} {
		if got := durationText(in); got != want {
			t.Errorf("%v: got %q, want %q", in, got, want)
		}
	}
}

func TestWaves(t *testing.T) {
	soak := release.Duration(time.Hour)
	for in, want := range map[string]operator.WaveSpec{
		"1":                                  {Count: 1},
		"12.5%":                              {Percent: 12.5},
		"100%,soak=1h,quorum=0.8,approval":   {Percent: 100, Soak: &soak, Quorum: 0.8, Approval: true},
		"3,name=canary,lateness=1h,approval": {Count: 3, Name: "canary", Lateness: soak, Approval: true},
	} {
		got, err := parseWave(in)
		if (got.Soak == nil) != (want.Soak == nil) || got.Soak != nil && *got.Soak != *want.Soak {
			t.Errorf("%q: got soak %v", in, got.Soak)
		}
		if got.Soak, want.Soak = nil, nil; err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "1%%", "1,soak", "1,soak=long", "1,quorum=most", "1,colour=red"} {
		if got, err := parseWave(in); err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		}
	}
}

func TestGates(t *testing.T) {
	g, err := parseGate("errors=0.01,min=100,hold")
	if err != nil || g.Kind != "errors" || *g.Limit != 0.01 || g.Min != 100 || g.Inconclusive != "hold" {
		t.Errorf("got %+v, %v", g, err)
	}
	if g, err := parseGate("drift,pass"); err != nil || g.Limit != nil || g.Inconclusive != "pass" {
		t.Errorf("got %+v, %v", g, err)
	}
	for _, in := range []string{"", "beauty=1", "errors=few", "errors=1,min=few", "errors=1,often"} {
		if got, err := parseGate(in); err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		}
	}
}

// What a server or a device says is shown, never obeyed.
func TestControlCharactersAreShown(t *testing.T) {
	const evil = "\x1b[31mred\x1b[2J\r\x7f\u009b\u202e\xff"
	const want = "␛[31mred␛[2J␍␡���"
	e := &operator.Explanation{Summary: evil, Waiting: []string{evil}, Gates: []operator.Gate{{Kind: evil, Text: evil}}, Decisions: []operator.Decision{{Reason: evil, Actor: evil}}}
	r := &operator.Rollout{RolloutSummary: operator.RolloutSummary{ID: "x", State: operator.RolloutRunning, Cause: evil}}
	for name, say := range map[string]func(*app) error{
		"table":  func(a *app) error { return a.print(e, func(w io.Writer) { showExplanation(w, e) }) },
		"cell":   func(a *app) error { grid(a.out, []string{"a"}, [][]string{{evil}}); return nil },
		"remark": func(a *app) error { a.remark("%s", evil); return nil },
		"error": func(a *app) error {
			a.explain(operator.Errorf(operator.Invalid, "%s", evil).WithHint("%s", evil))
			return nil
		},
	} {
		var out bytes.Buffer
		if err := say(&app{out: &out, err: &out, output: outputTable}); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.Contains(got, want) || strings.ContainsAny(got, "\x1b\r\x7f\u009b\u202e") {
			t.Errorf("%s: got %q, want %q in it", name, got, want)
		}
	}
	if got := drawWaves(r)[0]; !strings.Contains(got, want) {
		t.Errorf("waves: got %q, want %q in it", got, want)
	}
}

// A gate given by flag replaces that of the file; the others stay.
func TestFlagsWinOverFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "spec.yaml")
	content := "model: digits\nversion: \"1\"\nselector: site=a\ngates:\n  - {kind: errors, limit: 0.5}\n  - {kind: drift, limit: 0.1}\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var f specFlags
	holder := &cobra.Command{Use: "plan"}
	f.register(holder)
	if err := holder.ParseFlags([]string{"-f", file, "--gate", "errors=0.1", "--no-gate", "latency", "--soak", "5m", "--control", "0"}); err != nil {
		t.Fatal(err)
	}
	s, err := f.spec(holder, []string{"digits", "2"})
	if err != nil {
		t.Fatal(err)
	}
	if s.Version != "2" || s.Selector != "site=a" || s.Control == nil || *s.Control != 0 {
		t.Errorf("got %+v", s)
	}
	limits := map[string]float64{}
	for _, g := range s.Gates {
		if g.Limit != nil {
			limits[g.Kind] = *g.Limit
		}
		if g.Off != (g.Kind == "latency") {
			t.Errorf("got %+v", g)
		}
	}
	if limits["errors"] != 0.1 || limits["drift"] != 0.1 || len(s.Gates) != 3 {
		t.Errorf("got %+v", s.Gates)
	}
	if len(s.Waves) == 0 || time.Duration(*s.Waves[0].Soak) != 5*time.Minute {
		t.Errorf("the soak time is for the default waves too: got %+v", s.Waves)
	}
}

func TestBarsFillTheirWidth(t *testing.T) {
	text.DisableColors()
	for _, counts := range []map[string]int{
		{}, {"healthy": 8}, {"healthy": 3, "downloading": 2, "failed": 1, "waiting": 2}, {"refused": 8}, {"offered": 1},
	} {
		bar := drawBar(counts, 8)
		if got := len([]rune(bar)); got != barWidth {
			t.Errorf("%v: got %q of width %d, want %d", counts, bar, got, barWidth)
		}
	}
	if got := drawBar(nil, 0); got != strings.Repeat("·", barWidth) {
		t.Errorf("an empty wave: got %q", got)
	}
	if got := drawBar(map[string]int{"healthy": 8}, 8); strings.Contains(got, "·") {
		t.Errorf("a healthy wave: got %q", got)
	}
}

// watched shows a rollout in three states, one of them twice.
func watched(a *app) error {
	r := &operator.Rollout{RolloutSummary: operator.RolloutSummary{
		ID: "digits-2-1", Model: "digits", Version: "2", State: operator.RolloutRunning, Wave: 1, Waves: 2, Counts: map[string]int{"waiting": 2},
	}, WaveList: []operator.Wave{{Number: 1, State: "open", Planned: 2, Counts: map[string]int{}}}, Gates: []operator.Gate{{Kind: "errors", Result: "fail", Text: "5 of 9"}}}
	show := a.newView()
	for _, counts := range []map[string]int{{"waiting": 2}, {"waiting": 2}, {"healthy": 2}} {
		r.Counts = counts
		if err := show(r, nil); err != nil {
			return err
		}
	}
	return nil
}

func TestWatchPrintsChangesOnce(t *testing.T) {
	for output, want := range map[string]string{outputTable: "running  wave 1/2  healthy 2", outputJSON: `"counts":{"healthy":2}`} {
		var out bytes.Buffer
		if err := watched(&app{out: &out, err: &out, output: output}); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 2 || !strings.Contains(lines[1], want) {
			t.Errorf("%s: got %q", output, lines)
		}
	}
}

func TestWatchDrawsInPlace(t *testing.T) {
	text.DisableColors()
	var out bytes.Buffer
	show := (&app{out: &out}).barView()
	rollout := &operator.Rollout{RolloutSummary: operator.RolloutSummary{ID: "digits-2-1", State: operator.RolloutRunning}, WaveList: []operator.Wave{{Number: 1, Planned: 1}}}
	for range 2 {
		if err := show(rollout, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Count(out.String(), "wave 1"); got != 2 {
		t.Errorf("drawn %d times, want 2: %q", got, out.String())
	}
	if !strings.Contains(out.String(), text.CursorUp.Sprintn(2)) {
		t.Errorf("the second drawing does not go up two lines: %q", out.String())
	}
}

// A retry offers nothing while the rollout stands still, and says so.
func TestActedSaysHowToGoOn(t *testing.T) {
	const resume = "vedette rollout resume x --reason"
	for _, c := range []struct {
		action string
		state  operator.RolloutState
		can    []string
		want   []string
		not    string
	}{
		{operator.ActRetry, operator.RolloutHalted, []string{"resume", "abort"}, []string{"x is halted", resume, "possible now: resume, abort"}, "\x00"},
		{operator.ActPause, operator.RolloutPaused, []string{"resume", "abort"}, []string{"x is paused", "possible now: resume, abort"}, resume},
		{operator.ActRetry, operator.RolloutRunning, []string{"pause", "abort"}, []string{"x is running"}, "possible now"},
	} {
		var out strings.Builder
		showActed(&out, c.action, &operator.Rollout{RolloutSummary: operator.RolloutSummary{ID: "x", State: c.state}, Actions: c.can})
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: got %q, want %q in it", c.action, out.String(), want)
			}
		}
		if strings.Contains(out.String(), c.not) {
			t.Errorf("%s: got %q, want no %q", c.action, out.String(), c.not)
		}
	}
}

// A watch that sees nothing new for ten seconds says what is waited for, once.
func TestWatchSaysWhatItWaitsFor(t *testing.T) {
	var out bytes.Buffer
	asked, still, show := 0, stillness{}, (&app{out: &out, output: outputTable}).lineView()
	r := &operator.Rollout{RolloutSummary: operator.RolloutSummary{State: operator.RolloutRunning, Counts: map[string]int{"healthy": 1}}}
	explain := func() (*operator.Explanation, error) {
		asked++
		return &operator.Explanation{Waiting: []string{"wave 1 soaks\x1b until noon"}}, nil
	}
	begin := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	look := func(after time.Duration) {
		t.Helper()
		waiting, err := still.waiting(r, begin.Add(after), explain)
		if err == nil {
			err = show(r, waiting)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const line = "  - wave 1 soaks␛ until noon\n"
	look(0)
	look(refresh)
	if asked != 0 || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("before ten seconds: asked %d times, printed %q", asked, out.String())
	}
	for i := 2; i <= 6; i++ {
		look(time.Duration(i) * refresh)
	}
	if got := strings.Count(out.String(), line); asked != 3 || got != 1 {
		t.Errorf("while it waits: asked %d times, told %d times: %q", asked, got, out.String())
	}
	r.Counts = map[string]int{"healthy": 2}
	look(7 * refresh)
	if asked != 3 || !strings.HasSuffix(out.String(), "healthy 2\n") {
		t.Errorf("after a change: asked %d times, printed %q", asked, out.String())
	}
}

// A drawing that gets shorter leaves nothing of the longer one.
func TestWatchErasesWhatIsOver(t *testing.T) {
	text.DisableColors()
	var out bytes.Buffer
	show := (&app{out: &out}).barView()
	for _, waiting := range [][]string{{"for noon", "for cam-1"}, nil} {
		if err := show(&operator.Rollout{}, waiting); err != nil {
			t.Fatal(err)
		}
	}
	_, second, _ := strings.Cut(out.String(), text.CursorUp.Sprintn(3))
	if got := strings.Count(second, "\n"); got != 3 || strings.Contains(second, "noon") {
		t.Errorf("drew %d lines, want 3 of which 2 are empty: %q", got, second)
	}
}

func TestShares(t *testing.T) {
	for in, want := range map[string]int{"10%": 100, "0.1%": 1, "12.5%": 125, "100": 1000, "33.3%": 333} {
		if got, err := parseShare(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0%", "0.04%", "33.33%", "100.1%", "-5%", "NaN", "half"} {
		if got, err := parseShare(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
	for want, got := range map[string]string{
		"answers 30%": roleText("share", 300), "shadow of all": roleText("shadow", 0), "shadow of 0.5%": roleText("shadow", 5),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestLineageNamesAllReleasesOfAnHour(t *testing.T) {
	var b bytes.Buffer
	lineageTree(&b, &operator.Provenance{
		Release: operator.ReleaseRef{Model: "digits", Version: "2"},
		Window: &operator.LineageWindow{Device: "cam-1", Rows: 40, Others: []operator.LineageShare{
			{ReleaseRef: operator.ReleaseRef{Model: "digits", Version: "1"}, Rows: 7},
		}},
	})
	if want := "also 7 rows with 1: see vedette model lineage digits 1"; !strings.Contains(b.String(), want) {
		t.Errorf("no %q in\n%s", want, b.String())
	}
}

func TestDriftSaysWhyNothingIsSaid(t *testing.T) {
	var b bytes.Buffer
	showDrift(&b, &operator.Drift{Model: "digits", CohortBy: "site", Releases: []operator.DriftRelease{{Cohorts: []operator.CohortDrift{
		{Cohort: "a", Verdict: operator.VerdictInsufficient, Text: "a cohort needs two devices"},
		{Cohort: "b", Verdict: operator.VerdictOK, Text: "as in training"},
	}}}})
	if got := b.String(); !strings.Contains(got, "a: a cohort needs two devices\n") || strings.Contains(got, "as in training") {
		t.Errorf("got\n%s", got)
	}
	b.Reset()
	showLevel(&b, &operator.DriftLevel{Model: "digits", By: operator.LevelVersion, Groups: []operator.DriftGroup{{Name: "1"}}})
	if strings.Count(b.String(), "VERSION") != 1 {
		t.Errorf("the version is said twice in\n%s", b.String())
	}
}
