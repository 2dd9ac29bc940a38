package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func TestWindows(t *testing.T) {
	for in, want := range map[string]operator.WindowSpec{
		"0 22 * * *,6h":                {Cron: "0 22 * * *", Duration: release.Duration(6 * time.Hour)},
		"0 22 * * *,6h,Europe/Berlin":  {Cron: "0 22 * * *", Duration: release.Duration(6 * time.Hour), TimeZone: "Europe/Berlin"},
		"30 1 * * 1,3,5, 90m , device": {Cron: "30 1 * * 1,3,5", Duration: release.Duration(90 * time.Minute), TimeZone: "device"},
	} {
		if got, err := parseWindow(in); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "6h", "0 22 * * *", "0 22 * * *,six", "0 22 * * *,6h,UTC,more"} {
		if got, err := parseWindow(in); err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		}
	}
}

func TestBudgets(t *testing.T) {
	for in, want := range map[string]operator.UnavailableLimit{
		"site=1": {Label: "site", Max: 1}, "line=12.5%": {Label: "line", Percent: 12.5},
	} {
		if got, err := parseUnavailable(in); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "site", "=1", "site=few", "site=%"} {
		if got, err := parseUnavailable(in); err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		}
	}
	for in, want := range map[string]int64{"2MB/s": 2 << 20, "500k/s": 500 << 10, "1": 1} {
		if got, err := parseRate(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
}

// Every flag that describes a rollout changes the spec, and nothing else does.
func TestSpecFlags(t *testing.T) {
	var f specFlags
	cmd := &cobra.Command{Use: "plan"}
	f.register(cmd)
	line := []string{
		"-l", "site=a", "--wave", "1,devices=1,inferences=9,hours=2,deadline=3h", "--wave", "100%", "--quorum", "0.9", "--lateness", "5m",
		"--alpha", "0.01", "--shadow", "300", "--budget", "5", "--per-minute", "7", "--max-rate", "1k/s", "--max-unavailable", "site=1",
		"--window", "0 22 * * *,6h,device", "--unmetered", "--mains", "--min-battery", "30", "--on-failure", "revert", "--on-conflict", "queue",
		"--supersedes", "digits-1-1", "--approval", "--start-at", "2026-12-01T22:00:00+01:00", "--deadline", "24h", "--control", "0", "--soak", "1m", "--gate", "errors=0.1",
	}
	if err := cmd.ParseFlags(line); err != nil {
		t.Fatal(err)
	}
	got, err := f.spec(cmd, []string{"digits", "2"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := rollout.FormatSpec(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"selector: site=a", "devices: 1", "inferences: 9", "hours: 2", "deadline: 3h", "alpha: 0.01", "rows: 300", "in_flight: 5",
		"per_minute: 7", "bytes_per_second: 1024", "label: site", "cron: 0 22 * * *", "time_zone: device", "unmetered: true", "mains: true",
		"min_battery: 30", "on_failure: revert", "on_conflict: queue", "supersedes: digits-1-1", "approval: true",
		"2026-12-01T21:00:00Z", "deadline: 24h", "control: 0", "soak: 1m", "quorum: 0.9", "lateness: 5m", "kind: errors",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in the spec:\n%s", want, text)
		}
	}
	byFile := []string{"Revert", "DeviceDeadline", "DecisionDeadline"} // few people will want these
	for field, value := range reflect.ValueOf(got).Fields() {
		if value.IsZero() && !slices.Contains(byFile, field.Name) {
			t.Errorf("no flag sets %s", field.Name)
		}
	}
}

// The example explains every field that there is, and is itself a valid spec.
func TestExampleSpecIsWhole(t *testing.T) {
	spec, err := rollout.ParseSpec([]byte(exampleSpec))
	if err != nil {
		t.Fatal(err)
	}
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		t.Error(err)
	}
	for _, name := range fieldNames(reflect.TypeFor[operator.RolloutSpec]()) {
		if !strings.Contains(exampleSpec, name+":") {
			t.Errorf("%s is not in the example", name)
		}
	}
}

// fieldNames are the JSON names of all fields at and below a type of this module.
func fieldNames(t reflect.Type) (names []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return nil
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(append(names, name), fieldNames(f.Type)...)
	}
	return names
}

