package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vedette-edge/vedette/agent"
	"github.com/vedette-edge/vedette/agent/identity"
)

// checkAgent asks the running agent what it does. id is the device that doctor
// looks at, nil for none.
func checkAgent(ctx context.Context, s *settings, id *identity.Identity) []Check {
	listen, socket := s.Listen, ""
	if listen == "-" {
		listen, socket = "agent", s.Socket
	}
	where := cmp.Or(socket, listen)
	st, err := fetchStatus(ctx, listen, socket)
	if err != nil {
		return []Check{judgeSilence(s.State, where, err)}
	}
	device, known := "", id != nil || s.State != defaultState // the packaged identity only root can read
	if id != nil {
		device = id.Device()
	}
	if st.Agent != nil && known && st.Agent.Device != "" && st.Agent.Device != device {
		return []Check{{
			Name: "agent", Result: checkSkipped, Detail: "the one at " + where + " is that of another device, " + st.Agent.Device,
			Next: "name the configuration that this device's agent runs with: --config FILE",
		}}
	}
	return judgeAgent(st, time.Now())
}

// judgeSilence says why no agent answered: there is none, or it hangs.
func judgeSilence(state, where string, err error) Check {
	c := Check{Name: "agent", Result: checkSkipped, Detail: "none answers at " + where, Next: "start it: " + howToRun(state)}
	locks, _ := readBounded("/proc/locks", maxLocks) // without it nothing is known of other processes
	pid := holder(string(locks), filepath.Join(state, agent.LockFile))
	if pid == 0 {
		return c
	}
	restart := fmt.Sprintf("end process %d and start the agent again: %s", pid, howToRun(state))
	if state == defaultState {
		restart = "sudo systemctl restart " + service
	}
	if wait, ok := errors.AsType[net.Error](err); ok && wait.Timeout() {
		c.Result, c.Detail = checkFailed, fmt.Sprintf("process %d holds %s, but does not answer at %s: it hangs", pid, state, where)
		c.Next = restart
		return c
	}
	c.Result, c.Detail = checkWarning, fmt.Sprintf("process %d holds %s, but nothing listens at %s", pid, state, where)
	c.Next = "if it was just started, ask again; if it listens elsewhere, name its configuration: --config FILE; else " + restart
	return c
}

// maxLocks bounds what is read of the kernel's list of locks, in bytes.
const maxLocks = 1 << 20

// holder is the process that holds the file locked, 0 for none, by the kernel's
// list (proc(5), /proc/locks). To try the lock could keep an agent from starting.
func holder(locks, path string) int {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	inode := ":" + strconv.FormatUint(st.Ino, 10)
	for line := range strings.Lines(locks) {
		f := strings.Fields(line) // 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF
		if len(f) >= 6 && f[1] == "FLOCK" && strings.HasSuffix(f[5], inode) {
			pid, _ := strconv.Atoi(f[4])
			return max(pid, 0)
		}
	}
	return 0
}
