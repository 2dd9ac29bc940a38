package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/serve"
)

// What makes a running service worth a look.
const (
	// maxRestarts by systemd since the service was started: an agent that goes
	// on crashing has a reason.
	maxRestarts = 3
	// tightMemory and fullOutbox are shares in percent.
	tightMemory = 90
	fullOutbox  = 80
)

// serviceProperties are what is asked of systemd.
var serviceProperties = []string{
	"LoadState", "UnitFileState", "ActiveState", "SubState", "Result", "NRestarts",
	"MemoryCurrent", "MemoryMax", "StatusText", "ConditionResult",
}

// checkService asks systemd about the packaged service.
func checkService(ctx context.Context, state string, enrolled bool) Check {
	c := Check{Name: "service", Result: checkSkipped}
	if state != defaultState {
		c.Detail = "the packaged service runs on " + defaultState
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", service, "--property="+strings.Join(serviceProperties, ",")).Output() //nolint:gosec // constants
	if err != nil {
		c.Detail = "systemd does not run here"
		return c
	}
	return judgeService(properties(out), enrolled)
}

// properties reads what `systemctl show` prints: NAME=VALUE a line.
func properties(out []byte) map[string]string {
	p := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			p[name] = value
		}
	}
	return p
}

// judgeService says what the service's state means.
func judgeService(p map[string]string, enrolled bool) Check {
	c := Check{Name: "service", Result: checkFailed}
	restarts, _ := strconv.Atoi(p["NRestarts"])
	switch active := p["ActiveState"]; {
	case p["LoadState"] != "loaded":
		c.Result, c.Detail = checkSkipped, "there is no service "+service+": the package is not installed"
	case active == "failed":
		c.Detail, c.Next = "it has failed ("+p["Result"]+")", "journalctl -u "+service+" says why; then systemctl restart "+service
	case active == "activating" && p["SubState"] == "auto-restart":
		c.Detail, c.Next = "it does not stay up ("+p["Result"]+")", "journalctl -u "+service+" says why"
	case active != "active" && active != "activating" && !enrolled:
		c.Result, c.Detail = checkWarning, "it waits until this device is enrolled"
		c.Next = "sudo vedette-agent enrol - (the token of: vedette device token create), then sudo systemctl start " + service
	case active != "active" && active != "activating":
		c.Detail, c.Next = "it does not run ("+active+")", "sudo systemctl start "+service
	case p["UnitFileState"] == "disabled":
		c.Result, c.Detail, c.Next = checkWarning, "it runs, but will not after the next start of the system", "sudo systemctl enable "+service
	case restarts > maxRestarts:
		c.Result, c.Detail = checkWarning, fmt.Sprintf("it runs, after %d restarts: %s", restarts, p["StatusText"])
		c.Next = "journalctl -u " + service + " says why it ended; a version that crashes is gone back from by itself"
	default:
		c.Result, c.Detail = checkOK, strings.TrimSuffix("it runs: "+p["StatusText"], ": ")
		judgeMemory(&c, p)
	}
	return c
}

// judgeMemory warns when the service's limit leaves little room: a trial needs
// memory beside what serves.
func judgeMemory(c *Check, p map[string]string) {
	used, err := strconv.ParseUint(p["MemoryCurrent"], 10, 64)
	limit, err2 := strconv.ParseUint(p["MemoryMax"], 10, 64) // "infinity" where there is none
	if err != nil || err2 != nil || limit == 0 {
		return
	}
	c.Detail += fmt.Sprintf(", %s of %s", size(used), size(limit))
	if used >= limit/100*tightMemory {
		c.Result = checkWarning
		c.Next = "little memory is left for a second model beside it: raise MemoryMax (systemctl edit " + service + "), or assign fewer models"
	}
}

// checkAgent asks the running agent what it does.
func checkAgent(ctx context.Context, s *settings) []Check {
	listen, socket := s.Listen, ""
	if listen == "-" {
		listen, socket = "agent", s.Socket
	}
	st, err := fetchStatus(ctx, listen, socket)
	if err != nil {
		return []Check{{Name: "agent", Result: checkSkipped, Detail: "none answers at " + cmp.Or(socket, listen), Next: "start it: " + howToRun(s.State)}}
	}
	return judgeAgent(st, time.Now())
}

// judgeAgent says what the agent's status means.
func judgeAgent(st *serve.Status, now time.Time) []Check {
	list := []Check{judgeModels(st)}
	if st.Agent == nil {
		return list
	}
	return append(list, judgeLink(st.Agent, now), judgeOutbox(st.Agent))
}

func judgeModels(st *serve.Status) Check {
	c := Check{Name: "models", Result: checkOK, Detail: "none is assigned to this device"}
	var serving []string
	for _, m := range st.Models {
		serving = append(serving, m.Model+" "+m.Version+" on "+m.Provider)
	}
	if len(serving) > 0 {
		c.Detail = "serving " + strings.Join(serving, ", ")
	}
	if st.Agent == nil {
		return c
	}
	for _, u := range st.Agent.Updates {
		lacks := u.Active != "" && !slices.ContainsFunc(serving, func(s string) bool { return strings.HasPrefix(s, u.Model+" ") })
		switch {
		case lacks:
			c.Result, c.Detail = checkFailed, c.Detail+"; "+u.Model+" is active but does not serve"
			c.Next = "journalctl -u " + service + " says why it could not be loaded"
		case u.Waiting != "" && c.Result == checkOK:
			c.Result, c.Detail, c.Next = checkWarning, c.Detail+"; the update of "+u.Model+" waits: "+u.Waiting, "vedette-agent status shows its state"
		case u.Code != "" && c.Result == checkOK:
			c.Result, c.Detail = checkWarning, c.Detail+"; the last update of "+u.Model+": "+result(u)
			c.Next = "the version before serves on; `vedette rollout explain` on an operator's machine says more"
		}
	}
	return c
}

// maxOffline is how long an agent may be without a link before somebody should
// look: a short outage mends itself.
const maxOffline = 10 * time.Minute

func judgeLink(a *serve.Agent, now time.Time) Check {
	c := Check{Name: "link", Result: checkOK, Detail: link(&a.Uplink)}
	if !a.Uplink.Connected && (a.Uplink.Since.IsZero() || now.Sub(a.Uplink.Since) > maxOffline) {
		c.Result, c.Next = checkWarning, "the agent goes on serving and keeps what it counts; see the control plane's checks above"
	}
	return c
}

func judgeOutbox(a *serve.Agent) Check {
	share := a.Outbox.Bytes * 100 / outbox.DefaultTotalBytes
	c := Check{Name: "outbox", Result: checkOK, Detail: fmt.Sprintf("%d records wait, %s of %s", a.Outbox.Pending+a.Outbox.Sent, size(a.Outbox.Bytes), size(outbox.DefaultTotalBytes))}
	switch {
	case a.Outbox.Error != "":
		c.Result, c.Detail, c.Next = checkFailed, c.Detail+"; the disk takes nothing more: "+a.Outbox.Error, "make room on the disk, or replace it if it is read-only"
	case share >= fullOutbox:
		c.Result, c.Next = checkWarning, "bring the link back: from here on windows are merged, which keeps their totals and loses resolution"
	}
	return c
}
