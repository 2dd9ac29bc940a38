package update_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol/release"
)

var rewrite = flag.Bool("update", false, "rewrite the expected output of the scripts in testdata")

// Scripts are commands, each followed by "----" and what the machine does. Run
// with -update after a change, and read the difference.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(raw))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(raw) {
				t.Errorf("script went otherwise; now:\n%s", got)
			}
		})
	}
}

// runScript runs every command and writes the script anew.
func runScript(t *testing.T, script string) string {
	t.Helper()
	p := newPlay()
	var out strings.Builder
	expected := false // skipping what was expected
	for line := range strings.SplitSeq(strings.TrimRight(script, "\n"), "\n") {
		switch {
		case line == "----":
			expected = true
		case line == "":
			expected = false
		case expected:
		case strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		default:
			out.WriteString(line + "\n----\n" + p.command(t, strings.Fields(line)) + "\n")
		}
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// play is a machine on stage.
type play struct {
	machine update.Machine
	limits  update.Limits
	now     time.Time
	order   uint64
}

func newPlay() *play {
	p := &play{machine: update.New("meter"), limits: update.DefaultLimits(), now: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)}
	return p
}

func (p *play) command(t *testing.T, words []string) string {
	t.Helper()
	if words[0] == "after" {
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		return p.wait(d)
	}
	return p.step(p.event(t, words))
}

// wait lets time pass, with the ticks the machine asks for.
func (p *play) wait(d time.Duration) string {
	end := p.now.Add(d)
	var out strings.Builder
	for {
		at, ok := p.machine.Wake(p.limits)
		if !ok || at.After(end) {
			p.now = end
			if out.Len() == 0 {
				return "nothing\n"
			}
			return out.String()
		}
		fmt.Fprintf(&out, "+%v\n", at.Sub(end.Add(-d)))
		p.now = at
		out.WriteString(p.step(update.Tick{}))
	}
}

func (p *play) step(e update.Event) string {
	old := p.machine
	next, actions := old.Step(p.now, e, p.limits, 0.5)
	p.machine = next
	var out strings.Builder
	if next.State == old.State {
		fmt.Fprintf(&out, "%s", next.State)
	} else {
		fmt.Fprintf(&out, "%s -> %s", old.State, next.State)
	}
	fmt.Fprintf(&out, "; active %s", name(next.Active))
	if !next.Previous.IsZero() {
		fmt.Fprintf(&out, ", previous %s", name(next.Previous))
	}
	out.WriteString("\n")
	for _, a := range actions {
		fmt.Fprintf(&out, "  do %s %s\n", a.Do, name(a.Release))
	}
	if o := next.Last; o != nil && o != old.Last {
		fmt.Fprintf(&out, "  outcome %s %s %s: %s\n", name(o.Release), o.Result, o.Code, o.Message)
	}
	return out.String()
}

func (p *play) event(t *testing.T, words []string) update.Event {
	t.Helper()
	verb, args := words[0], words[1:]
	switch verb {
	case "desired":
		return update.Desired{Want: want(t, args)}
	case "resolved":
		return update.Resolved{Release: digest(args[0])}
	case "progress":
		return update.Progress{Release: digest(args[0])}
	case "fetched":
		return update.Fetched{Release: digest(args[0])}
	case "verified":
		return update.Verified{Release: digest(args[0])}
	case "passed":
		return update.Judged{Release: digest(args[0]), OK: true}
	case "refused":
		return update.Judged{Release: digest(args[0]), Code: args[1], Message: "scripted"}
	case "activated":
		p.order++
		return update.Activated{Release: digest(args[0]), Order: p.order}
	case "reverted":
		return update.Reverted{Release: digest(args[0]), Active: digest(args[1])}
	case "failed", "stumbled":
		return update.Failed{Release: digest(args[0]), Code: args[1], Message: "scripted", Retryable: verb == "stumbled"}
	case "broken":
		return update.Broken{Release: digest(args[0]), Code: args[1], Message: "scripted"}
	case "hung":
		return update.Hung{Release: digest(args[0])}
	case "start":
		return p.start(t, args)
	}
	t.Fatalf("unknown command %q", verb)
	return nil
}

// start takes the machine through its journal, as a restart does. The slots are
// as the machine knows them unless active and previous are given.
func (p *play) start(t *testing.T, args []string) update.Event {
	t.Helper()
	p.machine = journaled(t, p.machine.At(p.now))
	e := update.Started{Active: p.machine.Active, Previous: p.machine.Previous}
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "unclean":
			e.Unclean, e.Suspect = true, true
		case "innocent":
			e.Suspect = false
		case "active":
			e.Active = digest(value)
		case "previous":
			e.Previous = digest(value)
		}
	}
	return e
}

func journaled(t *testing.T, m update.Machine) update.Machine {
	t.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back update.Machine
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if err := back.Check(); err != nil {
		t.Fatalf("journal does not read back: %v", err)
	}
	return back
}

func want(t *testing.T, args []string) update.Want {
	t.Helper()
	w := update.Want{Release: digest(args[0])}
	if len(args) > 1 {
		n, err := strconv.ParseUint(strings.TrimPrefix(args[1], "decision="), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		w.Decision, w.Generation = n, n
	}
	return w
}

// digest makes v1 the release whose digest begins with 1; none is none.
func digest(s string) release.Digest {
	n, err := strconv.Atoi(strings.TrimPrefix(s, "v"))
	if err != nil {
		return release.Digest{}
	}
	return release.Digest{byte(n)}
}

func name(d release.Digest) string {
	if d.IsZero() {
		return "none"
	}
	return "v" + strconv.Itoa(int(d[0]))
}
