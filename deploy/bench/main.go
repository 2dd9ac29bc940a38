// Command bench measures Vedette. "agent" sets the agent against references in
// the same run: a C program on the same ONNX Runtime, a Node.js server on the
// same model, what parsing and inference alone allow. "fleet" puts thousands of
// simulated agents, over MQTT and TLS, on one real control plane, and times the
// rollout engine alone. "registry" logs a hundred thousand runs with the MLflow
// API and searches among them. It prints a table, or JSON with -o json. Only ratios of
// alternated rounds mean anything on a machine that does other things as well;
// absolute bars say so in their row.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// bench is one run of the benchmarks.
type bench struct {
	root    string // of the checkout
	dir     string // scratch, removed at the end
	bin     string // folder of the programs
	quick   bool   // fewer rounds: shows that everything works
	say     func(format string, args ...any)
	figures []Figure
	plant   *plant // started by the first part that needs one
	size    fleetSize
	fleet   *fleet // likewise
	runs    int    // that registry logs; 0 for the number its bars are stated for
}

// Figure is one row of the result.
type Figure struct {
	Part   string  `json:"part"`
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Bar    string  `json:"bar"`
	Met    bool    `json:"met"`
	Detail string  `json:"detail,omitempty"`
}

// part is a group of figures that can be asked for by name.
type part struct {
	name, what string
	run        func(*bench, context.Context) error
}

// subjects are what can be measured, each with its parts.
func subjects() map[string][]part {
	return map[string][]part{"agent": agentParts(), "fleet": fleetParts(), "registry": registryParts()}
}

func agentParts() []part {
	return []part{
		{"c", "Go against a C program on the same library", (*bench).againstC},
		{"http", "the agent's HTTP server against Node.js with onnxruntime-node", (*bench).againstNode},
		{"score", "offline scoring against what parsing and inference alone allow", (*bench).scoring},
		{"observe", "cost of watching a prediction", (*bench).observing},
		{"uplink", "size of a window on the wire", (*bench).onTheWire},
		{"memory", "resident memory", (*bench).memory},
		{"start", "start to first prediction", (*bench).starting},
		{"swap", "another version under load", (*bench).swapping},
	}
}

func usage(flags *flag.FlagSet) func() {
	return func() {
		fmt.Fprintln(flags.Output(), "usage: bench [flags] agent|fleet|registry\n\nRun from the top of the checkout after `make build`.")
		for _, subject := range []string{"agent", "fleet", "registry"} {
			fmt.Fprintf(flags.Output(), "\nParts of %s:\n", subject)
			for _, p := range subjects()[subject] {
				fmt.Fprintf(flags.Output(), "  %-8s %s\n", p.name, p.what)
			}
		}
		fmt.Fprintln(flags.Output(), "\nFlags:")
		flags.PrintDefaults()
	}
}

// options are the flags of a run.
type options struct {
	only, output, file, bin, state string
	runs                           int
	quick, hold, keep              bool
	size                           fleetSize
}

func (o *options) register(flags *flag.FlagSet) {
	flags.StringVar(&o.only, "only", "", "comma-separated parts to run (default: all)")
	flags.BoolVar(&o.quick, "quick", false, "fewer rounds, a small fleet: shows that everything works, not how fast it is")
	flags.StringVar(&o.output, "o", "text", "text or json")
	flags.BoolVar(&o.hold, "hold", false, "leave everything up afterwards, for a profiler, until Ctrl-C")
	flags.StringVar(&o.file, "json", "", "also write the figures to this file as JSON")
	flags.StringVar(&o.bin, "bin", filepath.Join("build", "bin"), "folder of the programs")
	flags.BoolVar(&o.keep, "keep", false, "leave the scratch folder behind and say where it is")
	flags.StringVar(&o.state, "state", "", "fleet: folder for the control plane's data and the devices' identities, used again by the next run")
	flags.IntVar(&o.runs, "runs", 0, "registry: how many runs (default 100000, quick 2000)")
	flags.IntVar(&o.size.devices, "devices", 0, "fleet: how many agents (default 10000, quick 500; at most what the limit of open files allows)")
	flags.DurationVar(&o.size.report, "report", 0, "fleet: time between two reports and length of a window (default 1m, quick 5s)")
	flags.DurationVar(&o.size.jitter, "jitter", 0, "fleet: over how long agents spread their reconnects (default 30s, quick 5s)")
	flags.DurationVar(&o.size.steady, "steady", 0, "fleet: length of the steady phase (default 1m, quick 20s)")
}

func run(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.Usage = usage(flags)
	var o options
	o.register(flags)
	if err := flags.Parse(args); err != nil {
		return 2
	}
	parts, known := subjects()[flags.Arg(0)]
	if flags.NArg() != 1 || !known {
		flags.Usage()
		return 2
	}
	if err := measure(ctx, parts, o, out, errOut); err != nil {
		fmt.Fprintln(errOut, "bench:", err)
		return 1
	}
	return 0
}

