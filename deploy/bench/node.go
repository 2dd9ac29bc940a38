package main

import (
	"bufio"
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
	for _, connections := range []int{1, 8} {
		if err := b.compareServers(ctx, p.listen, addr, body, connections); err != nil {
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

func (b *bench) compareServers(ctx context.Context, ours, theirs, body string, connections int) error {
	path := "/v2/models/" + model + "/infer"
	d := time.Second
	var rates, tails [2][]float64
	for round := range b.rounds(12) + 1 {
		for i, addr := range []string{ours, theirs} {
			took, err := closedLoop(ctx, addr, path, body, connections, d)
			if err != nil {
				return fmt.Errorf("load on %s: %w", addr, err)
			}
			if round == 0 {
				continue // warms up
			}
			rates[i] = append(rates[i], float64(len(took))/d.Seconds())
			tails[i] = append(tails[i], quantile(took, 0.99))
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
	b.atMost(Figure{
		Part: "http", What: "p99, " + what + ": agent over Node.js", Value: median(ratios(tails[0], tails[1])), Unit: "×",
		Detail: fmt.Sprintf("%.2f ms against %.2f ms", 1e3*median(tails[0]), 1e3*median(tails[1])),
	}, 0.5)
	return nil
}
