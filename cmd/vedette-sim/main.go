// Vedette-sim runs whole fleets in one process and in virtual time: the real
// update machines and outbox accounting of thousands of devices, the real
// rollout engine, runner, desired state and ledger rules of the server, and
// between them a scripted network, disks, runtimes, clocks and power. Everything
// follows from one seed. After every event it checks what must always hold.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// errFound says that a simulation came upon something that must not be.
var errFound = errors.New("the simulation found something that must not be")

// main lets the collector rest: a simulation makes much and keeps little.
func main() {
	debug.SetGCPercent(400)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.Execute()
	switch {
	case errors.Is(err, errFound):
		return 1
	case err != nil:
		fmt.Fprintln(stderr, "vedette-sim:", err)
		return 2
	}
	return 0
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vedette-sim",
		Short: "Simulate fleets of devices under the real rollout engine",
		Long: `Vedette-sim lets fleets of devices live through rollouts in virtual time, in one
process and without a network. Devices are the agent's real update machine and
outbox accounting; the server is the real fleet, rollout engine, runner, desired
state and ledger. Scripted are the network (it loses, repeats, delays and
reorders), disks, model runtimes, clocks, power and operators.

After every event it checks what must always hold: no device has two primary
releases of a model, nothing unsigned or below the floor becomes active, no more
devices are told to run a release than its waves and budget allow, the control
group waits for the last wave, a rollout whose gate fails stops within seconds,
every state has a deadline, no device is told anything that is not in the ledger,
and what the server counts is what devices counted less what they report lost.
In the end everything is healed, must come to rest, and the ledger must replay.

Everything follows from the seed: the same seed is the same simulation.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	cmd.AddCommand(runCommand(), scenariosCommand())
	return cmd
}

func scenariosCommand() *cobra.Command {
	return &cobra.Command{
		Use: "scenarios", Short: "List the kinds of trouble", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, s := range scenarios {
				fmt.Fprintf(w, "%s\t%s\n", s.name, s.about)
			}
			return w.Flush()
		},
	}
}

// options are the flags of run.
type options struct {
	seed, seeds uint64
	scenario    string
	devices     int
	days        float64
	length      time.Duration
	verbose     bool
	output      string
}

func runCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run simulations and say what happened",
		Long: `Run runs simulations and prints a summary. When one comes upon something that
must not be, it prints what, the last events of those concerned and the command
that shows the same simulation again, and ends with status 1.

A seed of its own size takes about 60 ms. A fleet of 5000 devices with two days of
trouble takes two to three minutes, and says on stderr
how far it is; the time grows with devices and days.`,
		Example: `  vedette-sim run --seeds 1000
  vedette-sim run --seed 17 -v
  vedette-sim run --scenario partition --seeds 100
  vedette-sim run --seed 1 --devices 5000 --days 2`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.Uint64Var(&o.seed, "seed", 0, "seed of the first simulation")
	f.Uint64Var(&o.seeds, "seeds", 1, "how many simulations to run, with seeds in a row")
	f.StringVar(&o.scenario, "scenario", scenarios[0].name, "what goes wrong; see vedette-sim scenarios")
	f.IntVar(&o.devices, "devices", 0, "size of the fleet, 0 lets the seed decide")
	f.Float64Var(&o.days, "days", 0, "how long there is trouble, in days of virtual time; 0 lets the seed decide")
	f.DurationVar(&o.length, "length", 0, "the same as a duration, for example 90m")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "print every event of the server, the operators and the devices")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	cmd.MarkFlagsMutuallyExclusive("days", "length")
	return cmd
}

func (o *options) check() (scenario, error) {
	s, ok := findScenario(o.scenario)
	switch {
	case !ok:
		return s, fmt.Errorf("there is no scenario %q: list them with `vedette-sim scenarios`", o.scenario)
	case o.seeds == 0:
		return s, errors.New("--seeds must be at least 1")
	case o.devices < 0 || o.devices > maxDevices:
		return s, fmt.Errorf("--devices must be 0 to %d", maxDevices)
	case o.days < 0 || o.length < 0:
		return s, errors.New("--days and --length must not be negative")
	case o.output != "text" && o.output != "json":
		return s, fmt.Errorf("--output is %q, must be text or json", o.output)
	}
	if o.days > 0 {
		o.length = time.Duration(o.days * float64(days(1)))
	}
	return s, nil
}

// maxDevices bounds a simulated fleet: each device takes about 20 KB.
const maxDevices = 100_000

func (o *options) run(cmd *cobra.Command) error {
	s, err := o.check()
	if err != nil {
		return err
	}
	p := &printer{out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), verbose: o.verbose, json: o.output == "json", scenario: s.name, total: map[string]int{}}
	for seed := o.seed; seed < o.seed+o.seeds; seed++ {
		w := newWorld(plan{seed: seed, scenario: s, devices: o.devices, length: o.length})
		p.begin(w)
		err := w.run()
		p.end(w, err)
		if err != nil {
			return errors.Join(errFound, p.summary())
		}
	}
	return p.summary()
}

// again is the command that shows a simulation again.
func (p plan) again() string {
	cmd := []string{"go run ./cmd/vedette-sim run", fmt.Sprintf("--seed %d", p.seed)}
	if p.scenario.name != scenarios[0].name {
		cmd = append(cmd, "--scenario "+p.scenario.name)
	}
	if p.devices > 0 {
		cmd = append(cmd, fmt.Sprintf("--devices %d", p.devices))
	}
	if p.asked > 0 {
		cmd = append(cmd, fmt.Sprintf("--length %v", p.asked))
	}
	return strings.Join(append(cmd, "-v"), " ")
}