func measure(ctx context.Context, parts []part, o options, out, errOut io.Writer) error {
	b, err := newBench(o, errOut)
	if err != nil {
		return err
	}
	err = b.measure(ctx, parts, o.only)
	if o.hold && err == nil {
		err = b.hold(ctx)
	}
	return errors.Join(err, b.close(o), b.report(out, o.output, o.file))
}

func newBench(o options, errOut io.Writer) (*bench, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the checkout: %w", err)
	}
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, fmt.Errorf("find the programs: %w", err)
	}
	b := &bench{
		root: root, bin: bin, quick: o.quick, size: o.size.withDefaults(o.quick), runs: o.runs,
		say: progress(errOut, time.Now()),
	}
	if _, err := os.Stat(b.program("vedette-agent")); err != nil {
		return nil, fmt.Errorf("find the programs: %w; run `make build` and start from the top of the checkout", err)
	}
	if o.state != "" {
		b.dir, err = filepath.Abs(o.state)
		return b, errors.Join(err, os.MkdirAll(o.state, 0o700))
	}
	b.dir, err = os.MkdirTemp("", "vedette-bench-")
	return b, err
}

func (b *bench) program(name string) string { return filepath.Join(b.bin, name) }
func (b *bench) library() string {
	return filepath.Join(b.root, "build", "onnxruntime", "libonnxruntime.so.1")
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

// rounds is n, or few for a quick run.
func (b *bench) rounds(n int) int {
	if b.quick {
		return min(n, 3)
	}
	return n
}

// progress prints lines with the minutes and seconds since the start.
func progress(to io.Writer, began time.Time) func(format string, args ...any) {
	return func(format string, args ...any) {
		s := int(time.Since(began).Seconds())
		fmt.Fprintf(to, "%02d:%02d "+format+"\n", append([]any{s / 60, s % 60}, args...)...)
	}
}

func (b *bench) measure(ctx context.Context, parts []part, only string) error {
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, name := range wanted {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q; see -h", name)
		}
	}
	for _, p := range parts {
		if len(wanted) > 0 && !slices.Contains(wanted, p.name) {
			continue
		}
		b.say("measuring %s", p.what)
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// hold keeps everything standing until ctx ends.
func (b *bench) hold(ctx context.Context) error {
	if b.fleet == nil {
		p, err := b.standing(ctx)
		if err != nil {
			return err
		}
		b.say("the agent %d serves on http://%s; its files are in %s; Ctrl-C ends it", p.agent.cmd.Process.Pid, p.listen, b.dir)
	} else {
		b.say("the control plane %d serves %d agents; its files are in %s; Ctrl-C ends it", b.fleet.plant.control.cmd.Process.Pid, len(b.fleet.devices), b.dir)
	}
	<-ctx.Done()
	return nil
}

func (b *bench) close(o options) error {
	var err error
	if b.fleet != nil {
		b.fleet.close()
	}
	if b.plant != nil {
		err = b.plant.close()
	}
	if o.keep || o.state != "" {
		b.say("the files of this run are in %s", b.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// atMost and atLeast record a figure with its bar.
func (b *bench) atMost(f Figure, bar float64) {
	f.Bar, f.Met = fmt.Sprintf("≤ %g", bar), f.Value <= bar
	b.add(f)
}

func (b *bench) atLeast(f Figure, bar float64) {
	f.Bar, f.Met = fmt.Sprintf("≥ %g", bar), f.Value >= bar
	b.add(f)
}

func (b *bench) add(f Figure) {
	b.say("  %s: %s %s  %s  %s", f.What, number(f.Value), f.Unit, f.Bar, f.Detail)
	b.figures = append(b.figures, f)
}

func number(v float64) string { return fmt.Sprintf("%.4g", v) }

func (b *bench) report(out io.Writer, format, file string) error {
	text, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	if file != "" {
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil { //nolint:gosec // a result to share
			return fmt.Errorf("write figures: %w", err)
		}
	}
	if format == "json" {
		_, err := fmt.Fprintln(out, string(text))
		return err
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"part", "what", "value", "bar", "", "detail"})
	for _, f := range b.figures {
		t.AppendRow(table.Row{f.Part, f.What, number(f.Value) + " " + f.Unit, f.Bar, verdict(f), f.Detail})
	}
	_, err = fmt.Fprintln(out, t.Render())
	return err
}

func verdict(f Figure) string {
	switch {
	case f.Bar == "":
		return ""
	case f.Met:
		return "met"
	}
	return "MISSED"
}

// output runs a command to its end; its error holds what it complained of.
func (b *bench) output(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return out, fmt.Errorf("run %s: %w", filepath.Base(name), err)
	}
	return out, nil
}
