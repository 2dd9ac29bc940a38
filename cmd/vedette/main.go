// Command vedette is the tool of operators and publishers: it signs and
// publishes models with keys that never leave this machine, watches the fleet
// and drives rollouts through the operator API.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // replays decisions with windows, on machines without zoneinfo

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/operator"
)

var version = "dev" // set by the build

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1 // it was refused, or did not work
	exitUsage   = 2 // the command line makes no sense
	exitOutcome = 3 // a rollout that was waited for came to another end
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is main with everything it touches as an argument.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: in, out: out, err: errOut}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitFailed // the person who pressed Ctrl-C knows why it ended
	}
	a.explain(err)
	if _, usage := errors.AsType[*usageError](err); usage {
		return exitUsage
	}
	if _, outcome := errors.AsType[*outcomeError](err); outcome {
		return exitOutcome
	}
	return exitFailed
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "vedette",
		Short: "Publish models to a fleet of devices, roll them out, watch them",
		Long: `vedette publishes signed models to a fleet of edge devices, rolls them out in
waves and shows what the devices report. It talks to a vedette-control server.

Start with "vedette login"; then "vedette status" shows the fleet.`,
		Version: version, SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.check() },
		Args:              onlyCommands, RunE: help,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w (see %q)", err, cmd.CommandPath()+" --help")
	})
	a.globalFlags(root)
	root.AddGroup(
		&cobra.Group{ID: "publish", Title: "Publish models:"},
		&cobra.Group{ID: "fleet", Title: "Run the fleet:"},
		&cobra.Group{ID: "admin", Title: "This tool and its server:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("publish", keyCommand(a), modelCommand(a), publishCommand(a), runCommand(a), dataCommand(a))
	add("fleet", statusCommand(a), deviceCommand(a), rolloutCommand(a), driftCommand(a), retrainCommand(a), truthCommand(a), sampleCommand(a), incidentCommand(a), notifyCommand(a), ledgerCommand(a), settingsCommand(a))
	add("admin", loginCommand(a), contextCommand(a), tokenCommand(a), demoCommand(a))
	root.SetHelpCommandGroupID("admin")
	root.SetCompletionCommandGroupID("admin")
	return root
}

// codeUsage is the code of a usageError in JSON. Servers do not give it.
const codeUsage operator.Code = "usage"

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// outcomeError is a rollout that came to another end than was waited for.
type outcomeError struct{ error }

func (e *outcomeError) Unwrap() error { return e.error }

// args makes a wrong number of arguments a usage error that shows the right one.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usagef("%w\n  usage: %s", err, cmd.UseLine())
		}
		return nil
	}
}

// group is a command that only holds others.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long, Args: onlyCommands, RunE: help}
	c.AddCommand(commands...)
	return c
}

func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// onlyCommands refuses what is not the name of a command, and offers what was
// perhaps meant.
func onlyCommands(cmd *cobra.Command, given []string) error {
	if len(given) == 0 {
		return nil
	}
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if similar := cmd.SuggestionsFor(given[0]); len(similar) > 0 {
		return usagef("%q has no command %q; did you mean %s?", cmd.CommandPath(), given[0], strings.Join(similar, " or "))
	}
	return usagef("%q has no command %q (see %q)", cmd.CommandPath(), given[0], cmd.CommandPath()+" --help")
}

// explain says what went wrong and what to do next.
func (a *app) explain(err error) {
	e, coded := errors.AsType[*operator.Error](err)
	if a.output == outputJSON {
		body := operator.Error{Code: operator.Internal, Message: err.Error()}
		if _, usage := errors.AsType[*usageError](err); usage {
			body.Code = codeUsage
		} else if coded {
			body.Code, body.Hint, body.Request = e.Code, e.Hint, e.Request
		}
		_ = writeJSON(a.err, body)
		return
	}
	w := plain{a.err}
	fmt.Fprintln(w, "vedette:", strings.TrimSpace(err.Error()))
	if coded && e.Hint != "" {
		fmt.Fprintln(w, "  next:", e.Hint)
	}
	if coded && e.Code == operator.Internal && e.Request != "" {
		fmt.Fprintln(w, "  request:", e.Request)
	}
}
