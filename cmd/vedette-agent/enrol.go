package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent"
	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/protocol/release"
)

// maxRoot bounds a root.json in bytes.
const maxRoot = 1 << 20

// maxToken bounds a token in bytes.
const maxToken = 16 << 10

type enrolFlags struct {
	state, device, root string
	replace             bool
}

// Enrolled is what `enrol -o json` prints.
type Enrolled struct {
	Device    string         `json:"device"`
	DeviceAPI string         `json:"device_api"`
	MQTT      []string       `json:"mqtt"`
	Root      release.Digest `json:"root"`
	Expires   time.Time      `json:"certificate_expires"`
}

func (a *app) enrolCommand() *cobra.Command {
	f := &enrolFlags{}
	cmd := &cobra.Command{
		Use:     "enrol TOKEN",
		Aliases: []string{"enroll"},
		Short:   "Give this device its identity, once",
		Long: `enrol makes a key on this device, which never leaves it, and gets a certificate for
it. The token comes from ` + "`vedette device token create`" + `; it names the control plane,
pins its certificate authority and the root of the publishers' signatures, and
works once. "-" reads the token from standard input, which keeps it out of the
shell's history.

It can be repeated after an interruption with the same token. A device whose
image brings the publishers' root.json compares it with the token's (--root).`,
		Example: "  vedette-agent enrol vdt1...\n  vedette-agent enrol - --root /etc/vedette/root.json < token",
		Args:    arguments("TOKEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.enrol(cmd, f, args[0])
		},
	}
	stateFlag(cmd, &f.state)
	cmd.Flags().StringVar(&f.device, "device", "", "device id to ask for (default: from the token, or made)")
	cmd.Flags().StringVar(&f.root, "root", "", "root.json of this device's image; refuse a token with another")
	cmd.Flags().BoolVar(&f.replace, "replace", false, "enrol although this device is enrolled already")
	return cmd
}

func (a *app) enrol(cmd *cobra.Command, f *enrolFlags, token string) error {
	opts := identity.Options{Device: f.device, Replace: f.replace}
	if f.root != "" {
		raw, err := readBounded(f.root, maxRoot)
		if err != nil {
			return fmt.Errorf("read root: %w", err)
		}
		opts.Root = release.DigestOf(raw)
	}
	if token == "-" {
		raw, err := io.ReadAll(io.LimitReader(a.in, maxToken))
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		token = string(raw)
	}
	if err := becomeOwner(f.state); err != nil {
		return err
	}
	dir := filepath.Join(f.state, agent.IdentityDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w; choose another with --state", err)
	}
	id, err := identity.Enrol(cmd.Context(), dir, strings.TrimSpace(token), opts)
	if err != nil {
		return err
	}
	e := Enrolled{Device: id.Device(), DeviceAPI: id.DeviceAPI(), MQTT: id.MQTT(), Root: id.RootDigest(), Expires: id.Expires()}
	return a.print(e, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "enrolled as %s\ncontrol plane  %s\nMQTT           %s\ncertificate    until %s, renewed by itself\nnext           %s\n",
			e.Device, e.DeviceAPI, strings.Join(e.MQTT, ", "), e.Expires.Format(time.DateOnly), howToRun(f.state))
		return err
	})
}

// readBounded reads a file of at most limit bytes; a longer one is an error.
func readBounded(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return raw, err
}