func TestWatchEnds(t *testing.T) {
	const completed, reverted = operator.RolloutCompleted, operator.RolloutReverted
	for _, c := range []struct {
		state, want operator.RolloutState
		says        string
		outcome     bool // another end than was waited for
	}{
		{operator.RolloutRunning, completed, "", false},
		{operator.RolloutPaused, completed, "", false},
		{operator.RolloutAwaiting, completed, "", false},
		{operator.RolloutReverting, completed, "", false},
		{operator.RolloutQueued, completed, "", false},
		{completed, completed, "done", false},
		{operator.RolloutHalted, completed, "is halted: golden", true},
		{operator.RolloutAborted, completed, "is aborted", true},
		{reverted, completed, "is reverted", true},
		{operator.RolloutReplaced, completed, "is replaced", true},
		{operator.RolloutDraft, completed, "has not been started", false},
		{reverted, reverted, "done", false},
		{operator.RolloutReverting, reverted, "", false},
		{completed, reverted, "is completed", true},
	} {
		err := ended(&operator.Rollout{RolloutSummary: operator.RolloutSummary{ID: "x", State: c.state, Cause: "golden"}}, c.want)
		_, outcome := errors.AsType[*outcomeError](err)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) || outcome != c.outcome {
			t.Errorf("%s, waiting for %s: got %v, want %q", c.state, c.want, err, c.says)
		}
	}
}

// A drawing never is larger than the terminal.
func TestDrawingFits(t *testing.T) {
	text.DisableColors()
	var lines []string
	for i := range 40 {
		lines = append(lines, fmt.Sprint("wave ", i, " ", strings.Repeat("x", 200)))
	}
	got := fitted(slices.Clone(lines), 80, 24)
	if len(got) != 23 || !strings.Contains(got[22], "18 more lines") {
		t.Errorf("got %d lines, the last %q; want 23 and how many are left out", len(got), got[len(got)-1])
	}
	for _, l := range got {
		if n := len([]rune(l)); n > 80 {
			t.Errorf("a line has %d characters, want at most 80", n)
		}
	}
	if got := fitted(slices.Clone(lines), 0, 0); !slices.Equal(got, lines) {
		t.Error("where there is no terminal, lines are cut")
	}
}

func TestGateEvidence(t *testing.T) {
	for want, g := range map[string]operator.Gate{
		"":                {Kind: "install", Numerator: 1},
		"0 worse, 3 fine": {Alpha: 0.01, Fine: 3},
		"8 worse, 3 fine; harm 55 of 100; fine 0.02; control 1.5": {Alpha: 0.01, Worse: 8, Fine: 3, EHarm: 55, EFine: 0.02, EControl: 1.5},
		"9 worse, 0 fine; harm over a million of 100":             {Alpha: 0.01, Worse: 9, EHarm: 1e300, EControl: 1},
	} {
		if got := evidenceText(&g); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Without a terminal nobody is asked.
func TestReasons(t *testing.T) {
	a := &app{in: strings.NewReader("because\n"), out: io.Discard, err: io.Discard}
	if got, err := a.reason("flag", "start x"); err != nil || got != "flag" {
		t.Errorf("got %q, %v, want the flag", got, err)
	}
	_, err := a.reason(" ", "start x")
	e, ok := errors.AsType[*operator.Error](err)
	if !ok || e.Code != operator.ReasonRequired || !strings.Contains(e.Message, "start x") || !strings.Contains(e.Hint, "--reason") {
		t.Errorf("got %+v, want to be told of --reason", err)
	}
}

// scripted is a server that has one rollout, which goes through states.
type scripted struct {
	mu    sync.Mutex // guards all below
	next  []operator.Rollout
	given []operator.RolloutAction
}

// ServeHTTP answers what the command asks for.
func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case path.Base(r.URL.Path) == "events":
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"id\":1,\"kind\":\"rollout\",\"subject\":\"x\"}\n\n")
		_ = http.NewResponseController(w).Flush()
		s.mu.Unlock()
		<-r.Context().Done()
		s.mu.Lock()
	case r.Method == http.MethodPost:
		var a operator.RolloutAction
		_ = json.NewDecoder(r.Body).Decode(&a)
		s.given = append(s.given, a)
		fallthrough
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.next[0])
		if r.Method == http.MethodGet && len(s.next) > 1 {
			s.next = s.next[1:]
		}
	}
}

