package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

// onTheWire takes the size of one window of 30 features from the test that
// bounds it: the whole MQTT payload, by the calls of its five minutes.
func (b *bench) onTheWire(ctx context.Context) error {
	out, err := b.output(ctx, nil, "go", "test", "-count=1", "-v", "-run", "^TestWindowFitsOneKilobyte$", "./agent/uplink")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	for _, m := range payloadLine.FindAllSubmatch(out, -1) {
		bytes, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return fmt.Errorf("read size: %w", err)
		}
		switch rows := string(m[1]); rows {
		case "300", "1000", "3000":
			b.atMost(Figure{Part: "uplink", What: "a window of 30 features over " + rows + " rows", Value: bytes, Unit: "bytes"}, 1024)
		}
	}
	return nil
}

var payloadLine = regexp.MustCompile(`(\d+) rows, drift 0: (\d+) bytes`)
