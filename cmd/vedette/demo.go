package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/deploy/demo"
)

// demoCommand tells the whole story on one machine.
func demoCommand(a *app) *cobra.Command {
	return group("demo", "Run a whole fleet on this machine and watch it work",
		`Runs a control plane, eight agents on three sites and their cameras on this
machine, for real: models are signed and rolled out, a link is cut, lenses fade,
a sensor dies, a new version mends it, a damaged one is refused.`,
		demoRunCommand(), demoCheckCommand(a))
}

// demoFlags say where a demo lives.
type demoFlags struct {
	bin, dir string
	kill     bool
}

func (f *demoFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.bin, "bin", "", "folder of vedette-agent and vedette-control (default: that of this program)")
	cmd.Flags().StringVar(&f.dir, "dir", filepath.Join("build", "demo"), "folder for keys, data and logs; emptied first")
	cmd.Flags().BoolVar(&f.kill, "kill", false, "kill devices and the control plane on the way")
}

func (f *demoFlags) options() (demo.Options, error) {
	o := demo.Options{Bin: f.bin, Kill: f.kill, Log: os.Stderr}
	if o.Bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find this program: %w", err)
		}
		o.Bin = filepath.Dir(exe)
	}
	for _, name := range []string{"vedette", "vedette-agent", "vedette-control"} {
		if _, err := os.Stat(filepath.Join(o.Bin, name)); err != nil {
			return o, usagef("%s is not in %s: build it with 'make build', or say where it is with --bin", name, o.Bin)
		}
	}
	dir, err := filepath.Abs(f.dir)
	o.Dir = dir
	return o, err
}

func demoRunCommand() *cobra.Command {
	var f demoFlags
	var address string
	cmd := &cobra.Command{
		Use: "run", Short: "Tell the story, then stay up until Ctrl-C", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := f.options()
			if err != nil {
				return err
			}
			o.HTTP, o.Stay = address, true
			_, err = demo.Run(cmd.Context(), o)
			return err
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&address, "http", "127.0.0.1:8480", "address of the dashboard")
	return cmd
}

func demoCheckCommand(a *app) *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use: "check", Short: "Tell the story, assert every step, print the numbers as JSON", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := f.options()
			if err != nil {
				return err
			}
			result, err := demo.Run(cmd.Context(), o)
			if result != nil {
				enc := json.NewEncoder(a.out)
				enc.SetIndent("", "  ")
				err = errors.Join(err, enc.Encode(result))
			}
			return err
		},
	}
	f.register(cmd)
	return cmd
}
