package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/serve"
)

// found checks one finding: its result, part of what it says and of what to do.
func found(t *testing.T, what string, got Check, result, detail, next string) {
	t.Helper()
	if got.Result != result || !strings.Contains(got.Detail, detail) || !strings.Contains(got.Next, next) || (next == "") != (got.Next == "") {
		t.Errorf("%s: got %+v, want %s, %q and %q", what, got, result, detail, next)
	}
}

func TestServiceIsExplained(t *testing.T) {
	const running = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nSubState=running\nNRestarts=0\nStatusText=serving digits 2 as cam-1, connected\n"
	for name, c := range map[string]struct {
		properties           string
		enrolled             bool
		result, detail, next string
	}{
		"healthy":       {running + "MemoryCurrent=104857600\nMemoryMax=1073741824\n", true, checkOK, "it runs: serving digits 2 as cam-1, connected, 100.0 MiB of 1.0 GiB", ""},
		"no limit":      {running + "MemoryCurrent=104857600\nMemoryMax=infinity\n", true, checkOK, "connected", ""},
		"little memory": {running + "MemoryCurrent=1000000000\nMemoryMax=1073741824\n", true, checkWarning, "953.7 MiB of 1.0 GiB", "raise MemoryMax"},
		"not installed": {"LoadState=not-found\nActiveState=inactive\n", true, checkSkipped, "not installed", ""},
		"not enrolled":  {"LoadState=loaded\nUnitFileState=enabled\nActiveState=inactive\n", false, checkWarning, "waits until this device is enrolled", "enrol -"},
		"stopped":       {"LoadState=loaded\nUnitFileState=enabled\nActiveState=inactive\n", true, checkFailed, "does not run (inactive)", "systemctl start"},
		"failed":        {"LoadState=loaded\nActiveState=failed\nResult=exit-code\n", true, checkFailed, "has failed (exit-code)", "journalctl"},
		"crashing":      {"LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=watchdog\n", true, checkFailed, "does not stay up (watchdog)", "journalctl"},
		"not enabled":   {strings.Replace(running, "=enabled", "=disabled", 1), true, checkWarning, "will not after the next start", "systemctl enable"},
		"crashed often": {strings.Replace(running, "NRestarts=0", "NRestarts=17", 1), true, checkWarning, "after 17 restarts", "journalctl"},
	} {
		found(t, name, judgeService(properties([]byte(c.properties)), c.enrolled), c.result, c.detail, c.next)
	}
}

// challenged adds a challenger that was activated.
func challenged(s *serve.Status) {
	s.Agent.Updates = append(s.Agent.Updates, serve.Update{Model: "digits (challenger)", State: "idle", Active: "bb"})
}