func (s *scripted) client(t *testing.T) *client.Client {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	c, err := client.New(server.URL, "token", client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func inState(states ...operator.RolloutState) []operator.Rollout {
	var out []operator.Rollout
	for _, s := range states {
		out = append(out, operator.Rollout{RolloutSummary: operator.RolloutSummary{ID: "x", State: s}})
	}
	return out
}

func TestAwait(t *testing.T) {
	for name, c := range map[string]struct {
		states []operator.Rollout
		flags  waitFlags
		want   operator.RolloutState
		code   operator.Code
		prints string
	}{
		"completes": {inState(operator.RolloutRunning, operator.RolloutCompleted), waitFlags{wait: true}, operator.RolloutCompleted, "", "x is completed"},
		"halts":     {inState(operator.RolloutHalted), waitFlags{wait: true}, operator.RolloutCompleted, operator.Conflict, ""},
		"reverts":   {inState(operator.RolloutReverted), waitFlags{wait: true}, operator.RolloutReverted, "", "x is reverted"},
		"goes on":   {inState(operator.RolloutRunning), waitFlags{wait: true, timeout: 50 * time.Millisecond}, operator.RolloutCompleted, operator.Unavailable, ""},
		"watched":   {inState(operator.RolloutCompleted), waitFlags{watch: true}, operator.RolloutCompleted, "", "completed  wave 0/0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			a := &app{out: &out, err: &out, output: outputTable}
			err := a.await(t.Context(), (&scripted{next: c.states}).client(t), "x", c.flags, c.want)
			if operator.CodeOf(err) != c.code || !strings.Contains(out.String(), c.prints) {
				t.Errorf("got %v and %q, want %q and %q", err, out.String(), c.code, c.prints)
			}
		})
	}
}

// However much is told, a watch looks no more often than once a second.
func TestWatchIsSparing(t *testing.T) {
	changed := make(chan struct{}, 1)
	changed <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), leastGap/4)
	defer cancel()
	if err := pauseBetween(ctx, changed, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v before %v had passed, want to wait", err, leastGap)
	}
}

// A revision starts from the present spec, says what it changes and names the
// revision it was made from.
func TestRevision(t *testing.T) {
	present, err := complete(operator.RolloutSpec{Model: "digits", Version: "2"})
	if err != nil {
		t.Fatal(err)
	}
	now := &operator.Rollout{RolloutSummary: operator.RolloutSummary{ID: "x"}, Spec: present, Revisions: make([]operator.SpecRevision, 3)}
	revise := func(line ...string) (*operator.RolloutAction, []rollout.Difference, error) {
		var f specFlags
		cmd := &cobra.Command{Use: "revise"}
		f.register(cmd)
		if err := cmd.ParseFlags(line); err != nil {
			t.Fatal(err)
		}
		return f.revision(cmd, now)
	}
	action, changes, err := revise("--budget", "20", "--on-failure", "revert")
	want := []rollout.Difference{{Path: "budget.in_flight", To: "20"}, {Path: "on_failure", From: `"pause"`, To: `"revert"`}}
	if err != nil || *action.Number != 2 || action.Spec.Budget.InFlight != 20 || len(action.Spec.Waves) != len(present.Waves) {
		t.Errorf("got %+v, %v", action, err)
	}
	if len(changes) == 0 || changes[len(changes)-1] != want[1] || !strings.HasPrefix(changes[0].Path, "budget") {
		t.Errorf("got %v, want %v", changes, want)
	}
	if _, _, err := revise(); operator.CodeOf(err) != operator.Invalid || !strings.Contains(err.Error(), "already") {
		t.Errorf("no change: got %v", err)
	}
	if _, _, err := revise("--on-failure", "shrug"); operator.CodeOf(err) != operator.Invalid {
		t.Errorf("a spec that is not valid: got %v", err)
	}
}
