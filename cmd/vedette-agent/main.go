// Command vedette-agent runs on a device: it pulls signed models, tries them,
// serves them on the local accelerator, keeps summaries while the link is down
// and reports over MQTT. On a publisher's machine it profiles a model before it
// is signed, and anywhere it scores files.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent/onnx"
)

var version = "dev" // set by the build

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // it was refused, or did not work
	exitUsage  = 2 // the command line makes no sense
	// exitConfig says that the configuration makes no sense (EX_CONFIG of
	// sysexits.h). systemd tries nothing again after it, as it must after a
	// crash, which ends a Go program with 2.
	exitConfig = 78
)

// defaultState is where a packaged agent keeps its state.
const defaultState = "/var/lib/vedette"

// envState names the environment variable with the state directory.
const envState = "VEDETTE_STATE"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// app is what the commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	library  string // --onnxruntime
	output   string // -o: text or json
}

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
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitFailed // the person who pressed Ctrl-C knows why it ended
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(errOut, "vedette-agent: %v\n", err)
	}
	if _, ok := errors.AsType[*configError](err); ok {
		return exitConfig
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// errReported says that what is wrong was printed already.
var errReported = errors.New("there are problems")

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "vedette-agent",
		Short: "Run signed models on this device and report how they do",
		Long: `vedette-agent runs on a device of a Vedette fleet. It pulls the model versions that
the control plane assigns, verifies that publishers signed them, tries each in a
child process, serves the good ones on a local address and reports what it saw,
also after weeks without a link.

A new device:         vedette-agent enrol TOKEN && vedette-agent run
Is it all right?      vedette-agent doctor
What does it do now?  vedette-agent status

Publishers profile a model before they sign it (vedette-agent profile) and evaluate
it on labelled rows (vedette-agent evaluate), and anybody scores a file with it
(vedette-agent score).`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
	}
	root.PersistentFlags().StringVar(&a.library, "onnxruntime", "", "ONNX Runtime library to load (default: $"+onnx.EnvLibrary+", then beside the program, then /usr/lib/vedette)")
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "text", "how to print results: text or json")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if a.output != "text" && a.output != "json" {
			return usagef("-o %s: must be text or json", a.output)
		}
		if fl := cmd.Flags(); fl.Lookup("config") != nil || fl.Lookup("state") == nil && fl.Lookup("listen") == nil {
			return nil // it reads the configuration itself, or needs none
		}
		return a.configured(cmd)
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see `%s --help`", err, cmd.CommandPath())
	})
	root.AddCommand(a.enrolCommand(), a.runCommand(), a.statusCommand(), a.doctorCommand(),
		a.profileCommand(), a.evaluateCommand(), a.scoreCommand(), a.trialCommand(), a.probeCommand(), a.manualCommand(), a.loopCommand(), a.versionCommand())
	return root
}

// arguments checks the number of arguments and names those that are missing.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing: %s", strings.Join(names[len(args):], " "), cmd.UseLine())
		case len(args) > len(names):
			return usagef("%q is one argument too many: %s", args[len(names)], cmd.UseLine())
		}
		return nil
	}
}

// runtime loads ONNX Runtime.
func (a *app) runtime() (*onnx.Runtime, error) {
	path, err := onnx.Find(a.library)
	if err != nil {
		return nil, err
	}
	return onnx.Open(path)
}

// print writes a result: as JSON, or as text writes it.
func (a *app) print(v any, text func(w io.Writer) error) error {
	if a.output != "json" {
		return text(a.out)
	}
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}

// logger writes to the error stream, for a service manager as text or JSON.
func (a *app) logger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("log level %q: must be debug, info, warn or error", level)
	}
	switch format {
	case "text":
		return slog.New(textHandler(a.err, l, journalListens())), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.err, &slog.HandlerOptions{Level: l})), nil
	}
	return nil, usagef("log format %q: must be text or json", format)
}

// stateFlag adds --state with its default.
func stateFlag(cmd *cobra.Command, state *string) {
	def := os.Getenv(envState)
	if def == "" {
		def = defaultState
	}
	cmd.Flags().StringVar(state, "state", def, "directory of the agent's state (default from $"+envState+")")
	_ = cmd.MarkFlagDirname("state") // the flag exists
}

// Versions is what `version -o json` prints.
type Versions struct {
	Agent   string `json:"agent"`
	Runtime string `json:"onnxruntime,omitempty"`
	Library string `json:"library,omitempty"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of the agent and of ONNX Runtime",
		Args:  arguments(),
		RunE: func(*cobra.Command, []string) error {
			v := Versions{Agent: version}
			if path, err := onnx.Find(a.library); err == nil {
				if v.Runtime, err = onnx.Version(path); err == nil {
					v.Library = path
				}
			}
			return a.print(v, func(w io.Writer) error {
				runtime := "not found, see `vedette-agent doctor`"
				if v.Library != "" {
					runtime = v.Runtime + " (" + v.Library + ")"
				}
				_, err := fmt.Fprintf(w, "vedette-agent %s\nONNX Runtime %s\n", v.Agent, runtime)
				return err
			})
		},
	}
}
