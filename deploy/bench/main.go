// Command bench measures Vedette against references in the same run: a C
// program on the same ONNX Runtime, a Node.js server on the same model, what
// parsing and inference alone allow. It prints a table, or JSON with -o json.
// Only ratios of alternated rounds mean anything on a machine that does other
// things as well; absolute bars say so in their row.
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

	"github.com/jedib0t/go-pretty/v6/table"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// bench is one run of the benchmarks.
type bench struct {
	root    string // of the checkout
	dir     string // scratch, removed at the end
	quick   bool   // fewer rounds: shows that everything works
	say     func(format string, args ...any)
	figures []Figure
	plant   *plant // started by the first part that needs one
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

func parts() []part {
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
		fmt.Fprintln(flags.Output(), "usage: bench [flags] agent\n\nMeasures the agent; run from the top of the checkout after `make build`.\n\nParts:")
		for _, p := range parts() {
			fmt.Fprintf(flags.Output(), "  %-8s %s\n", p.name, p.what)
		}
		fmt.Fprintln(flags.Output(), "\nFlags:")
		flags.PrintDefaults()
	}
}

func run(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.Usage = usage(flags)
	only := flags.String("only", "", "comma-separated parts to run (default: all)")
	quick := flags.Bool("quick", false, "fewer rounds: shows that everything works, not how fast it is")
	output := flags.String("o", "text", "text or json")
	hold := flags.Bool("hold", false, "leave the agent up afterwards, for a profiler, until Ctrl-C")
	file := flags.String("json", "", "also write the figures to this file as JSON")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() != 1 || flags.Arg(0) != "agent" {
		flags.Usage()
		return 2
	}
	b, err := newBench(*quick, errOut)
	if err == nil {
		err = b.measure(ctx, *only)
		if *hold && err == nil {
			err = b.hold(ctx)
		}
		err = errors.Join(err, b.close(), b.report(out, *output, *file))
	}
	if err != nil {
		fmt.Fprintln(errOut, "bench:", err)
		return 1
	}
	return 0
}

func newBench(quick bool, errOut io.Writer) (*bench, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the checkout: %w", err)
	}
	b := &bench{root: root, quick: quick, say: func(format string, args ...any) { fmt.Fprintf(errOut, format+"\n", args...) }}
	if _, err := os.Stat(b.program("vedette-agent")); err != nil {
		return nil, fmt.Errorf("find the programs: %w; run `make build` and start from the top of the checkout", err)
	}
	b.dir, err = os.MkdirTemp("", "vedette-bench-")
	return b, err
}

func (b *bench) program(name string) string { return filepath.Join(b.root, "build", "bin", name) }
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

func (b *bench) measure(ctx context.Context, only string) error {
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, name := range wanted {
		if !slices.ContainsFunc(parts(), func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q; see -h", name)
		}
	}
	for _, p := range parts() {
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

// hold keeps the plant standing until ctx ends.
func (b *bench) hold(ctx context.Context) error {
	p, err := b.standing(ctx)
	if err != nil {
		return err
	}
	b.say("the agent %d serves on http://%s; its files are in %s; Ctrl-C ends it", p.agent.cmd.Process.Pid, p.listen, b.dir)
	<-ctx.Done()
	return nil
}

func (b *bench) close() error {
	var err error
	if b.plant != nil {
		err = b.plant.close()
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
