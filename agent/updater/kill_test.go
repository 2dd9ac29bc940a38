package updater_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol/release"
)

// A release of meter that does not behave, but maybe in its trial.
func scripted(t *testing.T, version string, limits release.Limits, s agenttest.Script) *agenttest.Bundle {
	t.Helper()
	s.Name = version
	b, err := agenttest.NewBundle("meter", version, 9, limits, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The process of a device is killed with SIGKILL at every state of an update, in
// its work and around the write that makes the state durable. The next process
// answers at once, and carries the update on or says why not.
func TestKillAtEveryState(t *testing.T) {
	points := []string{"resolving", "downloading", "loading v2", "after loading v2", "loading v1"}
	for _, state := range update.States() {
		points = append(points, "before writing "+string(state), "after writing "+string(state))
	}
	// To come to reverting, a release that loads in its trial alone.
	unloadable := scripted(t, "unloadable", release.Limits{}, agenttest.Script{OnLoad: agenttest.Refuse, ExceptIn: trialEnv})
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			wish := v2
			if point == "before writing reverting" || point == "after writing reverting" {
				wish = unloadable
			}
			dir := newDevice(t, unloadable)
			first := launch(t, dir, holdEnv+"="+point)
			first.desire(desire(2, wish))
			if first.until("held at "+point, func(s line) bool { return s.Held == point }) {
				t.Fatalf("the process ended by itself: %v", <-first.ended)
			}
			first.kill()
			wholeOnDisk(t, dir)

			next := launch(t, dir)
			next.loaded()
			next.answers("meter")
			next.desire(desire(2, wish))
			s := next.settled(2, wish)
			got := next.answers("meter")
			switch o := reason(s, wish); {
			case wish == v2 && got != "v2":
				t.Errorf("%s answers in the end: %v", got, s)
			case wish != v2 && (got != "v1" || o.GetCode() == ""):
				t.Errorf("%s answers in the end, reason %v", got, o)
			}
		})
	}
}

// The process is killed at any moment, again and again, while it is told to go
// back and forth. What it leaves is always whole, and always answers.
func TestKillAtAnyMoment(t *testing.T) {
	kills, seed := 15, uint64(time.Now().UnixNano())
	if os.Getenv("VEDETTE_FULL") != "" {
		kills = 300
	}
	t.Logf("seed %d, but a process is killed where it happens to be", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	dir := newDevice(t)
	for n := range uint64(kills) {
		l := launch(t, dir)
		l.desire(desire(n+2, []*agenttest.Bundle{v1, v2}[n%2]))
		if rnd.IntN(2) == 0 {
			l.loaded()
			l.answers("meter")
		}
		<-time.After(time.Duration(rnd.Int64N(int64(400 * time.Millisecond))))
		l.kill()
		wholeOnDisk(t, dir)
	}
	last := launch(t, dir)
	last.loaded()
	last.answers("meter")
	last.desire(desire(uint64(kills)+2, v2))
	s := last.settled(uint64(kills)+2, v2)
	if got := last.answers("meter"); got != "v2" {
		t.Errorf("%s answers in the end: %v", got, s)
	}
}

// What fails in its trial never comes near the process that serves.
func TestBadReleaseDiesInItsTrial(t *testing.T) {
	tests := map[string]struct {
		script agenttest.Script
		limits release.Limits
		code   string
	}{
		"segfault while loading":    {script: agenttest.Script{OnLoad: agenttest.Segfault}, code: trial.CodeCrash},
		"segfault in a call":        {script: agenttest.Script{OnRun: agenttest.Segfault, AfterRuns: 20}, code: trial.CodeCrash},
		"hang while loading":        {script: agenttest.Script{OnLoad: agenttest.Hang}, code: trial.CodeHang},
		"hang in a call":            {script: agenttest.Script{OnRun: agenttest.Hang, AfterRuns: 20}, code: trial.CodeHang},
		"memory above its limit":    {script: agenttest.Script{Bytes: 96 << 20}, limits: release.Limits{MemoryBytes: 32 << 20}, code: trial.CodeMemory},
		"memory above the device's": {script: agenttest.Script{Bytes: 64 << 30}, limits: release.Limits{MemoryBytes: 256 << 20}, code: trial.CodeMemory},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := scripted(t, "bad", tt.limits, tt.script)
			var env []string
			if tt.code == trial.CodeHang {
				env = []string{hasteEnv + "=1"}
			}
			l := launch(t, newDevice(t, bad), env...)
			l.loaded()
			l.desire(desire(2, bad))
			if o := reason(l.settled(2, bad), bad); o.GetResult() != update.ResultRefused || o.GetCode() != tt.code {
				t.Errorf("outcome %v, want %s", o, tt.code)
			}
			if got := l.answers("meter"); got != "v1" {
				t.Errorf("%s answers, want v1", got)
			}
			l.neverAgain(bad)
		})
	}
}