func TestRunningAgentIsExplained(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	st := func(change func(*serve.Status)) *serve.Status {
		s := &serve.Status{
			Models: []infer.Status{{Model: "digits", Version: "2", Provider: "CPU"}},
			Agent: &serve.Agent{
				Uplink:  serve.Uplink{Connected: true, Since: now.Add(-time.Hour)},
				Updates: []serve.Update{{Model: "digits", State: "idle", Active: "aa"}},
			},
		}
		change(s)
		return s
	}
	for name, c := range map[string]struct {
		change               func(*serve.Status)
		at                   int // models, link, outbox
		result, detail, next string
	}{
		"serving":     {func(*serve.Status) {}, 0, checkOK, "serving digits 2 on CPU", ""},
		"connected":   {func(*serve.Status) {}, 1, checkOK, "connected since", ""},
		"nothing yet": {func(s *serve.Status) { s.Models, s.Agent.Updates = nil, nil }, 0, checkOK, "none is assigned", ""},
		"not loaded":  {func(s *serve.Status) { s.Models = nil }, 0, checkFailed, "digits is active but does not serve", "journalctl"},
		"waits":       {func(s *serve.Status) { s.Agent.Updates[0].Waiting = "not enough room" }, 0, checkWarning, "digits waits: not enough room", "vedette-agent status"},
		"challenger": {func(s *serve.Status) {
			challenged(s)
			s.Challengers = []infer.Status{{Model: "digits", Version: "3", Provider: "CPU", Role: infer.RoleShadow}}
		}, 0, checkOK, "serving digits 2 on CPU, digits (challenger) 3 on CPU", ""},
		"challenger not loaded": {challenged, 0, checkWarning, "digits (challenger) is active but does not run", "journalctl"},
		"challenger reverted": {func(s *serve.Status) {
			challenged(s)
			u := &s.Agent.Updates[1]
			u.Active, u.Result, u.Code = "", "reverted", "crash_loop"
		}, 0, checkWarning, "the last update of digits (challenger): reverted (crash_loop)", "the model itself serves on"},
		"first reverted": {func(s *serve.Status) {
			s.Models = nil
			s.Agent.Updates[0] = serve.Update{Model: "digits", State: "idle", Result: "reverted", Code: "crash_loop", Message: "died"}
		}, 0, checkFailed, "none serves; digits has no version that works here: reverted (crash_loop): died", "publish a mended version"},
		"first refused": {func(s *serve.Status) {
			s.Models = nil
			s.Agent.Updates[0] = serve.Update{Model: "digits", State: "idle", Result: "refused", Code: "golden_mismatch"}
		}, 0, checkWarning, "digits has no version that works here: refused (golden_mismatch)", "publish a mended version"},
		"first on its way": {func(s *serve.Status) {
			s.Models = nil
			s.Agent.Updates[0] = serve.Update{Model: "digits", State: "downloading", Target: "bb"}
		}, 0, checkOK, "none serves", ""},
		"worst of two": {func(s *serve.Status) {
			s.Models = nil
			s.Agent.Updates = append([]serve.Update{{Model: "alarm", State: "downloading", Target: "bb", Waiting: "no room"}}, s.Agent.Updates...)
		}, 0, checkFailed, "none serves; alarm waits: no room; digits is active but does not serve", "journalctl"},
		"refused": {func(s *serve.Status) {
			s.Agent.Updates[0].Result, s.Agent.Updates[0].Code = "failed", "golden_mismatch"
		}, 0, checkWarning, "failed (golden_mismatch)", "serves on"},
		"just cut off": {func(s *serve.Status) {
			s.Agent.Uplink = serve.Uplink{Since: now.Add(-time.Minute), Error: "dial"}
		}, 1, checkOK, "not connected", ""},
		"long offline": {func(s *serve.Status) {
			s.Agent.Uplink = serve.Uplink{Since: now.Add(-time.Hour), Error: "dial"}
		}, 1, checkWarning, "not connected", "goes on serving"},
		"empty outbox": {func(*serve.Status) {}, 2, checkOK, "0 records wait, 0 B of 20.0 MiB", ""},
		"full outbox": {func(s *serve.Status) {
			s.Agent.Outbox = serve.Outbox{Pending: 9, Bytes: outbox.DefaultTotalBytes * 9 / 10}
		}, 2, checkWarning, "9 records wait", "merged"},
		"larger outbox": {func(s *serve.Status) {
			s.Agent.Outbox = serve.Outbox{Pending: 9, Bytes: 18 << 20, Limit: 64 << 20}
		}, 2, checkOK, "9 records wait, 18.0 MiB of 64.0 MiB", ""},
		"smaller outbox": {func(s *serve.Status) {
			s.Agent.Outbox = serve.Outbox{Pending: 9, Bytes: 7 << 20, Limit: 8 << 20}
		}, 2, checkWarning, "9 records wait, 7.0 MiB of 8.0 MiB", "merged"},
		"full disk": {func(s *serve.Status) { s.Agent.Outbox.Error = "no space left on device" }, 2, checkFailed, "no space left", "make room"},
	} {
		found(t, name, judgeAgent(st(c.change), now)[c.at], c.result, c.detail, c.next)
	}
	if got := judgeAgent(&serve.Status{}, now); len(got) != 1 || got[0].Result != checkOK {
		t.Errorf("a server without the rest of an agent: %+v", got)
	}
}

// A library that was changed after its installation is found.
func TestDamagedLibraryIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lib.so")
	const sum = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae  lib.so\n" // of "foo"
	for _, step := range []struct {
		content, sum string
		good         bool
	}{{"foo", "", true}, {"foo", sum, true}, {"fop", sum, false}, {"", sum, false}} {
		if err := os.WriteFile(path, []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if step.sum != "" {
			if err := os.WriteFile(path+sumSuffix, []byte(step.sum), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := intact(path); (err == nil) != step.good {
			t.Errorf("%q against %q: %v", step.content, step.sum, err)
		}
	}
}
