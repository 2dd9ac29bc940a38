package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Waits for programs this benchmark starts.
const (
	patience = time.Minute           // for anything to happen at all
	look     = 20 * time.Millisecond // between two looks
	stopping = 30 * time.Second      // for a program that was asked to end: a control plane takes up to 20
	device   = "bench-1"
	model    = "digits"
	served   = "role=bench" // label of the device that gets the model
)

// plant is a real control plane with the publisher's keys and, for measuring
// the agent, one device, as the README sets them up.
type plant struct {
	b       *bench
	control *program
	agent   *program
	env     []string // of the operator's commands
	http    string   // address of the operator API
	token   string   // of the administrator
	listen  string   // of the agent
}

// program is one that runs until it is told to stop.
type program struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func (b *bench) start(name string, args ...string) (*program, error) {
	//nolint:noctx,gosec // this checkout's own program, ended in order by close
	p := &program{cmd: exec.Command(b.program(name), args...), log: b.path(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close() // the child holds its own copy
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

func (p *program) stop() error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
		return nil
	case <-time.After(stopping):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within %s", p.cmd.Path, stopping)
	}
}

// until asks until the answer is no error.
func until(ctx context.Context, what string, ask func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(look):
		}
	}
}

// standing is the plant with version 1 of the digits model active on its
// device. It is made once.
func (b *bench) standing(ctx context.Context) (*plant, error) {
	if b.plant != nil {
		return b.plant, nil
	}
	b.say("  starting a control plane and a device")
	b.plant = &plant{b: b}
	for _, step := range []func(context.Context) error{
		b.plant.startControl, b.plant.publish, b.plant.enrol, b.plant.startAgent,
		func(ctx context.Context) error { _, err := b.plant.assign(ctx, "1"); return err },
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return b.plant, nil
}

func (p *plant) close() error { return errors.Join(p.agent.stop(), p.control.stop()) }

// startControl starts a control plane to which devices report every second.
func (p *plant) startControl(ctx context.Context) error {
	if err := p.serve(ctx); err != nil {
		return err
	}
	_, err := p.vedette(ctx, "settings", "set", "--report", "1s", "--reason", "benchmark")
	return err
}

// serve starts a control plane and waits until it is up.
func (p *plant) serve(ctx context.Context) (err error) {
	data := p.b.path("control")
	p.control, err = p.b.start("vedette-control", "run", "--data", data, "--host", "127.0.0.1",
		"--http", "127.0.0.1:0", "--devices", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var where struct {
		HTTP string `json:"http"`
	}
	if err := until(ctx, "the control plane", func() error {
		raw, err := os.ReadFile(p.b.path("control", "addresses.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &where)
	}); err != nil {
		return err
	}
	token, err := os.ReadFile(p.b.path("control", "admin-token"))
	if err != nil {
		return fmt.Errorf("read the admin token: %w", err)
	}
	p.http, p.token = where.HTTP, strings.TrimSpace(string(token))
	p.env = []string{
		"VEDETTE_SERVER=http://" + p.http, "VEDETTE_TOKEN=" + p.token,
		"VEDETTE_KEYS=" + p.b.path("keys"), "XDG_CONFIG_HOME=" + p.b.dir,
	}
	return nil
}

func (p *plant) vedette(ctx context.Context, args ...string) ([]byte, error) {
	return p.b.output(ctx, p.env, p.b.program("vedette"), args...)
}

// publish signs two versions of the demo's digit reader.
func (p *plant) publish(ctx context.Context) error {
	if _, err := p.vedette(ctx, "key", "init"); err != nil {
		return err
	}
	for _, v := range []string{"1", "2"} {
		if err := p.push(ctx, v, v); err != nil {
			return err
		}
	}
	return nil
}

// push profiles, signs and publishes a graph of the demo's digit reader under a
// version's name.
func (p *plant) push(ctx context.Context, from, version string) error {
	const models = "deploy/demo/models/"
	name := models + model + "-" + from
	folder := p.b.path(model + "-" + version)
	if _, err := p.b.output(ctx, nil, p.b.program("vedette-agent"), "profile", name+".onnx", "--rows", name+".train.csv",
		"--expected", name+".expected.csv", "--condition", "condition", "--to", folder); err != nil {
		return err
	}
	_, err := p.vedette(ctx, "model", "push", folder, "--graph", name+".onnx", "--model", model, "--version", version)
	return err
}

func (p *plant) enrol(ctx context.Context) error {
	token, err := p.vedette(ctx, "device", "token", "create", "-q", "--device", device, "--label", served, "--reason", "benchmark")
	if err != nil {
		return err
	}
	_, err = p.b.output(ctx, nil, p.b.program("vedette-agent"), "enrol", strings.TrimSpace(string(token)), "--state", p.b.path("device"))
	return err
}

func (p *plant) startAgent(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	p.listen = l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	config := p.b.path("agent.yaml")
	text := fmt.Sprintf("state: %s\nlisten: %s\n", p.b.path("device"), p.listen)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure the agent: %w", err)
	}
	p.agent, err = p.b.start("vedette-agent", "run", "--config", config)
	return err
}

func (p *plant) url(path string) string { return "http://" + p.listen + "/v2/models/" + model + path }

// assign rolls a version out and waits until it serves and the rollout has
// ended. It returns when the version was first seen to serve.
func (p *plant) assign(ctx context.Context, version string) (at time.Time, err error) {
	out, err := p.vedette(ctx, "rollout", "create", model, version, "--selector", served, "--wave", "100%", "--soak", "1s",
		"--no-gate", "errors", "--start", "--reason", "benchmark", "-o", "json")
	if err != nil {
		return at, err
	}
	var rollout struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(out, &rollout); err != nil {
		return at, fmt.Errorf("read the rollout: %w", err)
	}
	if err := until(ctx, model+" "+version+" to serve", func() error { return p.serves(ctx, version) }); err != nil {
		return at, err
	}
	at = time.Now()
	_, err = p.vedette(ctx, "rollout", "status", rollout.ID, "--watch", "-q")
	return at, err
}

func (p *plant) serves(ctx context.Context, version string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/versions/"+version+"/ready"), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", model, version, resp.Status)
	}
	return nil
}
