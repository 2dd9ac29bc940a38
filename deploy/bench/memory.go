package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// memory weighs the agent with nothing assigned, then with the digits model
// after 100,000 calls.
func (b *bench) memory(ctx context.Context) error {
	p, err := b.standing(ctx)
	if err != nil {
		return err
	}
	time.Sleep(settled)
	calls := 100_000
	if b.quick {
		calls = 5_000
	}
	if err := p.callTimes(ctx, calls); err != nil {
		return err
	}
	m, err := weigh(p.agent.cmd.Process.Pid)
	if err != nil {
		return err
	}
	b.atMost(Figure{
		Part: "memory", What: fmt.Sprintf("digits model, %d calls later: resident", calls), Value: m.rss, Unit: "MB",
		Detail: fmt.Sprintf("PSS %.1f MB, private dirty %.1f MB", m.pss, m.dirty),
	}, 60)
	// Two agents would share the program's pages, and each count half of them.
	if err := p.agent.stop(); err != nil {
		return err
	}
	idle, err := b.idle(ctx, p)
	if err != nil {
		return err
	}
	if err := p.startAgent(ctx); err != nil {
		return err
	}
	if err := p.firstAnswer(ctx); err != nil {
		return err
	}
	b.atMost(Figure{
		Part: "memory", What: "no model, outbox empty: PSS", Value: idle.pss, Unit: "MB",
		Detail: fmt.Sprintf("of its own %.1f MB, the rest are pages of the program's file", idle.dirty),
	}, 15)
	return b.fullOutbox(ctx)
}

// fullOutbox takes what a device with a full outbox weighs from the test that
// bounds it.
func (b *bench) fullOutbox(ctx context.Context) error {
	out, err := b.output(ctx, nil, "go", "test", "-count=1", "-v", "-run", "^TestMemoryWithAFullOutbox$", "./cmd/e2e")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	m := fullLine.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("the test of a full outbox said nothing: %s", out)
	}
	pss, err := strconv.ParseFloat(string(m[2]), 64)
	if err != nil {
		return fmt.Errorf("read weight: %w", err)
	}
	b.atMost(Figure{
		Part: "memory", What: "no model, full outbox: PSS", Value: pss / 1e6, Unit: "MB", Detail: string(m[1]) + " wait",
	}, 45)
	return nil
}

var fullLine = regexp.MustCompile(`(\d+ records of \d+ bytes) wait: PSS (\d+) bytes`)

// settled is when an agent has given back what its start needed.
const settled = 20 * time.Second

// callTimes makes n calls over a few connections.
func (p *plant) callTimes(ctx context.Context, n int) error {
	const connections = 4
	body := inferRequest([][]float32{image()})
	for range connections {
		c, err := dial(ctx, p.listen, "/v2/models/"+model+"/infer", body)
		if err != nil {
			return err
		}
		for range n / connections {
			if err := c.ask(); err != nil {
				return err
			}
		}
		if err := c.conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

// weight is a process's memory in megabytes of 10^6 bytes.
type weight struct{ rss, pss, dirty float64 }

// weigh reads what the kernel counts: resident (Rss), the proportional share of
// what is shared (Pss), and pages of its own that were written.
func weigh(pid int) (weight, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return weight{}, fmt.Errorf("weigh the agent: %w", err)
	}
	defer file.Close()
	var w weight
	fields := map[string]*float64{"Rss:": &w.rss, "Pss:": &w.pss, "Private_Dirty:": &w.dirty}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if to := fields[f[0]]; to != nil && len(f) > 1 {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				return weight{}, fmt.Errorf("weigh the agent: %w", err)
			}
			*to = kib * 1024 / 1e6
		}
	}
	return w, lines.Err()
}
