package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A call of smallCall or more is judged by its ratio, a shorter one by what Go
// adds to it.
const smallCall = 20 * time.Microsecond

// looper is a program that runs a graph for as long as it is told to.
type looper struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startLooper(ctx context.Context, name string, args ...string) (*looper, error) {
	l := &looper{cmd: exec.CommandContext(ctx, name, args...)}
	l.cmd.Stderr = os.Stderr
	var err error
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.out = bufio.NewReader(out)
	return l, l.cmd.Start()
}

// block runs for d and returns the nanoseconds of one run.
func (l *looper) block(d time.Duration) (float64, error) {
	if _, err := fmt.Fprintln(l.in, d.Microseconds()); err != nil {
		return 0, fmt.Errorf("ask %s: %w", filepath.Base(l.cmd.Path), err)
	}
	line, err := l.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("%s ended: %w", filepath.Base(l.cmd.Path), err)
	}
	var runs, nanos float64
	if _, err := fmt.Sscan(line, &runs, &nanos); err != nil {
		return 0, fmt.Errorf("%s said %q: %w", filepath.Base(l.cmd.Path), line, err)
	}
	return nanos / runs, nil
}

func (l *looper) close() error { return errors.Join(l.in.Close(), l.cmd.Wait()) }

// againstC alternates blocks of the Go program and of two copies of the C
// program: C against itself shows what of the ratio is noise.
func (b *bench) againstC(ctx context.Context) error {
	loop, err := b.compileLoop(ctx)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		model string
		rows  int
	}{
		{"wine_lr", 1},
		{"bc_mlp", 1},
		{"digits_mlp", 1},
		{"perceptron-s", 1},
		{"perceptron-m", 1},
		{"bc_mlp", 256},
		{"digits_mlp", 256},
		{"bc_gbt", 256},
	} {
		graph, err := b.graph(c.model)
		if err != nil {
			return err
		}
		if err := b.compareLoops(ctx, loop, graph, c.model, c.rows); err != nil {
			return fmt.Errorf("%s, %d rows: %w", c.model, c.rows, err)
		}
	}
	return nil
}

// compileLoop builds the C program with the header that the Go binding brings.
func (b *bench) compileLoop(ctx context.Context) (string, error) {
	header, err := b.output(ctx, nil, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go")
	if err != nil {
		return "", err
	}
	_, err = b.output(ctx, nil, "gcc", "-O2", "-Wall", "-I"+strings.TrimSpace(string(header)), "-o", b.path("loop"),
		filepath.Join(b.root, "deploy", "bench", "c", "loop.c"), "-ldl")
	return b.path("loop"), err
}

// graph is the file of a real model, or of one made for its cost.
func (b *bench) graph(name string) (string, error) {
	made := map[string][]int{"perceptron-s": {64, 512, 512, 10}, "perceptron-m": {64, 1024, 768, 10}}
	if sizes, ok := made[name]; ok {
		file := b.path(name + ".onnx")
		return file, os.WriteFile(file, perceptron(sizes...), 0o600)
	}
	return filepath.Join(b.root, "agent", "onnx", "testdata", name+".onnx"), nil
}

func (b *bench) compareLoops(ctx context.Context, loop, graph, model string, rows int) (err error) {
	n := strconv.Itoa(rows)
	commands := [][]string{
		{loop, b.library(), graph, n},
		{b.program("vedette-agent"), "loop", "--onnxruntime", b.library(), "--rows", n, graph},
		{loop, b.library(), graph, n},
	}
	loopers := make([]*looper, len(commands))
	for i, c := range commands {
		if loopers[i], err = startLooper(ctx, c[0], c[1:]...); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, loopers[i].close()) }()
	}
	times, err := alternate(loopers, b.rounds(120), 10*time.Millisecond)
	if err != nil {
		return err
	}
	b.judgeLoops(model, rows, times)
	return nil
}

// alternate gives every looper a block in turn. Each block is preceded by a
// short one that brings its program's data back into the caches.
func alternate(loopers []*looper, rounds int, d time.Duration) ([][]float64, error) {
	times := make([][]float64, len(loopers))
	for round := range rounds {
		for k := range loopers {
			i := (k + round) % len(loopers) // nobody always comes first
			if _, err := loopers[i].block(time.Millisecond); err != nil {
				return nil, err
			}
			t, err := loopers[i].block(d)
			if err != nil {
				return nil, err
			}
			times[i] = append(times[i], t)
		}
	}
	return times, nil
}

func (b *bench) judgeLoops(model string, rows int, times [][]float64) {
	c, g, c2 := times[0], times[1], times[2]
	ratio, noise, call := median(ratios(g, c)), median(ratios(c2, c)), median(c)
	f := Figure{
		Part: "c", What: fmt.Sprintf("%s, batch %d: Go over C", model, rows),
		Detail: fmt.Sprintf("C %.2f µs, Go %.2f µs; C over C %.3f", call/1e3, median(g)/1e3, noise),
	}
	if call >= float64(smallCall.Nanoseconds()) {
		f.Value, f.Unit = ratio, "×"
		b.atMost(f, 1.03)
		return
	}
	f.What, f.Value, f.Unit = fmt.Sprintf("%s, batch %d: Go adds", model, rows), (ratio-1)*call/1e3, "µs"
	b.atMost(f, 0.5)
}
