package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

// telemetryBars are the most that a day of 10 million predictions by a thousand
// devices may take, in windows of five minutes.
var telemetryBars = map[string]float64{"raw": 300, "hours": 30, "cpu": 5}

// telemetry takes what a day of telemetry takes from the test that lives through
// one: through a real broker and ingest, into three folds, by a clock that runs
// as fast as the work is done. The broker's TLS and MQTT are not in it; the part
// "steady" of fleet has them.
func (b *bench) telemetry(ctx context.Context) error {
	hours := "24"
	if b.quick {
		hours = "1"
	}
	out, err := b.output(ctx, []string{"VEDETTE_DAY=" + hours},
		"go", "test", "-count=1", "-timeout", "60m", "-v", "-run", "^TestDayOfTelemetry$", "./controlplane/ingest")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	found := telemetryLine.FindAllSubmatch(out, -1)
	if len(found) == 0 {
		return fmt.Errorf("the test printed no figures:\n%s", out)
	}
	for _, m := range found {
		value, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return fmt.Errorf("read figure: %w", err)
		}
		f := Figure{Part: "telemetry", What: "10 M predictions a day: " + string(m[1]), Value: value, Unit: string(m[3])}
		if bar, asked := telemetryBars[string(m[1])]; asked {
			b.atMost(f, bar)
		} else {
			f.Bar, f.Met = "–", true
			b.add(f)
		}
	}
	return nil
}

var telemetryLine = regexp.MustCompile(`telemetry ([a-z ]+) ([0-9.]+) (.+)`)
