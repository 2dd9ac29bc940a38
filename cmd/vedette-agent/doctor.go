package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent"
	"github.com/vedette-edge/vedette/agent/host"
	"github.com/vedette-edge/vedette/agent/identity"
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
	var state string
	var offline bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out why the agent does not work here",
		Long: `doctor looks at everything that the agent needs: ONNX Runtime and its execution
providers, the state directory, room on the disk, the clock, the device's identity
and whether the control plane can be reached and takes this device. It changes nothing. It says what to
do about each problem and exits with 1 if there is one.`,
		Example: "  vedette-agent doctor\n  vedette-agent doctor --offline -o json",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := a.examine(cmd.Context(), state, offline)
			if err := a.print(f, func(w io.Writer) error { return writeFindings(w, f) }); err != nil {
				return err
			}
			if !f.OK {
				return errReported
			}
			return nil
		},
	}
	stateFlag(cmd, &state)
	cmd.Flags().BoolVar(&offline, "offline", false, "do not try to reach the control plane")
	return cmd
}

// examine makes all checks, each of which stands alone.
func (a *app) examine(ctx context.Context, state string, offline bool) Findings {
	f := Findings{OK: true}
	f.Checks = append(f.Checks, a.checkRuntime(ctx, "")...)
	f.Checks = append(f.Checks, checkState(state), checkDisk(state), checkClock(time.Now()))
	id, c := checkIdentity(state)
	f.Checks = append(f.Checks, c)
	f.Checks = append(f.Checks, checkReach(ctx, id, offline)...)
	for _, c := range f.Checks {
		if c.Result == checkFailed {
			f.OK = false
		}
	}
	return f
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
	if err != nil {
		c.Result, c.Detail, c.Next = checkFailed, err.Error(), "run doctor as the user that runs the agent, or make the directory that user's own"
		return c
	}
	c.Result, c.Detail = checkOK, dir+" can be written"
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

// checkClock only warns: the agent works with a wrong clock, on the time that
// the control plane tells it.
func checkClock(now time.Time) Check {
	c := Check{Name: "clock", Result: checkOK, Detail: now.UTC().Format(time.RFC3339)}
	if now.Year() < minYear {
		c.Result, c.Detail = checkWarning, c.Detail+", which cannot be"
		c.Next = "set the clock (NTP, or a battery-backed one); until then the control plane's time is used"
	}
	return c
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
	if left < maxRenewal {
		c.Result = checkWarning
		c.Next = "it should have been renewed: let the agent run and reach the control plane"
	}
	return id, c
}

// checkReach tries every address of the control plane as the agent would.
func checkReach(ctx context.Context, id *identity.Identity, offline bool) []Check {
	const name = "control plane"
	switch {
	case offline:
		return []Check{{Name: name, Result: checkSkipped, Detail: "--offline"}}
	case id == nil:
		return []Check{{Name: name, Result: checkSkipped, Detail: "this device has no identity to connect with"}}
	}
	var list []Check
	for _, u := range append([]string{id.DeviceAPI()}, id.MQTT()...) {
		c := Check{Name: name, Result: checkOK, Detail: u}
		if err := dial(ctx, u, id.TLS()); err != nil {
			c.Result, c.Detail = checkFailed, u+": "+err.Error()
			c.Next = "check network, name resolution and firewall between here and this address"
		}
		list = append(list, c)
	}
	if list[0].Result == checkOK { // an address that answers may still refuse this device
		list = append(list, checkAdmission(ctx, id))
	}
	return list
}

// checkAdmission asks whether the certificate is still taken: a connection does
// not tell.
func checkAdmission(ctx context.Context, id *identity.Identity) Check {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return admission(id.Device(), id.Admitted(ctx))
}

// admission says what a refusal means and what to do about it.
func admission(device string, err error) Check {
	c := Check{Name: "admission", Result: checkFailed}
	var refused *protocol.APIError
	errors.As(err, &refused)
	switch {
	case err == nil:
		c.Result, c.Detail = checkOK, "the control plane takes the certificate of "+device
	case errors.Is(err, identity.ErrRevoked):
		c.Detail = device + " was revoked: the control plane takes nothing of this device and gives it nothing"
		c.Next = "ask an operator; if it is to come back, enrol again (vedette-agent enrol --replace) with a token made by " +
			"`vedette device token create --device " + device + " --replace`"
	case refused != nil && refused.Code == protocol.CodeCertificate:
		c.Detail = refused.Message
		c.Next = "let the agent run, which renews an expired certificate by itself for 180 days; after that, enrol again"
	default:
		c.Result, c.Detail = checkWarning, err.Error()
		c.Next = "whether the control plane takes this device is not known: try again later, and look at the control plane's log"
	}
	return c
}

// dial makes a TLS connection as the device and closes it.
func dial(ctx context.Context, address string, config *tls.Config) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName = u.Hostname()
	}
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: config}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	return conn.Close()
}

func writeFindings(w io.Writer, f Findings) error {
	for _, c := range f.Checks {
		if _, err := fmt.Fprintf(w, "%-8s %s: %s\n", c.Result, c.Name, c.Detail); err != nil {
			return err
		}
		if c.Next != "" {
			if _, err := fmt.Fprintf(w, "         → %s\n", c.Next); err != nil {
				return err
			}
		}
	}
	return nil
}
