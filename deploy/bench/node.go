package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// againstNode puts the same load on the agent and on the Node.js server in
// turn.
func (b *bench) againstNode(ctx context.Context) (err error) {
	p, err := b.standing(ctx)
	if err != nil {
		return err
	}
	node, addr, err := b.startNode(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Process.Kill(), ignoreExit(node.Wait())) }()

	body := inferRequest([][]float32{image()})
	for _, connections := range []int{1, 8, 32} {
		pair := [2]server{{p.listen, p.agent.cmd.Process.Pid}, {addr, node.Process.Pid}}
		if err := b.compareServers(ctx, pair, body, connections); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) startNode(ctx context.Context) (*exec.Cmd, string, error) {
	folder := filepath.Join(b.root, "deploy", "bench", "node")
	b.say("  fetching onnxruntime-node (pinned)")
	if _, err := b.output(ctx, nil, "npm", "--prefix", folder, "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
		return nil, "", err
	}
	//nolint:gosec // this checkout's own server
	cmd := exec.CommandContext(ctx, "node", filepath.Join(folder, "server.mjs"), filepath.Join(b.root, "deploy", "demo", "models", model+"-1.onnx"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start node: %w", err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("node did not start: %w", err), cmd.Wait())
	}
	return cmd, strings.TrimSpace(addr), nil
}

// ignoreExit drops the error of a program that was ended on purpose.
func ignoreExit(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

// server is one of the two compared.
type server struct {
	addr string
	pid  int
}

// load is what a second of requests showed: how many were answered, their p99
// in seconds, and the processor's seconds that the server took for each.
type load struct{ rate, p99, cpu float64 }

func (s server) load(ctx context.Context, body string, connections int) (l load, err error) {
	const d = time.Second
	before, err := cpuTime(s.pid)
	if err != nil {
		return l, err
	}
	took, err := closedLoop(ctx, s.addr, "/v2/models/"+model+"/infer", body, connections, d)
	if err != nil {
		return l, fmt.Errorf("load on %s: %w", s.addr, err)
	}
	after, err := cpuTime(s.pid)
	n := float64(len(took))
	return load{rate: n / d.Seconds(), p99: quantile(took, 0.99), cpu: (after - before) / n}, err
}

// cpuTime is the processor's time that a process took so far, in seconds.
func cpuTime(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	var user, system float64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	const ticks = 100 // a second, fixed by the kernel's interface
	return (user + system) / ticks, nil
}

// steadyConnections carry the load under which the tails are compared.
const steadyConnections = 8

// compareTails sends both servers the same requests a second: half of what
// Node.js answers at most.
func (b *bench) compareTails(ctx context.Context, pair [2]server, body string, rate float64) error {
	var tails [2][]float64
	for range b.rounds(12) {
		for i, s := range pair {
			p99, err := s.tail(ctx, body, int(rate))
			if err != nil {
				return err
			}
			tails[i] = append(tails[i], p99)
		}
	}
	b.atMost(Figure{
		Part: "http", What: fmt.Sprintf("p99 at %.0f requests/s each: agent over Node.js", rate), Value: median(ratios(tails[0], tails[1])), Unit: "×",
		Detail: fmt.Sprintf("%.2f ms against %.2f ms", 1e3*median(tails[0]), 1e3*median(tails[1])),
	}, 0.5)
	return nil
}

// tail is the p99 in seconds of a second of requests at a rate.
func (s server) tail(ctx context.Context, body string, rate int) (float64, error) {
	stop := make(chan struct{})
	time.AfterFunc(time.Second, func() { close(stop) })
	hits, err := openLoop(ctx, s.addr, "/v2/models/"+model+"/infer", body, steadyConnections, rate, stop)
	if err != nil {
		return 0, fmt.Errorf("load on %s: %w", s.addr, err)
	}
	took := make([]float64, len(hits))
	for i, h := range hits {
		if h.err != nil {
			return 0, fmt.Errorf("load on %s: %w", s.addr, h.err)
		}
		took[i] = h.took.Seconds()
	}
	return quantile(took, 0.99), nil
}

func (b *bench) compareServers(ctx context.Context, pair [2]server, body string, connections int) error {
	var rates, tails, costs [2][]float64
	for round := range b.rounds(12) + 1 {
		for i, s := range pair {
			l, err := s.load(ctx, body, connections)
			if err != nil {
				return err
			}
			if round == 0 {
				continue // warms up
			}
			rates[i], tails[i], costs[i] = append(rates[i], l.rate), append(tails[i], l.p99), append(costs[i], l.cpu)
		}
	}
	what := fmt.Sprintf("%d connections", connections)
	if connections == 1 {
		what = "1 connection"
	}
	b.atLeast(Figure{
		Part: "http", What: "requests/s, " + what + ": agent over Node.js", Value: median(ratios(rates[0], rates[1])), Unit: "×",
		Detail: fmt.Sprintf("%.0f/s against %.0f/s", median(rates[0]), median(rates[1])),
	}, 3)
	b.add(Figure{
		Part: "http", What: "p99 at its most requests, " + what + ": agent over Node.js", Value: median(ratios(tails[0], tails[1])), Unit: "×",
		Detail: fmt.Sprintf("%.2f ms against %.2f ms; the agent and the client then take both cores", 1e3*median(tails[0]), 1e3*median(tails[1])),
	})
	if connections == steadyConnections {
		if err := b.compareTails(ctx, pair, body, median(rates[1])/2); err != nil {
			return err
		}
	}
	b.add(Figure{
		Part: "http", What: "processor time a request, " + what + ": agent over Node.js", Value: median(ratios(costs[0], costs[1])), Unit: "×",
		Detail: fmt.Sprintf("%.0f µs against %.0f µs", 1e6*median(costs[0]), 1e6*median(costs[1])),
	})
	return nil
}