// neverAgain checks that a release that was given up is tried again under a new
// decision alone.
func (l *living) neverAgain(bad *agenttest.Bundle) {
	l.t.Helper()
	same := desire(3, bad)
	same.Assignments[0].Decision = 2
	l.desire(same)
	for range 3 {
		l.answers("meter")
	}
	if s := l.settled(2, bad); reason(s, bad).GetGeneration() != 2 {
		l.t.Errorf("tried again under the same decision: %v", s)
	}
	l.desire(desire(4, bad))
	l.until("another try under a new decision", func(line) bool {
		return bytes.Equal(l.states["meter"].GetTarget(), bad.Digest.Bytes())
	})
}

// A release passes its trial and takes the serving process down nevertheless. The
// supervisor starts it again, the control plane is out of reach, and v1 comes
// back by itself.
func TestBadReleaseIsLeftOffline(t *testing.T) {
	tests := map[string]struct {
		script   agenttest.Script
		codes    []string
		atStart  bool // it goes wrong at the next start only
		restarts int  // at most
	}{
		// A call may come between the switch and its record, or after: each counts.
		"segfault in a call":    {agenttest.Script{OnRun: agenttest.Segfault, AfterRuns: 1, ExceptIn: trialEnv}, []string{update.CodeCrashLoop, update.CodeInterrupted}, false, 6},
		"segfault while loaded": {agenttest.Script{OnLoad: agenttest.Segfault, ExceptIn: trialEnv}, []string{update.CodeInterrupted}, false, 4},
		"segfault at a start":   {agenttest.Script{OnLoad: agenttest.Segfault, ExceptIn: wellEnv}, []string{update.CodeCrashLoop}, true, 3},
		"hang in a call":        {agenttest.Script{OnRun: agenttest.Hang, AfterRuns: 1, ExceptIn: trialEnv}, []string{update.CodeCallHung, update.CodeDeadline}, false, 1},
		"hang while loaded":     {agenttest.Script{OnLoad: agenttest.Hang, ExceptIn: trialEnv}, []string{update.CodeDeadline}, false, 1},
		"hang at a start":       {agenttest.Script{OnLoad: agenttest.Hang, ExceptIn: wellEnv}, []string{update.CodeLoadHung}, true, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := scripted(t, "bad", release.Limits{}, tt.script)
			dir := newDevice(t, bad)
			haste := hasteEnv + "=" + setIf(strings.HasPrefix(name, "hang"))
			l := launch(t, dir, haste, wellEnv+"="+setIf(tt.atStart))
			l.loaded()
			l.desire(desire(2, bad))
			if tt.atStart {
				l.settled(2, bad)
				l.kill()
			}
			l.until("activating", func(line) bool {
				s := l.states["meter"].GetState()
				return s == string(update.Activating) || s == string(update.Watching)
			})
			l.callUntilGone()
			restarts := 0
			for l = launch(t, dir, haste, linkEnv+"=1"); l.callUntilGone(); l = launch(t, dir, haste, linkEnv+"=1") {
				if restarts++; restarts > tt.restarts {
					t.Fatalf("v1 is not back after %d restarts", restarts)
				}
				wholeOnDisk(t, dir)
			}
			if o := reason(l.settled(2, bad), bad); !slices.Contains(tt.codes, o.GetCode()) || o.GetMessage() == "" {
				t.Errorf("outcome %v, want %s", o, tt.codes)
			}
			l.neverAgain(bad)
		})
	}
}

func setIf(set bool) string {
	if set {
		return "1"
	}
	return ""
}

// callUntilGone asks for predictions until v1 gives three in a row while nothing
// is under way, or the process is gone.
func (l *living) callUntilGone() (gone bool) {
	l.t.Helper()
	for good, end := 0, time.Now().Add(2*time.Minute); good < 3; time.Sleep(time.Millisecond) {
		version, gone := l.infer("meter")
		if gone {
			return true
		}
		if good++; version != "v1" || l.states["meter"].GetState() != string(update.Idle) {
			good = 0
		}
		if time.Now().After(end) {
			l.t.Fatalf("%s answers after two minutes: %v", version, l.states)
		}
	}
	return false
}

// A trial does not outlive a device that is killed, whatever its candidate does.
func TestTrialEndsWithItsDevice(t *testing.T) {
	bad := scripted(t, "bad", release.Limits{}, agenttest.Script{OnLoad: agenttest.Hang})
	l := launch(t, newDevice(t, bad))
	l.loaded()
	l.desire(desire(2, bad))
	l.until("trialing", func(line) bool { return l.states["meter"].GetState() == string(update.Trialing) })
	var children []string
	eventually(t, "a trial runs", func() bool {
		raw, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", l.cmd.Process.Pid))
		if len(raw) == 0 {
			t.Skip("this kernel does not list the children of a process: it needs CONFIG_PROC_CHILDREN")
		}
		for _, name := range raw {
			list, _ := os.ReadFile(name) // a thread may have ended
			children = append(children, strings.Fields(string(list))...)
		}
		return len(children) > 0
	})
	l.kill()
	for _, pid := range children {
		eventually(t, "trial "+pid+" has ended", func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			_, rest, _ := bytes.Cut(stat, []byte(") "))
			return err != nil || bytes.HasPrefix(rest, []byte("Z")) // nobody may have collected it
		})
	}
}

// eventually asks until ok: what is asked is another process.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a minute later it is still not true that %s", what)
		}
	}
}
