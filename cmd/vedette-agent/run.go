package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/vedette-edge/vedette/agent"
	"github.com/vedette-edge/vedette/agent/serve"
	"github.com/vedette-edge/vedette/agent/trial"
)

// defaultConfig is read when it is there and --config names no other.
const defaultConfig = "/etc/vedette/agent.yaml"

// maxConfig bounds a configuration file in bytes.
const maxConfig = 1 << 20

// settings are the configuration file of `run`. Flags go before it.
type settings struct {
	State           string `yaml:"state"`
	Listen          string `yaml:"listen"`
	Socket          string `yaml:"socket"`
	Profile         string `yaml:"profile"`
	OnnxRuntime     string `yaml:"onnxruntime"`
	MemoryBudgetMiB uint64 `yaml:"memory_budget_mib"`
	Log             struct {
		Level  string `yaml:"level"`
		Format string `yaml:"format"`
	} `yaml:"log"`
}

type runFlags struct {
	settings
	config string
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

Settings come from flags, then from the configuration file (` + defaultConfig + `):

  state: /var/lib/vedette            # keys, models and what waits to be sent
  listen: 127.0.0.1:8100             # "-" for none
  socket: /run/vedette/agent.sock
  profile: raspberry-pi-5            # default: recognised
  onnxruntime: /usr/lib/vedette/libonnxruntime.so.1
  memory_budget_mib: 512             # of all models together; default: no bound
  log: {level: info, format: text}`,
		Example: "  vedette-agent run\n  vedette-agent run --state ./state --listen 127.0.0.1:0 --log-level debug",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.merge(cmd); err != nil {
				return err
			}
			return a.serve(cmd, f)
		},
	}
	fl := cmd.Flags()
	stateFlag(cmd, &f.State)
	fl.StringVar(&f.config, "config", defaultConfig, "configuration file")
	fl.StringVar(&f.Listen, "listen", serve.DefaultListen, `address to serve predictions on, "-" for none`)
	fl.StringVar(&f.Socket, "socket", "", "Unix socket to serve predictions on as well")
	fl.StringVar(&f.Profile, "profile", "", "firmware profile (default: recognised)")
	fl.Uint64Var(&f.MemoryBudgetMiB, "memory-budget", 0, "MiB that all models may take together, 0 for no bound")
	fl.StringVar(&f.Log.Level, "log-level", "info", "debug, info, warn or error")
	fl.StringVar(&f.Log.Format, "log-format", "text", "text or json")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // the flag exists
	return cmd
}

// merge takes from the file what no flag says.
func (f *runFlags) merge(cmd *cobra.Command) error {
	file, err := readSettings(f.config)
	if errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
		return nil
	}
	if err != nil {
		return err
	}
	for flag, value := range map[string]struct{ to, from *string }{
		"state": {&f.State, &file.State}, "listen": {&f.Listen, &file.Listen}, "socket": {&f.Socket, &file.Socket},
		"profile": {&f.Profile, &file.Profile}, "log-level": {&f.Log.Level, &file.Log.Level}, "log-format": {&f.Log.Format, &file.Log.Format},
	} {
		if *value.from != "" && !cmd.Flags().Changed(flag) {
			*value.to = *value.from
		}
	}
	if file.MemoryBudgetMiB > 0 && !cmd.Flags().Changed("memory-budget") {
		f.MemoryBudgetMiB = file.MemoryBudgetMiB
	}
	f.OnnxRuntime = file.OnnxRuntime
	return nil
}

// readSettings refuses what it does not know: a misspelt setting would
// otherwise be one that is silently not set.
func readSettings(path string) (*settings, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open configuration: %w", err)
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxConfig))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	s := &settings{}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(s); err != nil && !errors.Is(err, io.EOF) {
		return nil, usagef("%s: %s", path, strings.Join(strings.Fields(err.Error()), " ")) // one line for the journal
	}
	return s, nil
}

func (a *app) serve(cmd *cobra.Command, f *runFlags) error {
	log, err := a.logger(f.Log.Level, f.Log.Format)
	if err != nil {
		return err
	}
	if a.library == "" {
		a.library = f.OnnxRuntime
	}
	rt, err := a.runtime()
	if err != nil {
		return err
	}
	device, err := agent.New(agent.Config{
		State: f.State, Runtime: rt, TrialArgs: []string{trialCommand, "--onnxruntime", rt.Info().Library},
		Listen: f.Listen, Socket: f.Socket, Profile: f.Profile, MemoryBudget: f.MemoryBudgetMiB << 20,
		Version: version, Logger: log,
	})
	if err != nil {
		return err
	}
	err = device.Run(cmd.Context())
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
