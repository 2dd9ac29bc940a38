package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

// engineBars are the longest full steps, in milliseconds, by devices.
var engineBars = map[int]float64{100_000: 100, 1_000_000: 1500}

// engineBytes is the most that state and facts of one device may take.
const engineBytes = 1024

// engine takes the figures of the engine alone from its benchmark, which steps
// a rollout in which every device has reported since the step before.
func (b *bench) engine(ctx context.Context) error {
	out, err := b.output(ctx, nil, "go", "test", "-run", "^$", "-bench", "^BenchmarkStep$", "-benchtime", "3x", "./controlplane/rollout")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	found := engineLine.FindAllSubmatch(out, -1)
	if len(found) == 0 {
		return fmt.Errorf("the benchmark printed no figures:\n%s", out)
	}
	for _, m := range found {
		devices, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return fmt.Errorf("read devices: %w", err)
		}
		ns, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return fmt.Errorf("read time: %w", err)
		}
		bytes, err := strconv.ParseFloat(string(m[3]), 64)
		if err != nil {
			return fmt.Errorf("read bytes: %w", err)
		}
		if bar, asked := engineBars[devices]; asked {
			b.atMost(Figure{Part: "engine", What: fmt.Sprintf("a full step at %d devices", devices), Value: ns / 1e6, Unit: "ms"}, bar)
			b.atMost(Figure{Part: "engine", What: fmt.Sprintf("memory a device at %d", devices), Value: bytes, Unit: "bytes", Detail: "state and facts, with evidence"}, engineBytes)
		}
	}
	return nil
}

var engineLine = regexp.MustCompile(`BenchmarkStep/devices=(\d+)\S*\s+\d+\s+([\d.e+]+) ns/op\s+([\d.e+]+) B/device`)
