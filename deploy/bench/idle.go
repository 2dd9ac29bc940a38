package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// idle weighs the agent of a device to which nothing is assigned, once it has
// told the control plane so and settled.
func (b *bench) idle(ctx context.Context, p *plant) (w weight, err error) {
	const name = "bench-idle"
	token, err := p.vedette(ctx, "device", "token", "create", "-q", "--device", name, "--reason", "benchmark")
	if err != nil {
		return w, err
	}
	state, config := b.path(name), b.path(name+".yaml")
	if _, err := b.output(ctx, nil, b.program("vedette-agent"), "enrol", strings.TrimSpace(string(token)), "--state", state); err != nil {
		return w, err
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, "state: %s\nlisten: 127.0.0.1:0\n", state), 0o600); err != nil {
		return w, fmt.Errorf("configure the agent: %w", err)
	}
	agent, err := b.start("vedette-agent", "run", "--config", config)
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, agent.stop()) }()
	if err := until(ctx, name+" to be online", func() error {
		out, err := p.vedette(ctx, "device", "show", name, "-o", "json")
		if err == nil && !strings.Contains(string(out), `"presence": "online"`) {
			err = errors.New("it is offline")
		}
		return err
	}); err != nil {
		return w, err
	}
	time.Sleep(settled)
	return weigh(agent.cmd.Process.Pid)
}
