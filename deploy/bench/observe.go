package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

// benchmark runs a Go benchmark and returns the median of each of its metrics
// by benchmark name and unit.
func (b *bench) benchmark(ctx context.Context, pkg, pattern string) (map[string]map[string]float64, error) {
	out, err := b.output(ctx, nil, "go", "test", "-run", "^$", "-bench", pattern, "-benchmem", "-count", strconv.Itoa(b.rounds(7)), pkg)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	all := map[string]map[string][]float64{}
	for _, line := range benchmarkLine.FindAllSubmatch(out, -1) {
		name := string(line[1])
		if all[name] == nil {
			all[name] = map[string][]float64{}
		}
		for _, m := range benchmarkMetric.FindAllSubmatch(line[2], -1) {
			v, err := strconv.ParseFloat(string(m[1]), 64)
			if err != nil {
				return nil, fmt.Errorf("read benchmark: %w", err)
			}
			all[name][string(m[2])] = append(all[name][string(m[2])], v)
		}
	}
	medians := map[string]map[string]float64{}
	for name, metrics := range all {
		medians[name] = map[string]float64{}
		for unit, values := range metrics {
			medians[name][unit] = median(values)
		}
	}
	return medians, nil
}

var (
	benchmarkLine   = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)
	benchmarkMetric = regexp.MustCompile(`([0-9.e+]+) (\S+)`)
)

// observing takes the cost of one value from the benchmark of its bins and the
// cost of a call from that of the whole observer.
func (b *bench) observing(ctx context.Context) error {
	bins, err := b.benchmark(ctx, "./protocol/sketch", "^BenchmarkBins$/^table$")
	if err != nil {
		return err
	}
	call, err := b.benchmark(ctx, "./agent/observe", "^BenchmarkServed$")
	if err != nil {
		return err
	}
	value, served := bins["Bins/table"], call["Served"]
	if value == nil || served == nil {
		return fmt.Errorf("the benchmarks Bins and Served printed nothing: %v, %v", bins, call)
	}
	b.atMost(Figure{Part: "observe", What: "one value into its bin", Value: value["ns/op"], Unit: "ns"}, 10)
	b.atMost(Figure{Part: "observe", What: "allocations of an observed call", Value: served["allocs/op"]}, 0)
	b.atMost(Figure{
		Part: "observe", What: "an observed call, of a call of 20 µs", Value: 100 * served["ns/op"] / float64(smallCall.Nanoseconds()), Unit: "%",
		Detail: fmt.Sprintf("%.0f ns", served["ns/op"]),
	}, 3)
	return nil
}
