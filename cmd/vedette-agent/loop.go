package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/onnx"
	"github.com/vedette-edge/vedette/protocol/release"
)

// loopCommand is the Go half of the comparison with C that `make bench-agent`
// makes: both programs run the same graph on the same library for as long as
// each line of their input says.
func (a *app) loopCommand() *cobra.Command {
	rows := 1
	cmd := &cobra.Command{
		Use:    "loop GRAPH",
		Short:  "Run a graph for so many microseconds a line (the benchmark calls this)",
		Hidden: true,
		Args:   arguments("GRAPH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.newLoop(args[0], rows)
			if err != nil {
				return err
			}
			return errors.Join(a.follow(cmd.Context(), l), l.session.Close())
		},
	}
	cmd.Flags().IntVar(&rows, "rows", 1, "rows of one run")
	return cmd
}

// loop runs one graph on the same rows again and again.
type loop struct {
	session infer.Session
	rows    int
	in, out []infer.Tensor
}

func (a *app) newLoop(path string, rows int) (*loop, error) {
	g, err := readGraph(path)
	if err != nil {
		return nil, err
	}
	d := drafter{graph: g}
	s := &release.Schema{}
	if s.Inputs, err = d.tensors(g.Inputs); err != nil {
		return nil, err
	}
	if s.Outputs, err = d.tensors(g.Outputs); err != nil {
		return nil, err
	}
	l := &loop{rows: rows, out: make([]infer.Tensor, len(s.Outputs))}
	for _, t := range s.Inputs {
		in, err := ramp(t, rows)
		if err != nil {
			return nil, err
		}
		l.in = append(l.in, in)
	}
	if _, err := a.runtime(); err != nil {
		return nil, err
	}
	l.session, err = onnx.OpenGraph(path, s)
	return l, err
}

// ramp is an input of float32 that both halves of the benchmark fill alike.
func ramp(t release.Tensor, rows int) (infer.Tensor, error) {
	n, fixed := t.RowSize()
	if !fixed || t.Datatype != "FP32" {
		return infer.Tensor{}, fmt.Errorf("input %q: only FP32 rows of a fixed size can be looped over", t.Name)
	}
	data := make([]float32, rows*int(n))
	for i := range data {
		data[i] = float32(i%97) / 97
	}
	shape := slices.Clone(t.Shape)
	shape[0] = int64(rows)
	return infer.Tensor{Name: t.Name, Datatype: t.Datatype, Shape: shape, Data: data}, nil
}

// follow answers every line of microseconds with the runs made and the
// nanoseconds they took.
func (a *app) follow(ctx context.Context, l *loop) error {
	lines := bufio.NewScanner(a.in)
	for lines.Scan() {
		micros, err := strconv.Atoi(lines.Text())
		if err != nil {
			return usagef("a line must hold microseconds: %w", err)
		}
		runs, took, err := l.run(ctx, time.Duration(micros)*time.Microsecond)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, runs, took.Nanoseconds())
	}
	return lines.Err()
}

// run looks at the clock every few runs only, as the C half does: reading it
// costs as much as a percent of the smallest run. It keeps its thread, as the C
// half has but one.
func (l *loop) run(ctx context.Context, atLeast time.Duration) (runs int, took time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const between = 16
	for start := time.Now(); took < atLeast; took = time.Since(start) {
		for range between {
			if err := l.session.Run(ctx, l.rows, l.in, l.out); err != nil {
				return 0, 0, err
			}
		}
		runs += between
	}
	return runs, took, nil
}
