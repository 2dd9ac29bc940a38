package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent/host"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	profiles "github.com/vedette-edge/vedette/firmware-profiles"
	"github.com/vedette-edge/vedette/protocol/release"
)

// probeCommand is how this program calls itself to ask about ONNX Runtime, or
// for one execution provider: a driver may take the process that asks down with
// it.
const probeCommand = "probe"

// probeTimeout is how long a driver may take to start.
const probeTimeout = 30 * time.Second

func (a *app) probeCommand() *cobra.Command {
	return &cobra.Command{
		Use:    probeCommand + " [PROVIDER]",
		Short:  "Describe ONNX Runtime, or ask for an execution provider, in this process (run and doctor call this)",
		Hidden: true,
		Args:   cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			rt, err := a.runtime()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return json.NewEncoder(a.out).Encode(rt.Info())
			}
			return rt.Probe(args[0])
		},
	}
}

// checkRuntime looks at what computes: the library, the device's class and each
// execution provider. profile is the one that the configuration names.
func (a *app) checkRuntime(ctx context.Context, profile string) []Check {
	class, p := checkClass(profile)
	library, info := a.checkLibrary()
	checks := []Check{library, class}
	if info == nil {
		return checks
	}
	exe, err := os.Executable()
	if err != nil {
		return append(checks, Check{Name: "execution providers", Result: checkSkipped, Detail: err.Error()})
	}
	probe := prober{exe: exe, args: []string{"--onnxruntime", info.Library}, timeout: probeTimeout}
	for _, name := range infer.Candidates(info.Providers, p.Providers()) {
		checks = append(checks, probe.check(ctx, name, p))
	}
	return append(checks, missingProviders(info.Providers, p)...)
}

func (a *app) checkLibrary() (Check, *infer.RuntimeInfo) {
	c := Check{Name: "ONNX Runtime"}
	path, err := onnx.Find(a.library)
	if err == nil {
		err = intact(path)
	}
	if err == nil {
		var rt *onnx.Runtime
		if rt, err = onnx.Open(path); err == nil {
			info := rt.Info()
			c.Result = checkOK
			c.Detail = fmt.Sprintf("version %s (%s or newer is accepted) at %s", info.Version, onnx.MinVersion, info.Library)
			return c, &info
		}
	}
	c.Result, c.Detail = checkFailed, err.Error()
	c.Next = "install the vedette-agent package, which brings the library, or name one with --onnxruntime"
	return c, nil
}

// checkClass says which firmware profile is in force, why, and what follows.
func checkClass(name string) (Check, *profiles.Profile) {
	c := Check{Name: "device class"}
	d := host.Device()
	all, err := profiles.All()
	if err != nil {
		c.Result, c.Detail = checkFailed, err.Error()
		return c, &profiles.Profile{}
	}
	if name == "" {
		p, ok := profiles.Find(all, d)
		if !ok {
			c.Result, c.Detail, c.Next = checkWarning, "no firmware profile fits this machine", "the agent works without one; name one with `run --profile` to have its limits"
			return c, &profiles.Profile{}
		}
		c.Result, c.Detail = checkOK, fmt.Sprintf("%s (%s), by %s; %s", p.Title, p.Name, p.Why(d), shareText(&p))
		return c, &p
	}
	i := slices.IndexFunc(all, func(p profiles.Profile) bool { return p.Name == name })
	if i < 0 {
		c.Result, c.Detail, c.Next = checkFailed, "there is no firmware profile "+name+", which the configuration names", "take the setting out, or correct it: `vedette-agent run` lists the profiles there are"
		return c, &profiles.Profile{}
	}
	c.Result, c.Detail = checkOK, fmt.Sprintf("%s (%s), by the configuration; %s", all[i].Title, name, shareText(&all[i]))
	return c, &all[i]
}

// shareText is what the agent takes of a device of that class.
func shareText(p *profiles.Profile) string {
	runs := min(p.Concurrency(runtime.NumCPU()), infer.MaxConcurrency)
	return fmt.Sprintf("%d runs at once per model, %s for models, %d MiB outbox", runs, size(p.ModelMemory(host.Memory())), p.Limits.OutboxMiB)
}

// prober asks for execution providers in processes of their own.
type prober struct {
	exe     string
	args    []string // besides the command and the provider
	timeout time.Duration
}

// check says whether models can run on a provider that the library offers. Only
// one that the device's class has an accelerator for is missed.
func (pr *prober) check(ctx context.Context, provider string, p *profiles.Profile) Check {
	c := Check{Name: "provider " + short(provider), Result: checkOK, Detail: "can be used; each model's trial measures whether it is faster"}
	if release.SameProvider(provider, release.CPUProvider) {
		c.Detail = "is always there"
	}
	if err := pr.probe(ctx, provider); err != nil {
		c.Result, c.Detail = checkSkipped, "cannot be used: "+strings.TrimPrefix(err.Error(), provider+": ")
		if wants(p, provider) {
			c.Result, c.Next = checkWarning, "this device has an accelerator for it: install what is missing; until then models run on the processor"
		}
	}
	return c
}

// probe is nil when the provider can be used.
func (pr *prober) probe(ctx context.Context, provider string) error {
	ctx, cancel := context.WithTimeout(ctx, pr.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, pr.exe, append([]string{probeCommand, provider}, pr.args...)...) //nolint:gosec // this very program
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("its driver did not answer within %v", pr.timeout)
	case errors.As(err, &exit) && exit.ExitCode() == exitFailed:
		return errors.New(lastReason(said.String()))
	}
	return fmt.Errorf("its driver took the process down: %w", err)
}

// lastReason is the message of this program among what the library said.
func lastReason(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	last := strings.TrimPrefix(lines[len(lines)-1], "vedette-agent: ")
	return strings.TrimPrefix(last, infer.ErrProvider.Error()+": ")
}

// missingProviders are those that the device has an accelerator for and the
// library was built without.
func missingProviders(offered []string, p *profiles.Profile) []Check {
	var checks []Check
	for _, a := range p.Accelerators {
		offers := func(want string) bool {
			return slices.ContainsFunc(offered, func(have string) bool { return release.SameProvider(have, want) })
		}
		if !slices.ContainsFunc(a.Providers, offers) {
			checks = append(checks, Check{
				Name: "accelerator " + a.Name, Result: checkSkipped,
				Detail: "this library was built without " + strings.Join(a.Providers, " and without "),
				Next:   "models run on the processor; for more, name a library built with it by `onnxruntime` in the configuration",
			})
		}
	}
	return checks
}

func wants(p *profiles.Profile, provider string) bool {
	return slices.ContainsFunc(p.Providers(), func(name string) bool { return release.SameProvider(name, provider) })
}

// short is a provider's name as people write it.
func short(provider string) string { return strings.TrimSuffix(provider, "ExecutionProvider") }
