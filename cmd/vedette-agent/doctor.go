package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vedette-edge/vedette/agent"
	"github.com/vedette-edge/vedette/agent/host"
	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/protocol"
)

// Outcomes of a check.
const (
	checkOK      = "ok"
	checkWarning = "warning" // works, but somebody should look
	checkFailed  = "failed"
	checkSkipped = "skipped"
)

// What a healthy device has.
const (
	// minDisk holds two versions of a model of 100 MB and the outbox.
	minDisk = 256 << 20
	// minYear tells a clock that was never set.
	minYear = 2025
	// connectTimeout is for one address.
	connectTimeout = 5 * time.Second
	// maxRenewal is how long before its end a certificate should have been renewed.
	maxRenewal = 7 * 24 * time.Hour
)

// Check is one thing that doctor looked at.
type Check struct {
	Name   string `json:"name"`
	Result string `json:"result"` // ok, warning, failed or skipped
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"` // what to do about it
}

// Findings is what `doctor -o json` prints.
type Findings struct {
	OK     bool    `json:"ok"` // nothing failed
	Checks []Check `json:"checks"`
}

func (a *app) doctorCommand() *cobra.Command {
	d := &doctor{app: a}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out why the agent does not work here",
		Long: `doctor looks at everything that the agent needs and does: its configuration, ONNX
Runtime and its execution providers, the state directory, room on the disk, the
clock, the device's identity, whether the control plane can be reached and takes
this device, the service, the models it serves and what waits to be sent. It
changes nothing. It says what to do about each problem and exits with 1 if one
keeps the agent from working ("failed"; a "warning" does not).

Started by root it looks as the user that owns the state directory, who is the
one that the service runs as.`,
		Example: "  sudo vedette-agent doctor\n  vedette-agent doctor --offline -o json",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := d.examine(cmd.Context(), cmd.Flags())
			if err != nil {
				return err
			}
			if err := a.print(f, func(w io.Writer) error { return writeFindings(w, f) }); err != nil {
				return err
			}
			if !f.OK {
				return errReported
			}
			return nil
		},
	}
	stateFlag(cmd, &d.State)
	bind(cmd.Flags(), "state", "state")
	configFlag(cmd, &d.config)
	cmd.Flags().BoolVar(&d.offline, "offline", false, "do not try to reach the control plane")
	return cmd
}

// doctor is what the checks go by.
type doctor struct {
	*app
	settings
	config  string
	offline bool
}

// examine makes all checks, each of which stands alone: what one finds does not
// keep the others from looking.
func (d *doctor) examine(ctx context.Context, flags *pflag.FlagSet) (Findings, error) {
	var f Findings
	f.add(d.checkConfig(flags))
	if err := becomeOwner(d.State); err != nil {
		return f, err
	}
	f.add(d.checkRuntime(ctx, d.Profile)...)
	f.add(checkState(d.State), checkDisk(d.State))
	id, c := checkIdentity(d.State)
	f.add(checkClock(time.Now(), id), c, checkSurroundings(d.Link.Metered))
	f.add(checkReach(ctx, id, d.offline)...)
	f.add(checkService(ctx, d.State, id != nil))
	f.add(checkAgent(ctx, &d.settings, id)...)
	f.OK = !slices.ContainsFunc(f.Checks, func(c Check) bool { return c.Result == checkFailed })
	return f, nil
}

func (f *Findings) add(checks ...Check) { f.Checks = append(f.Checks, checks...) }

// checkConfig reads the configuration as run would; what it cannot use is left
// at its default for the other checks.
func (d *doctor) checkConfig(flags *pflag.FlagSet) Check {
	c := Check{Name: "configuration"}
	path := configPath(flags, d.config)
	file, err := d.resolve(flags, path)
	if d.library == "" && os.Getenv(onnx.EnvLibrary) == "" {
		d.library = d.OnnxRuntime
	}
	switch {
	case err != nil:
		c.Result, c.Detail = checkFailed, strings.ReplaceAll(err.Error(), "\n", "; ")
		c.Next = "correct it; `vedette-agent run --check` says whether it is right then"
	case !file.found:
		c.Result, c.Detail = checkOK, "no file "+path+": everything has its default"
	default:
		c.Result, c.Detail = checkOK, path+" is valid"
		if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o002 != 0 {
			c.Result, c.Detail = checkWarning, path+" can be changed by everybody on this device"
			c.Next = "chmod o-w " + path
		}
	}
	if open := d.open(); c.Result == checkOK && len(open) > 0 {
		c.Result, c.Detail, c.Next = checkWarning, c.Detail+"; "+strings.Join(open, "; "), "listen on 127.0.0.1 or on a socket, unless only trusted programs can reach this device"
	}
	return c
}

