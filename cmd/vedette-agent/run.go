package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/agent/serve"
	"github.com/vedette-edge/vedette/agent/trial"
)

type runFlags struct {
	settings
	config string
	check  bool
}

func (a *app) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve the assigned models and report, until told to stop",
		Long: `run is the agent itself. It serves the models that were active before it needs
the network, connects to the control plane, follows what is assigned and stops
cleanly on SIGTERM or Ctrl-C. Predictions are served by the Open Inference
Protocol v2 on a loopback address and, if asked, on a Unix socket:

  curl -d '{"inputs":[{"name":"X","shape":[1,2],"datatype":"FP32","data":[1,2]}]}' \
       http://` + serve.DefaultListen + `/v2/models/MODEL/infer

A setting is taken from its flag, else from the environment variable named after
the flag (VEDETTE_LOG_LEVEL for --log-level), else from the configuration file
(` + defaultConfig + `), else it has its default. The file the package
installs explains every setting. --check says which ones would apply and where
each comes from, or what is wrong with them, line by line.`,
		Example: "  vedette-agent run\n  vedette-agent run --check\n  vedette-agent run --state ./state --listen 127.0.0.1:0 --log-level debug",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := f.resolve(cmd.Flags(), configPath(cmd.Flags(), f.config))
			if err != nil {
				return err
			}
			if f.check {
				for _, text := range f.open() {
					fmt.Fprintln(a.err, "warning:", text)
				}
				return a.printSettings(&f.settings, file)
			}
			return a.serve(cmd, &f.settings)
		},
	}
	f.declare(cmd.Flags())
	configFlag(cmd, &f.config)
	cmd.Flags().BoolVar(&f.check, "check", false, "say which settings would apply, or what is wrong with them, and do nothing")
	_ = cmd.MarkFlagDirname("state") // the flag exists
	return cmd
}

func (a *app) serve(cmd *cobra.Command, s *settings) error {
	log, err := a.logger(s.Log.Level, s.Log.Format)
	if err != nil {
		return err
	}
	if err := becomeOwner(s.State); err != nil {
		return err
	}
	if a.library == "" && os.Getenv(onnx.EnvLibrary) == "" {
		a.library = s.OnnxRuntime
	}
	rt, err := a.servingRuntime(cmd.Context(), s.State)
	if err != nil {
		return err
	}
	defer keepMemory(cmd.Context())()
	watcher := newSupervisor(log)
	device, err := agent.New(agent.Config{
		State: s.State, Runtime: rt, TrialArgs: []string{trialCommand, "--onnxruntime", rt.Info().Library},
		Listen: s.Listen, Socket: s.Socket, Profile: s.Profile, MemoryBudget: s.MemoryBudgetMiB << 20, OutboxBytes: int(s.OutboxMiB << 20), //nolint:gosec // check bounds it
		GRPC: s.GRPC, GRPCSocket: s.GRPCSocket, Calls: s.Limits.limits(), Models: s.modelLimits(), Traces: s.Traces, Metered: s.Link.Metered,
		Serving: watcher.onServing(), Version: version, Logger: log,
	})
	if err != nil {
		return err
	}
	unwatch := watcher.watch(cmd.Context(), device)
	err = device.Run(cmd.Context())
	unwatch()
	if errors.Is(err, agent.ErrRestart) {
		log.Error("replacing this process", "error", err)
		return replaceProcess()
	}
	return errors.Join(err, device.Close())
}

// replaceProcess starts this program anew in the same process, which also ends
// the run that hangs. Nothing is closed first: closing would wait for it.
func replaceProcess() error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return fmt.Errorf("start anew: %w", syscall.Exec(exe, os.Args, os.Environ())) //nolint:gosec // this very program
}

// trialCommand is how the agent calls itself to try a candidate.
const trialCommand = "trial"

func (a *app) trialCommand() *cobra.Command {
	return &cobra.Command{
		Use:    trialCommand,
		Short:  "Try a candidate in this process (the agent calls this)",
		Hidden: true,
		Args:   arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rt, err := a.runtime()
			if err != nil {
				return err
			}
			return trial.Child(cmd.Context(), rt, a.in, a.out)
		},
	}
}
