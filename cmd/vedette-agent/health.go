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

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/serve"
	"github.com/vedette-edge/vedette/agent/update"
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

// judgeAgent says what the agent's status means.
func judgeAgent(st *serve.Status, now time.Time) []Check {
	list := []Check{judgeModels(st)}
	if st.Agent == nil {
		return list
	}
	return append(list, judgeLink(st.Agent, now), judgeOutbox(st.Agent))
}

// judgeModels says how the models do. The worst finding is the result, and its
// advice the one that is given.
func judgeModels(st *serve.Status) Check {
	c := Check{Name: "models", Result: checkOK, Detail: "none is assigned to this device"}
	var serving []string
	for _, list := range [][]infer.Status{st.Models, st.Challengers} {
		for _, m := range list {
			serving = append(serving, laneName(&m)+" "+m.Version+" on "+m.Provider)
		}
	}
	if len(serving) > 0 {
		c.Detail = "serving " + strings.Join(serving, ", ")
	}
	if st.Agent == nil {
		return c
	}
	if len(serving) == 0 && len(st.Agent.Updates) > 0 {
		c.Detail = "none serves"
	}
	for _, u := range st.Agent.Updates {
		if found := judgeUpdate(&u, serves(st, u.Model)); found.Result != checkOK {
			c.Detail += "; " + found.Detail
			if c.Result == checkOK || (c.Result == checkWarning && found.Result == checkFailed) {
				c.Result, c.Next = found.Result, found.Next
			}
		}
	}
	return c
}

// challengerSuffix tells a challenger from the model that it runs beside.
const challengerSuffix = " (challenger)"

// laneName is how the agent's updates name what a release is served as.
func laneName(m *infer.Status) string {
	if m.Role == infer.RoleShadow || m.Role == infer.RoleShare {
		return m.Model + challengerSuffix
	}
	return m.Model
}

// serves says whether the model, or the challenger of that name, serves.
func serves(st *serve.Status, name string) bool {
	list := st.Models
	if model, ok := strings.CutSuffix(name, challengerSuffix); ok {
		name, list = model, st.Challengers
	}
	return slices.ContainsFunc(list, func(m infer.Status) bool { return m.Model == name })
}

// judgeUpdate says what the state of one model or challenger means. Nobody waits
// for a challenger's answers, so none of it is a failure of the device.
func judgeUpdate(u *serve.Update, serving bool) Check {
	c := Check{Result: checkOK}
	challenger := strings.HasSuffix(u.Model, challengerSuffix)
	switch {
	case u.Active != "" && !serving && !challenger:
		c.Result, c.Detail = checkFailed, u.Model+" is active but does not serve"
		c.Next = "journalctl -u " + service + " says why it could not be loaded"
	case u.Waiting != "":
		c.Result, c.Detail, c.Next = checkWarning, u.Model+" waits: "+u.Waiting, "vedette-agent status shows its state"
	case u.Active != "" && !serving:
		c.Result, c.Detail = checkWarning, u.Model+" is active but does not run"
		c.Next = "journalctl -u " + service + " says why it could not be loaded"
	case u.Code == "":
	case challenger:
		c.Result, c.Detail = checkWarning, "the last update of "+u.Model+": "+result(*u)
		c.Next = "the model itself serves on; `vedette rollout explain` on an operator's machine says more"
	case u.Active != "":
		c.Result, c.Detail = checkWarning, "the last update of "+u.Model+": "+result(*u)
		c.Next = "the version before serves on; `vedette rollout explain` on an operator's machine says more"
	case u.Target == "":
		c.Result, c.Detail = checkWarning, u.Model+" has no version that works here: "+result(*u)
		c.Next = "publish a mended version and assign it; `vedette rollout explain` on an operator's machine says more"
		if u.Result == update.ResultReverted {
			c.Result = checkFailed // it served, and whoever asked it has no answers now
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
	limit := cmp.Or(a.Outbox.Limit, outbox.DefaultTotalBytes)
	share := a.Outbox.Bytes * 100 / limit
	c := Check{Name: "outbox", Result: checkOK, Detail: fmt.Sprintf("%d records wait, %s of %s", a.Outbox.Pending+a.Outbox.Sent, size(a.Outbox.Bytes), size(limit))}
	switch {
	case a.Outbox.Error != "":
		c.Result, c.Detail, c.Next = checkFailed, c.Detail+"; the disk takes nothing more: "+a.Outbox.Error, "make room on the disk; if it is read-only, mount it writable again, or replace it if it is failing"
	case share >= fullOutbox:
		c.Result, c.Next = checkWarning, "bring the link back: from here on windows are merged, which keeps their totals and loses resolution"
	}
	return c
}