func checkState(dir string) Check {
	c := Check{Name: "state directory"}
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.Result, c.Detail, c.Next = checkFailed, dir+" does not exist", "enrol this device, or name the directory with --state"
		return c
	case err != nil:
		c.Result, c.Detail, c.Next = checkFailed, err.Error(), "run doctor as the user that runs the agent"
		return c
	case !st.IsDir():
		c.Result, c.Detail, c.Next = checkFailed, dir+" is not a directory", "name another with --state"
		return c
	}
	probe, err := os.CreateTemp(dir, ".doctor-*")
	if err == nil {
		err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	if errors.Is(err, syscall.EROFS) {
		c.Result, c.Detail = checkFailed, err.Error()
		c.Next = "mount the disk writable again, or replace it if it is failing (the kernel's log says why: journalctl -k)"
		return c
	}
	if err != nil {
		c.Result, c.Detail, c.Next = checkFailed, err.Error(), "run doctor as the user that runs the agent, or make the directory that user's own"
		return c
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 {
		c.Result, c.Detail = checkWarning, fmt.Sprintf("%s has the mode %04o: others on this device can look into it", dir, perm)
		c.Next = "chmod 0700 " + dir + ": it holds the device's key"
		return c
	}
	c.Result, c.Detail = checkOK, dir+" can be written, and by nobody else"
	return c
}

func checkDisk(dir string) Check {
	c := Check{Name: "disk"}
	d, err := host.Disk(existing(dir))
	switch {
	case err != nil:
		c.Result, c.Detail = checkFailed, err.Error()
	case d.Free < minDisk:
		c.Result, c.Detail = checkWarning, size(d.Free)+" free of "+size(d.Total)
		c.Next = "make room: an update needs space for a second version of each model"
	default:
		c.Result, c.Detail = checkOK, size(d.Free)+" free of "+size(d.Total)
	}
	return c
}

// existing is dir or the nearest folder above it that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// maxClockError is how far a clock may be behind the trusted time unnoticed.
const maxClockError = 5 * time.Minute

// checkClock only warns: the agent works with a wrong clock, on the time that
// the control plane tells it. The identity, where there is one, knows a time
// that has certainly passed.
func checkClock(now time.Time, id *identity.Identity) Check {
	c := Check{Name: "clock", Result: checkOK, Detail: now.UTC().Format(time.RFC3339)}
	const next = "set the clock (NTP, or a battery-backed one); until then the control plane's time is used"
	if now.Year() < minYear {
		c.Result, c.Detail, c.Next = checkWarning, c.Detail+", which cannot be", next
		return c
	}
	if id == nil {
		return c
	}
	if known := id.Now(); known.Sub(now) > maxClockError {
		c.Result, c.Detail, c.Next = checkWarning, fmt.Sprintf("%s, but it was %s already", c.Detail, known.UTC().Format(time.RFC3339)), next
	}
	return c
}

// checkSurroundings says what rollouts that wait for link, power or the time of
// day will know of this device.
func checkSurroundings(metered string) Check {
	if metered == agent.MeteredAuto {
		metered = host.Metered()
	}
	supply, zone := host.Power(), host.TimeZone()
	return Check{
		Name: "surroundings", Result: checkOK,
		Detail: fmt.Sprintf("link %s; power %s; time zone %s", protocol.MeteredText(metered), protocol.PowerText(supply.Power, supply.Percent), cmp.Or(zone, "not known, taken for UTC")),
	}
}

func checkIdentity(state string) (*identity.Identity, Check) {
	c := Check{Name: "identity"}
	id, err := identity.Load(filepath.Join(state, agent.IdentityDir))
	if err != nil {
		c.Result, c.Detail = checkFailed, err.Error()
		return nil, c
	}
	left := id.Expires().Sub(id.Now())
	c.Result, c.Detail = checkOK, fmt.Sprintf("%s, certificate until %s", id.Device(), id.Expires().Format(time.DateOnly))
	switch {
	case left <= 0:
		c.Result, c.Detail = checkWarning, fmt.Sprintf("%s, whose certificate ended on %s", id.Device(), id.Expires().Format(time.DateOnly))
		c.Next = "let the agent run and reach the control plane: it renews an expired certificate by itself for 180 days"
	case left < maxRenewal:
		c.Result = checkWarning
		c.Next = "it should have been renewed: let the agent run and reach the control plane"
	}
	return id, c
}

// writeFindings prints a table, what to do below each problem, and the sum.
func writeFindings(w io.Writer, f Findings) error {
	width, counts := 0, map[string]int{}
	for _, c := range f.Checks {
		width = max(width, len(c.Name)+1)
		counts[c.Result]++
	}
	var b strings.Builder
	for _, c := range f.Checks {
		fmt.Fprintf(&b, "%-8s %-*s %s\n", c.Result, width, c.Name+":", c.Detail)
		if c.Next != "" {
			fmt.Fprintf(&b, "%*s → %s\n", width+8, "", c.Next)
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %d warnings, %d failed, %d skipped\n", counts[checkOK], counts[checkWarning], counts[checkFailed], counts[checkSkipped])
	_, err := io.WriteString(w, b.String())
	return err
}
